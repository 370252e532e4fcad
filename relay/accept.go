package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math"
	"sync"
	"time"

	"openscope/wire"
	"openscope/wire/tunnel"
)

// serve finds out who has connected, by the first message on the first stream,
// and serves them until they go.
func (r *Relay) serve(ctx context.Context, conn tunnel.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close(tunnel.CodeDraining) })
	defer stop()
	code, err := r.meet(ctx, conn)
	if err != nil {
		r.logger.Debug("connection ended", "error", err)
	}
	if ctx.Err() != nil { // whatever else was wrong, the relay is going
		code = tunnel.CodeDraining
	}
	conn.Close(code)
}

func (r *Relay) meet(ctx context.Context, conn tunnel.Conn) (code uint64, err error) {
	first, cancel := context.WithTimeout(ctx, wire.FirstBytes)
	defer cancel()
	stream, err := conn.First(first)
	if err != nil {
		return tunnel.CodeRefused, err
	}
	if err := stream.SetReadDeadline(time.Now().Add(wire.FirstBytes)); err != nil {
		return tunnel.CodeRefused, err
	}
	t, body, err := wire.ReadMessage(stream)
	if err != nil {
		return tunnel.CodeRefused, err
	}
	if err := stream.SetReadDeadline(time.Time{}); err != nil {
		return tunnel.CodeRefused, err
	}
	switch t {
	case wire.TypeHello:
		return r.serveDaemon(ctx, conn, body)
	case wire.TypeJoin:
		return r.serveClient(ctx, conn, stream, body)
	}
	return tunnel.CodeRefused, fmt.Errorf("%w: type %d first", wire.ErrMessage, t)
}

// standing is a daemon that has proved its token.
type standing struct {
	conn    tunnel.Conn
	control tunnel.Stream
	token   wire.TokenID
	public  ed25519.PublicKey
	account *account
	write   sync.Mutex
}

// serveDaemon takes a daemon's registrations until it goes, and then forgets
// them.
func (r *Relay) serveDaemon(ctx context.Context, conn tunnel.Conn, body []byte) (code uint64, err error) {
	hello, err := wire.ParseHello(body)
	if err != nil {
		return tunnel.CodeRefused, err
	}
	deployment, known := r.cfg.Tokens.Lookup(hello.Token)
	if !known {
		deployment.Public = nobody
	}
	if !hello.Verify(deployment.Public, conn.Exporter()) || !known {
		r.counters.token.Add(1)
		return tunnel.CodeRefused, fmt.Errorf("a token that is not known, or not proved")
	}
	if r.registry.isDraining() {
		return tunnel.CodeDraining, fmt.Errorf("a hello while draining")
	}
	account, ok := r.accounts.enter(hello.Token, deployment.Limits)
	if !ok {
		r.counters.token.Add(1)
		return tunnel.CodeRefused, fmt.Errorf("a token with as many connections as it may have")
	}
	defer account.leave()
	control, err := r.takeDaemon(ctx, conn)
	if err != nil {
		return tunnel.CodeRefused, err
	}
	d := &standing{conn: conn, control: control, token: hello.Token, public: deployment.Public, account: account}
	r.registry.arrive(d)
	defer r.registry.leave(d)
	ack := wire.HelloAck{Address: r.cfg.PublicAddress, Sessions: uint16(min(account.sessions(), math.MaxUint16)), Legs: wire.LegsPerSession}
	if err := d.answer(ack.Append(nil)); err != nil {
		return tunnel.CodeDone, err
	}
	return r.readControl(d)
}

func (r *Relay) takeDaemon(ctx context.Context, conn tunnel.Conn) (tunnel.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, wire.FirstBytes)
	defer cancel()
	return conn.TakeDaemon(ctx)
}

// nobody is the key that proofs of strangers are verified against, so that not
// being known costs what being wrong does.
var nobody = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)).Public().(ed25519.PublicKey)

func (r *Relay) readControl(d *standing) (code uint64, err error) {
	for {
		// A daemon beats; one that has not for so long is gone.
		if err := d.control.SetReadDeadline(time.Now().Add(wire.RelayIdle)); err != nil {
			return tunnel.CodeDone, err
		}
		t, body, err := wire.ReadMessage(d.control)
		if err != nil {
			return tunnel.CodeDone, err
		}
		if err := r.control(d, t, body); err != nil {
			return tunnel.CodeRefused, err
		}
	}
}

