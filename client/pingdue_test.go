package client

import (
	"testing"
	"time"
)

func TestOnlyAStreamThatStopsIsAskedAfterAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		v     vitals
		since time.Duration
		due   bool
	}{
		"idle":                            {vitals{silence: 20 * time.Second}, time.Minute, false},
		"idle, and the daemon says less":  {vitals{silence: 31 * time.Second}, time.Minute, true},
		"a call that has just been asked": {vitals{busy: true, silence: 2 * time.Second}, 2 * time.Second, false},
		"a call that is quiet":            {vitals{busy: true, silence: 2 * time.Second}, 3 * time.Second, true},
		"a stream that goes on":           {vitals{busy: true, streaming: true, silence: 300 * time.Millisecond}, 2 * time.Second, false},
		"a stream that stops":             {vitals{busy: true, streaming: true, silence: 500 * time.Millisecond}, 2 * time.Second, true},
		"a stream that was just asked":    {vitals{busy: true, streaming: true, silence: 500 * time.Millisecond}, 300 * time.Millisecond, false},
	} {
		if due := c.v.pingDue(c.since); due != c.due {
			t.Errorf("%s: due %v", name, due)
		}
	}
}
