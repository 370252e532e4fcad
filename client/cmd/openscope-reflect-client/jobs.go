package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"openscope/wire/term"
)

// jobs are the calls that run behind the prompt.
type jobs struct {
	mu      sync.Mutex // guards what is below
	running []*job
	next    int
	all     sync.WaitGroup
}

type job struct {
	number int
	line   string
	began  time.Time
	cancel context.CancelFunc
	bytes  atomic.Uint64
}

// maxJobs bounds them; the daemon allows fewer calls at once.
const maxJobs = 16

// start runs a call behind the prompt. run writes to the given writer, which
// puts the job's number before each line, and returns how it ended.
func (j *jobs) start(ctx context.Context, screen io.Writer, line string, run func(context.Context, *job) error) error {
	ctx, cancel := context.WithCancel(ctx)
	j.mu.Lock()
	if len(j.running) == maxJobs {
		j.mu.Unlock()
		cancel()
		return fmt.Errorf("%d calls run already", maxJobs)
	}
	j.next++
	started := &job{number: j.next, line: line, began: time.Now(), cancel: cancel}
	j.running = append(j.running, started)
	j.mu.Unlock()
	fmt.Fprintf(screen, "[%d] %s\n", started.number, term.Clean(line))
	j.all.Go(func() {
		defer cancel()
		err := run(ctx, started)
		j.mu.Lock()
		j.running = slices.DeleteFunc(j.running, func(r *job) bool { return r == started })
		j.mu.Unlock()
		ended := "done"
		if err != nil {
			ended = term.Clean(err.Error())
		}
		fmt.Fprintf(screen, "[%d] %s: %s\n", started.number, term.Clean(line), ended)
	})
	return nil
}

// print lists what runs.
func (j *jobs) print(w io.Writer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.running) == 0 {
		fmt.Fprintln(w, "nothing runs; a call with & behind it runs while you go on")
	}
	for _, r := range j.running {
		fmt.Fprintf(w, "[%d] %s in %s  %s\n", r.number, size(r.bytes.Load()), time.Since(r.began).Round(time.Second), term.Clean(r.line))
	}
}

// cancel cancels one job by its number.
func (j *jobs) cancel(number string) error {
	n, err := strconv.Atoi(number)
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.IndexFunc(j.running, func(r *job) bool { return r.number == n })
	if err != nil || i < 0 {
		return fmt.Errorf("no job %.20q runs; see: jobs", number)
	}
	j.running[i].cancel()
	return nil
}

func (j *jobs) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.running)
}

// wait returns when none runs any more.
func (j *jobs) wait() { j.all.Wait() }

// numbered writes whole lines, each behind the job's number: two calls may write
// to one terminal, and a line is being typed there.
type numbered struct {
	to   io.Writer
	job  *job
	line bytes.Buffer
}

// maxJobLine is how long a line may get before it is broken.
const maxJobLine = 4096

func (n *numbered) Write(p []byte) (int, error) {
	n.job.bytes.Add(uint64(len(p)))
	for _, b := range p {
		if b != '\n' {
			n.line.WriteByte(b)
		}
		if b == '\n' || n.line.Len() == maxJobLine {
			if err := n.write(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (n *numbered) write() error {
	text := fmt.Sprintf("[%d] %s\n", n.job.number, term.Clean(n.line.String()))
	n.line.Reset()
	_, err := io.WriteString(n.to, text)
	return err
}

// flush writes what is left of a last line.
func (n *numbered) flush() {
	if n.line.Len() > 0 {
		_ = n.write() // as for any other line, a terminal that is gone shows elsewhere
	}
}
