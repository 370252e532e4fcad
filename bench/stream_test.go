package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"testing"
	"time"
)

// numbers writes what `seq 1 n | tr 0-9 '\200-\211'` does, cut at size: bytes that
// are no text.
func numbers(to io.Writer, size int) {
	var buf []byte
	for n, left := 1, size; left > 0; n++ {
		buf = fmt.Appendf(buf, "%d\n", n)
		if len(buf) < 1<<16 && len(buf) < left {
			continue
		}
		buf = buf[:min(len(buf), left)]
		for i, b := range buf {
			if b != '\n' {
				buf[i] = b - '0' + 0o200
			}
		}
		_, _ = to.Write(buf) // a hash takes all
		left -= len(buf)
		buf = buf[:0]
	}
}

// counting hashes what a process writes, and looks at its memory as it does. (What
// the kernel tells at its end is also that of the process that started it.)
type counting struct {
	sum interface {
		io.Writer
		Sum([]byte) []byte
	}
	n       int
	process *exec.Cmd
	peak    int // KiB
}

func (c *counting) Write(p []byte) (int, error) {
	if c.n>>20 != (c.n+len(p))>>20 {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.process.Process.Pid))
		if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
			_, _ = fmt.Sscan(after, &c.peak)
		}
	}
	c.n += len(p)
	return c.sum.Write(p)
}

func TestALongStreamComesByteForByteInLittleMemory(t *testing.T) {
	t.Parallel()
	const most = 64 << 10 // KiB
	w := newWorld(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	w.write("verbs.yaml", fmt.Sprintf(`
verbs:
  test.big:
    summary: Very much output
    class: read
    executor: exec
    argv: [/bin/sh, -c, "seq 1 999999999 | tr 0-9 '\\200-\\211' | head -c %d"]
    timeout: 30m
    max_output: %dB
`, streamed, streamed))
	w.write("grants.yaml", fmt.Sprintf(`
agents:
  you:
    users: [%s]
    allow: [{verb: test.big}]
    delegate: {to: [vendor-b], verbs: [test.big], max_output: %dB}
`, me.Username, streamed))
	if err := w.daemon.Reload(); err != nil {
		t.Fatal(err)
	}
	w.writeKey()
	_, h := w.open("30m", "test.big")

	want := sha256.New()
	numbers(want, streamed)
	got := &counting{sum: sha256.New()}
	var stderr strings.Builder
	cmd := command(w.clientEnv(h), "openscope-reflect-client", "call", "--raw", "test.big")
	cmd.Stdout, cmd.Stderr, got.process = got, &stderr, cmd
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	took := time.Since(began)
	if got.n != streamed || hex.EncodeToString(got.sum.Sum(nil)) != hex.EncodeToString(want.Sum(nil)) {
		t.Errorf("%d bytes came of %d, and not the same", got.n, streamed)
	}
	if got.peak == 0 || got.peak > most {
		t.Errorf("the client had %d KiB of memory", got.peak)
	}
	t.Logf("%d MiB in %v (%.0f MB/s), client at most %d KiB", streamed>>20, took.Round(time.Millisecond), float64(streamed)/1e6/took.Seconds(), got.peak)
}
