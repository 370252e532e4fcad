package bench

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/checkpoint"
	record "openscope/wire/report"
)

// bookkeeper is whoever has all keys of a daemon, and writes its record anew.
type bookkeeper struct {
	t                *testing.T
	identity, logKey ed25519.PrivateKey
	honest           *record.Report
}

func newBookkeeper(t *testing.T, stateDir string, honest []byte) *bookkeeper {
	t.Helper()
	key := func(name, prefix string) ed25519.PrivateKey {
		text, err := os.ReadFile(filepath.Join(stateDir, name))
		if err != nil {
			t.Fatal(err)
		}
		seed, err := wire.DecodeText(prefix, strings.TrimSpace(string(text)), 256)
		if err != nil {
			t.Fatal(err)
		}
		return ed25519.NewKeyFromSeed(seed)
	}
	r, err := record.Read(honest)
	if err != nil {
		t.Fatal(err)
	}
	return &bookkeeper{t: t, identity: key("identity.key", "OPENSCOPE-DAEMON-KEY-1"), logKey: key("checkpoint.key", "OPENSCOPE-CHECKPOINT-KEY-1"), honest: r}
}

// treeHashes are the hashes of a tree, by the index tlog stores them under.
type treeHashes []tlog.Hash

func (h treeHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		found[i] = h[index]
	}
	return found, nil
}

// writes is a report of a log that has these lines and no others, with every
// proof and signature that the daemon can make.
func (b *bookkeeper) writes(lines []string) []byte {
	b.t.Helper()
	check := func(err error) {
		if err != nil {
			b.t.Helper()
			b.t.Fatal(err)
		}
	}
	r := *b.honest
	r.Entries = nil
	number := regexp.MustCompile(`^\{"seq":\d+,`)
	var tree treeHashes
	for i, line := range lines {
		line = number.ReplaceAllString(line, `{"seq":`+strconv.Itoa(i+1)+`,`)
		hashes, err := tlog.StoredHashes(int64(i), []byte(line), tree)
		check(err)
		tree = append(tree, hashes...)
		r.Entries = append(r.Entries, record.Entry{Line: line})
	}
	size := int64(len(lines))
	root, err := tlog.TreeHash(size, tree)
	check(err)
	endorsed := checkpoint.Endorse(b.identity, b.logKey.Public().(ed25519.PublicKey))
	signer, err := endorsed.Signer(wire.SigningKeyOf(b.logKey))
	check(err)
	point, err := checkpoint.Checkpoint{Size: size, Root: root}.Sign(signer)
	check(err)
	r.Endorsement, r.Checkpoint = endorsed.Text(), point.Note
	for i := range r.Entries {
		r.Entries[i].Proof, err = tlog.ProveRecord(size, int64(i), tree)
		check(err)
	}
	r.Sign(b.identity)
	text, err := r.JSON()
	check(err)
	return text
}

// signedAnew is a result's line with another status, signed by the daemon to
// the same call.
func (b *bookkeeper) signedAnew(lines []string, at int) {
	b.t.Helper()
	var intent, outcome struct {
		Request      []byte `json:"request"`
		Signature    []byte `json:"signature"`
		End          []byte `json:"end"`
		EndSignature []byte `json:"end_signature"`
	}
	for line, into := range map[string]any{lines[at-1]: &intent, lines[at]: &outcome} {
		if err := json.Unmarshal([]byte(line), into); err != nil {
			b.t.Fatal(err)
		}
	}
	end, err := call.ParseResult(outcome.End)
	if err != nil {
		b.t.Fatal(err)
	}
	end.Status = 1
	body := end.Append(nil)
	signature := call.SignResult(b.identity, b.honest.RID, call.RequestHash(intent.Request, intent.Signature), body)
	text := base64.StdEncoding.EncodeToString
	lines[at] = strings.NewReplacer(text(outcome.End), text(body), text(outcome.EndSignature), text(signature), `"status":0`, `"status":1`).Replace(lines[at])
}

// A session on real programs. Then the issuer's side, with all of the daemon's
// keys, writes the log as it would rather have it, and the recipient's side its
// receipts: the recipient's own client has to find out each time, and to take
// neither for the other.
func TestNeitherSideCanRewriteTheRecordOfASession(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open("5m", "test.echo")
	for _, text := range []string{"text=one", "text=two", "text=three"} {
		s.must("openscope-reflect-client", "call", "test.echo", text)
	}
	s.refused(3, "", "openscope-reflect-client", "call", "test.echo", "text=-x")
	s.must("openscope", "share", "revoke", s.id)
	honest := s.must("openscope", "audit", "report", s.id, "--json")
	s.write("honest.json", honest, 0o600)
	b := newBookkeeper(t, s.path("etc/state"), []byte(honest))
	t.Run("the issuer", func(t *testing.T) { theIssuerRewrites(t, s, b) })
	t.Run("the recipient", func(t *testing.T) { theRecipientRewrites(t, s, b) })
}

