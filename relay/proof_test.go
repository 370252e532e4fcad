package relay_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

func TestOnlyTheJoinKeyJoins(t *testing.T) {
	t.Parallel()
	n, d, s := standing(t)
	other := newSession(t).standOn(t, d)
	for name, c := range map[string]struct {
		rid  wire.RendezvousID
		sign func(exporter [32]byte) []byte
	}{
		"an unknown rid": {wire.RendezvousID{1}, func(e [32]byte) []byte { return wire.SignJoin(s.join, e, wire.RendezvousID{1}) }},
		"another session's join key": {s.rid, func(e [32]byte) []byte {
			return wire.SignJoin(other.join, e, s.rid)
		}},
		"the register key": {s.rid, func(e [32]byte) []byte { return wire.SignJoin(s.register, e, s.rid) }},
		"a proof for another session": {s.rid, func(e [32]byte) []byte {
			return wire.SignJoin(s.join, e, other.rid)
		}},
		"a proof for another connection": {s.rid, func(e [32]byte) []byte {
			e[0] ^= 1
			return wire.SignJoin(s.join, e, s.rid)
		}},
		"zeros for a proof": {s.rid, func([32]byte) []byte { return make([]byte, 64) }},
	} {
		t.Run(name, func(t *testing.T) { refused(t, n.clientSigning(c.rid, c.sign), wire.ErrRefused) })
	}
	client, daemon, preface := n.pair(s, d) // the daemon heard of none of them
	if preface.RID != s.rid {
		t.Errorf("the daemon was told of %v", preface.RID)
	}
	bothWays(t, client, daemon)
}

func TestOnlyAKnownTokenStands(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	token, other := n.token("known"), n.token("other")
	stranger, err := wire.NewToken(rng{})
	if err != nil {
		t.Fatal(err)
	}
	for name, prove := range map[string]func([32]byte) (wire.TokenID, []byte, error){
		"an unknown token": prove(stranger),
		"a known id, proved by an unknown token": func(e [32]byte) (wire.TokenID, []byte, error) {
			return token.ID(), stranger.SignHello(e), nil
		},
		"a known id, proved by another known token": func(e [32]byte) (wire.TokenID, []byte, error) {
			return token.ID(), other.SignHello(e), nil
		},
		"a proof for another connection": func(e [32]byte) (wire.TokenID, []byte, error) {
			e[31] ^= 1
			return token.ID(), token.SignHello(e), nil
		},
		"zeros for a proof": func([32]byte) (wire.TokenID, []byte, error) { return token.ID(), make([]byte, 64), nil },
	} {
		d, err := tunnel.DialDaemon(within(t, patience), tunnel.DaemonConfig{Relay: n.relay(), Prove: prove})
		if !errors.Is(err, tunnel.ErrTokenRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = d.Close()
		}
	}
	newSession(t).standOn(t, n.daemon(token))
}

// rng is randomness that no token file has seen.
type rng struct{}

func (rng) Read(p []byte) (int, error) { return copy(p, pattern(len(p))), nil }

func TestTheDaemonIsToldTheNodesAddress(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(c *relay.Config) { c.PublicAddress = "relay.example.com:4433" })
	if address := n.daemon(n.token("a")).Address(); address != "relay.example.com:4433" {
		t.Errorf("the daemon was told %q", address)
	}
}

func TestARevokedTokenEndsTheConnection(t *testing.T) {
	t.Parallel()
	n, d, s := standing(t)
	stays := n.daemon(n.token("second"))
	staying := newSession(t).standOn(t, stays)
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)

	// By another process, which has its own view of the file.
	elsewhere, err := relay.OpenTokenFile(n.dir + "/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.Revoke("first"); err != nil {
		t.Fatal(err)
	}
	lost(t, d, 2*time.Second)
	if !errors.Is(d.Err(), wire.ErrRefused) {
		t.Errorf("the daemon is told %v", d.Err())
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("its leg stands")
	}
	eventually(t, patience, "its session has gone", func() bool {
		_, err := n.client(s).Read(make([]byte, 1))
		return errors.Is(err, wire.ErrRefused)
	})
	client, daemon, _ = n.pair(staying, stays)
	bothWays(t, client, daemon)
}

