package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/policy"
)

// The states of a finding.
const (
	FindingOK      = "ok"
	FindingWarning = "warning"
	FindingFailure = "failure"
)

// Finding is one line of an examination.
type Finding struct {
	Check   string `json:"check"`
	Subject string `json:"subject"`
	State   string `json:"state"`
	Detail  string `json:"detail"`
	// Mend is the command that mends it.
	Mend string `json:"mend,omitempty"`
}

// examination is one run of [Examine].
type examination struct {
	path     string // of the configuration
	cfg      *Config
	found    []Finding
	check    string // the one that runs
	dialTime func(context.Context) (context.Context, context.CancelFunc)
}

// checks are what is examined, in order; a new one is a line here. Those after
// the configuration run only if it could be read.
var checks = []struct {
	name string
	bare bool // needs no configuration
	run  func(context.Context, *examination)
}{
	{"configuration", true, examineConfiguration},
	{"clock", true, examineClock},
	{"containment", true, examineContainment},
	{"identity", false, examineIdentity},
	{"state", false, examineState},
	{"grants", false, examineGrants},
	{"verbs", false, examineVerbs},
	{"recipients", false, examineRecipients},
	{"rules", false, examineRules},
	{"daemon", false, examineDaemon},
	{"net", false, examineNetHalf},
	{"relay", false, examineRelays},
	{"ssh", false, examineSSH},
	{"http", false, examineHTTP},
}

// Examine looks at everything that a daemon with this configuration depends on,
// and changes nothing. What it cannot look at for lack of rights is a warning.
func Examine(ctx context.Context, path string) []Finding {
	x := &examination{path: path, dialTime: func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, probeTime)
	}}
	for _, c := range checks {
		if ctx.Err() != nil {
			break
		}
		x.check = c.name
		if c.bare || x.cfg != nil {
			c.run(ctx, x)
		}
	}
	return x.found
}

func (x *examination) ok(subject, format string, args ...any) {
	x.found = append(x.found, Finding{Check: x.check, Subject: subject, State: FindingOK, Detail: fmt.Sprintf(format, args...)})
}

func (x *examination) warn(subject, mend, format string, args ...any) {
	x.found = append(x.found, Finding{Check: x.check, Subject: subject, State: FindingWarning, Detail: fmt.Sprintf(format, args...), Mend: mend})
}

// fail enters an error; one that is only for lack of rights is a warning.
func (x *examination) fail(subject, mend string, err error) {
	f := Finding{Check: x.check, Subject: subject, State: FindingFailure, Detail: err.Error(), Mend: mend}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		f.State, f.Detail, f.Mend = FindingWarning, "not to be read by you", "sudo openscope doctor"
	}
	x.found = append(x.found, f)
}

// mend is the command in a fix, or the words.
func mend(err error) string { return strings.TrimPrefix(Fix(err), "run: ") }

func examineConfiguration(_ context.Context, x *examination) {
	cfg, err := LoadConfig(x.path)
	if err != nil {
		x.fail(x.path, mend(err), err)
		return
	}
	x.cfg = &cfg
	x.ok(x.path, "sound; %d relays", len(cfg.Relays))
}

func examineIdentity(_ context.Context, x *examination) {
	path := filepath.Join(x.cfg.StateDir, "identity.key")
	_, err := readIdentity(path)
	if err == nil {
		x.ok(path, "there, and for its owner alone")
		return
	}
	fix := "chmod 600 " + path
	if errors.Is(err, fs.ErrNotExist) {
		fix = "openscope init --force --dir " + filepath.Dir(x.path)
	}
	x.fail(path, fix, err)
}

// lowSpace is where a disk is called nearly full: nothing runs that cannot be
// logged.
const lowSpace = 64 << 20

func examineState(_ context.Context, x *examination) {
	dir := x.cfg.StateDir
	info, err := os.Lstat(dir)
	if err != nil {
		x.fail(dir, "install -d -m 700 "+dir, err)
		return
	}
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		x.fail(dir, "chmod 700 "+dir, fmt.Errorf("its mode is %04o: others may write to it", info.Mode().Perm()))
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		x.fail(dir, "df "+dir, err)
		return
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < lowSpace {
		x.warn(dir, "df "+dir, "%d MiB are free: without room for the log nothing runs", free>>20)
		return
	}
	x.ok(dir, "%d MiB are free for the log", free>>20)
}

// examineFile reads one of the root-owned files and has it judged.
func (x *examination) examineFile(path string, judge func(data []byte) (string, error)) {
	data, err := policy.ReadProtected(path, os.Geteuid())
	if errors.Is(err, fs.ErrNotExist) {
		x.warn(path, "openscope init", "missing, which means empty: nothing is allowed")
		return
	}
	detail := ""
	if err == nil {
		detail, err = judge(data)
	}
	if err != nil {
		x.fail(path, mend(err), err)
		return
	}
	x.ok(path, "%s", detail)
}

func examineGrants(_ context.Context, x *examination) {
	x.examineFile(x.cfg.Grants, func(data []byte) (string, error) {
		p, err := policy.Parse(x.cfg.Grants, data)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("sound; %d agents", len(p.Agents())), nil
	})
}

func examineVerbs(_ context.Context, x *examination) {
	x.examineFile(x.cfg.Verbs, func(data []byte) (string, error) {
		c, err := catalog.Parse(x.cfg.Verbs, data)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("sound; %d verbs", len(c.Schema())), (&rules{catalog: c}).setExecutors()
	})
}

func examineRecipients(_ context.Context, x *examination) {
	x.examineFile(x.cfg.Recipients, func(data []byte) (string, error) {
		all, err := policy.ParseRecipients(x.cfg.Recipients, data)
		return fmt.Sprintf("sound; %d recipients", len(all)), err
	})
}

// examineRules asks whether the files fit together, and anything can be done
// with them.
func examineRules(_ context.Context, x *examination) {
	if x.hasFailed("grants", "verbs", "recipients") {
		return // said already
	}
	r, err := (&core{cfg: *x.cfg}).loadRules()
	if err != nil {
		x.fail(x.cfg.Grants, "openscope policy check", err)
		return
	}
	shares := 0
	for _, agent := range r.policy.Agents() {
		if r.policy.Delegation(agent).OK {
			shares++
		}
	}
	if shares == 0 {
		x.warn(x.cfg.Grants, "$EDITOR "+x.cfg.Grants, "no agent may share anything: there is no delegate part")
		return
	}
	x.ok(x.cfg.Grants, "grants and verbs fit; %d agents may share", shares)
}

func (x *examination) hasFailed(names ...string) bool {
	for _, f := range x.found {
		for _, name := range names {
			if f.Check == name && f.State == FindingFailure {
				return true
			}
		}
	}
	return false
}
