package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	half "openscope/daemon/internal/network"
	"openscope/daemon/internal/seam"
	"openscope/wire"
)

// probeTime is how long an examination waits for anything on the network.
const probeTime = 6 * time.Second

// mends are what makes each way to a relay work, in the order of [seam.Rungs].
var mends = []string{
	"let UDP out of this network to the relay's address",
	"let TCP out of this network to the relay's address",
	"have the proxy let CONNECT through to the relay, or correct proxy in the configuration",
}

// greeter is all that a net half may ask which only tries the ways out: a proof
// of the token.
type greeter struct {
	seam.Authority // nil: nothing else is asked
	token          wire.Token
}

func (g greeter) ProveHello(exporter [32]byte) (wire.TokenID, []byte, error) {
	return g.token.ID(), g.token.SignHello(exporter), nil
}

// examineRelays tries every rung to every relay, from a net half as the daemon's.
func examineRelays(ctx context.Context, x *examination) {
	if len(x.cfg.Relays) == 0 {
		x.warn(x.path, "$EDITOR "+x.path, "no relay is configured: nothing can be shared")
	}
	if err := half.CheckProxy(x.cfg.Proxy); err != nil {
		x.fail("proxy", "correct HTTPS_PROXY, or proxy in "+x.path, err)
	}
	as, err := netIdentity(x.cfg.NetUser)
	if err != nil {
		x.fail(x.path, "$EDITOR "+x.path, err)
		return
	}
	setup := x.cfg.setup(slog.New(slog.DiscardHandler))
	setup.TryOnly = true
	net := seam.NewSupervisor(seam.Config{
		Core: greeter{token: x.cfg.Token}, Setup: setup, Logger: slog.New(slog.DiscardHandler),
		Start: func(context.Context) (seam.Running, error) { return startNetProcess(as) },
	})
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { net.Run(ctx) })
	for i, relay := range x.cfg.Relays {
		x.examineRelay(ctx, net, i, relay)
	}
	cancel()
	running.Wait()
}

// examineRelay tries every way to one relay. One that works is enough: that
// another does not is then only worth knowing.
func (x *examination) examineRelay(ctx context.Context, net *seam.Supervisor, number int, relay wire.Relay) {
	var all []seam.Tried
	works := false
	for rung := range seam.Rungs {
		tried := x.tryRung(ctx, net, number, rung)
		works = works || tried.Kind == seam.TriedOK
		all = append(all, tried)
	}
	for rung, tried := range all {
		if tried.Kind != seam.TriedNoProxy {
			x.reportRung(relay, rung, tried, works)
		}
	}
}

func (x *examination) reportRung(relay wire.Relay, rung int, tried seam.Tried, anotherWorks bool) {
	subject, mend := relay.Address+" by "+seam.Rungs[rung], mends[rung]
	if tried.Kind == seam.TriedImpostor {
		mend = "if a proxy intercepts TLS here, have it exempt " + tried.Host + "; or correct the relay's pin"
	}
	switch {
	case tried.Kind == seam.TriedOK:
		x.ok(subject, "answers and takes the token, in %d ms", tried.Took.Milliseconds())
	case tried.Kind == seam.TriedTokenRefused:
		x.fail(subject, "at the relay: openscope-relay token new NAME", errors.New(tried.Problem))
	case anotherWorks:
		x.warn(subject, mend, "%s", tried.Problem)
	default:
		x.fail(subject, mend, errors.New(tried.Problem))
	}
}

// tryRung has hello said with this deployment's token, as the daemon does.
func (x *examination) tryRung(ctx context.Context, net *seam.Supervisor, relay, rung int) seam.Tried {
	ctx, cancel := x.dialTime(ctx)
	defer cancel()
	tried, err := net.Try(ctx, relay, rung)
	if err != nil {
		return seam.Tried{Kind: seam.TriedFailed, Problem: err.Error()}
	}
	return tried
}

// examineNetHalf asks the daemon that runs, if one does, with whose rights what
// the network says is read there, and what holds the process that reads it.
func examineNetHalf(ctx context.Context, x *examination) {
	const subject = "the process that faces the network"
	ctx, cancel := x.dialTime(ctx)
	defer cancel()
	status, err := control.Dial(x.cfg.Socket).Status(ctx)
	if err != nil {
		return // said already
	}
	switch n := status.Network; {
	case n.Problem != "":
		x.fail(subject, "journalctl -u openscope", errors.New(n.Problem))
	case n.PID == 0:
		x.warn(subject, "openscope daemon", "it is the daemon's own: that one is for trying things out")
	case n.User == daemonsOwn:
		x.warn(subject, "run the daemon as root, with the unit of the package", "a daemon that is not root has only its own user to give it: it is held by Landlock (%v) and a filter of system calls (%v) alone", n.Landlock, n.Syscalls)
	case n.User == nobodyElse:
		x.warn(subject, "systemd-sysusers, or: useradd --system "+netUser, "there is no user %s: it shares %s with whatever else does", netUser, nobodyElse)
	case !n.Landlock:
		x.warn(subject, "a kernel with Landlock, from 6.2 on", "it runs as %s, and can read what anybody can: this kernel has no Landlock", n.User)
	case !n.Syscalls:
		x.warn(subject, "have the unit let seccomp through", "it runs as %s, and no filter of system calls could be set", n.User)
	default:
		x.ok(subject, "runs as %s, and may read little", n.User)
	}
}

