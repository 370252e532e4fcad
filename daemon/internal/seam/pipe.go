package seam

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Bounds of a pipe.
const (
	// stallAfter is how long the other end may take nothing.
	stallAfter = 5 * time.Second
	// maxQueued is how much may wait to be written: many times what honest halves
	// have on their way.
	maxQueued = 64 << 20
	// maxAsked is how many requests the net half may have open; beyond it waits
	// for one of them. For the core, who asks for output, each call has its own.
	maxAsked = 512
	// maxWaiting is how many requests may be open that were given up, or not.
	maxWaiting = 16 << 10
)

// errEnded is why a request is not answered: the pipe is gone.
var errEnded = errors.New("the other half is gone")

// pipe is one end: messages out, messages in, and the requests that wait for an
// answer. Sending never waits, unless the sender says that it may; reading does
// not wait for whatever a message leads to.
type pipe struct {
	conn net.Conn
	// takes is how long a body of this kind may be, if it may come at all.
	takes func(k kind) (most int, ok bool)
	// handle takes a message that is no answer. It must not wait. The body is its.
	handle func(k kind, id uint32, body []byte) error
	done   chan struct{} // closed when the pipe has ended

	mu      sync.Mutex
	wake    chan struct{} // buffered: there is something to write
	queue   net.Buffers
	queued  int
	writing bool // by whoever sends, in the writer's place
	waiting map[uint32]*request
	next    uint32
	err     error
}

// request is one of our own that is not answered yet.
type request struct {
	kind   kind
	answer chan []byte // takes one
}

func newPipe(conn net.Conn, takes func(kind) (int, bool)) *pipe {
	return &pipe{conn: conn, takes: takes, done: make(chan struct{}), wake: make(chan struct{}, 1), waiting: make(map[uint32]*request)}
}

// run reads until the pipe ends, and says why; its writer has ended then too.
func (p *pipe) run() error {
	var writer sync.WaitGroup
	writer.Go(p.write)
	err := p.read()
	p.fail(err)
	writer.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// fail ends the pipe; the first reason counts.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	p.err = err
	p.queue, p.queued = nil, 0
	close(p.done)
	_ = p.conn.Close()
}

func (p *pipe) read() error {
	in := bufio.NewReaderSize(p.conn, 32<<10)
	var head [frameHead]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		size, k, id := binary.BigEndian.Uint32(head[:]), kind(head[4]), binary.BigEndian.Uint32(head[5:])
		most, ok := p.takes(k)
		if k&answerBit != 0 {
			most, ok = maxAnswer, true
		}
		if !ok || size < frameHead-4 || size-(frameHead-4) > uint32(most) {
			return fmt.Errorf("%w: kind %d of %d bytes", errMessage, k, size)
		}
		body := newBody(int(size - (frameHead - 4)))
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		if err := p.dispatch(k, id, body); err != nil {
			return err
		}
	}
}

func (p *pipe) dispatch(k kind, id uint32, body []byte) error {
	if k&answerBit != 0 {
		return p.answered(k&^answerBit, id, body)
	}
	if k != kindAbort && asks[k] != (id != 0) {
		return fmt.Errorf("%w: kind %d with id %d", errMessage, k, id)
	}
	return p.handle(k, id, body)
}

func (p *pipe) answered(k kind, id uint32, body []byte) error {
	p.mu.Lock()
	r := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	if r == nil || r.kind != k {
		return fmt.Errorf("%w: an answer to nothing", errMessage)
	}
	r.answer <- body
	return nil
}

// frame begins a message, which send completes.
func frame(k kind, id uint32, room int) encoder {
	e := encoder(newBody(frameHead + room)[:0])
	return e.u32(0).byte(byte(k)).u32(id)
}

// send queues a message. Whoever may wait writes it in person where nobody else
// writes: that saves waking somebody.
func (p *pipe) send(e encoder, mayWait bool) error {
	binary.BigEndian.PutUint32(e, uint32(len(e)-4))
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return errEnded
	}
	if p.queued += len(e); p.queued > maxQueued {
		p.mu.Unlock()
		p.fail(errors.New("too much waits to be written"))
		return errEnded
	}
	p.queue = append(p.queue, e)
	if !mayWait || p.writing {
		p.mu.Unlock()
		p.wakeWriter()
		return nil
	}
	p.flush()
	return nil
}

func (p *pipe) wakeWriter() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// write is the writer: it writes what is queued until the pipe ends.
func (p *pipe) write() {
	for {
		select {
		case <-p.done:
			return
		case <-p.wake:
		}
		p.mu.Lock()
		if p.writing {
			p.mu.Unlock() // whoever writes looks again
			continue
		}
		p.flush()
	}
}

// flush writes until nothing is queued. The lock is held, and not any more when
// it returns.
func (p *pipe) flush() {
	p.writing = true
	for len(p.queue) > 0 && p.err == nil {
		queue, size := p.queue, p.queued
		p.queue = nil
		p.mu.Unlock()
		err := p.conn.SetWriteDeadline(time.Now().Add(stallAfter))
		if err == nil {
			written := append(net.Buffers(nil), queue...) // writing consumes them
			_, err = written.WriteTo(p.conn)
		}
		for _, b := range queue {
			freeBody(b)
		}
		if err != nil {
			p.fail(fmt.Errorf("writing: %w", err))
		}
		p.mu.Lock()
		p.queued -= size
	}
	p.writing = false
	p.mu.Unlock()
}

// ask sends a request: what begin returned, with its id put in.
func (p *pipe) ask(k kind, e encoder, mayWait bool) (uint32, *request, error) {
	r := &request{kind: k, answer: make(chan []byte, 1)}
	p.mu.Lock()
	if len(p.waiting) >= maxWaiting {
		p.mu.Unlock()
		p.fail(errors.New("too many requests are not answered"))
		return 0, nil, errEnded
	}
	for p.next++; p.next == 0 || p.waiting[p.next] != nil; p.next++ {
	}
	id := p.next
	p.waiting[id] = r
	p.mu.Unlock()
	binary.BigEndian.PutUint32(e[5:], id)
	return id, r, p.send(e, mayWait)
}

// reply answers a request of the other end.
func (p *pipe) reply(k kind, id uint32, fill func(encoder) encoder) {
	// A pipe that has ended needs no answers.
	_ = p.send(fill(frame(k|answerBit, id, 128)), true)
}

// bodies are buffers for messages that carry output.
var bodies = sync.Pool{New: func() any { b := make([]byte, frameHead+33+MaxChunk); return &b }}

// small is what is not worth being kept.
const small = 4 << 10

func newBody(n int) []byte {
	if n <= small || n > frameHead+33+MaxChunk {
		return make([]byte, n)
	}
	return (*bodies.Get().(*[]byte))[:n]
}

// freeBody gives a buffer back that nobody looks at any more.
func freeBody(b []byte) {
	if cap(b) == frameHead+33+MaxChunk {
		b = b[:cap(b)]
		bodies.Put(&b)
	}
}
