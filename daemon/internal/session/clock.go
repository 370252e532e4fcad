package session

import "time"

// Clock is the pair of clocks a deadline is held against. Both are asked,
// because each can be wrong alone: the wall clock is stepped by people and by
// NTP, the boot-time clock starts anew with the machine.
type Clock interface {
	// Wall is the time of day.
	Wall() time.Time
	// Boot is the time since boot, counted through suspend (CLOCK_BOOTTIME).
	Boot() time.Duration
}

// Deadline is a moment on both clocks. It has passed when it has passed on
// either: a session ends early rather than late.
type Deadline struct {
	wall time.Time
	boot time.Duration
}

// After is the deadline d from now.
func After(c Clock, d time.Duration) Deadline {
	// The monotonic reading is dropped on purpose: it would hide a wall clock
	// that was set forward, and it stands still while the machine sleeps.
	return Deadline{wall: c.Wall().Round(0).Add(d), boot: c.Boot() + d}
}

// Remaining is the time left on the clock that says the least; never negative.
func (d Deadline) Remaining(c Clock) time.Duration {
	left := min(d.wall.Sub(c.Wall().Round(0)), d.boot-c.Boot())
	return max(left, 0)
}

// Passed reports whether either clock has reached the deadline.
func (d Deadline) Passed(c Clock) bool { return d.Remaining(c) == 0 }

// Wall is the deadline as a time of day, for people and for the handle.
func (d Deadline) Wall() time.Time { return d.wall }

// earlier is the deadline that passes when the first of the two does.
func (d Deadline) earlier(o Deadline) Deadline {
	if o.wall.Before(d.wall) {
		d.wall = o.wall
	}
	d.boot = min(d.boot, o.boot)
	return d
}
