//go:build !long

package daemon

const (
	// floodBytes is how much a command writes that is held to its limit.
	floodBytes uint64 = 256 << 20
	// openCalls is how many calls are opened at once: a seventh.
	openCalls = 1_500
	// clockSchedules is how often clocks are bent under a session: a fifth.
	clockSchedules = 100
	// faultStep is which of three calls' writes and syncs fail: of six, two, an
	// intent's and an outcome's.
	faultStep = 3
	// modelCalls is how many random calls the log is held to a model of: a tenth.
	modelCalls = 1_000
	// modelRunsOneIn is of how many of those that may run one does: a process is dear.
	modelRunsOneIn = 5
	// childEdits is how often grants are edited under an agent's passport: a tenth.
	childEdits = 1_000
	// executedAttacks is how many distinct values that a sample's parameter lets
	// through are executed, of 1,000 tried.
	executedAttacks = 3
	// stormSeeds is how many bad networks calls are made through.
	stormSeeds = 20
	// fuzzSeconds is how long a fuzzer stands in the place of the net half: five
	// minutes are meant.
	fuzzSeconds = 3
)
