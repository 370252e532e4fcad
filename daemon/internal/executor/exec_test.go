package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestTheArgvArrivesAsItIs(t *testing.T) {
	e := newExecutor(t, ExecConfig{})
	r := rand.New(rand.NewPCG(1, 2))
	argv := []string{self(t), "", " ", "a b", "'", `"`, `\`, "$(id)", "`id`", ";|&<>*?[]{}~!#", "-n", "--", "\n\t\r", "\xff\xfe", "é", strings.Repeat("x", 4096)}
	for range exactWords {
		word := make([]byte, r.IntN(20))
		for i := range word {
			word[i] = byte(1 + r.IntN(255))
		}
		argv = append(argv, string(word))
	}
	for words := range slices.Chunk(argv[1:], maxArgs-2) {
		words = append(append([]string{argv[0]}, words...), "show-argv")
		stdout, stderr, o := run(t, e, words...)
		if o.Err != nil || o.Status != 0 {
			t.Fatalf("%+v %s", o, stderr)
		}
		got := strings.Split(strings.TrimSuffix(stdout, "\x00"), "\x00")
		if !slices.Equal(got, words[1:]) {
			t.Errorf("%d words arrive as %d, or differ", len(words)-1, len(got))
		}
	}
}

func showSurrounding() {
	cwd, _ := os.Getwd()
	stdin, err := io.ReadAll(os.Stdin)
	mask := unix.Umask(0)
	groups, _ := os.Getgroups()
	noNew, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	tty, terr := os.Open("/dev/tty")
	if terr == nil {
		tty.Close()
	}
	session, _ := unix.Getsid(0)
	fmt.Printf("cwd=%s\nstdin=%q %v\numask=%04o\nuid=%d/%d gid=%d/%d groups=%v\nnonew=%d\ntty=%v\nleader=%v\n",
		cwd, stdin, err, mask, os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups, noNew,
		terr == nil, session == os.Getpid())
	for _, pair := range os.Environ() {
		fmt.Println("env", pair)
	}
}

func TestACommandIsToldNothingButTheFixedList(t *testing.T) {
	t.Setenv("SECRET", "leaked")
	e := newExecutor(t, ExecConfig{Home: func(uint32) string { return "/tmp" }})
	leak, err := os.Open("/etc/passwd") // close-on-exec, as everything Go opens
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	inherited, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	stdout, stderr, o := run(t, e, self(t), "show-surrounding")
	if o.Err != nil || o.Status != 0 {
		t.Fatalf("%+v %s", o, stderr)
	}
	id := me(t)
	for _, want := range []string{
		"cwd=/\n", "stdin=\"\" <nil>\n", "umask=0077\n", fmt.Sprintf("uid=%d/%d gid=%d/%d", id.UID, id.UID, id.GID, id.GID),
		"nonew=1\n", "tty=false\n", "leader=true\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	var env []string
	for line := range strings.Lines(stdout) {
		if pair, ok := strings.CutPrefix(line, "env "); ok {
			env = append(env, strings.TrimSpace(pair))
		}
	}
	want := []string{"PATH=" + DefaultPath, "LANG=C.UTF-8", "HOME=/tmp", "USER=" + id.Name, "LOGNAME=" + id.Name}
	slices.Sort(want)
	slices.Sort(env)
	if !slices.Equal(env, want) {
		t.Errorf("the environment is %q", env)
	}
	// A shell adds nothing of its own: ls has the folder it lists as fourth.
	stdout, _, _ = run(t, e, "sh", "-c", "ulimit -c; ulimit -Sn; ulimit -Hn; ls -m /proc/self/fd")
	if stdout != "0\n1024\n4096\n0, 1, 2, 3\n" {
		t.Errorf("limits and descriptors are\n%s", stdout)
	}
}

func TestACommandRunsAsTheIssuer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody here: ", err)
	}
	e := newExecutor(t, ExecConfig{})
	id := identityOf(t, nobody)
	id.Groups = []uint32{id.GID, 12345}
	var out, errs collected
	// /dev/stdout is opened anew, which the pipe's owner must be allowed.
	look := "echo $(id -u) $(id -ru) $(id -g) $(id -rg) $(id -G) >/dev/stdout; grep -E '^(Cap(Inh|Prm|Eff|Amb)|Sig(Blk|Ign)|NoNewPrivs):' /proc/self/status"
	o := e.Execute(t.Context(), Job{Argv: []string{"sh", "-c", look}, As: id, Stdout: &out, Stderr: &errs})
	want := fmt.Sprintf("%d %d %d %d %d 12345\n", id.UID, id.UID, id.GID, id.GID, id.GID)
	for _, name := range []string{"SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapAmb"} {
		want += name + ":\t0000000000000000\n"
	}
	want += "NoNewPrivs:\t1\n"
	if o.Err != nil || out.String() != want {
		t.Errorf("%+v: %q %q, want %q", o, out.String(), errs.String(), want)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o = e.Execute(t.Context(), Job{Argv: []string{"touch", filepath.Join(dir, "file")}, As: id})
	if o.Status == 0 {
		t.Error("nobody writes into root's folder")
	}
}

func TestASignalTheDaemonIgnoresIsNotIgnoredByTheCommand(t *testing.T) {
	const timerSignal, setDefault, setIgnored = 32, 0, 1 // one that os/signal does not reach
	set := func(handler uintptr) {
		action := [8]uintptr{handler}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, timerSignal, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	set(setIgnored)
	defer set(setDefault)
	if stdout, _, o := run(t, newExecutor(t, ExecConfig{}), "grep", "SigIgn", "/proc/self/status"); o.Err != nil || stdout != "SigIgn:\t0000000000000000\n" {
		t.Errorf("%+v, %q", o, stdout)
	}
}

func TestADaemonThatIsNotRootRunsNobodyElsesCommands(t *testing.T) {
	daemon := exec.Command("/proc/self/exe", "run-for-others")
	if os.Geteuid() == 0 {
		daemon.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := daemon.CombinedOutput()
	if want := "own: 0 <nil>\nuid: -1 true\ngid: -1 true\nroot: -1 true\n"; err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// runForOthers tells how a daemon that is not root fares with four identities.
func runForOthers() {
	e, err := NewExec(ExecConfig{})
	if err != nil {
		panic(err)
	}
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	execute := func(uid, gid uint32) Outcome {
		return e.Execute(context.Background(), Job{Argv: []string{"true"}, As: Identity{Name: "x", UID: uid, GID: gid}})
	}
	own := execute(uid, gid)
	fmt.Println("own:", own.Status, own.Err)
	for _, other := range []struct {
		name     string
		uid, gid uint32
	}{{"uid", uid - 1, gid}, {"gid", uid, gid - 1}, {"root", 0, 0}} {
		o := execute(other.uid, other.gid)
		fmt.Println(other.name+":", o.Status, errors.Is(o.Err, ErrJob))
	}
}

func TestAHomeThatIsNoFolderIsTheRoot(t *testing.T) {
	for _, home := range []string{"", "tmp", "/no/such/folder", "/etc/passwd"} {
		e := newExecutor(t, ExecConfig{Home: func(uint32) string { return home }})
		if stdout, _, o := run(t, e, "printenv", "HOME"); o.Err != nil || stdout != "/\n" {
			t.Errorf("%q: %+v, %q", home, o, stdout)
		}
	}
}

func TestACommandIsFoundInTheConfiguredPathOnly(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(first, "both"): "first", filepath.Join(second, "both"): "second", filepath.Join(second, "one"): "one",
	} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", DefaultPath) // the daemon's own, which is not asked
	e := newExecutor(t, ExecConfig{Path: first + ":" + second})
	for name, want := range map[string]string{"both": "first\n", "one": "one\n"} {
		if stdout, _, o := run(t, e, name); o.Err != nil || stdout != want {
			t.Errorf("%s: %+v, %q", name, o, stdout)
		}
	}
	if _, _, o := run(t, e, "ls"); !errors.Is(o.Err, ErrNotFound) {
		t.Errorf("ls: %+v", o)
	}
}

func TestJobsThatCannotBePassedOnAreRefused(t *testing.T) {
	e := newExecutor(t, ExecConfig{})
	s, err := NewSSH(SSHConfig{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 60<<10)
	for name, job := range map[string]Job{
		"no command":            {As: me(t)},
		"an empty command":      {Argv: []string{""}, As: me(t)},
		"a dash":                {Argv: []string{"-x"}, As: me(t)},
		"a NUL":                 {Argv: []string{"echo", "a\x00b"}, As: me(t)},
		"too many bytes":        {Argv: []string{"echo", long, long}, As: me(t)},
		"too many words":        {Argv: make([]string, 5000), As: me(t)},
		"a negative timeout":    {Argv: []string{"true"}, As: me(t), Timeout: -1},
		"nobody to run as":      {Argv: []string{"true"}},
		"a relative path":       {Argv: []string{"bin/true"}, As: me(t)},
		"a name with a NUL":     {Argv: []string{"true"}, As: Identity{Name: "a\x00b"}},
		"an unknown ssh target": {Argv: []string{"true"}, As: me(t), Target: "none"},
	} {
		var x Executor = e
		if job.Target != "" {
			x = s
		}
		if o := x.Execute(t.Context(), job); !errors.Is(o.Err, ErrJob) || o.Status != NoStatus {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestWhatIsNotThereOrNotExecutableIsSaid(t *testing.T) {
	e := newExecutor(t, ExecConfig{})
	dir := t.TempDir()
	plain, noShebang := filepath.Join(dir, "plain"), filepath.Join(dir, "noshebang")
	if err := errors.Join(os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644), os.WriteFile(noShebang, []byte("\x00\x01"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for argv0, want := range map[string]error{
		"no-such-command-at-all": ErrNotFound, "/no/such/file": ErrNotFound, plain: ErrNotExecutable, dir: ErrNotExecutable, noShebang: ErrNotExecutable,
	} {
		if _, _, o := run(t, e, argv0); !errors.Is(o.Err, want) || o.Status != NoStatus {
			t.Errorf("%s: %+v, want %v", argv0, o, want)
		}
	}
	if _, err := NewExec(ExecConfig{Path: "/bin:."}); err == nil {
		t.Error("a relative folder in the path is taken")
	}
}

func TestTheStatusIsTheCommandsOwn(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143} {
			if _, _, o := run(t, e, "sh", "-c", script); o.Err != nil || o.Status != want || o.TimedOut {
				t.Errorf("%s: %+v, want status %d", script, o, want)
			}
		}
	})
}

func TestOutputArrivesWholeAndOnItsOwnStream(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		stdout, stderr, o := run(t, e, "sh", "-c", "head -c 3000000 /dev/zero; echo oops >&2; exit 3")
		if o.Status != 3 || len(stdout) != 3_000_000 || stderr != "oops\n" {
			t.Errorf("%+v, %d bytes, %q", o, len(stdout), stderr)
		}
		stdout, _, _ = run(t, e, "sh", "-c", "(sleep 0.05; echo late) & echo early")
		if stdout != "early\nlate\n" {
			t.Errorf("the end of a pipeline is cut: %q", stdout)
		}
	})
}

func TestDescribeSaysWhoWouldRunWhat(t *testing.T) {
	e := newExecutor(t, ExecConfig{})
	got := e.Describe(Job{Argv: []string{"/bin/echo", "a b"}, As: Identity{Name: "alice"}})
	if got != "on this machine as alice: /bin/echo 'a b'" {
		t.Error(got)
	}
	if c := e.Containment(); !strings.Contains(c, "control group") && !strings.Contains(c, "process tree") {
		t.Error(c)
	}
}

func TestAnEndedContextStartsNothing(t *testing.T) {
	e := newExecutor(t, ExecConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "file")
	o := e.Execute(ctx, Job{Argv: []string{"touch", file}, As: me(t)})
	if _, err := os.Stat(file); o.Err == nil || !os.IsNotExist(err) {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestManyJobsRunAtOnce(t *testing.T) {
	containments(t, func(t *testing.T, e *Exec) {
		results := make(chan Outcome, 20)
		for range 20 {
			go func() { results <- e.Execute(t.Context(), Job{Argv: []string{"sleep", "0.1"}, As: me(t)}) }()
		}
		for range 20 {
			if o := <-results; o.Err != nil || o.Status != 0 {
				t.Errorf("%+v", o)
			}
		}
		if e.groups != nil {
			until(t, time.Second, "the parent group is taken away", func() bool {
				_, err := os.Stat(e.groups.parent)
				return os.IsNotExist(err)
			})
		}
	})
}

func TestShimIsNothingInAnOrdinaryProcess(t *testing.T) {
	// The name alone makes no shim: without its pipes the program goes on.
	pretender := exec.Command(self(t))
	pretender.Args = []string{shimName}
	pretender.Env = append(os.Environ(), roleVariable+"=show-argv")
	if out, err := pretender.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %q", err, out)
	}
	Shim() // would not return
}

func TestAShimWithoutAnOrderRunsNothing(t *testing.T) {
	for name, sent := range map[string]string{
		"nothing": "", "half a length": "\x00\x00", "half an order": "\x00\x00\x00\x09{}", "no order": "\x00\x00\x00\x02[]", "a huge one": "\xff\xff\xff\xff",
	} {
		var theirs [4]*os.File
		var ours [4]*os.File
		for i := range theirs {
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			theirs[i], ours[i] = writer, reader
			if i == 0 {
				theirs[i], ours[i] = reader, writer
			}
		}
		shim := shimCommand(theirs, nil)
		if err := shim.Start(); err != nil {
			t.Fatal(err)
		}
		closeAll(theirs[:]...)
		_, werr := ours[0].WriteString(sent)
		closeAll(ours[0])
		report, rerr := io.ReadAll(ours[1])
		if err := shim.Wait(); err == nil || werr != nil || rerr != nil || len(report) > 0 {
			t.Errorf("%s: %v, %v, %v, %q", name, err, werr, rerr, report)
		}
		closeAll(ours[1:]...)
	}
}
