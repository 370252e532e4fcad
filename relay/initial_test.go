package relay

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go/quicvarint"
)

// While there is no turn to give, the packets of newcomers are not worth opening;
// those of whoever is let in already are.
func TestNobodyIsExpectedWhileThereIsNoTurn(t *testing.T) {
	t.Parallel()
	d := newDoor(Limits{Handshakes: 2}.withDefaults())
	stranger := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9}
	var last *visit
	for port := 1; d.expects(addrPort(stranger), false, time.Now()); port++ {
		v, err := d.enter(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port})
		if err != nil {
			t.Fatalf("newcomer %d is expected, and refused: %v", port, err)
		}
		last = v
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(last.from.Addr().As16()), last.from.Port())
	if now := time.Now(); !d.expects(last.from, true, now) || !d.expects(mapped, true, now) {
		t.Error("who shakes hands is not expected")
	}
	for range packetsOfHandshake {
		d.expects(last.from, true, time.Now())
	}
	if d.expects(last.from, true, time.Now()) {
		t.Error("who shakes hands can send what it likes")
	}
	last.done()
	if d.expects(last.from, true, time.Now()) {
		t.Error("who has shaken hands could begin again")
	}
	if !d.expects(addrPort(stranger), false, time.Now().Add(time.Second)) {
		t.Error("nobody is expected when there are turns again")
	}
}

// Whoever has begun too many handshakes is not heard either, and keeps nobody else
// from being.
func TestWhoBeginsTooManyHandshakesIsNotExpected(t *testing.T) {
	t.Parallel()
	d, now := newDoor(Limits{HandshakesPerAddress: 0.2}.withDefaults()), time.Now() // two at once
	many, other := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1}
	for range 2 {
		if !d.expects(addrPort(many), true, now) {
			t.Error("it is not expected at first")
		}
		v, err := d.enter(many)
		if err != nil {
			t.Fatal(err)
		}
		v.done()
	}
	if d.expects(addrPort(many), true, now) || d.expects(addrPort(many), false, now) {
		t.Error("it is still expected")
	}
	if !d.expects(addrPort(other), false, now) {
		t.Error("another is not")
	}
	if !d.expects(addrPort(many), true, now.Add(time.Minute)) {
		t.Error("it is never expected again")
	}
}

// While handshakes yield, only so many are asked for their address as could find a
// turn; who shows that it has been asked is heard.
func TestFewAreAskedForTheirAddressWhileThereAreFewTurns(t *testing.T) {
	t.Parallel()
	d, now := newDoor(Limits{Handshakes: 32 * paceRange}.withDefaults()), time.Now()
	kept := func(token bool) (n int) {
		for i := range 1000 {
			if d.expects(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), uint16(i)), token, now) {
				n++
			}
		}
		return n
	}
	if n := kept(false); n != 1000 {
		t.Errorf("%d of 1000 are heard while nothing is forwarded", n)
	}
	d.pace.yield(now)
	if n := kept(false); n != asksPerTurn {
		t.Errorf("%d are asked at once", n)
	}
	if n := kept(true); n != 1000 {
		t.Errorf("%d of 1000 are heard with a token", n)
	}
	now = now.Add(time.Second / 32) // a turn later
	if n := kept(false); n != asksPerTurn {
		t.Errorf("%d are asked for one more turn", n)
	}
}

func TestPacketsThatCouldBeginAConnection(t *testing.T) {
	t.Parallel()
	for packet, want := range map[string]bool{
		"": false, "\x40": false, "\x7f\x00\x00\x00\x01": false, // nothing, and what belongs to a connection
		"\xc0": true, "\xc0\x00\x00\x00\x01\x08": true, "\xcf\x00\x00\x00\x01": true, // version 1: first,
		"\xd0\x00\x00\x00\x01": true,                                                             // 0-RTT, which waits for its first,
		"\xe0\x00\x00\x00\x01": false,                                                            // later ones
		"\xe0\x00\x00\x00\x02": true, "\xe0\x6b\x33\x43\xcf": true, "\x80\x00\x00\x00\x00": true, // answered with the versions there are
	} {
		if mayBegin([]byte(packet)) != want {
			t.Errorf("%x: not %v", packet, want)
		}
	}
}

// initial is the beginning of a first packet, as RFC 9000 section 17.2.2 has it.
func initial(to, from, token []byte) []byte {
	packet := append([]byte{0xc3, 0, 0, 0, versionOne, byte(len(to))}, to...)
	packet = append(append(packet, byte(len(from))), from...)
	return append(quicvarint.Append(packet, uint64(len(token))), token...)
}

// FuzzPacketsOfStrangers: whatever comes is either a connection's own or may begin
// one, and shows a token exactly when there is one; looking costs nothing that stays.
func FuzzPacketsOfStrangers(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte{9}, []byte("token"), []byte("\xc0\x00\x00\x00\x01\x08"))
	f.Add([]byte{}, []byte{}, []byte{}, []byte("\xd0\x00\x00\x00\x01\x00\x00\x40\x00"))
	f.Add(bytes.Repeat([]byte{1}, 255), []byte{}, bytes.Repeat([]byte{2}, 64), []byte("\x40"))
	f.Fuzz(func(t *testing.T, to, from, token, anything []byte) {
		before := slices.Clone(anything)
		if mayBegin(anything) != (len(anything) > 0 && anything[0] >= longHeader && !bytes.HasPrefix(skip(anything), []byte{0, 0, 0, 1, 'h'})) {
			t.Errorf("%x may begin: %v", anything, mayBegin(anything))
		}
		showsToken(anything)
		if !bytes.Equal(before, anything) {
			t.Error("looking changes it")
		}
		if len(to) > 255 || len(from) > 255 {
			return
		}
		packet := initial(to, from, token)
		if !mayBegin(packet) || showsToken(packet) != (len(token) > 0) {
			t.Errorf("%x may begin: %v, shows a token: %v", packet, mayBegin(packet), showsToken(packet))
		}
		whole := len(packet) - len(token)
		for cut := range packet[:whole] {
			if showsToken(packet[:cut]) {
				t.Errorf("%x shows a token", packet[:cut])
			}
		}
	})
}

// skip has a packet's version and, as one letter, whether it is a handshake's.
func skip(packet []byte) []byte {
	if len(packet) < 5 {
		return nil
	}
	kind := byte('o')
	if packet[0]>>4&3 == 2 {
		kind = 'h'
	}
	return append(slices.Clone(packet[1:5]), kind)
}
