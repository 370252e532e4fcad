package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A datagram costs one system call that never waits. Go's own way tells the
// scheduler of each, which wakes the thread that watches over long calls: of an
// idle relay's computing that was a quarter. These calls
// do not wait, so that there is nothing to watch over.

// message is one call's arguments, on the heap and used again: the kernel holds
// pointers into it during the call.
type message struct {
	header  unix.Msghdr
	vector  unix.Iovec
	address unix.RawSockaddrInet6 // the larger of the two
	n       int
	errno   syscall.Errno
	call    func(fd uintptr) (done bool)
}

var sending = sync.Pool{New: func() any {
	m := new(message)
	m.call = func(fd uintptr) bool { return m.do(unix.SYS_SENDMSG, fd) }
	return m
}}

// do makes the call, and reports whether it need not be waited for.
func (m *message) do(trap, fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&m.header)), unix.MSG_DONTWAIT)
		if errno == unix.EINTR {
			continue
		}
		m.n, m.errno = int(n), errno
		return errno != unix.EAGAIN
	}
}

func (m *message) set(data, control []byte) {
	m.vector = unix.Iovec{Base: unsafe.SliceData(data)}
	m.vector.SetLen(len(data))
	m.header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&m.address)), Iov: &m.vector, Control: unsafe.SliceData(control)}
	m.header.SetIovlen(1)
	m.header.SetControllen(len(control))
}

// forget lets go of what the call was about.
func (m *message) forget() {
	m.vector, m.header = unix.Iovec{}, unix.Msghdr{}
}

// addressTo writes an address as the socket's family has it.
func (m *message) addressTo(to netip.AddrPort, six bool) bool {
	ip := to.Addr()
	if !six {
		if ip = ip.Unmap(); !ip.Is4() {
			return false
		}
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&m.address))
		*four = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(to.Port()), Addr: ip.As4()}
		m.header.Namelen = unix.SizeofSockaddrInet4
		return true
	}
	scope := uint64(0)
	if zone := ip.Zone(); zone != "" {
		var err error
		if scope, err = strconv.ParseUint(zone, 10, 32); err != nil {
			return false
		}
	}
	m.address = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(to.Port()), Addr: ip.As16(), Scope_id: uint32(scope)}
	m.header.Namelen = unix.SizeofSockaddrInet6
	return true
}

// from is the address that a message came from.
func (m *message) from() netip.AddrPort {
	if m.address.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&m.address))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), swapped(four.Port))
	}
	ip := netip.AddrFrom16(m.address.Addr)
	if m.address.Scope_id != 0 {
		ip = ip.WithZone(strconv.FormatUint(uint64(m.address.Scope_id), 10))
	}
	return netip.AddrPortFrom(ip, swapped(m.address.Port))
}

// swapped turns a port between the network's order and the machine's.
func swapped(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// WriteMsgUDP is what quic-go sends through.
func (s *trainSocket) WriteMsgUDP(data, control []byte, to *net.UDPAddr) (n, controls int, err error) {
	m := sending.Get().(*message)
	defer func() { m.forget(); sending.Put(m) }()
	m.set(data, control)
	if to == nil || !m.addressTo(to.AddrPort(), s.six) {
		return s.UDPConn.WriteMsgUDP(data, control, to)
	}
	if err := s.raw.Write(m.call); err != nil {
		return 0, 0, err
	}
	if m.errno != 0 {
		return 0, 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: os.NewSyscallError("sendmsg", m.errno)}
	}
	return m.n, len(control), nil
}

// receiveMessage reads a train into buf, and what the kernel says about it
// into control.
func (s *trainSocket) receiveMessage() (n, noted int, from netip.AddrPort, err error) {
	m := &s.incoming
	m.set(s.buf[:], s.control[:])
	m.header.Namelen = unix.SizeofSockaddrInet6
	if err := s.raw.Read(m.call); err != nil {
		return 0, 0, from, err
	}
	if m.errno != 0 {
		return 0, 0, from, &net.OpError{Op: "read", Net: "udp", Source: s.LocalAddr(), Err: os.NewSyscallError("recvmsg", m.errno)}
	}
	return m.n, int(m.header.Controllen), m.from(), nil
}

// family asks the kernel whether a socket speaks IPv6.
func family(raw syscall.RawConn) (six bool, err error) {
	var domain int
	var failed error
	err = raw.Control(func(fd uintptr) { domain, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN) })
	return domain == unix.AF_INET6, errors.Join(err, failed)
}
