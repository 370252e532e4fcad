//go:build long

package bench

import (
	"flag"
	"time"
)

const (
	agreements    = 1_000_000
	hpkeRounds    = 250_000 // 10^6 in all
	revokes       = 1_000
	lifetimes     = 300
	daemonKills   = 200
	callEvery     = 1
	orderedCalls  = 200
	streamed      = 1 << 30
	disturbances  = 30 // ten minutes
	disturbEvery  = 20 * time.Second
	lossTime      = 10 * time.Minute
	lossSteps     = 10
	netKills      = 200
	rebindings    = 17
	outages       = 12
	longestOutage = 50 * time.Second

	clientKills     = 200
	restartSessions = 8
	restartEvery    = 20 * time.Second
	restartLines    = 120
)

// length is how long those tests take that are as good as they are long:
// go test -tags=long ./bench -run … -args -length=1h
var length = flag.Duration("length", 10*time.Minute, "of the tests that go on for as long as one likes")

func restartLength() time.Duration { return *length }
