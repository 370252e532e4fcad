package tunnel

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Trains returns the socket so that the kernel hands over datagrams of one peer
// that came together in one piece (UDP GRO), which quic-go reads one by one: a
// receive then costs one system call for up to 64 of them. Sending is as it was,
// whole trains too (GSO). A socket that is no UDP socket of this system, or a
// kernel that cannot, gives the socket back as it is.
//
// What keep says no to is dropped before anybody else has looked at it; nil keeps
// all. It is asked from one goroutine, and must not hold on to the datagram.
func Trains(socket net.PacketConn, keep Keep) net.PacketConn {
	conn, ok := socket.(*net.UDPConn)
	if !ok {
		return socket
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return socket
	}
	var unsupported error
	if err := raw.Control(func(fd uintptr) {
		unsupported = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}); err != nil || unsupported != nil {
		return socket
	}
	six, err := family(raw)
	if err != nil {
		return socket
	}
	s := &trainSocket{UDPConn: conn, raw: raw, six: six, keep: keep}
	s.incoming.call = func(fd uintptr) bool { return s.incoming.do(unix.SYS_RECVMSG, fd) }
	return s
}

// trainSize is the longest piece the kernel hands over, trainControl room for
// what it says about it: segment size, ECN, and the address it was sent to.
const (
	trainSize    = 64 << 10
	trainControl = 128
)

// trainSocket hands trains out car by car. quic-go looks for ReadBatch, and
// calls it from one goroutine.
type trainSocket struct {
	*net.UDPConn
	raw      syscall.RawConn
	six      bool // the socket's family is IPv6's, which may carry IPv4 too
	keep     Keep
	incoming message

	buf     [trainSize]byte
	control [trainControl]byte
	rest    []byte // of buf, not handed out yet
	segment int    // size of all datagrams in rest but the last
	noted   int    // length of what control holds
	from    netip.AddrPort
	addr    *net.UDPAddr // from, as quic-go has it; never changed, as it keeps it
}

// ReadBatch fills the messages with one datagram each, from one train. It waits
// for a train if there is none left, or nothing of it is kept.
func (s *trainSocket) ReadBatch(messages []ipv4.Message, _ int) (n int, err error) {
	for n == 0 {
		if len(s.rest) == 0 {
			empty, err := s.receive()
			if err != nil {
				return 0, err
			}
			if empty { // a datagram of nothing is one all the same
				s.handOut(&messages[0], nil)
				return 1, nil
			}
		}
		n = s.unload(messages)
	}
	return n, nil
}

// unload hands out what is kept of the train that came, as far as there is room.
func (s *trainSocket) unload(messages []ipv4.Message) (n int) {
	for n < len(messages) && len(s.rest) > 0 {
		datagram := s.rest[:min(s.segment, len(s.rest))]
		s.rest = s.rest[len(datagram):]
		if s.keep == nil || s.keep(s.from, datagram) {
			s.handOut(&messages[n], datagram)
			n++
		}
	}
	return n
}

func (s *trainSocket) handOut(m *ipv4.Message, datagram []byte) {
	m.N = copy(m.Buffers[0], datagram)
	m.NN = copy(m.OOB, s.control[:s.noted])
	m.Addr = s.addr
}

func (s *trainSocket) receive() (empty bool, err error) {
	n, noted, from, err := s.receiveMessage()
	if err != nil {
		return false, err
	}
	if s.addr == nil || from != s.from {
		s.from, s.addr = from, net.UDPAddrFromAddrPort(from)
	}
	s.rest, s.noted, s.segment = s.buf[:n], noted, n
	if size := segmentSize(s.control[:noted]); size > 0 {
		s.segment = size
	}
	return n == 0, nil
}

// segmentSize is what the kernel says of a train; zero for a lone datagram, and
// for anything that is not understood: then it is one datagram, too long for
// quic-go, which drops it.
func segmentSize(control []byte) int {
	for len(control) >= unix.CmsgLen(0) { // the parser looks at a header before it asks for its length
		header, body, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0
		}
		if header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_GRO && len(body) >= 4 {
			return int(binary.NativeEndian.Uint32(body))
		}
		control = rest
	}
	return 0
}
