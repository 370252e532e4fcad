package daemon

import (
	"time"

	"golang.org/x/sys/unix"
)

// systemClock is the machine's two clocks (session.Clock).
type systemClock struct{}

// Wall is in UTC, as every time is that leaves the daemon.
func (systemClock) Wall() time.Time { return time.Now().UTC() }

func (systemClock) Boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had this clock since 2.6.39 and the call has no other way
		// to fail; without it no deadline could be held.
		panic("daemon: reading CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
