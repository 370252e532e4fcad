package audit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"openscope/wire/checkpoint"
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
	// Open opens the files; nil means OpenFile. Tests make them fail here.
	Open func(path string) (File, error)
	// Rotate is the size at which a file of the log is full; zero means
	// [DefaultRotate].
	Rotate int64
	// Signer signs checkpoints, and Verifier believes those of before; without
	// a Signer there are none. KeyNote is what is to be said of the key to who
	// reads the checkpoints.
	Signer   note.Signer
	Verifier note.Verifier
	KeyNote  string
	// Copy, where it is set, is written every line before Append returns; without
	// it nothing is logged. The log closes it.
	Copy Copy
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
	open   func(path string) (File, error)
	limit  int64 // of a file
	signer note.Signer
	// verifier is the signer's own.
	verifier note.Verifier
	closed   chan struct{} // closed by Close
	// turn is held by who writes to the files. Whoever waits for it gives up
	// when another has written their entry too.
	turn chan struct{}

	// owned by who holds the turn
	copy     Copy // nil where there is none that is needed
	points   File // checkpoints
	tree     tree // over what is on the disk
	written  [32]byte
	last     checkpoint.Checkpoint
	lastMade time.Duration // boot clock

	// file is written under the turn, replaced under the turn and mu.
	file File

	// guarded by mu
	mu        sync.Mutex
	fileFirst uint64        // number of the first entry of file
	first     uint64        // number of the first entry of the file that the next line goes to
	size      int64         // what that file will have when all waiting lines are in it
	next      Entry         // the last entry there is a line for
	waiting   *batch        // lines that nobody has begun to write
	durable   int64         // bytes of file known to be on the disk; written under the turn too
	shownSeq  uint64        // last entry that anybody may see
	head      [32]byte      // hash of the last entry in them
	grown     chan struct{} // closed, and replaced, when durable grows
	err       error         // the first failure
}

// batch is the lines that one write and one sync make durable together.
type batch struct {
	lines []byte
	head  [32]byte
	seq   uint64 // of the last line
	// cut is where in lines a new file begins, with entry number cutFirst;
	// zero: none does. There is one at most.
	cut      int
	cutFirst uint64
	done     chan struct{} // closed when err is set for good
	err      error
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
	b := l.waiting
	if l.size >= l.limit && b.cutFirst == 0 {
		b.cut, b.cutFirst = len(b.lines), l.next.Seq+1
		r := l.rotation()
		l.first, l.size = b.cutFirst, 0
		l.put(b, r, wall)
	}
	l.put(b, e, wall)
	return b, l.next, nil
}

// put appends the event's line to the batch. mu is held.
func (l *Log) put(b *batch, e Event, wall time.Time) {
	record := Record{
		Event: e, Seq: l.next.Seq + 1, Prev: l.next.Hash,
		BootID: l.bootID, Wall: wall, Boot: max(0, l.boot()),
	}
	start := len(b.lines)
	b.lines = record.appendBody(b.lines)
	hash := hashOf(b.lines[start:])
	b.lines = append(appendHash(b.lines, hash), '\n')
	b.head, b.seq = hash, record.Seq
	l.next = Entry{Seq: record.Seq, Hash: hash}
	l.size += int64(len(b.lines) - start)
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
	if l.err != nil {
		b.err = l.failure()
	}
	l.mu.Unlock()
	if b.err == nil {
		b.err = l.commitLines(b)
	}
	l.settle(b)
}

// commitLines makes a batch durable: in the log, and under a checkpoint when
// one is due.
func (l *Log) commitLines(b *batch) error {
	old, lines := b.lines[:b.cut], b.lines[b.cut:]
	if b.cutFirst != 0 {
		if len(old) > 0 {
			if err := l.write(old); err != nil {
				return err
			}
		}
		if err := l.rotate(b.cutFirst); err != nil {
			return err
		}
	}
	if err := l.write(lines); err != nil {
		return err
	}
	if l.copy != nil {
		if err := l.copy.Write(b.lines); err != nil {
			return err
		}
	}
	if l.checkpointDue() {
		return l.checkpoint()
	}
	return nil
}

// settle makes the batch's fate known: first to the log, then to who waits.
func (l *Log) settle(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case b.err == nil:
		l.head = b.head
		l.shownSeq = b.seq
		close(l.grown)
		l.grown = make(chan struct{})
	case l.err == nil:
		l.err = b.err
	}
	close(b.done)
}

// write makes lines durable at the end of the file. The file is looked at
// before, so that nothing is added to one that is not the log any more, and
// after, because it may have been taken away in between.
func (l *Log) write(lines []byte) error {
	size := l.durable
	if err := intact(l.path, l.file, size); err != nil {
		return err
	}
	if err := writeAll(l.file, lines); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	size += int64(len(lines))
	if err := intact(l.path, l.file, size); err != nil {
		return err
	}
	for line := range bytes.Lines(lines) {
		l.tree.add(bytes.TrimSuffix(line, []byte("\n")), nil)
		l.written = hashIn(line)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = size
	return nil
}

// hashIn is the hash a line of ours ends with.
func hashIn(line []byte) (h [32]byte) {
	end := line[len(line)-1-len(`"}`)-2*len(h):]
	if _, err := hex.Decode(h[:], end[:2*len(h)]); err != nil {
		panic("audit: a line without a hash")
	}
	return h
}

// fail makes an error the log's own.
func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
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
	var err error
	l.mu.Lock()
	failed := l.err != nil
	l.mu.Unlock()
	if !failed {
		err = l.checkpoint() // nothing may be cut off what was logged
	}
	l.fail(ErrClosed)
	close(l.closed)
	err = errors.Join(err, l.file.Close())
	if l.points != nil {
		err = errors.Join(err, l.points.Close())
	}
	if l.copy != nil {
		err = errors.Join(err, l.copy.Close())
	}
	if err != nil {
		return fmt.Errorf("closing the log: %w", err)
	}
	return nil
}