func theIssuerRewrites(t *testing.T, s *site, b *bookkeeper) {
	lines := func() (all []string) {
		for _, e := range b.honest.Entries {
			all = append(all, e.Line)
		}
		return all
	}
	of := func(all []string, kind string) int {
		return slices.IndexFunc(all, func(l string) bool { return strings.Contains(l, `"kind":"`+kind+`"`) })
	}
	check := func(name string, all []string) (stdout string, code int) {
		s.write("rewritten.json", string(b.writes(all)), 0o600)
		stdout, stderr, code := run(t, s.env(), "openscope-reflect-client", "receipts", s.path("rewritten.json"))
		t.Logf("%s: exit %d\n%s%s", name, code, stdout, stderr)
		return stdout, code
	}
	// What nobody but the daemon says can be said anew: the forger forges well.
	all := lines()
	all[of(all, "revoke")] = strings.Replace(all[of(all, "revoke")], `"cause":"revoked"`, `"cause":"revoked","reason":"another"`, 1)
	if out, code := check("another reason", all); code != 0 || !strings.Contains(out, "4 of your 4 receipts") {
		t.Errorf("a report with another reason for the end: exit %d\n%s", code, out)
	}
	for name, c := range map[string]struct {
		rewrite func(all []string) []string
		found   string
	}{
		"a call is left out":    {func(all []string) []string { i := of(all, "call"); return slices.Delete(all, i, i+2) }, "the report does not have it: exited"},
		"a refusal is left out": {func(all []string) []string { i := of(all, "deny"); return slices.Delete(all, i, i+1) }, "the report does not have it: denied"},
		"a parameter is another": {func(all []string) []string {
			i := of(all, "call")
			all[i] = strings.Replace(all[i], `"value":"one"`, `"value":"six"`, 1)
			return all
		}, "the recipient signed another call than the entry says"},
		"an outcome is another": {func(all []string) []string {
			i := of(all, "result")
			all[i] = strings.Replace(all[i], `"status":0`, `"status":1`, 1)
			return all
		}, "the daemon signed another end than the entry says"},
		"an outcome is signed anew": {func(all []string) []string { b.signedAnew(all, of(all, "result")); return all }, "the daemon signed another end of this call to you"},
		"a call stands there twice": {func(all []string) []string { i := of(all, "call"); return slices.Insert(all, i+2, all[i], all[i+1]) }, "a second end of one call"},
	} {
		if out, code := check(name, c.rewrite(lines())); code != 6 || !strings.Contains(out, "BAD") || !strings.Contains(out, c.found) {
			t.Errorf("%s: exit %d, want 6, and %q\n%s", name, code, c.found, out)
		}
	}
}

func theRecipientRewrites(t *testing.T, s *site, b *bookkeeper) {
	files, err := filepath.Glob(s.path("receipts/*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	kept, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rewrite      func(r *record.Receipt) // of the first one
		code         int
		found, error string
	}{
		"nothing": {func(*record.Receipt) {}, 0, "4 of your 4 receipts", ""},
		// A result the daemon never signed is no receipt, and nothing is held
		// against the report.
		"another status": {func(r *record.Receipt) {
			end, err := call.ParseResult(r.End)
			if err != nil {
				t.Fatal(err)
			}
			end.Status = 1
			r.End = end.Append(nil)
		}, 6, "3 of your 3 receipts", "1 lines are not what a daemon signed"},
		"another call":     {func(r *record.Receipt) { r.Request = bytes.Replace(r.Request, []byte("one"), []byte("six"), 1) }, 6, "3 of your 3 receipts", "1 lines are not what a daemon signed"},
		"another daemon's": {func(r *record.Receipt) { r.EndSig = call.SignResult(stranger, r.RID, r.Hash(), r.End) }, 6, "3 of your 3 receipts", "1 lines are not what a daemon signed"},
		// With a daemon of their own they show that daemon's word, which is not
		// the word of the one whose report it is.
		"a daemon of their own": {func(r *record.Receipt) {
			r.Daemon = stranger.Public().(ed25519.PublicKey)
			r.EndSig = call.SignResult(stranger, r.RID, r.Hash(), r.End)
		}, 6, "another daemon's than the one that signed this result", "does not agree"},
	} {
		first, rest, _ := bytes.Cut(kept, []byte("\n"))
		r, err := record.ParseReceipt(first)
		if err != nil {
			t.Fatal(err)
		}
		c.rewrite(&r)
		line, err := r.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files[0], append(line, rest...), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := run(t, s.env(), "openscope-reflect-client", "receipts", s.path("honest.json"))
		if code != c.code || !strings.Contains(stdout, c.found) || !strings.Contains(stderr, c.error) {
			t.Errorf("%s: exit %d, want %d\n%s%s", name, code, c.code, stdout, stderr)
		}
	}
}