func (r *Relay) control(d *standing, t wire.MessageType, body []byte) error {
	switch t {
	case wire.TypeHeartbeat:
		if len(body) != wire.HeartbeatSize {
			return fmt.Errorf("%w: a heartbeat of %d bytes", wire.ErrMessage, len(body))
		}
		return nil
	case wire.TypeRegister:
		m, err := wire.ParseRegister(body)
		if err != nil {
			return err
		}
		return d.answer(wire.RegisterAck{RID: m.RID, Status: r.register(d, m)}.Append(nil))
	case wire.TypeUnregister:
		m, err := wire.ParseUnregister(body)
		if err != nil {
			return err
		}
		r.registry.unregister(d, m.RID)
		return nil
	case wire.TypeKept:
		m, err := wire.ParseKept(body)
		if err != nil {
			return err
		}
		r.registry.keep(d, m)
		return nil
	}
	return fmt.Errorf("%w: type %d on a control stream", wire.ErrMessage, t)
}

// maxLifetime is the longest a session can say it will stand: the product's
// cap, with room for clocks that differ.
const maxLifetime = 35 * time.Minute

func (r *Relay) register(d *standing, m wire.Register) wire.RegisterStatus {
	if m.Lifetime <= 0 || m.Lifetime > maxLifetime || m.Verify(d.conn.Exporter()) != nil {
		return wire.RegisterRefused
	}
	status, left := r.registry.register(d, m, r.cfg.Clock().Add(m.Lifetime))
	for _, conn := range left { // at most as many as may stand; their clients join anew
		r.children.Go(func() { conn.Close(tunnel.CodeSuperseded) })
	}
	if status == wire.Registered {
		r.counters.registered.Add(1)
	} else {
		r.counters.session.Add(1)
	}
	return status
}

// answer writes one message to the daemon, which must be reading.
func (d *standing) answer(message []byte) error {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.control.SetWriteDeadline(time.Now().Add(wire.FirstBytes)); err != nil {
		return err
	}
	_, err := d.control.Write(message)
	return err
}

// serveClient joins a client to its session's daemon, or refuses: draining
// first, and everything else in one way.
func (r *Relay) serveClient(ctx context.Context, conn tunnel.Conn, stream tunnel.Stream, body []byte) (code uint64, err error) {
	if r.registry.isDraining() {
		r.counters.draining.Add(1)
		return tunnel.CodeDraining, fmt.Errorf("a join while draining")
	}
	join, err := wire.ParseJoin(body)
	if err != nil {
		return tunnel.CodeRefused, err
	}
	session, ok := r.mayJoin(join, conn.Exporter())
	if !ok {
		r.counters.join.Add(1)
		return tunnel.CodeRefused, fmt.Errorf("a join that is not known, or not proved")
	}
	far, err := session.daemon.conn.OpenStream()
	if err != nil {
		return tunnel.CodeRefused, fmt.Errorf("opening a leg: %w", err)
	}
	l, superseded, ok := r.registry.enter(session, conn)
	if superseded != nil {
		r.children.Go(func() { superseded.Close(tunnel.CodeSuperseded) }) // it may take its time
	}
	if !ok {
		reset(far, tunnel.CodeDone)
		return tunnel.CodeRefused, fmt.Errorf("the session has gone meanwhile")
	}
	defer r.registry.exit(session, l)
	r.counters.joined.Add(1)
	preface := wire.Preface{RID: join.RID, Leg: l.number, From: conn.RemoteAddr().String()}
	if _, err := far.Write(preface.Append(nil)); err != nil {
		reset(far, tunnel.CodeDone)
		return tunnel.CodeRefused, err
	}
	if err := conn.TakeClient(); err != nil {
		reset(far, tunnel.CodeDone)
		return tunnel.CodeDone, err
	}
	// A leg ends with its session, whatever its ends still say.
	over := time.AfterFunc(session.until.Sub(r.cfg.Clock()), func() { reset(stream, tunnel.CodeDone); reset(far, tunnel.CodeDone) })
	defer over.Stop()
	r.splice(ctx, l, session.daemon.account, stream, far)
	r.registry.exit(session, l) // its place is free
	linger(conn)
	return tunnel.CodeDone, nil
}

// mayJoin decides on a join. All who are refused cost one lookup and one
// verification, and see the same.
func (r *Relay) mayJoin(join wire.Join, exporter [32]byte) (*registered, bool) {
	session, known := r.registry.find(join.RID, r.cfg.Clock())
	if !join.Verify(session.join, exporter) || !known {
		return nil, false
	}
	return session, session.daemon.account.mayJoin()
}

// linger leaves it to the client to close behind a leg that has ended: closing
// here would drop what it has not read yet.
func linger(conn tunnel.Conn) {
	late := time.AfterFunc(wire.RelayIdle, func() { conn.Close(tunnel.CodeDone) })
	defer late.Stop()
	<-conn.Context().Done()
}
