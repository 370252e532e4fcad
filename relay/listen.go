package relay

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// portTries is how often another port is drawn when the number that UDP was
// given is taken for TCP.
const portTries = 16

// Listen opens one port number for QUIC and for TCP.
func Listen(address string) (net.PacketConn, net.Listener, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	for try := 0; ; try++ {
		conn, listener, err := listenBoth(address)
		if err == nil {
			return conn, listener, nil
		}
		if port != "0" || try == portTries || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, fmt.Errorf("listening on %s: %w", address, err)
		}
	}
}

func listenBoth(address string) (net.PacketConn, net.Listener, error) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	_, port, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, listener, nil
}
