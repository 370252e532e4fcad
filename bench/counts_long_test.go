//go:build long

package bench

import "time"

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
)
