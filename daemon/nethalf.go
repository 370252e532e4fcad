package daemon

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	half "openscope/daemon/internal/network"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/seam"
)

// Who the net half is where the daemon is root: the packages make the first, and
// every system has the second.
const (
	netUser    = "openscope-net"
	nobodyElse = "nobody"
)

// daemonsOwn is what status calls the user of a net half that has no other.
const daemonsOwn = "the daemon's own"

// netArgv is how the daemon starts its own program as its net half.
var netArgv = []string{"openscope", "net"}

// readable is what the net half may read: how names are looked up, and whom TLS
// trusts. What writes resolv.conf in a folder of its own replaces it there.
func readable() []string {
	files := trusted
	if target, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && filepath.Dir(target) != "/etc" {
		files = append([]string{filepath.Dir(target)}, files...)
	}
	return files
}

var trusted = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf",
	"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/ca-trust/extracted",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
}

// netIdentity is who the net half is to be; nil is the daemon's own user, the only
// one that a daemon has to give which is not root.
func netIdentity(name string) (*executor.Identity, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	names := []string{name}
	if name == "" {
		names = []string{netUser, nobodyElse}
	}
	for _, name := range names {
		p, err := principal.Lookup(name)
		if errors.Is(err, principal.ErrNoAccount) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("net_user: %w", err)
		}
		if p.UID == 0 {
			return nil, errors.New("net_user: it is root, and what the network says must not be read by root")
		}
		return &executor.Identity{Name: p.Name, UID: p.UID, GID: p.GID}, nil
	}
	return nil, fmt.Errorf("net_user: there is no user %q", names[0])
}

// newNetwork is the net half of a daemon with this configuration.
func newNetwork(cfg Config, core authority, as *executor.Identity, logger *slog.Logger) *seam.Supervisor {
	start := func(context.Context) (seam.Running, error) { return startNetProcess(as) }
	if cfg.InProcess {
		start = func(context.Context) (seam.Running, error) { return startNetHere() }
	}
	return seam.NewSupervisor(seam.Config{Core: core, Setup: cfg.setup(logger), Start: start, Logger: logger})
}

func (cfg Config) setup(logger *slog.Logger) seam.Setup {
	s := seam.Setup{Relays: cfg.Relays, Roots: cfg.RelayRoots, Proxy: cfg.Proxy, Level: slog.LevelInfo}
	if logger.Enabled(context.Background(), slog.LevelDebug) {
		s.Level = slog.LevelDebug
	}
	return s
}

func startNetProcess(as *executor.Identity) (seam.Running, error) {
	child, err := executor.StartChild(executor.ChildConfig{Argv: netArgv, As: as, Read: readable()})
	if err != nil {
		return seam.Running{}, fmt.Errorf("starting the net half: %w", err)
	}
	return seam.Running{Conn: child.Conn, PID: child.PID, Stop: child.Stop}, nil
}

// startNetHere runs it in this process, at the other end of the same pipe.
func startNetHere() (seam.Running, error) {
	ours, theirs, err := executor.SocketPair()
	if err != nil {
		return seam.Running{}, err
	}
	return serveHere(ours, theirs), nil
}

func serveHere(ours, theirs net.Conn) seam.Running {
	ended := make(chan error, 1)
	go func() { ended <- seam.Serve(context.Background(), theirs, seam.Confinement{}, buildNet) }()
	return seam.Running{Conn: ours, Stop: func() error {
		_ = ours.Close()
		return <-ended
	}}
}

// buildNet makes a net half of what the core tells it.
func buildNet(core seam.Authority, s seam.Setup, logger *slog.Logger, changed func([]seam.RelayState)) (seam.Half, error) {
	cfg := half.Config{Relays: s.Relays, Proxy: s.Proxy, Rand: rand.Reader, Logger: logger, Changed: changed}
	if len(s.Roots) > 0 {
		if cfg.Roots = x509.NewCertPool(); !cfg.Roots.AppendCertsFromPEM(s.Roots) {
			return nil, errors.New("the relays' roots have no certificate in them")
		}
	}
	return half.New(core, cfg), nil
}

// netHalf is for a process that the daemon has started as its net half, in which
// it never returns; anywhere else it does nothing.
func netHalf() {
	if len(os.Args) != 2 || os.Args[0] != netArgv[0] || os.Args[1] != netArgv[1] {
		return
	}
	// It was started as /proc/self/exe, and ss and ps are to show what it is. This is
	// the main thread still, whose name is the process's.
	if name, err := unix.BytePtrFromString(netArgv[0]); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	var st unix.Stat_t
	if unix.Fstat(executor.ChildFD, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return
	}
	if err := runNetHalf(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		unix.Exit(1)
	}
	unix.Exit(0)
}

func runNetHalf() error {
	unix.CloseOnExec(executor.ChildFD)
	runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	held, err := executor.HoldSelf()
	if err != nil {
		return err
	}
	file := os.NewFile(executor.ChildFD, "core")
	conn, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go watchNames(ctx, cancel)
	return seam.Serve(ctx, conn, seam.Confinement{
		Landlock: held.Landlock, NoNewPrivileges: held.NoNewPrivileges, Syscalls: held.Syscalls,
	}, buildNet)
}

// namesInterval is how often a net half looks whether it may still read how names
// are looked up.
const namesInterval = 10 * time.Second

var errNames = errors.New("the files by which names are looked up were replaced: whoever is started next may read the new ones")

// watchNames ends a net half from which a file was taken by being replaced:
// Landlock knows files, and not names.
func watchNames(ctx context.Context, end context.CancelCauseFunc) {
	var names []string
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if !denied(name) { // what nobody may read is not missed
			names = append(names, name)
		}
	}
	tick := time.NewTicker(namesInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if slices.ContainsFunc(names, denied) {
			end(errNames)
			return
		}
	}
}

func denied(name string) bool {
	file, err := os.Open(name)
	if err == nil {
		_ = file.Close()
	}
	return errors.Is(err, unix.EACCES)
}

// networkStatus is how the net half is, for status.
func (d *Daemon) networkStatus() control.NetworkStatus {
	state := d.net.State()
	s := control.NetworkStatus{
		PID: state.PID, User: daemonsOwn, Restarts: state.Restarts, Problem: state.Problem,
		Landlock: state.Held.Landlock > 0, NoNewPrivileges: state.Held.NoNewPrivileges, Syscalls: state.Held.Syscalls,
	}
	if d.netAs != nil {
		s.User = d.netAs.Name
	}
	return s
}
