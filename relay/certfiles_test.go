package relay_test

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
)

func TestANewCertificateIsShownWithoutARestart(t *testing.T) {
	t.Parallel()
	dir, spare := t.TempDir(), t.TempDir()
	_, first, err := relay.SelfSigned(dir, rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := relay.SelfSigned(spare, rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files, err := relay.OpenCertificateFiles(filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "certificate.key"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() wire.Pin {
		c, err := files.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return wire.PinOf(c.Leaf)
	}
	n := startNode(t, func(c *relay.Config) { c.Certificate = files.Get })
	token := n.token("first")
	n.pin = first
	stays := n.daemon(token)
	// The certificate first: for a moment it does not fit its key.
	for _, name := range []string{"certificate.pem", "certificate.key"} {
		if shown() != first {
			t.Error("half a change is shown")
		}
		if err := os.Rename(filepath.Join(spare, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "the new one is shown", func() bool { return shown() == second })
	n.pin = second
	n.daemon(token)
	settled(t, stays)
	if err := os.Remove(filepath.Join(dir, "certificate.key")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // it looks once a second: this is the time in which it must not change
	if shown() != second {
		t.Error("without a file, another is shown")
	}
}
