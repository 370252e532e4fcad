package relay_test

import (
	"io"
	"testing"
	"time"

	"openscope/relay"
)

func TestARelayThatForwardsMuchSaysSo(t *testing.T) {
	t.Parallel()
	n, d, s := standing(t)
	client, daemon, _ := n.pair(s, d)
	go func() { _, _ = io.Copy(io.Discard, daemon) }()
	yields := func() bool { return relay.Yields(n.running) }
	piece, stop := make([]byte, 64<<10), time.Now().Add(patience)
	for !yields() && time.Now().Before(stop) {
		if _, err := client.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if !yields() {
		t.Error("handshakes do not yield")
	}
	eventually(t, patience, "handshakes do not yield once nothing is forwarded", func() bool { return !yields() })
}
