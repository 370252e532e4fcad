package daemon

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// probeTime is how long an examination waits for anything on the network.
const probeTime = 6 * time.Second

// mends are what makes each way to a relay work.
var mends = map[tunnel.Rung]string{
	tunnel.QUIC:  "let UDP out of this network to the relay's address",
	tunnel.TCP:   "let TCP out of this network to the relay's address",
	tunnel.Proxy: "have the proxy let CONNECT through to the relay, or correct proxy in the configuration",
}

// examineRelays tries every rung to every relay.
func examineRelays(ctx context.Context, x *examination) {
	if len(x.cfg.Relays) == 0 {
		x.warn(x.path, "$EDITOR "+x.path, "no relay is configured: nothing can be shared")
	}
	proxies, err := tunnel.NewProxies(x.cfg.Proxy)
	if err != nil {
		x.fail("proxy", "correct HTTPS_PROXY, or proxy in "+x.path, err)
	}
	for _, relay := range x.cfg.Relays {
		x.examineRelay(ctx, relay, proxies)
	}
}

// rungResult is what came of one way to a relay.
type rungResult struct {
	rung tunnel.Rung
	took time.Duration
	err  error
}

// examineRelay tries every way to one relay. One that works is enough: that
// another does not is then only worth knowing.
func (x *examination) examineRelay(ctx context.Context, relay wire.Relay, proxies *tunnel.Proxies) {
	var all []rungResult
	works := false
	for _, rung := range tunnel.Rungs {
		if rung == tunnel.Proxy && proxies.For(relay.Address) == nil {
			continue
		}
		began := time.Now()
		err := x.tryRung(ctx, relay, tunnel.Ways{Only: []tunnel.Rung{rung}, Proxies: proxies})
		works = works || err == nil
		all = append(all, rungResult{rung, time.Since(began), err})
	}
	for _, o := range all {
		x.reportRung(relay, o, works)
	}
}

func (x *examination) reportRung(relay wire.Relay, o rungResult, anotherWorks bool) {
	subject, mend := relay.Address+" by "+o.rung.String(), mends[o.rung]
	if i, ok := errors.AsType[*tunnel.ImpostorError](o.err); ok {
		mend = "if a proxy intercepts TLS here, have it exempt " + i.Host() + "; or correct the relay's pin"
	}
	switch {
	case errors.Is(o.err, tunnel.ErrTokenRefused):
		x.fail(subject, "at the relay: openscope-relay token new NAME", o.err)
	case o.err != nil && anotherWorks:
		x.warn(subject, mend, "%v", o.err)
	case o.err != nil:
		x.fail(subject, mend, o.err)
	default:
		x.ok(subject, "answers and takes the token, in %d ms", o.took.Milliseconds())
	}
}

// tryRung says hello with this deployment's token, as the daemon does, and
// leaves again.
func (x *examination) tryRung(ctx context.Context, relay wire.Relay, ways tunnel.Ways) error {
	ctx, cancel := x.dialTime(ctx)
	defer cancel()
	d, err := tunnel.DialDaemon(ctx, tunnel.DaemonConfig{
		Relay: relay, Roots: x.cfg.RelayRoots, Ways: ways,
		Prove: func(exporter [32]byte) (wire.TokenID, []byte, error) {
			return x.cfg.Token.ID(), x.cfg.Token.SignHello(exporter), nil
		},
	})
	if err != nil {
		return err
	}
	return d.Close()
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
