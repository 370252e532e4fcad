package channel

import (
	"testing"
	"time"

	"openscope/wire"
	"openscope/wire/handle"
)

var (
	hardLimit = time.Unix(1_800_000_000, 0)
	relays    = []wire.Relay{{Address: "relay.example.com:4433", Pin: &wire.Pin{1}}, {Address: "127.0.0.1:4433"}}
)

// payloadOf is the bytes of a handle without their checksum.
func payloadOf(t *testing.T, h handle.Handle) (payload []byte, prefix string) {
	t.Helper()
	prefix = "osh1b"
	if h.Sealed {
		prefix = "osh1s"
	}
	payload, err := wire.DecodeText(prefix, h.Text(), 2048)
	if err != nil {
		t.Fatal(err)
	}
	return payload, prefix
}

func encodeHandle(prefix string, payload []byte) string { return wire.EncodeText(prefix, payload) }
