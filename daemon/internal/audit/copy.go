package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Copy is a second place for the log's lines, beside the log and never in place
// of it: it is written only what the log has on the disk. A log that is opened
// with one in its Config needs it, and fails when it does; [Log.Follow] keeps one
// that may fail.
type Copy interface {
	// Last is the last entry the copy has, where it can tell; the zero Entry where
	// it has none or cannot.
	Last() Entry
	// Write adds whole lines, and returns once they are as safe as they get there.
	Write(lines []byte) error
	Close() error
}

// ErrCopyDiffers means that a copy has an entry that the log does not have: one
// of the two was changed, or cut off.
var ErrCopyDiffers = errors.New("the log and its copy do not agree")

// FileCopy is a copy in a file, best on another machine's disk. It is kept as
// the log's own file is: rotated at the same size, locked, its owner's alone.
type FileCopy struct {
	path  string
	limit int64
	file  File
	size  int64
	last  Entry
	first uint64 // number of the first entry of file; 0 while it has none
}

// OpenFileCopy opens the copy at path and makes it where there is none. What a
// crash tore is cut off: the log has it.
func OpenFileCopy(path string, rotate int64) (*FileCopy, error) {
	if rotate == 0 {
		rotate = DefaultRotate
	}
	file, err := OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening the log's copy: %w", err)
	}
	c := &FileCopy{path: path, limit: rotate, file: file}
	if err := c.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the log's copy: %s: %w", path, err), file.Close())
	}
	return c, nil
}

func (c *FileCopy) recover() error {
	info, err := c.file.Stat()
	if err != nil {
		return err
	}
	if c.size, err = scanBack(c.file, info.Size(), 1); err != nil {
		return err
	}
	if c.size < info.Size() {
		if err := c.file.Truncate(c.size); err != nil {
			return err
		}
	}
	for record, err := range Read(io.NewSectionReader(c.file, 0, c.size)) {
		if err != nil {
			return err
		}
		c.first = record.Seq
		break
	}
	start, err := scanBack(c.file, c.size, 2)
	if err != nil {
		return err
	}
	for record, err := range Read(io.NewSectionReader(c.file, start, c.size-start)) {
		if err != nil {
			return err
		}
		c.last = Entry{Seq: record.Seq, Hash: record.Hash}
	}
	return c.continueBefore()
}

// continueBefore finds the copy's end where a crash came after a rotation: in
// the file before.
func (c *FileCopy) continueBefore() error {
	if c.size > 0 {
		return nil
	}
	files, err := segments(c.path)
	if err != nil {
		return err
	}
	for _, s := range files {
		if s.first == 0 {
			continue
		}
		before, err := lastOf(s)
		if err != nil {
			return err
		}
		c.last = Entry{Seq: before.Seq, Hash: before.Hash}
	}
	return nil
}

// Last implements Copy.
func (c *FileCopy) Last() Entry { return c.last }

// Write implements Copy: the lines are on the disk when it returns.
func (c *FileCopy) Write(lines []byte) error {
	if err := c.write(lines); err != nil {
		return fmt.Errorf("writing the log's copy: %w", err)
	}
	return nil
}

func (c *FileCopy) write(lines []byte) error {
	if err := intact(c.path, c.file, c.size); err != nil {
		return err
	}
	if c.size >= c.limit {
		if err := c.rotate(); err != nil {
			return err
		}
	}
	if err := writeAll(c.file, lines); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return err
	}
	c.size += int64(len(lines))
	return c.note(lines)
}

// note remembers where the copy begins and ends.
func (c *FileCopy) note(lines []byte) error {
	for line := range bytes.Lines(lines) {
		record, err := parseLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return err
		}
		if c.first == 0 {
			c.first = record.Seq
		}
		c.last = Entry{Seq: record.Seq, Hash: record.Hash}
	}
	return nil
}

func (c *FileCopy) rotate() error {
	if err := os.Rename(c.path, rotatedName(c.path, c.first)); err != nil {
		return err
	}
	file, err := OpenFile(c.path)
	if err != nil {
		return err
	}
	err = errors.Join(c.file.Close(), syncFolder(c.path))
	c.file, c.size, c.first = file, 0, 0
	return err
}

// Close implements Copy.
func (c *FileCopy) Close() error { return c.file.Close() }

