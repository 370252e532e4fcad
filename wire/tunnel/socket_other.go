//go:build !linux

package tunnel

import "net"

// Trains returns the socket as it is, and keeps all: UDP GRO is Linux's.
func Trains(socket net.PacketConn, _ Keep) net.PacketConn { return socket }
