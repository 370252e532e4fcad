package bench

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

// TestTheRelayHoldsNothingWorthStealing looks for everything secret of a live
// session in the relay's memory and in its log, and first proves that the same
// search finds it in the daemon.
func TestTheRelayHoldsNothingWorthStealing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to read another process's memory")
	}
	s := newSite(t)
	s.open("5m", "test.follow", "test.echo:text=canary-parameter-4711")
	s.follow()
	s.must("openscope-reflect-client", "call", "test.echo", "text=canary-parameter-4711")

	secrets := s.secrets()
	relay := memory(t, s.relay.cmd.Process.Pid)
	log := []byte(s.relay.out.String())
	for name, secret := range secrets {
		if bytes.Contains(relay, secret) {
			t.Errorf("the relay's memory holds %s", name)
		}
		if bytes.Contains(log, secret) {
			t.Errorf("the relay's log holds %s", name)
		}
	}
	daemon := memory(t, s.daemon.cmd.Process.Pid)
	for _, name := range []string{"a verb's name", "a parameter", "the alias", "the token's secret half"} {
		if !bytes.Contains(daemon, secrets[name]) {
			t.Errorf("the search does not find %s even in the daemon: it proves nothing", name)
		}
	}
	t.Logf("%d secrets looked for in %d MiB of the relay's memory and %d bytes of its log", len(secrets), len(relay)>>20, len(log))
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

	identityText, err := os.ReadFile(s.path("vendor.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	identity, err := handle.ParseRecipientIdentity(strings.TrimSpace(string(identityText)))
	if err != nil {
		s.t.Fatal(err)
	}
	h, err := handle.Parse(s.handle)
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := channel.OpenSecret(identity.X25519(), h.Header(), h.Enc, h.Box)
	if err != nil {
		s.t.Fatal(err)
	}
	found["S"] = bytes.Clone(secret[:])
	found["the join key's seed"] = secret.Keys().JoinKey().Seed()
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