// SyslogCopy is a copy in the machine's system log.
type SyslogCopy struct {
	path string
	conn net.Conn
	tag  string
}

const (
	// syslogPriority is facility authpriv, severity notice.
	syslogPriority = 10<<3 | 5
	// syslogPatience is how long the system log may take for a line.
	syslogPatience = 2 * time.Second
	// maxSyslog is what every system log takes whole. Of a longer line its place in
	// the log and its hash are sent.
	maxSyslog = 8000
)

// NewSyslogCopy is a copy in the system log that listens at this socket; it is
// reached when there is something to write.
func NewSyslogCopy(path string) *SyslogCopy {
	return &SyslogCopy{path: path, tag: fmt.Sprintf("<%d>openscope[%d]: ", syslogPriority, os.Getpid())}
}

// Last implements Copy: a system log does not tell.
func (c *SyslogCopy) Last() Entry { return Entry{} }

// Write implements Copy. A system log that was restarted is reached anew.
func (c *SyslogCopy) Write(lines []byte) error {
	for line := range bytes.Lines(lines) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) > maxSyslog {
			record, err := parseLine(line)
			if err != nil {
				return fmt.Errorf("writing the system log: %w", err)
			}
			line = fmt.Appendf(nil, `{"seq":%d,"kind":%q,"session":%q,"too_long":%d,"hash":"%x"}`,
				record.Seq, record.Kind, record.Session, len(line), record.Hash)
		}
		if err := c.send(line); err != nil {
			return fmt.Errorf("writing the system log: %w", err)
		}
	}
	return nil
}

func (c *SyslogCopy) send(line []byte) error {
	message := append([]byte(c.tag), line...)
	if c.conn != nil {
		if err := c.try(message); err == nil {
			return nil
		}
		_ = c.conn.Close() // it is of no use any more
		c.conn = nil
	}
	conn, err := net.DialTimeout("unixgram", c.path, syslogPatience)
	if err != nil {
		return err
	}
	c.conn = conn
	return c.try(message)
}

func (c *SyslogCopy) try(message []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(syslogPatience)); err != nil {
		return err
	}
	_, err := c.conn.Write(message)
	return err
}

// Close implements Copy.
func (c *SyslogCopy) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// catchUp gives a copy what the log has and it does not, and finds out whether
// the two agree on where it ends.
func (l *Log) catchUp(c Copy) error {
	last := c.Last()
	if last.Seq == 0 {
		return nil // it begins with what is logged next
	}
	if last.Seq > l.next.Seq {
		return fmt.Errorf("%w: the copy has entry %d, and the log ends with %d", ErrCopyDiffers, last.Seq, l.next.Seq)
	}
	want := last.Seq
	for record, err := range linesFrom(l.path, last.Seq) {
		if err != nil {
			return err
		}
		if record.Seq != want || record.Seq == last.Seq && record.Hash != last.Hash {
			return fmt.Errorf("%w: entry %d is another one in each", ErrCopyDiffers, want)
		}
		want++
		if record.Seq == last.Seq {
			continue
		}
		if err := c.Write(append(record.Line(), '\n')); err != nil {
			return err
		}
	}
	return nil
}

// followRetry is how long a copy that failed is left alone.
const followRetry = 5 * time.Second

// Follow keeps a copy that the log can do without: it writes what is on the
// disk, behind the log and never in its way, until the log is closed or ctx
// ends. tell is told when the copy fails, and with nil when it is written again;
// what it missed meanwhile it is given then.
func (l *Log) Follow(ctx context.Context, c Copy, tell func(error)) {
	from, failing := c.Last().Seq+1, false
	if c.Last().Seq == 0 {
		from = l.progress().seq + 1
	}
	for {
		var failed error
		for record, err := range l.tailFrom(ctx, from, true) {
			if failed = err; err == nil {
				failed = c.Write(append(record.Line(), '\n'))
			}
			if failed != nil {
				break
			}
			from = record.Seq + 1
			if failing {
				failing = false
				tell(nil)
			}
		}
		if failed == nil {
			return
		}
		if !failing {
			failing = true
			tell(failed)
		}
		select {
		case <-time.After(followRetry):
		case <-l.closed:
			return
		case <-ctx.Done():
			return
		}
	}
}
