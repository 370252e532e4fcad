package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	xterm "golang.org/x/term"

	"openscope/wire/term"
)

// console is the prompt on a terminal. The terminal is raw only while a line is
// typed: a call that runs in the foreground has an ordinary one, with its
// interrupts.
//
// x/term is enough for it: completion, history, and writing above a line that is
// being typed; and it is linked already.
type console struct {
	fd     int
	screen *os.File
	line   *xterm.Terminal
	prompt func() string

	mu     sync.Mutex // guards what is below, and what is written
	typing bool
	cooked *xterm.State
}

// promptRhythm is how often the countdown in the prompt is looked at.
const promptRhythm = time.Second

// newConsole is a console where standard input and standard error are the
// terminal, else nil.
func newConsole(env *term.Env, input *bufio.Reader, history xterm.History, complete func(line string, pos int) (string, int, []string)) *console {
	in, inOK := env.Stdin.(*os.File)
	screen, outOK := env.Stderr.(*os.File)
	if !inOK || !outOK || !term.IsTerminal(in) || !term.IsTerminal(screen) || speakEscapes(screen) != nil {
		return nil // lines are read as they come
	}
	c := &console{fd: int(in.Fd()), screen: screen}
	c.line = xterm.NewTerminal(struct {
		io.Reader
		io.Writer
	}{&keys{from: input}, screen}, "")
	c.line.History = history
	c.line.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		text, at, several := complete(line, pos)
		if len(several) > 0 {
			fmt.Fprintln(c, columns(several))
		}
		return text, at, true
	}
	return c
}

// readLine is the next line that is typed, io.EOF at Ctrl-D.
func (c *console) readLine() (string, error) {
	cooked, err := xterm.MakeRaw(c.fd)
	if err != nil {
		return "", fmt.Errorf("preparing the terminal: %w", err)
	}
	if width, height, err := xterm.GetSize(int(c.screen.Fd())); err == nil && width > 0 && height > 0 {
		_ = c.line.SetSize(width, height)
	}
	c.mu.Lock()
	c.cooked, c.typing = cooked, true
	c.line.SetPrompt(c.prompt())
	c.mu.Unlock()
	line, err := c.line.ReadLine()
	c.restore()
	if err == io.EOF {
		fmt.Fprintln(c.screen)
	}
	return line, err
}

// restore gives the terminal back as it was.
func (c *console) restore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cooked != nil {
		_ = xterm.Restore(c.fd, c.cooked)
	}
	c.cooked, c.typing = nil, false
}

// leave is restore for whoever ends while a line is being typed.
func (c *console) leave() {
	c.mu.Lock()
	typing := c.typing
	c.mu.Unlock()
	c.restore()
	if typing {
		fmt.Fprintln(c.screen)
	}
}

// Write writes above the line that is being typed, if one is.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.typing {
		return c.line.Write(p)
	}
	return c.screen.Write(p)
}

// countDown keeps the prompt true while it stands there.
func (c *console) countDown(ctx context.Context) {
	tick := time.NewTicker(promptRhythm)
	defer tick.Stop()
	shown := c.prompt()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := c.prompt()
		if now == shown {
			continue
		}
		shown = now
		c.mu.Lock()
		if c.typing {
			c.line.SetPrompt(now)
			_, _ = c.line.Write(nil) // draws the prompt and the line anew
		}
		c.mu.Unlock()
	}
}

// keys makes Ctrl-C empty the line: to x/term it would be the end of the input.
type keys struct {
	from *bufio.Reader
	rest []byte
}

const (
	ctrlC     = 0x03
	emptyLine = "\x05\x15" // to the end, and all before it deleted
)

func (k *keys) Read(p []byte) (int, error) {
	if len(k.rest) == 0 {
		b, err := k.from.ReadByte()
		if err != nil {
			return 0, err
		}
		k.rest = append(k.rest, b)
		for k.from.Buffered() > 0 {
			if b, err = k.from.ReadByte(); err != nil {
				break // the next Read meets it again
			}
			k.rest = append(k.rest, b)
		}
		k.rest = replaceInterrupts(k.rest)
	}
	n := copy(p, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

func replaceInterrupts(typed []byte) []byte {
	var out []byte
	for _, b := range typed {
		if b == ctrlC {
			out = append(out, emptyLine...)
			continue
		}
		out = append(out, b)
	}
	return out
}
