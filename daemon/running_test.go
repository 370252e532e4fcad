package daemon

import (
	"sync"
	"sync/atomic"
	"testing"
)

// What begins beside somebody who waits is no race, and is waited for by whoever
// waits afterwards.
func TestACallMayBeginWhileSomebodyWaitsForTheLast(t *testing.T) {
	t.Parallel()
	var calls running
	var ended atomic.Int64
	var both sync.WaitGroup
	const begun = 1000
	both.Go(func() {
		for range begun {
			calls.Go(func() { ended.Add(1) })
		}
	})
	both.Go(func() {
		for range begun {
			calls.Wait()
		}
	})
	both.Wait()
	calls.Wait()
	if ended.Load() != begun {
		t.Errorf("%d of %d have ended", ended.Load(), begun)
	}
}

func TestWhoWaitsForCallsWaitsForAll(t *testing.T) {
	t.Parallel()
	var calls running
	<-calls.idle() // nothing runs
	calls.begin()
	calls.begin()
	idle := calls.idle()
	calls.end()
	select {
	case <-idle:
		t.Error("one of two still runs")
	default:
	}
	calls.end()
	<-idle
	calls.begin()
	select {
	case <-calls.idle():
		t.Error("another has begun")
	default:
	}
	calls.end()
}
