package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// playPackets is the prototype of bench/FORWARDING.md: a relay that opens no
// packet. Every client address gets a socket of its own towards the origin, and
// what comes in one piece (GRO) leaves in one piece (GSO). It measures what a
// byte costs so; it has no pairing, no proofs and no limits, and stands on
// loopback only.
func playPackets(ctx context.Context, origin string) error {
	to, err := netip.ParseAddrPort(origin)
	if err != nil {
		return err
	}
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	if err := receiveTrains(front); err != nil {
		return err
	}
	if err := say(answer{Where: front.LocalAddr().String()}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = front.Close() })()
	go forwardAll(front, to)
	untilTold()
	return nil
}

// forwardAll carries what clients send, and starts the way back for each.
func forwardAll(front *net.UDPConn, origin netip.AddrPort) {
	backs := make(map[netip.AddrPort]*net.UDPConn)
	defer func() {
		for _, back := range backs {
			_ = back.Close()
		}
	}()
	var t train
	for {
		from, err := t.receive(front)
		if err != nil {
			return
		}
		back := backs[from]
		if back == nil {
			if back, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(origin)); err != nil {
				return
			}
			if receiveTrains(back) != nil {
				return
			}
			backs[from] = back
			go forwardBack(front, back, from)
		}
		_ = t.send(back, netip.AddrPort{}) // lost, as any datagram may be
	}
}

func forwardBack(front, back *net.UDPConn, client netip.AddrPort) {
	var t train
	for {
		_, err := t.receive(back)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the other end's port was closed for a moment
		}
		_ = t.send(front, client)
	}
}

func receiveTrains(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20))
	})
	return errors.Join(err, failed)
}

// train is datagrams of one size, but for the last, in one piece.
type train struct {
	buf     []byte
	control []byte
	n       int
	segment int // zero for a lone datagram
}

// receive waits for a train.
func (t *train) receive(conn *net.UDPConn) (netip.AddrPort, error) {
	if t.buf == nil {
		t.buf, t.control = make([]byte, 64<<10), make([]byte, 64)
	}
	n, noted, _, from, err := conn.ReadMsgUDPAddrPort(t.buf, t.control[:cap(t.control)])
	t.n, t.segment = n, 0
	for rest := t.control[:noted]; len(rest) >= unix.CmsgLen(0); {
		header, body, after, parseErr := unix.ParseOneSocketControlMessage(rest)
		if parseErr != nil {
			break
		}
		if header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_GRO && len(body) >= 4 {
			t.segment = int(binary.NativeEndian.Uint32(body))
		}
		rest = after
	}
	return from, err
}

// send sends the train as it came; to nobody in particular on a connected socket.
func (t *train) send(conn *net.UDPConn, to netip.AddrPort) error {
	control := t.control[:0]
	if t.segment > 0 && t.segment < t.n {
		control = t.control[:unix.CmsgSpace(2)]
		clear(control)
		header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		header.Level, header.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		header.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(t.segment))
	}
	_, _, err := conn.WriteMsgUDPAddrPort(t.buf[:t.n], control, to)
	return err
}
