package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trains opens a socket that sends and receives by system calls of its own.
func trains(t *testing.T, network, address string) *trainSocket {
	t.Helper()
	at, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP(network, at)
	if err != nil {
		t.Skip("no such network here: ", err)
	}
	t.Cleanup(func() { conn.Close() })
	s, ok := Trains(conn, nil).(*trainSocket)
	if !ok {
		t.Skip("this kernel has no UDP GRO")
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return s
}

// received is the next datagram and its sender.
func received(t *testing.T, s *trainSocket) (string, *net.UDPAddr) {
	t.Helper()
	messages := batch(1)
	if n, err := s.ReadBatch(messages, 0); n != 1 || err != nil {
		t.Fatalf("%d datagrams, %v", n, err)
	}
	return string(messages[0].Buffers[0][:messages[0].N]), messages[0].Addr.(*net.UDPAddr)
}

// A socket that was opened for both kinds of address sends to both, and knows
// who it was.
func TestDatagramsFindTheirWayInEveryFamily(t *testing.T) {
	for name, c := range map[string]struct{ network, address, to string }{
		"IPv4":                 {"udp4", "127.0.0.1:0", "127.0.0.1"},
		"IPv6":                 {"udp6", "[::1]:0", "::1"},
		"both, by IPv4":        {"udp", ":0", "127.0.0.1"},
		"both, by mapped IPv4": {"udp", ":0", "::ffff:127.0.0.1"},
		"both, by IPv6":        {"udp", ":0", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			one, other := trains(t, c.network, c.address), trains(t, c.network, c.address)
			to := &net.UDPAddr{IP: net.ParseIP(c.to), Port: other.LocalAddr().(*net.UDPAddr).Port}
			if n, _, err := one.WriteMsgUDP([]byte("there"), nil, to); n != 5 || err != nil {
				t.Skipf("%d bytes, %v", n, err) // a machine without that family
			}
			text, from := received(t, other)
			if text != "there" || from.Port != one.LocalAddr().(*net.UDPAddr).Port || !from.IP.Equal(to.IP) {
				t.Fatalf("%q from %v", text, from)
			}
			if _, _, err := other.WriteMsgUDP([]byte("and back"), nil, from); err != nil {
				t.Fatal(err)
			}
			if text, from := received(t, one); text != "and back" || from.Port != to.Port {
				t.Errorf("%q from %v", text, from)
			}
		})
	}
}

func TestAnAddressIsReadAsItWasWritten(t *testing.T) {
	for _, text := range []string{"[fe80::1%7]:65280", "[2001:db8::9]:1", "[::ffff:192.0.2.7]:53"} {
		var m message
		if want := netip.MustParseAddrPort(text); !m.addressTo(want, true) || m.from() != want {
			t.Errorf("%s came out as %s", text, m.from())
		}
	}
	var m message
	if want := netip.MustParseAddrPort("192.0.2.7:53"); !m.addressTo(want, false) || m.from() != want {
		t.Errorf("%s came out as %s", want, m.from())
	}
	for text, six := range map[string]bool{"[2001:db8::9]:1": false, "[fe80::1%eth0]:1": true} {
		if m.addressTo(netip.MustParseAddrPort(text), six) {
			t.Errorf("%s was written", text)
		}
	}
}

// quic-go looks into errors for the call and the kernel's reason.
func TestTheKernelsRefusalIsTheErrorsCause(t *testing.T) {
	s := trains(t, "udp4", "127.0.0.1:0")
	to := s.LocalAddr().(*net.UDPAddr)
	_, _, err := s.WriteMsgUDP(make([]byte, 1<<16), nil, to)
	call, ok := errors.AsType[*os.SyscallError](err)
	if !ok || call.Syscall != "sendmsg" || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a datagram that is too long: %v", err)
	}
	if err := s.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadBatch(batch(1), 0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.WriteMsgUDP(nil, nil, to); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after close: %v", err)
	}
	if _, err := s.ReadBatch(batch(1), 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read after close: %v", err)
	}
}

// A call that would wait is made again when the kernel says so.
func TestAnEmptySocketIsWaitedFor(t *testing.T) {
	s := trains(t, "udp4", "127.0.0.1:0")
	m := sending.Get().(*message)
	defer sending.Put(m)
	m.set(nil, nil)
	tries := 0
	if err := s.raw.Read(func(fd uintptr) bool {
		if tries++; tries == 1 {
			if done := m.do(unix.SYS_RECVMSG, fd); done { // nothing has come yet
				t.Errorf("%d bytes, %v", m.n, m.errno)
			}
			if _, err := s.WriteTo([]byte("now"), s.LocalAddr()); err != nil {
				t.Error(err)
			}
			return false
		}
		return true
	}); err != nil || tries != 2 {
		t.Errorf("%d tries, %v", tries, err)
	}
}
