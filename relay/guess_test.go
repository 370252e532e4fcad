package relay

import (
	"crypto/ed25519"
	"crypto/rand"
	"maps"
	"math"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"openscope/wire"
)

// filled is a relay with so many sessions of one daemon, and one of them with
// its join key.
func filled(t *testing.T, sessions int) (*Relay, wire.RendezvousID, ed25519.PrivateKey) {
	t.Helper()
	r := &Relay{cfg: Config{Clock: time.Now, Limits: Limits{}.withDefaults()}, registry: newRegistry()}
	r.accounts = newAccounts(TokenLimits{Sessions: sessions, Connections: 1, Joins: 1 << 20}, time.Now)
	account, ok := r.accounts.enter(wire.TokenID{}, TokenLimits{})
	if !ok {
		t.Fatal("no account")
	}
	d := &standing{account: account}
	r.registry.arrive(d)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var rid wire.RendezvousID
	for range sessions {
		if _, err := rand.Read(rid[:]); err != nil {
			t.Fatal(err)
		}
		if status, _ := r.registry.register(d, wire.Register{RID: rid, JoinKey: public}, time.Now().Add(time.Hour)); status != wire.Registered {
			t.Fatal(status)
		}
	}
	return r, rid, private
}

// L5: a rid is 128 bits.
func TestNobodyGuessesARendezvousID(t *testing.T) {
	t.Parallel()
	r, rid, _ := filled(t, 5000)
	if _, ok := r.registry.find(rid, time.Now()); !ok {
		t.Fatal("a session that stands is not found: guessing proves nothing")
	}
	seed := [32]byte{}
	if _, err := rand.Read(seed[:]); err != nil {
		t.Fatal(err)
	}
	source, now := mathrand.NewChaCha8(seed), time.Now()
	for range guesses {
		if _, err := source.Read(rid[:]); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.registry.find(rid, now); ok {
			t.Fatalf("%x was guessed (seed %x)", rid, seed)
		}
	}
}

// Welch's t between the time that an unknown rid costs and that a bad proof
// does. The two are asked in random order; the slowest tenth of each is the
// scheduler's, and left out alike.
func TestUnknownAndUnprovedCostTheSame(t *testing.T) {
	const each, most = 10_000, 4.5
	r, rid, key := filled(t, 1000)
	exporter := [32]byte{1}
	if _, ok := r.mayJoin(wire.Join{RID: rid, Signature: wire.SignJoin(key, exporter, rid)}, exporter); !ok {
		t.Fatal("a good proof is refused: the others prove nothing")
	}
	_, wrong, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	known := slices.Collect(maps.Keys(r.registry.sessions))
	measure := func() float64 {
		var took [2][]float64
		for len(took[0]) < each || len(took[1]) < each {
			kind := mathrand.IntN(2)
			// Any of them: what is asked for again and again is soon found.
			asked := [2]wire.RendezvousID{known[mathrand.IntN(len(known))]}
			_, _ = rand.Read(asked[1][:])
			_, _ = rand.Read(exporter[:]) // as every connection has its own: a proof seen twice is cheaper to refuse
			join := wire.Join{RID: asked[kind], Signature: wire.SignJoin(wrong, exporter, asked[kind])}
			began := time.Now()
			_, ok := r.mayJoin(join, exporter)
			spent := time.Since(began)
			if ok {
				t.Fatal("it was let in")
			}
			if len(took[kind]) < each {
				took[kind] = append(took[kind], float64(spent))
			}
		}
		ma, _ := moments(trimmed(took[0]))
		mb, _ := moments(trimmed(took[1]))
		t.Logf("bad proof %.0f ns, unknown %.0f ns", ma, mb)
		return welch(trimmed(took[0]), trimmed(took[1]))
	}
	// A machine that is busy with other tests may tip one measurement; a
	// difference in the code tips them all.
	var got []float64
	for range 3 {
		v := measure()
		got = append(got, v)
		if math.Abs(v) < most {
			t.Logf("t = %.2f over %d each", v, each)
			return
		}
	}
	t.Errorf("t = %.2f: the two can be told apart", got)
}

func TestCallersAreCountedByWhatTheyHold(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7/32", "[::ffff:192.0.2.7]:1": "192.0.2.7/32", "[2001:db8:1:2:3::9]:4": "2001:db8:1:2::/64", "[fe80::1%lo]:1": "fe80::/64",
	} {
		udp, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := callerPrefix(addrPort(udp).Addr()).String(); got != want {
			t.Errorf("%s is counted as %s", addr, got)
		}
	}
}

// Nobody makes the relay remember more than it has room for.
func TestManyAddressesShareOneAccount(t *testing.T) {
	d := newDoor(Limits{Handshakes: 1e9, HandshakesPerAddress: 1, Connections: 1 << 20, Handshaking: 1 << 20}.withDefaults())
	var last []*visit
	for i := range maxCallers + 100 {
		v, err := d.enter(&net.UDPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)), Port: 1})
		if err != nil {
			if i < maxCallers {
				t.Fatalf("address %d: %v", i, err)
			}
			break
		}
		last = append(last, v)
	}
	if len(d.callers) > maxCallers || len(last) != maxCallers+burst {
		t.Errorf("%d addresses are remembered, %d came in", len(d.callers), len(last))
	}
	for _, v := range last {
		v.leave()
	}
	d.sweep(time.Now().Add(time.Hour))
	if standing, handshaking, callers := d.counts(); standing != 0 || handshaking != 0 || callers != 0 {
		t.Errorf("%d stand, %d shake hands, %d are remembered", standing, handshaking, callers)
	}
}
