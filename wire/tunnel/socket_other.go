//go:build !linux

package tunnel

import "net"

// Trains returns the socket as it is: UDP GRO is Linux's.
func Trains(socket net.PacketConn) net.PacketConn { return socket }
