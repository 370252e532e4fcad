package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Config is what a log is made with. The zero Config is refused: it has no
// clocks.
type Config struct {
	// Wall is the time of day. Boot is the time since boot, counted through
	// suspend (CLOCK_BOOTTIME). Both are called with a lock held.
	Wall func() time.Time
	Boot func() time.Duration
	// BootID names the boot that Boot counts from; "" means the kernel's own
	// name for it.
	BootID string
	// Open opens the file; nil means OpenFile. Tests make it fail here.
	Open func(path string) (File, error)
}

// Entry is where an event came to stand.
type Entry struct {
	Seq  uint64
	Hash [32]byte
}

var (
	// ErrFailed is what Append returns after the first failure, with that
	// failure's own error: nothing more is logged until the log is opened anew.
	ErrFailed = errors.New("the log has failed")
	// ErrClosed is what Append returns after Close.
	ErrClosed = errors.New("the log is closed")
)

// Log is an open log. Its methods may be called from any goroutine.
type Log struct {
	// immutable
	path   string
	wall   func() time.Time
	boot   func() time.Duration
	bootID string
	file   File
	closed chan struct{} // closed by Close
	// turn is held by who writes to the file. Whoever waits for it gives up
	// when another has written their entry too.
	turn chan struct{}

	// guarded by mu
	mu      sync.Mutex
	next    Entry         // the last entry there is a line for
	waiting *batch        // lines that nobody has begun to write
	durable int64         // bytes of the file known to be on the disk
	head    [32]byte      // hash of the last entry in them
	grown   chan struct{} // closed, and replaced, when durable grows
	err     error         // the first failure
}

// batch is the lines that one write and one sync make durable together.
type batch struct {
	lines []byte
	head  [32]byte
	done  chan struct{} // closed when err is set for good
	err   error
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// Append writes the event to the log. It returns once the entry is on the
// disk. After an error nothing may be done on the event's behalf: its line may
// or may not be in the file, and every later Append fails.
func (l *Log) Append(e Event) (Entry, error) {
	b, entry, err := l.enqueue(e.bounded())
	if err != nil {
		return Entry{}, fmt.Errorf("appending to the log: %w", err)
	}
	select {
	case <-b.done:
	case l.turn <- struct{}{}:
		l.commit(b)
		<-l.turn
	}
	if b.err != nil {
		return Entry{}, fmt.Errorf("appending to the log: %w", b.err)
	}
	return entry, nil
}

// enqueue gives the event its place in the chain and its line a place in the
// next batch.
func (l *Log) enqueue(e Event) (*batch, Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, Entry{}, l.failure()
	}
	wall := l.wall().UTC()
	if year := wall.Year(); year < 0 || year > 9999 {
		return nil, Entry{}, fmt.Errorf("the wall clock says the year %d, which no reader could parse", year)
	}
	record := Record{
		Event: e, Seq: l.next.Seq + 1, Prev: l.next.Hash,
		BootID: l.bootID, Wall: wall, Boot: max(0, l.boot()),
	}
	b := l.waiting
	start := len(b.lines)
	b.lines = record.appendBody(b.lines)
	hash := hashOf(b.lines[start:])
	b.lines = append(appendHash(b.lines, hash), '\n')
	b.head = hash
	l.next = Entry{Seq: record.Seq, Hash: hash}
	return b, l.next, nil
}

// commit writes the waiting batch, unless somebody has. The turn is held, and
// b, if it is not done, is the waiting batch: only commit takes one away.
func (l *Log) commit(b *batch) {
	select {
	case <-b.done:
		return
	default:
	}
	l.mu.Lock()
	l.waiting = newBatch()
	size := l.durable
	if l.err != nil {
		b.err = l.failure()
	}
	l.mu.Unlock()
	if b.err == nil {
		b.err = l.write(b.lines, size)
	}
	l.settle(b)
}

// settle makes the batch's fate known: first to the log, then to who waits.
func (l *Log) settle(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case b.err == nil:
		l.durable += int64(len(b.lines))
		l.head = b.head
		close(l.grown)
		l.grown = make(chan struct{})
	case l.err == nil:
		l.err = b.err
	}
	close(b.done)
}

// write makes lines durable at the end of a file of this size. The file is
// looked at before, so that nothing is added to one that is not the log any
// more, and after, because it may have been taken away in between.
func (l *Log) write(lines []byte, size int64) error {
	if err := intact(l.path, l.file, size); err != nil {
		return err
	}
	if err := writeAll(l.file, lines); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	return intact(l.path, l.file, size+int64(len(lines)))
}

func (l *Log) failure() error {
	if errors.Is(l.err, ErrClosed) {
		return l.err
	}
	return fmt.Errorf("%w: %w", ErrFailed, l.err)
}

// Err is why nothing more can be appended; nil while the log is good.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Head is the hash of the last entry on the disk; zeros in an empty log.
func (l *Log) Head() [32]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Close ends the log: what is being written is finished, what only waits
// fails. It gives up the lock. Calling it again does nothing.
func (l *Log) Close() error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	select {
	case <-l.closed:
		return nil
	default:
	}
	l.mu.Lock()
	if l.err == nil {
		l.err = ErrClosed
	}
	l.mu.Unlock()
	close(l.closed)
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("closing the log: %w", err)
	}
	return nil
}

// Recovery is what Open found at the end of the file. A torn line is the
// beginning of an entry whose Append never returned: nothing was done on its
// behalf.
type Recovery struct {
	Torn     bool
	Bytes    int64  // of the torn line
	SetAside string // the file they were put into, beside the log
}

// Open opens the log at path for appending, and makes it where there is none.
// It reads the last line only: whether all before it is unharmed is for
// [Verify] to say. A last line without its newline is moved to a file of its
// own beside the log, and the first new entry (KindTorn) names it. A last line
// that is whole and wrong is a *BadEntry: such a log is not carried on.
func Open(path string, cfg Config) (*Log, Recovery, error) {
	l, recovery, err := open(path, cfg)
	if err != nil {
		return nil, recovery, fmt.Errorf("opening the log: %w", err)
	}
	return l, recovery, nil
}

func open(path string, cfg Config) (*Log, Recovery, error) {
	l, err := newLog(path, cfg)
	if err != nil {
		return nil, Recovery{}, err
	}
	recovery, err := l.recover()
	if err == nil && recovery.Torn {
		_, err = l.Append(recovery.event())
	}
	if err != nil {
		return nil, recovery, errors.Join(err, l.file.Close())
	}
	return l, recovery, nil
}

func newLog(path string, cfg Config) (*Log, error) {
	if cfg.Wall == nil || cfg.Boot == nil {
		return nil, errors.New("the configuration has no clocks")
	}
	if cfg.Open == nil {
		cfg.Open = OpenFile
	}
	if cfg.BootID == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("reading the boot's id: %w", err)
		}
		cfg.BootID = strings.TrimSpace(string(id))
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	file, err := cfg.Open(path)
	if err != nil {
		return nil, err
	}
	return &Log{
		path: path, wall: cfg.Wall, boot: cfg.Boot, bootID: clip(cfg.BootID), file: file,
		closed: make(chan struct{}), turn: make(chan struct{}, 1),
		waiting: newBatch(), grown: make(chan struct{}),
	}, nil
}
