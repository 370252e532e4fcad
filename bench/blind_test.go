package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"openscope/client"
	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

// TestTheRelayHoldsNothingWorthStealing looks for everything secret of a live
// session in the relay's memory, in its log, and in what passed through it, and
// first proves that the same search finds it in the daemon.
func TestTheRelayHoldsNothingWorthStealing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to read another process's memory")
	}
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.follow", "test.echo:text=canary-parameter-4711")
	s.follow()
	s.must("openscope-reflect-client", "call", "test.echo", "text=canary-parameter-4711")
	captured, keys := s.captureSession()

	secrets := s.secrets()
	for name, key := range keys {
		secrets[name] = key
	}
	relay := memory(t, s.relay.cmd.Process.Pid)
	log := []byte(s.relay.out.String())
	core := s.daemon.cmd.Process.Pid
	daemon := append(memory(t, core), memory(t, netHalf(core))...)
	for name, secret := range secrets {
		for where, bytesThere := range map[string][]byte{"memory": relay, "log": log, "traffic": captured} {
			if bytes.Contains(bytesThere, secret) {
				t.Errorf("the relay's %s holds %s", where, name)
			}
		}
	}
	for _, name := range []string{"a verb's name", "a parameter", "the alias", "the token's secret half", "the key to the client", "the key to the daemon"} {
		if !bytes.Contains(daemon, secrets[name]) {
			t.Errorf("the search does not find %s even in the daemon: it proves nothing", name)
		}
	}
	t.Logf("%d secrets looked for in %d MiB of the relay's memory, %d bytes of its log and %d bytes of traffic",
		len(secrets), len(relay)>>20, len(log), len(captured))
}

// capturedLeg keeps every byte that passes.
type capturedLeg struct {
	wire.Leg
	mu   sync.Mutex
	both []byte
}

func (l *capturedLeg) Read(p []byte) (int, error) {
	n, err := l.Leg.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.both = append(l.both, p[:n]...)
	return n, err
}

func (l *capturedLeg) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.both = append(l.both, p...)
	l.mu.Unlock()
	return l.Leg.Write(p)
}

// captureSession makes a call over a leg that is captured as a relay would, and
// returns what passed, with the record keys of the connection, which stays up.
func (s *site) captureSession() (captured []byte, keys map[string][]byte) {
	s.t.Helper()
	h, err := handle.Parse(s.handle)
	if err != nil {
		s.t.Fatal(err)
	}
	var leg *capturedLeg
	session, err := client.Connect(s.t.Context(), client.Config{
		Handle: h, Identity: s.identity(), StateDir: s.path("client"), Rand: rand.Reader,
		Join: func(ctx context.Context, cfg tunnel.ClientConfig) (wire.Leg, error) {
			joined, err := tunnel.Join(ctx, cfg)
			leg = &capturedLeg{Leg: joined}
			return leg, err
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { session.Close() })
	var stdout, stderr bytes.Buffer
	r, err := session.Call(s.t.Context(), "test.echo", params("text", "canary-parameter-4711"), &stdout, &stderr)
	if err != nil || !r.Complete || stdout.String() != "canary-parameter-4711\n" {
		s.t.Fatalf("calling over a captured leg: %v, %v, %q", r.Cause, err, stdout.String())
	}
	leg.mu.Lock()
	defer leg.mu.Unlock()
	return bytes.Clone(leg.both), map[string][]byte{
		"the key to the client": recordKey(session, "rx"), "the key to the daemon": recordKey(session, "tx"),
	}
}

// recordKey reads the key of one direction out of a connection, which gives it
// to nobody.
func recordKey(s *client.Session, direction string) []byte {
	aead := reflect.ValueOf(s).Elem().FieldByName("link").Elem().FieldByName("conn").Elem().FieldByName(direction).FieldByName("dir").FieldByName("aead")
	array := aead.Elem().Elem().FieldByName("key")
	key := make([]byte, array.Len())
	for i := range key {
		key[i] = byte(array.Index(i).Uint())
	}
	return key
}

// identity is the vendor's private key.
func (s *site) identity() *handle.RecipientIdentity {
	s.t.Helper()
	text, err := os.ReadFile(s.path("vendor.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	identity, err := handle.ParseRecipientIdentity(strings.TrimSpace(string(text)))
	if err != nil {
		s.t.Fatal(err)
	}
	return identity
}

// secrets is what the relay must not have, as the bytes it would be found by.
func (s *site) secrets() map[string][]byte {
	s.t.Helper()
	found := map[string][]byte{
		"a verb's name": []byte("test.follow"),
		"a parameter":   []byte("canary-parameter-4711"),
		"the output":    []byte("canary-output-4711"),
		"the alias":     []byte("vendor-b"),
	}
	text, err := os.ReadFile(s.path("token"))
	if err != nil {
		s.t.Fatal(err)
	}
	seed, err := wire.DecodeText("ost1", strings.TrimSpace(string(text)), 256)
	if err != nil {
		s.t.Fatal(err)
	}
	found["the token's secret half"] = seed
	found["the token's text"] = bytes.TrimSpace(text)

	h, err := handle.Parse(s.handle)
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := channel.OpenSecret(s.identity().X25519(), h.Header(), h.Enc, h.Box)
	if err != nil {
		s.t.Fatal(err)
	}
	found["S"] = bytes.Clone(secret.Reveal())
	found["the join key's seed"] = channel.NewKeys(secret).JoinKey().Seed()
	for _, name := range []string{"S", "the join key's seed", "the token's secret half"} {
		found[name+" in hex"] = []byte(hex.EncodeToString(found[name]))
		found[name+" in base64"] = []byte(base64.StdEncoding.EncodeToString(found[name])[:40])
	}
	return found
}

// memory reads everything a process has written to: its heap, stacks and data.
func memory(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var all []byte
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		part := make([]byte, to-from)
		// A page that was never touched reads as zeros; one that is gone, as an
		// error: neither holds anything.
		n, _ := mem.ReadAt(part, from)
		all = append(all, part[:n]...)
	}
	if len(all) < 1<<20 {
		t.Fatalf("only %d bytes of process %d could be read", len(all), pid)
	}
	return all
}
