package relay

import (
	"cmp"
	"container/list"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"

	"openscope/wire/tunnel"
)

// Two bounds hold for the whole relay, beyond those of each peer. What a peer
// makes the relay hold by not reading is counted before it is held: a direction
// whose writer waits may hold its whole window. Everything else that QUIC keeps,
// such as bytes sent and never acknowledged, is measured, and made to end.

// heldBy is what a direction can hold while its reader does not read.
const heldBy = tunnel.Window + pieceSize

// budget is the directions whose writer waits, longest first.
type budget struct {
	most int

	mu      sync.Mutex // guards what is below
	waiting list.List  // of tunnel.Stream
}

func newBudget(bytes int64) *budget { return &budget{most: int(max(bytes/heldBy, 1))} }

// begin counts a write to dst that may wait. Beyond the budget the one that has
// waited longest ends: who reads, however slowly, has not waited long.
func (b *budget) begin(dst tunnel.Stream) (waits *list.Element, ended bool) {
	b.mu.Lock()
	waits = b.waiting.PushBack(dst)
	var longest tunnel.Stream
	if b.waiting.Len() > b.most {
		longest = b.waiting.Remove(b.waiting.Front()).(tunnel.Stream)
	}
	b.mu.Unlock()
	if longest == nil {
		return waits, false
	}
	longest.CancelWrite(tunnel.CodeDone)
	return waits, true
}

func (b *budget) end(waits *list.Element) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting.Remove(waits) // nothing, if it was ended
}

// shedPart of the legs ends each time that too much memory is in use.
const shedPart = 16

// guard looks what the process holds, refuses newcomers while it is too much,
// and ends the legs that the most was forwarded for: they can have made it hold
// the most. Where there is none left, daemons go.
func (r *Relay) guard() {
	over := r.cfg.Memory() > r.cfg.Limits.Memory
	r.door.close(over)
	if !over {
		return
	}
	heaviest := r.registry.heaviest(shedPart)
	r.counters.shed.Add(uint64(len(heaviest)))
	r.logger.Warn("too much memory in use", "limit", r.cfg.Limits.Memory, "ended", len(heaviest))
	for _, conn := range heaviest {
		r.children.Go(func() { conn.Close(tunnel.CodeDone) }) // it may take its time
	}
	runtime.GC() // what was let go is counted only then
}

// memoryInUse is what the last collection found alive, and all stacks.
func memoryInUse() int64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			sum += s.Value.Uint64()
		}
	}
	return int64(sum)
}

// heaviest is the connections of one in so many legs, at least one: those that
// most was forwarded for.
func (g *registry) heaviest(part int) []tunnel.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	var legs []*leg
	for _, s := range g.sessions {
		legs = append(legs, s.legs...)
	}
	slices.SortFunc(legs, func(a, b *leg) int { return cmp.Compare(b.forwarded.Load(), a.forwarded.Load()) })
	var all []tunnel.Conn
	for _, l := range legs[:(len(legs)+part-1)/part] {
		all = append(all, l.conn)
	}
	if len(legs) > 0 {
		return all
	}
	for d := range g.daemons {
		return append(all, d.conn)
	}
	return nil
}
