package daemon

import "sync"

// running counts what runs. Unlike with a sync.WaitGroup, something may begin while
// somebody waits for the last to end: a connection may be entered in the moment in
// which the daemon goes down. The zero value counts nothing.
type running struct {
	mu    sync.Mutex // guards what is below
	count int
	none  chan struct{} // closed when count is zero again; nil while it is
}

func (r *running) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count++; r.count == 1 {
		r.none = make(chan struct{})
	}
}

func (r *running) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count--; r.count == 0 {
		close(r.none)
		r.none = nil
	}
}

// Go runs f in a goroutine.
func (r *running) Go(f func()) {
	r.begin()
	go func() {
		defer r.end()
		f()
	}()
}

// idle is closed once nothing of what runs now, or has begun meanwhile, runs.
func (r *running) idle() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.none != nil {
		return r.none
	}
	none := make(chan struct{})
	close(none)
	return none
}

// Wait returns once nothing runs.
func (r *running) Wait() { <-r.idle() }
