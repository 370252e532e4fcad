//go:build linux

package term

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a real one: what is written to it comes out of the other end.
func terminal(t *testing.T) (tty, other *os.File) {
	t.Helper()
	other, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	if err := unix.IoctlSetPointerInt(int(other.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(other.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty, other
}

// shown is what has been written to the terminal, up to a mark.
func shown(t *testing.T, tty, other *os.File) string {
	t.Helper()
	const mark = "(end)"
	if _, err := tty.WriteString(mark); err != nil {
		t.Fatal(err)
	}
	var all []byte
	piece := make([]byte, 1024)
	for !bytes.HasSuffix(all, []byte(mark)) {
		n, err := other.Read(piece)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, piece[:n]...)
	}
	return strings.TrimSuffix(string(all), mark)
}

func TestForeignTextReachesATerminalCleanAndAFileAsItIs(t *testing.T) {
	hostile := "a\x1b[2Jb\x9b31m\u202e\xe2\x82"
	tty, other := terminal(t)
	w := Foreign(tty)
	if _, err := io.WriteString(w, hostile); err != nil {
		t.Fatal(err)
	}
	Flush(w, io.Discard)
	if got := shown(t, tty, other); got != `a\x1b[2Jb\x9b31m\u202e\xe2\x82` {
		t.Errorf("the terminal shows %q", got)
	}
	var file bytes.Buffer
	w = Foreign(&file)
	if _, err := io.WriteString(w, hostile); err != nil {
		t.Fatal(err)
	}
	Flush(w)
	if file.String() != hostile {
		t.Errorf("the file holds %q", file.String())
	}
}

func TestTheLogIsForPeopleOnATerminalAndJSONElsewhere(t *testing.T) {
	var out bytes.Buffer
	(&Env{Stderr: &out}).Logger(slog.LevelInfo).Info("relay connected", "relay", "r:1")
	if !strings.Contains(out.String(), `"msg":"relay connected","relay":"r:1"`) {
		t.Errorf("%s", out.String())
	}
	out.Reset()
	(&Env{Stderr: &out}).Logger(slog.LevelInfo).Debug("not asked for")
	if out.Len() > 0 {
		t.Errorf("%s", out.String())
	}
	tty, other := terminal(t)
	(&Env{Stderr: tty}).Logger(slog.LevelInfo).Info("relay connected", "relay", "r:1")
	if got := shown(t, tty, other); strings.Contains(got, "{") || !strings.Contains(got, "relay connected") {
		t.Errorf("%q", got)
	}
}

func TestVersionSaysWhatWasBuilt(t *testing.T) {
	for stamped, want := range map[string]string{"v1.2.3": "v1.2.3", "": "development"} {
		var out bytes.Buffer
		env := &Env{Program: "openscope", Stdout: &out, Stderr: io.Discard, Getenv: func(string) string { return "" }}
		root := &Command{Name: "openscope", Subcommands: []*Command{VersionCommand(stamped)}}
		if code := Main(t.Context(), env, root, []string{"version"}); code != 0 {
			t.Fatalf("exit %d", code)
		}
		if !strings.HasPrefix(out.String(), "openscope "+want+" "+runtime.Version()) {
			t.Errorf("%q", out.String())
		}
	}
}

func TestSIGTERMEndsACommandAndItsContext(t *testing.T) {
	stdout, args := os.Stdout, os.Args
	defer func() { os.Stdout, os.Args = stdout, args }()
	os.Args = []string{"program", "wait"}
	root := &Command{Name: "program", Subcommands: []*Command{{
		Name: "wait", Short: "wait",
		Run: func(ctx context.Context, _ *Env, _ []string) error {
			if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return Errorf(Over, "told to end")
			case <-time.After(10 * time.Second):
				return errors.New("it goes on")
			}
		},
	}}}
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	os.Stderr = null
	if code := Process("program", root); code != int(Over) {
		t.Errorf("exit %d", code)
	}
}

func TestCodesOfErrors(t *testing.T) {
	inner := errors.New("inner")
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, OK}, {inner, Internal}, {context.Canceled, Interrupted}, {fmt.Errorf("in: %w", Errorf(Denied, "no")), Denied},
		{Errorf(Config, "reading: %w", inner), Config},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v is exit %d, not %d", c.err, got, c.want)
		}
	}
	if !errors.Is(Errorf(Config, "reading: %w", inner), inner) {
		t.Error("the cause is lost")
	}
}

func TestSizesAndTimesPrintAsTheyAreRead(t *testing.T) {
	var size Bytes
	for text, want := range map[string]uint64{"1": 1, "5B": 5, "4KiB": 4 << 10, "64MiB": 64 << 20, "2GiB": 2 << 30} {
		if err := size.Set(text); err != nil || uint64(size) != want || size.String() != fmt.Sprint(want) {
			t.Errorf("%s is %s: %v", text, size.String(), err)
		}
	}
	for _, text := range []string{"", "0", "-1", "01", "1MB", "1 MiB", "1.5MiB", "99999999999", "MiB"} {
		if err := size.Set(text); err == nil {
			t.Errorf("%q is a size", text)
		}
	}
	var ttl TTL
	if ttl.String() != "" || new(Bytes).String() != "" {
		t.Error("what was not set prints as something")
	}
	if err := ttl.Set("90s"); err != nil || ttl.String() != "1m30s" {
		t.Errorf("%s, %v", ttl.String(), err)
	}
}
