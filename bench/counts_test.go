//go:build !long

package bench

import "time"

const (
	// agreements is how many handshakes both implementations must agree on: a tenth.
	agreements = 1_000
	// hpkeRounds is how many contexts circl and Go must agree on, each way and for
	// each KEM: a fifth.
	hpkeRounds = 500
	// revokes is how many sessions are revoked, each in the middle of something: a half.
	revokes = 50
	// lifetimes is how many sessions are let run to their end by the machine's clocks: a tenth.
	lifetimes = 30
	// daemonKills is how often a daemon is killed in the middle of a session: a third.
	daemonKills = 6
	// callEvery is which of the sayings of TestACallIsJudgedTheSameHoweverItIsSaid
	// the call command gets: each costs a process and a handshake.
	callEvery = 10
	// orderedCalls is how many calls are watched by strace: a tenth.
	orderedCalls = 20
	// streamed is how many bytes go through one call.
	streamed = 64 << 20
	// disturbances is how often a node of a fleet, or a server of its tokens, is
	// killed or restarted: a tenth.
	disturbances = 3
	disturbEvery = 4 * time.Second
	// lossTime is how long calls are made on a bad network, lossSteps how many
	// seconds the slow ones take.
	lossTime  = time.Second
	lossSteps = 2
	// netKills is how often the net half is killed under running calls: a tenth.
	netKills = 20
	// rebindings is how often a port is forgotten in each stream: 6 of 51 in all.
	rebindings = 2
	// outages is how often each thing happens to a client's network, and longestOutage how long one is.
	outages       = 1
	longestOutage = 8 * time.Second
	// clientKills is how often a client is killed in the middle of a call: a twentieth.
	clientKills = 10
	// restartSessions is how many sessions run a call each while their relay is
	// killed every so often.
	restartSessions = 3
	restartEvery    = 6 * time.Second
	restartLines    = 40 // of each call, four a second
)

// restartLength is for how long: two kills.
func restartLength() time.Duration { return 7 * time.Second }
