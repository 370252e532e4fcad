//go:build !linux

package relay

import (
	"net"
	"time"
)

// setUserTimeout is Linux's; elsewhere the system's own patience has to do.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
