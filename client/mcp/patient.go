package mcp

import (
	"io"
	"time"
)

// A host that hangs up ends the calls it made. One that is a pipe has hung up
// before the first answer (printf ... | client mcp): what it asked is given a
// moment, no more, since nobody may be there to read it.
const (
	patience      = 2 * time.Second
	patienceQuiet = 100 * time.Millisecond // without a call: none is on its way to start
	patienceTick  = 25 * time.Millisecond
)

// patient reads from a host, and holds its end back for that moment.
type patient struct {
	from  io.ReadCloser
	busy  func() bool
	quiet time.Duration
	quit  <-chan struct{}
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	if err == nil || n > 0 {
		return n, nil
	}
	tick := time.NewTicker(patienceTick)
	defer tick.Stop()
	for began, quiet := time.Now(), time.Now(); time.Since(began) < patience && time.Since(quiet) < p.quiet; {
		if p.busy() {
			quiet = time.Now()
		}
		select {
		case <-tick.C:
		case <-p.quit:
			return 0, err
		}
	}
	return 0, err
}

func (p *patient) Close() error { return p.from.Close() }
