//go:build long

package daemon

const (
	floodBytes      uint64 = 10 << 30
	openCalls              = 10_000
	clockSchedules         = 500
	childEdits             = 10_000
	executedAttacks        = 1_000
	stormSeeds             = 5_000
	faultStep              = 1
	modelCalls             = 10_000
	modelRunsOneIn         = 1
	fuzzSeconds            = 300
)