// examineDaemon asks the daemon that runs, if one does.
func examineDaemon(ctx context.Context, x *examination) {
	ctx, cancel := x.dialTime(ctx)
	defer cancel()
	status, err := control.Dial(x.cfg.Socket).Status(ctx)
	switch {
	case err != nil:
		x.fail(x.cfg.Socket, "systemctl start openscope, or: openscope daemon", errors.New("no daemon answers there"))
	case !status.LogOK:
		x.fail(x.cfg.Socket, "df "+x.cfg.StateDir+"; systemctl restart openscope", errors.New("the log cannot be written: nothing runs"))
	case status.Lockdown != "":
		x.warn(x.cfg.Socket, "sudo openscope lockdown off", "%s", status.Lockdown)
	default:
		x.ok(x.cfg.Socket, "up since %s", status.Started.Local().Format(time.DateTime))
	}
}

// examineClock: deadlines are held by two clocks, and the one on the wall is in
// every handle.
func examineClock(_ context.Context, x *examination) {
	const subject = "this machine"
	if built := buildTime(); time.Now().Before(built) {
		x.fail(subject, "timedatectl set-ntp true", errors.New("it is before the day this program was made, "+built.Format(time.DateOnly)))
		return
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		x.warn(subject, "timedatectl", "the kernel does not say whether it is kept right: %v", err)
		return
	}
	if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		x.warn(subject, "timedatectl set-ntp true", "nothing keeps it right: a handle's time limit may be off by as much as it is")
		return
	}
	x.ok(subject, "kept right by a time service")
}

// buildTime is when the source was committed; zero where that is not known.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, err := time.Parse(time.RFC3339, s.Value)
			if err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// examineContainment says whether commands get a control group each. It is seen
// from this process: the daemon may stand elsewhere in the tree.
func examineContainment(_ context.Context, x *examination) {
	const subject = "control groups"
	if os.Geteuid() != 0 {
		x.warn(subject, "sudo openscope doctor", "only root can tell whether the daemon may make them")
		return
	}
	local, err := executor.NewExec(executor.ExecConfig{})
	if err != nil {
		x.fail(subject, "report this", err)
		return
	}
	if why := local.Contained(); why != nil {
		x.warn(subject, "mount -t cgroup2 none /sys/fs/cgroup, or Delegate=yes in the unit",
			"none to be had (%v): commands are held together by their process tree only", why)
		return
	}
	x.ok(subject, "every command gets one of its own")
}

func examineSSH(ctx context.Context, x *examination) {
	r := x.rules()
	if r == nil {
		return
	}
	for _, name := range r.ssh.Targets() {
		p, err := r.ssh.Probe(ctx, name)
		switch {
		case errors.Is(err, executor.ErrHostKey):
			x.fail(name, "compare with: ssh-keyscan "+p.Address+", and mend host_key in "+x.cfg.Verbs, err)
		case err != nil:
			x.fail(name, "openscope policy check "+x.cfg.Verbs, err)
		case !p.Key:
			x.ok(name, "%s has the pinned host key; each issuer has a key of their own, none was tried", p.Address)
		default:
			x.ok(name, "%s has the pinned host key, and lets the key in", p.Address)
		}
	}
}

func examineHTTP(ctx context.Context, x *examination) {
	r := x.rules()
	if r == nil {
		return
	}
	for _, name := range r.http.Targets() {
		p, err := r.http.Probe(ctx, name)
		if err != nil {
			x.fail(name, "curl -v "+p.Address, err)
			continue
		}
		x.ok(name, "%s answers, as who it should be", p.Address)
	}
}

// rules are those of the files, if they are sound; that they are not has been
// said.
func (x *examination) rules() *rules {
	verbs, err := readOptional(x.cfg.Verbs)
	if err != nil {
		return nil
	}
	r := new(rules)
	if r.catalog, err = catalog.Parse(x.cfg.Verbs, verbs); err != nil || r.setExecutors() != nil {
		return nil
	}
	return r
}