func TestARegistrationMustBeItsDaemonsOwn(t *testing.T) {
	t.Parallel()
	n, first, s := standing(t)
	second := n.daemon(n.token("second"))
	mine := newSession(t)
	signed := func(change func(*wire.Register)) wire.Register {
		r := mine.registration(second.Exporter())
		change(&r)
		return wire.SignRegister(mine.register, second.Exporter(), r)
	}
	for name, r := range map[string]wire.Register{
		"a rid of no keys":      signed(func(r *wire.Register) { r.RID[0] ^= 1 }),
		"another session's rid": signed(func(r *wire.Register) { r.RID = s.rid }),
		"another register key, with its rid": signed(func(r *wire.Register) {
			r.RegisterKey, r.JoinKey, r.RID = public(s.register), public(s.join), s.rid
		}),
		"another join key":          signed(func(r *wire.Register) { r.JoinKey = public(s.join) }),
		"another daemon's, copied":  s.registration(first.Exporter()),
		"no lifetime":               signed(func(r *wire.Register) { r.Lifetime = 0 }),
		"a lifetime beyond the cap": signed(func(r *wire.Register) { r.Lifetime = 2101 * time.Second }),
		"a wrong signature": func() wire.Register {
			r := mine.registration(second.Exporter())
			r.Signature[0] ^= 1
			return r
		}(),
		"a field changed after signing": func() wire.Register {
			r := mine.registration(second.Exporter())
			r.Lifetime += time.Second
			return r
		}(),
	} {
		if err := second.Register(within(t, patience), r); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	client, daemon, _ := n.pair(s, first)
	bothWays(t, client, daemon)
	mine.standOn(t, second) // a refusal costs the connection nothing
}

func TestADaemonTakesOffOnlyItsOwn(t *testing.T) {
	t.Parallel()
	n, first, s := standing(t)
	second := n.daemon(n.token("second"))
	if err := second.Unregister(s.rid); err != nil {
		t.Fatal(err)
	}
	settled(t, second)
	client, daemon, _ := n.pair(s, first)
	bothWays(t, client, daemon)
}

func TestUnregisteredMeansUnknown(t *testing.T) {
	t.Parallel()
	n, d, s := standing(t)
	client, daemon, _ := n.pair(s, d)
	if err := d.Unregister(s.rid); err != nil {
		t.Fatal(err)
	}
	settled(t, d)
	refused(t, n.client(s), wire.ErrRefused)
	bothWays(t, client, daemon) // the legs that stand are the daemon's to end
}

func TestASessionEndsWithItsDaemon(t *testing.T) {
	t.Parallel()
	n, d, s := standing(t)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the session is unknown", func() bool {
		_, err := n.client(s).Read(make([]byte, 1))
		return errors.Is(err, wire.ErrRefused)
	})
}

func TestASessionEndsWithItsLifetime(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	n, d, s := standing(t, func(c *relay.Config) {
		c.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	ahead.Store(int64(29 * time.Minute))
	client, daemon, _ := n.pair(s, d)
	bothWays(t, client, daemon)
	ahead.Store(int64(30*time.Minute + time.Second))
	refused(t, n.client(s), wire.ErrRefused)
}

func TestATokenHoldsSoManySessions(t *testing.T) {
	t.Parallel()
	n, d, s := standing(t)
	for range 1023 {
		newSession(t).standOn(t, d)
	}
	if err := d.Register(within(t, patience), newSession(t).registration(d.Exporter())); err == nil {
		t.Error("one more than a token may hold was taken")
	}
	s.standOn(t, d) // it holds this one already
	if err := d.Unregister(s.rid); err != nil {
		t.Fatal(err)
	}
	settled(t, d)
	newSession(t).standOn(t, n.daemon(n.token("second"))) // another token's room is its own
}

// held is legs on one session, oldest first.
type held struct {
	client, daemon wire.Leg
	number         uint64
}

func (n *node) hold(s session, d *tunnel.Daemon, count int) []held {
	n.t.Helper()
	legs := make([]held, count)
	for i := range legs {
		client, daemon, preface := n.pair(s, d)
		legs[i] = held{client, daemon, preface.Leg}
	}
	return legs
}

func TestALegTooManyEndsTheOldestThatIsNotKept(t *testing.T) {
	onEveryRung(t, testALegTooManyEndsTheOldestThatIsNotKept)
}

func testALegTooManyEndsTheOldestThatIsNotKept(t *testing.T, by rungs) {
	for kept := range wire.KeptPerSession + 3 {
		t.Run(fmt.Sprintf("%d kept", kept), func(t *testing.T) {
			t.Parallel()
			n, d, s := standingBy(t, by)
			legs := n.hold(s, d, wire.LegsPerSession)
			for _, l := range legs[:kept] {
				if err := d.Keep(s.rid, l.number); err != nil {
					t.Fatal(err)
				}
			}
			settled(t, d)
			for i, l := range legs {
				passes(t, l.client, l.daemon, fmt.Sprintf("leg %d of as many as may stand", i))
			}
			oldest := min(kept, wire.KeptPerSession)
			for range 2 {
				legs = append(legs, n.hold(s, d, 1)...)
				cutFor(t, legs[oldest].client, by, wire.ErrSuperseded)
				if _, err := legs[oldest].daemon.Read(make([]byte, 1)); err == nil {
					t.Error("the daemon's end of the superseded leg stands")
				}
				legs = append(legs[:oldest], legs[oldest+1:]...)
				for _, l := range legs {
					bothWays(t, l.client, l.daemon)
				}
			}
		})
	}
}

func TestALegThatEndedMakesRoom(t *testing.T) { onEveryRung(t, testALegThatEndedMakesRoom) }

func testALegThatEndedMakesRoom(t *testing.T, by rungs) {
	n, d, s := standingBy(t, by)
	legs := n.hold(s, d, wire.LegsPerSession)
	ended := legs[3]
	for _, l := range []wire.Leg{ended.client, ended.daemon} {
		if err := l.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []wire.Leg{ended.client, ended.daemon} { // read to the end, and not reset
		if k, err := l.Read(make([]byte, 1)); k != 0 || err == nil {
			t.Fatalf("%d bytes, %v", k, err)
		}
	}
	settled(t, d)
	legs = append(append(legs[:3], legs[4:]...), n.hold(s, d, 1)...)
	for _, l := range legs {
		bothWays(t, l.client, l.daemon)
	}
}

func TestADaemonKeepsOnlyItsOwnLegs(t *testing.T) {
	t.Parallel()
	n, first, s := standing(t)
	second := n.daemon(n.token("second"))
	legs := n.hold(s, first, wire.LegsPerSession)
	if err := second.Keep(s.rid, legs[0].number); err != nil {
		t.Fatal(err)
	}
	settled(t, second)
	n.hold(s, first, 1)
	refused(t, legs[0].client, wire.ErrSuperseded)
}
