package bench

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/tunnel"
)

// The verbs of these tests write down what they were started with: one line of
// DIR/ran is one execution.
const hostileVerbs = `
verbs:
  test.record:
    summary: Write down the arguments
    class: change
    executor: exec
    argv: [DIR/record, "--name={name}", "{count}", "{force}"]
    params:
      name: {type: string, pattern: "^[a-z][a-z0-9.-]{0,30}$", required: true}
      count: {type: integer, min: 1, max: 9, default: "1"}
      force: {type: flag, argv: [--force], default: "false"}
  test.host:
    summary: Write down a host
    class: read
    executor: exec
    argv: [DIR/record, host, "{host}"]
    params:
      host: {type: string, pattern: "^[a-z0-9][a-z0-9-]*(\\.[a-z0-9-]+)*$", max_length: 64, required: true}
  test.hold:
    summary: Write it down, and do not end
    class: read
    executor: exec
    argv: [DIR/hold]
  test.spill:
    summary: Write for ever
    class: read
    executor: exec
    argv: [/usr/bin/yes, DIR]
  test.kept:
    summary: May be shared, and is not
    class: change
    executor: exec
    argv: [DIR/record, kept]
  test.own:
    summary: May be called from inside only
    class: change
    executor: exec
    argv: [DIR/record, own]
  test.nobody:
    summary: No grant has it
    class: raw
    executor: exec
    argv: [DIR/record, nobody]
`

const hostileGrants = `
agents:
  you:
    users: [USER]
    allow: [{verb: test.record}, {verb: test.host}, {verb: test.hold}, {verb: test.spill}, {verb: test.kept}, {verb: test.own}]
    delegate:
      to: [vendor-b]
      verbs: [test.record, test.host, test.hold, test.spill, test.kept]
      bearer: true
`

// newHostileWorld is a world with the verbs above.
func newHostileWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.write("record", "#!/bin/sh\nline=$(printf '<%s>' \"$@\")\nprintf '%s\\n' \"$line\" >>"+w.path("ran")+"\n")
	w.write("hold", "#!/bin/sh\necho '<hold>' >>"+w.path("ran")+"\nexec /usr/bin/tail -n 1 -f "+w.path("growing")+"\n")
	for _, script := range []string{"record", "hold"} {
		if err := os.Chmod(w.path(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.setRules(hostileVerbs, hostileGrants)
	return w
}

// ran is what was executed so far, sorted.
func (w *world) ran() []string {
	w.t.Helper()
	text, err := os.ReadFile(w.path("ran"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return slices.Sorted(strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n"))
}

// mustHaveRun holds what was executed to all that was allowed to be.
func (w *world) mustHaveRun(allowed ...string) {
	w.t.Helper()
	if len(allowed) == 0 {
		allowed = []string{""}
	}
	slices.Sort(allowed)
	if ran := w.ran(); !slices.Equal(ran, allowed) {
		w.t.Errorf("executed:\n%s\nallowed:\n%s", strings.Join(ran, "\n"), strings.Join(allowed, "\n"))
	}
}

// auditEntry is what these tests look at in a line of the log.
type auditEntry struct {
	Kind, Session, Connection, Call, Verb, Cause, Reason string
	Count                                                int
}

// entries reads the session's part of the log from its file.
func (w *world) entries(session string) []auditEntry {
	w.t.Helper()
	text, err := os.ReadFile(w.path("audit.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	var all []auditEntry
	for line := range bytes.Lines(text) {
		var e auditEntry
		if err := json.Unmarshal(line, &e); err != nil {
			break // the last line is being written
		}
		if e.Session == session {
			all = append(all, e)
		}
	}
	return all
}

func counted(all []auditEntry, kind string) (n int) {
	for _, e := range all {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// outsider is somebody with a handle, and with no client but this one: it
// speaks the channel from wire/README.md, and keeps to it only where the test
// has it do so.
type outsider struct {
	w      *world
	h      handle.Handle
	secret [32]byte
	signer ed25519.PrivateKey
	opens  *ecdh.PrivateKey // what a sealed session is for; nil for bearer
}

func (w *world) outsider(h handle.Handle) *outsider {
	w.t.Helper()
	o := &outsider{w: w, h: h, secret: [32]byte(h.Secret.Reveal()), signer: w.vendor.Ed25519()}
	if !h.Sealed {
		return o
	}
	o.opens = w.vendor.X25519()
	var err error
	if o.secret, err = openSecret(o.opens, h.Header(), h.Enc[:], h.Box[:]); err != nil {
		w.t.Fatal(err)
	}
	return o
}

// another is the same outsider with another signing key.
func (o *outsider) another() *outsider {
	changed := *o
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		o.w.t.Fatal(err)
	}
	changed.signer = key
	return &changed
}

// stranger is an outsider's connection, from the moment msg2 is opened.
type stranger struct {
	*outsider
	*second
	leg       wire.Leg
	challenge call.Challenge
	came      map[call.ID]*[2]uint64 // output, by stream
}

// meet joins at the relay and shakes hands up to msg2 (§5.2, §5.3).
func (o *outsider) meet() (*stranger, error) {
	ctx, cancel := context.WithTimeout(o.w.t.Context(), 10*time.Second)
	defer cancel()
	var random [64]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	client, err := newSecond(secondConfig{
		handleHash: o.handleHash(), rid: o.h.RID, secret: o.secret[:], opens: o.opens,
		seed: [32]byte(random[:32]), nonce: [32]byte(random[32:]),
	})
	if err != nil {
		return nil, err
	}
	leg, err := tunnel.Join(ctx, tunnel.ClientConfig{
		Relays: o.h.Relays, RID: o.h.RID,
		Sign: func(exporter [32]byte) []byte {
			return wire.SignJoin(ed25519.NewKeyFromSeed(expand(client.prk, "relay join", nil)), exporter, o.h.RID)
		},
	})
	if err != nil {
		return nil, err
	}
	o.w.t.Cleanup(leg.Reset)
	s := &stranger{outsider: o, second: client, leg: leg, came: make(map[call.ID]*[2]uint64)}
	err = leg.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := errors.Join(err, s.shake(leg)); err != nil {
		leg.Reset()
		return nil, err
	}
	return s, nil
}

// handleHash is hh of §5.1.
func (o *outsider) handleHash() [32]byte {
	if o.h.Sealed {
		return hash("handle", o.h.Header(), o.h.Enc[:], o.h.Box[:])
	}
	return hash("handle", o.h.Header(), o.h.Secret.Reveal())
}

// finished is a FINISHED in its parts, so that each can be made wrong (§5.4).
type finished struct {
	nonce, key, replaces, resume []byte
	signer                       ed25519.PrivateKey
	th2, rid                     []byte
	flipMAC                      byte
}

func (s *stranger) honest() *finished {
	return &finished{
		nonce: s.nonce[:], key: s.signer.Public().(ed25519.PublicKey), replaces: make([]byte, 16), resume: []byte{0},
		signer: s.signer, th2: s.th2[:], rid: s.h.RID[:],
	}
}

func (f *finished) body(s *stranger) []byte {
	body := slices.Concat(f.nonce, f.key, f.replaces, f.resume)
	body = append(body, ed25519.Sign(f.signer, lp([]byte("openscope/1 client signature"), f.rid, f.th2, body))...)
	sum := s.finishedMAC(body)
	sum[0] ^= f.flipMAC
	return append(body, sum...)
}

// join finishes the handshake and awaits READY and the passport.
func (o *outsider) join(edits ...func(*finished)) (*stranger, error) {
	s, err := o.meet()
	if err != nil {
		return nil, err
	}
	f := s.honest()
	for _, edit := range edits {
		edit(f)
	}
	if err := s.send(channel.TypeFinished, f.body(s)); err != nil {
		return nil, err
	}
	for _, want := range []channel.Type{channel.TypeReady, channel.TypePassport} {
		typ, body, err := s.read()
		if err != nil {
			return nil, err
		}
		if typ != want {
			return nil, fmt.Errorf("record %d instead of %d: %q", typ, want, body)
		}
		if typ == channel.TypeReady {
			s.challenge = call.Challenge(body[32:40])
		}
	}
	return s, nil
}

func (o *outsider) enter(edits ...func(*finished)) *stranger {
	o.w.t.Helper()
	s, err := o.join(edits...)
	if err != nil {
		o.w.t.Fatalf("entering the session: %v", err)
	}
	return s
}

// send sends a record of any type. A connection that has ended meanwhile is
// what the test looks at next.
func (s *stranger) send(typ channel.Type, body []byte) error {
	_, err := s.leg.Write(s.up.seal(padded(byte(typ), body)))
	return err
}

// read reads the next record.
func (s *stranger) read() (channel.Type, []byte, error) {
	if err := s.leg.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, nil, err
	}
	typ, body, err := s.down.open(s.leg)
	return channel.Type(typ), body, err
}

// answer is how a call of a stranger ended.
type answer struct {
	cause  call.Cause
	reason string
	bytes  uint64 // that the daemon signed for
	came   uint64
}

// request is a CALL that keeps to everything, with a new id.
func (s *stranger) request(verb string, params []call.Param) call.Request {
	r := call.Request{Challenge: s.challenge, Verb: verb, Params: params}
	if _, err := rand.Read(r.ID[:]); err != nil {
		panic(err)
	}
	return r
}

// signed is a CALL's record.
func (s *stranger) signed(r call.Request) []byte {
	body := r.Append(nil)
	return append(body, call.SignRequest(s.signer, s.h.RID, s.th2, body)...)
}

// call makes a call and awaits its end. The clock goes on a little first, so
// that the rate is never why it is refused.
func (s *stranger) call(verb string, params []call.Param) (call.ID, answer, error) {
	s.w.clock.step(50*time.Millisecond, 50*time.Millisecond)
	r := s.request(verb, params)
	if err := s.send(channel.TypeCall, s.signed(r)); err != nil {
		return r.ID, answer{}, err
	}
	a, err := s.await(r.ID)
	return r.ID, a, err
}

func (s *stranger) mustCall(verb string, params []call.Param) answer {
	s.w.t.Helper()
	_, a, err := s.call(verb, params)
	if err != nil {
		s.w.t.Fatalf("calling %s: %v", verb, err)
	}
	return a
}

// await reads until the END of one call.
func (s *stranger) await(id call.ID) (a answer, err error) {
	for {
		typ, body, err := s.read()
		if err != nil {
			return a, err
		}
		if err := s.take(typ, body); err != nil {
			return a, err
		}
		switch typ {
		case channel.TypeNotice:
			if n, err := call.ParseNotice(body); err == nil && n.ID == id {
				a.reason = n.Text
			}
		case channel.TypeEnd:
			r, err := call.ParseResult(body[:len(body)-64])
			if err != nil {
				return a, err
			}
			if r.ID == id {
				came := s.cameOf(id)
				a.cause, a.bytes, a.came = r.Cause, r.Stdout.Bytes+r.Stderr.Bytes, came[0]+came[1]
				return a, nil
			}
		}
	}
}

func (s *stranger) cameOf(id call.ID) *[2]uint64 {
	if s.came[id] == nil {
		s.came[id] = new([2]uint64)
	}
	return s.came[id]
}

// take does what a client owes the daemon for a record.
func (s *stranger) take(typ channel.Type, body []byte) error {
	switch typ {
	case channel.TypeOut:
		o, err := call.ParseOutput(body)
		if err != nil {
			return err
		}
		came := s.cameOf(o.ID)
		came[o.Stream-1] += uint64(len(o.Data))
		w := call.Window{ID: o.ID, Stdout: came[0], Stderr: came[1], Credit: call.MaxCredit}
		return s.send(channel.TypeWindow, w.Append(nil))
	case channel.TypePing:
		p, err := call.ParsePing(body)
		if err != nil {
			return err
		}
		s.challenge = p.Challenge
		return s.send(channel.TypePong, call.Pong{Nonce: p.Nonce}.Append(nil))
	case channel.TypeEnd:
		r, err := call.ParseResult(body[:len(body)-64])
		if err != nil {
			return err
		}
		s.challenge = r.Challenge
	case channel.TypeClose, channel.TypeError:
		return &endError{typ: typ, body: bytes.Clone(body)}
	}
	return nil
}

// endError is the record that the daemon ended the connection with.
type endError struct {
	typ  channel.Type
	body []byte
}

func (e *endError) Error() string { return fmt.Sprintf("record %d: %q", e.typ, e.body) }

// causeOf is the cause of the CLOSE that ended a connection; zero where none did.
func causeOf(err error) call.Cause {
	e, ok := errors.AsType[*endError](err)
	if !ok || e.typ != channel.TypeClose {
		return 0
	}
	c, err := call.ParseClose(e.body)
	if err != nil {
		return 0
	}
	return c.Cause
}

// end reads until the connection ends, and lets go of it: a leg that is held
// counts at the relay.
func (s *stranger) end() (took time.Duration, err error) {
	defer s.leg.Reset()
	for began := time.Now(); ; {
		typ, body, err := s.read()
		if err == nil {
			err = s.take(typ, body)
		}
		if err != nil {
			return time.Since(began), err
		}
	}
}

// probes are values that somebody tries on a parameter that names a thing.
var probes = []string{
	"../../etc/passwd", "..", "/etc/passwd", "/proc/self/environ", "file:///etc/passwd", "$HOME", "${HOME}", "$(id)", "`id`",
	"-oProxyCommand=id", "--help", "-", "@instance", "root@alpha", "alpha@beta", "%n", "%s%n", "a\nb", "alpha\n", "alpha\x00", "\x00", "*", "?", "[a-z]*",
	"{a,b}", "~root", "a b", " alpha", "alpha ", "alpha;id", "alpha|id", "alpha&", ">alpha", "alpha'", `alpha"`, `alpha\`, "alpha\r", "\t", "",
	"ALPHA", "Alpha", "\u0430lpha", "\uff41lpha", "alph\u0430", "alpha\u200b", "\u202ealpha", "al\u00adpha", "a\u0301lpha", "\xff\xfe", "alpha\x80", "\x1b[31malpha",
	"null", "gamma", "alph", "alphaa", "alpha,beta", "alpha|beta", "127.0.0.1:22", "169.254.169.254/latest", "[::1]", "beta/../alpha",
	strings.Repeat("a", 300), strings.Repeat("a", 4096), strings.Repeat("\x01", 4096),
}

func TestNothingOutsideThePassportRuns(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	id, h := w.open("25m", "test.record:name=alpha|beta,count=1|2,force=false", "test.host:host=alpha")
	s := w.outsider(h).enter()

	type refused struct {
		verb   string
		params []call.Param
	}
	var tries []refused
	for _, verb := range []string{
		"test.kept", "test.own", "test.nobody", "test.hold", "test.spill", "test.nothing", "TEST.RECORD", "Test.record", "test.Record",
		"test.recor\u0501", "t\u0435st.record", "test\uff0erecord", "test.record\x00", "test.record ", " test.record", "test.record\n", "test..record", "test/record",
		"test.record:name=alpha", "record", ".", "*", "test.*", "../record", w.path("record"), "/bin/sh", strings.Repeat("a", 128),
	} {
		tries = append(tries, refused{verb, nil}, refused{verb, params("name", "alpha")})
	}
	for _, value := range probes {
		tries = append(tries, refused{"test.record", params("name", value)}, refused{"test.host", params("host", value)})
	}
	tries = slices.DeleteFunc(tries, func(r refused) bool {
		return r.verb == "test.host" && r.params != nil && r.params[0].Value == "alpha"
	})
	for _, value := range []string{"3", "0", "10", "-1", "+1", "01", "1.0", "1e0", "0x1", "1 ", "\u0661", "\uff11", "true", "", "one", "9223372036854775808"} {
		tries = append(tries, refused{"test.record", params("name", "alpha", "count", value)})
	}
	for _, value := range []string{"true", "TRUE", "yes", "1", "", "False", "--force"} {
		tries = append(tries, refused{"test.record", params("name", "alpha", "force", value)})
	}
	for _, p := range [][]call.Param{
		nil, params("count", "1"), params("name", "alpha", "name", "alpha"), params("name", "alpha", "name", "beta"),
		params("name", "gamma", "name", "alpha"), params("name", "alpha", "more", "x"), params("Name", "alpha"), params("NAME", "alpha"),
		params("n\u0430me", "alpha"), params("name ", "alpha"), params("name\x00", "alpha"), params("name=alpha", "alpha"), params("argv", "x", "name", "alpha"),
		params("--name", "alpha"), params("0", "alpha"), params("name", "alpha", "LD_PRELOAD", "/tmp/x"), params("name", "alpha", "force", "false", "force", "true"),
	} {
		tries = append(tries, refused{"test.record", p})
	}

	calls := make(map[string]refused)
	for _, try := range tries {
		id, a, err := s.call(try.verb, try.params)
		if err != nil {
			t.Fatalf("%q %q ends the connection: %v", try.verb, try.params, err)
		}
		if a.cause != call.Denied || a.bytes+a.came != 0 {
			t.Errorf("%.80q %.80q: %v, %d bytes of output", try.verb, try.params, a.cause, a.bytes)
		}
		calls[id.String()] = try
	}
	for _, p := range [][]call.Param{
		params("name", "alpha", "force", "false"), params("name", "beta", "count", "2", "force", "false"), params("count", "1", "force", "false", "name", "alpha"),
	} {
		if a := s.mustCall("test.record", p); a.cause != call.Exited {
			t.Errorf("what was shared, %q: %v %s", p, a.cause, a.reason)
		}
	}
	w.mustHaveRun("<--name=alpha><1>", "<--name=alpha><1>", "<--name=beta><2>")

	denied := make(map[string]bool)
	for _, e := range w.entries(id) {
		if e.Kind == "deny" {
			denied[e.Call] = true
		}
	}
	if missing := slices.DeleteFunc(slices.Collect(maps.Keys(calls)), func(id string) bool { return denied[id] }); len(missing) > 0 {
		t.Errorf("%d of %d denials are not in the log, of them %.80q", len(missing), len(calls), calls[missing[0]])
	}
	w.issuer(0, "audit", "verify", w.path("audit.log"))
	t.Logf("%d calls denied and logged", len(calls))
}

func TestABrokenRecordEndsTheConnectionAndRunsNothing(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	hold := func(s *stranger) call.Request { return s.request("test.record", params("name", "alpha")) }
	signedBy := func(s *stranger, key ed25519.PrivateKey, rid wire.RendezvousID, th2 [32]byte, r call.Request) []byte {
		body := r.Append(nil)
		return append(body, call.SignRequest(key, rid, th2, body)...)
	}
	record := func(typ channel.Type, body func(*stranger) []byte) func(*stranger) []byte {
		return func(s *stranger) []byte { return s.up.seal(padded(byte(typ), body(s))) }
	}
	fixed := func(b []byte) func(*stranger) []byte { return func(*stranger) []byte { return b } }
	with := func(edit func(*call.Request)) func(*stranger) []byte {
		return record(channel.TypeCall, func(s *stranger) []byte {
			r := hold(s)
			edit(&r)
			return s.signed(r)
		})
	}
	cases := map[string]func(*stranger) []byte{
		"65,535 bytes long":  fixed(append([]byte{0xff, 0xff}, make([]byte, 65_535)...)),
		"without any length": fixed(make([]byte, 2)),
		"shorter than a tag": fixed(append([]byte{0, 15}, make([]byte, 15)...)),
		"one byte too short": fixed(append([]byte{1, 15}, make([]byte, 271)...)),
		"one byte too long":  fixed(append([]byte{1, 17}, make([]byte, 273)...)),
		"over the most":      fixed(append([]byte{0x41, 0x10}, make([]byte, 16_656)...)),
		"with a wrong tag":   fixed(append([]byte{1, 16}, make([]byte, 272)...)),
		"padded with a one": func(s *stranger) []byte {
			p := padded(byte(channel.TypePing), make([]byte, 16))
			p[len(p)-1] = 1
			return s.up.seal(p)
		},
		"padded too much": func(s *stranger) []byte {
			return s.up.seal(append(padded(byte(channel.TypePing), make([]byte, 16)), make([]byte, 256)...))
		},
		"with a length of more than there is": func(s *stranger) []byte {
			p := padded(byte(channel.TypePing), make([]byte, 16))
			p[1] = 0xff
			return s.up.seal(p)
		},
		"a record sent twice": func(s *stranger) []byte {
			r := s.up.seal(padded(byte(channel.TypePing), make([]byte, 16)))
			return slices.Concat(r, r)
		},
		"a record left out": func(s *stranger) []byte {
			s.up.count++
			return s.up.seal(padded(byte(channel.TypePing), make([]byte, 16)))
		},
		"of the other direction": func(s *stranger) []byte {
			s.up.aead, s.up.iv, s.up.count = s.down.aead, s.down.iv, 0
			return s.up.seal(padded(byte(channel.TypePing), make([]byte, 16)))
		},
		"a second FINISHED":        record(channel.TypeFinished, func(s *stranger) []byte { return s.honest().body(s) }),
		"a call without signature": record(channel.TypeCall, func(s *stranger) []byte { return hold(s).Append(nil) }),
		"a call with a signature of zeros": record(channel.TypeCall, func(s *stranger) []byte {
			return append(hold(s).Append(nil), make([]byte, 64)...)
		}),
		"a call signed by another key": record(channel.TypeCall, func(s *stranger) []byte {
			return signedBy(s, s.another().signer, s.h.RID, s.th2, hold(s))
		}),
		"a call signed for another transcript": record(channel.TypeCall, func(s *stranger) []byte {
			return signedBy(s, s.signer, s.h.RID, sha256.Sum256(s.th2[:]), hold(s))
		}),
		"a call signed for another session": record(channel.TypeCall, func(s *stranger) []byte {
			return signedBy(s, s.signer, wire.RendezvousID{1}, s.th2, hold(s))
		}),
		"a call changed after it was signed": record(channel.TypeCall, func(s *stranger) []byte {
			return bytes.Replace(s.signed(s.request("test.record", params("name", "gamma"))), []byte("gamma"), []byte("alpha"), 1)
		}),
		"a call that is empty": record(channel.TypeCall, fixed(nil)),
		"a call cut short": record(channel.TypeCall, func(s *stranger) []byte {
			body := hold(s).Append(nil)
			body = body[:len(body)-1]
			return append(body, call.SignRequest(s.signer, s.h.RID, s.th2, body)...)
		}),
		"a call with a byte too many": record(channel.TypeCall, func(s *stranger) []byte {
			body := append(hold(s).Append(nil), 0)
			return append(body, call.SignRequest(s.signer, s.h.RID, s.th2, body)...)
		}),
		"a value said to have 65,535 bytes": record(channel.TypeCall, func(s *stranger) []byte {
			body := hold(s).Append(nil)
			copy(body[len(body)-len("alpha")-2:], []byte{0xff, 0xff})
			return append(body, call.SignRequest(s.signer, s.h.RID, s.th2, body)...)
		}),
		"a value of 10^6 bytes, as far as a record goes": record(channel.TypeCall, func(s *stranger) []byte {
			body := append(hold(s).Append(nil), bytes.Repeat([]byte("a"), 16_000)...)
			return append(body[:16_300], call.SignRequest(s.signer, s.h.RID, s.th2, body[:16_300])...)
		}),
		"a value of 4,097 bytes":           with(func(r *call.Request) { r.Params[0].Value = strings.Repeat("a", 4097) }),
		"33 parameters":                    with(func(r *call.Request) { r.Params = slices.Repeat(r.Params, 33) }),
		"a parameter with no name":         with(func(r *call.Request) { r.Params[0].Name = "" }),
		"a name of 65 bytes":               with(func(r *call.Request) { r.Params[0].Name = strings.Repeat("a", 65) }),
		"a call without a verb":            with(func(r *call.Request) { r.Verb = "" }),
		"a verb of 129 bytes":              with(func(r *call.Request) { r.Verb = strings.Repeat("a", 129) }),
		"a cancel cut short":               record(channel.TypeCancel, fixed(make([]byte, 15))),
		"a ping cut short":                 record(channel.TypePing, fixed(make([]byte, 15))),
		"a window cut short":               record(channel.TypeWindow, fixed(make([]byte, 39))),
		"a window with a credit of 2^64-1": record(channel.TypeWindow, fixed(bytes.Repeat([]byte{0xff}, 40))),
	}
	for _, typ := range []channel.Type{0, 2, 3, 7, 8, 11, 12, 14, 255} {
		cases[fmt.Sprintf("of type %d", typ)] = record(typ, fixed(make([]byte, 16)))
	}
	ids := make(map[string]int)
	n := 0
	var o *outsider
	var session string
	for name, raw := range cases {
		if n%15 == 0 { // handshakes of one session are held to a rate
			var h handle.Handle
			session, h = w.open("5m", "test.record")
			o = w.outsider(h)
		}
		n++
		s := o.enter()
		// Of a long one the daemon hears the beginning, and may hang up before the rest is written.
		_, _ = s.leg.Write(append(raw(s), s.up.seal(padded(byte(channel.TypeCall), s.signed(hold(s))))...))
		if took, err := s.end(); took > 2*time.Second {
			t.Errorf("%s: the connection goes on for %v: %v", name, took, err)
		}
		ids[session]++
	}
	for session, connections := range ids {
		until(t, 5*time.Second, "the ends are in the log", func() bool { return counted(w.entries(session), "disconnect") == connections })
		if calls := counted(w.entries(session), "call"); calls != 0 {
			t.Errorf("%d calls were allowed", calls)
		}
	}
	s := o.enter()
	if a := s.mustCall("test.record", params("name", "alpha")); a.cause != call.Exited {
		t.Errorf("afterwards an honest call ends as %v", a.cause)
	}
	w.mustHaveRun("<--name=alpha><1>")
	t.Logf("%d connections ended", n)
}

func TestNothingRunsBeforeFinishedIsRight(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	session, h := w.open("5m", "test.record")
	o := w.outsider(h)
	for name, c := range map[string]struct {
		o    *outsider
		edit func(*stranger, *finished)
	}{
		"a wrong HMAC":                  {o, func(_ *stranger, f *finished) { f.flipMAC = 1 }},
		"another nonce than promised":   {o, func(_ *stranger, f *finished) { f.nonce = make([]byte, 32) }},
		"another key":                   {o.another(), func(*stranger, *finished) {}},
		"a signature of another key":    {o, func(s *stranger, f *finished) { f.signer = s.another().signer }},
		"a key that is not a point":     {o, func(_ *stranger, f *finished) { f.key = bytes.Repeat([]byte{0xff}, 32) }},
		"a key of small order":          {o, func(_ *stranger, f *finished) { f.key = append([]byte{1}, make([]byte, 31)...) }},
		"a signature for another th2":   {o, func(_ *stranger, f *finished) { f.th2 = make([]byte, 32) }},
		"a signature for another rid":   {o, func(_ *stranger, f *finished) { f.rid = make([]byte, 16) }},
		"nine calls to resume":          {o, func(_ *stranger, f *finished) { f.resume = append([]byte{9}, make([]byte, 9*32)...) }},
		"a call to resume that is cut":  {o, func(_ *stranger, f *finished) { f.resume = append([]byte{1}, make([]byte, 31)...) }},
		"a key of the wrong length":     {o, func(_ *stranger, f *finished) { f.key = f.key[:31] }},
		"nothing at all: a call, first": {o, nil},
	} {
		s, err := c.o.meet()
		if err != nil {
			t.Fatal(err)
		}
		var sent []byte
		if c.edit != nil {
			f := s.honest()
			c.edit(s, f)
			sent = s.up.seal(padded(byte(channel.TypeFinished), f.body(s)))
		}
		r := s.request("test.record", params("name", "alpha"))
		r.Challenge = call.Challenge(make([]byte, 8))
		sent = append(sent, s.up.seal(padded(byte(channel.TypeCall), s.signed(r)))...)
		if _, err := s.leg.Write(sent); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if typ, _, err := s.read(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: answered with a record of type %d, %v", name, typ, err)
		}
	}
	// Who has S, and not the recipient's key, cannot open msg2 at all.
	stranger := newIdentity(t)
	thief := *o
	thief.opens = stranger.X25519()
	if _, err := thief.meet(); err == nil {
		t.Error("another key than the recipient's opens msg2")
	}
	w.mustHaveRun()
	all := w.entries(session)
	if n := counted(all, "connect"); n != 0 {
		t.Errorf("%d connections are in the log", n)
	}
	if counted(all, "refuse") != 1 {
		t.Errorf("another key is not in the log: %+v", all)
	}
	if list := w.issuer(0, "share", "list", "--json"); !strings.Contains(list, `"connections":0`) {
		t.Errorf("somebody is connected: %s", list)
	}
	o.enter()
}

func TestAFloodOfCallsIsHeldToTheLimits(t *testing.T) {
	w := newHostileWorld(t)
	session, h := w.open("5m", "test.record")
	_, other := w.open("5m", "test.record")
	o, bystander := w.outsider(h), w.outsider(other).enter()
	before, err := os.Stat(w.path("audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	const lasts = 3 * time.Second
	began := time.Now()
	var flood sync.WaitGroup
	var mu sync.Mutex
	sent, connections := 0, 0
	for range 2 {
		flood.Go(func() {
			for time.Since(began) < lasts {
				s, err := o.join()
				if err != nil {
					continue // its handshakes are held to a rate too
				}
				n := s.flood(began.Add(lasts))
				mu.Lock()
				sent += n
				connections++
				mu.Unlock()
			}
		})
	}
	slowest := time.Duration(0)
	honest := 0
	for time.Since(began) < lasts {
		asked := time.Now()
		if a, err := bystander.quietly("test.record", params("name", "bystander")); err != nil || a.cause != call.Exited {
			t.Fatalf("a bystander's call: %v %v %s", a.cause, err, a.reason)
		}
		honest++
		slowest = max(slowest, time.Since(asked))
		next := time.NewTimer(100 * time.Millisecond) // the bystander has a rate too
		<-next.C
	}
	flood.Wait()
	took := time.Since(began)

	s, err := o.join()
	for err != nil && time.Since(began) < 2*lasts {
		s, err = o.join()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.issuer(0, "share", "revoke", session)
	if _, err := s.end(); causeOf(err) != call.Revoked {
		t.Errorf("the flooding recipient is told: %v", err)
	}

	ran := 0
	for _, line := range w.ran() {
		if strings.Contains(line, "flood") {
			ran++
		}
	}
	if most := 20 + int(20*took.Seconds()) + 1; ran > most || ran == 0 {
		t.Errorf("%d calls ran in %v, and at most %d may", ran, took, most)
	}
	if total := len(w.ran()); total != ran+honest {
		t.Errorf("%d executions, %d of them of the flood and %d of the bystander", total, ran, honest)
	}
	all := w.entries(session)
	refused, lines := 0, 0
	for _, e := range all {
		if e.Kind == "deny" && e.Count > 0 {
			refused, lines = refused+e.Count, lines+1
		}
	}
	if lines > 3*(connections+1)+2*int(took.Seconds()+1) || refused > sent {
		t.Errorf("%d refusals of %d calls on %d connections in %d lines of the log", refused, sent, connections, lines)
	}
	after, err := os.Stat(w.path("audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if grown := after.Size() - before.Size(); grown > 1<<20 {
		t.Errorf("the log has grown by %d bytes", grown)
	}
	t.Logf("%d calls sent on %d connections, %d ran, %d refusals in %d lines; the bystander waited %v at most", sent, connections, ran, refused, lines, slowest)
}

// flood sends calls until the connection ends, and reads what comes.
func (s *stranger) flood(until time.Time) (sent int) {
	var reader sync.WaitGroup
	defer reader.Wait()
	defer s.leg.Reset()
	reader.Go(func() {
		for {
			if _, _, err := s.read(); err != nil {
				return
			}
		}
	})
	r := s.request("test.record", params("name", "flood"))
	for time.Now().Before(until) {
		binary.BigEndian.PutUint64(r.ID[:], uint64(sent))
		if s.send(channel.TypeCall, s.signed(r)) != nil {
			return sent
		}
		sent++
	}
	return sent
}

// quietly is call, without a push to the clock.
func (s *stranger) quietly(verb string, params []call.Param) (answer, error) {
	r := s.request(verb, params)
	if err := s.send(channel.TypeCall, s.signed(r)); err != nil {
		return answer{}, err
	}
	return s.await(r.ID)
}

// holding counts the processes of test.hold and test.spill that run.
func (w *world) holding() int {
	w.t.Helper()
	out, err := exec.Command("pgrep", "-f", "-c", "^/usr/bin/(tail -n 1 -f|yes) "+w.dir).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return 0
	}
	n, parse := strconv.Atoi(strings.TrimSpace(string(out)))
	if err := errors.Join(err, parse); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestAtMostEightCallsRunAtOnce(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	session, h := w.open("25m", "test.hold")
	o := w.outsider(h)
	first, second := o.enter(), o.enter() // the limit is the session's
	running := make(map[call.ID]*stranger)
	for i := range 8 {
		s := []*stranger{first, second}[i%2]
		r := s.request("test.hold", nil)
		if err := s.send(channel.TypeCall, s.signed(r)); err != nil {
			t.Fatal(err)
		}
		running[r.ID] = s
	}
	until(t, 10*time.Second, "eight calls run", func() bool { return w.holding() == 8 })
	const more = 200
	for i := range more {
		if a := []*stranger{first, second}[i%2].mustCall("test.hold", nil); a.cause != call.Limit || a.bytes != 0 {
			t.Fatalf("the call %d beyond eight: %v %s", i, a.cause, a.reason)
		}
	}
	if n := w.holding(); n != 8 {
		t.Errorf("%d calls run", n)
	}
	if n := counted(w.entries(session), "deny"); n != more {
		t.Errorf("%d denials in the log, want %d", n, more)
	}
	for id, s := range running {
		if err := s.send(channel.TypeCancel, id[:]); err != nil {
			t.Fatal(err)
		}
		if a, err := s.await(id); err != nil || a.cause != call.Cancelled {
			t.Errorf("a cancelled call: %v %v", a.cause, err)
		}
	}
	if n := w.holding(); n != 0 {
		t.Errorf("%d calls run after all were cancelled", n)
	}
	w.mustHaveRun(slices.Repeat([]string{"<hold>"}, 8)...)
}

func TestACallSendsAtMostEightMebibytes(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	session, h := w.open("5m", "test.spill")
	s := w.outsider(h).enter()
	a := s.mustCall("test.spill", nil)
	if a.cause != call.Limit || a.bytes != 8<<20 || a.came != 8<<20 {
		t.Errorf("%v after %d bytes, of which %d came", a.cause, a.bytes, a.came)
	}
	until(t, time.Second, "the process is gone", func() bool { return w.holding() == 0 })
	if all := w.entries(session); all[len(all)-1].Cause != "limit" {
		t.Errorf("the log ends with %+v", all[len(all)-1])
	}
}

func TestAReaderThatIsStuckHoldsNothingUp(t *testing.T) {
	w := newHostileWorld(t)
	session, h := w.open("5m", "test.hold", "test.spill")
	o := w.outsider(h)
	for range 4 {
		s := o.enter()
		for _, verb := range []string{"test.hold", "test.spill"} {
			r := s.request(verb, nil)
			if err := s.send(channel.TypeCall, s.signed(r)); err != nil {
				t.Fatal(err)
			}
		}
		s.stuff()
	}
	until(t, 10*time.Second, "all of it runs", func() bool { return w.holding() == 8 })
	_, other := w.open("5m", "test.record")
	if a := w.outsider(other).enter().mustCall("test.record", params("name", "bystander")); a.cause != call.Exited {
		t.Errorf("a bystander's call: %v", a.cause)
	}
	began := time.Now()
	w.issuer(0, "share", "revoke", session)
	told := time.Since(began)
	until(t, 2*time.Second, "the processes are gone", func() bool { return w.holding() == 0 })
	if gone := time.Since(began); told > time.Second || gone > time.Second {
		t.Errorf("revoking returned after %v, and the processes were gone after %v", told, gone)
	}
	until(t, 2*time.Second, "the connections are gone", func() bool {
		return counted(w.entries(session), "disconnect") == 4
	})
	t.Logf("connections gone %v after the revoke began", time.Since(began))
}

// stuff has the daemon write answers that nobody reads, until it takes nothing
// more: then its reader is stuck in a write.
func (s *stranger) stuff() {
	s.w.t.Helper()
	ping := call.Ping{}.Append(nil)
	for range 100_000 {
		if err := s.leg.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			s.w.t.Fatal(err)
		}
		if err := s.send(channel.TypePing, ping); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			s.w.t.Fatal(err)
		}
	}
	s.w.t.Fatal("the daemon takes 100,000 pings, and nobody reads the answers")
}

func TestACancelReachesOnlyOnesOwnCall(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	_, mine := w.open("5m", "test.hold")
	_, yours := w.open("5m", "test.hold")
	o := w.outsider(mine)
	first, second, foreign := o.enter(), o.enter(), w.outsider(yours).enter()
	held := first.request("test.hold", nil)
	if err := first.send(channel.TypeCall, first.signed(held)); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the call runs", func() bool { return w.holding() == 1 })
	for _, s := range []*stranger{second, foreign} {
		for _, id := range []call.ID{held.ID, {}, {0xff}} {
			if err := s.send(channel.TypeCancel, id[:]); err != nil {
				t.Fatal(err)
			}
			// A window for it does nothing either, and both go on.
			if err := s.send(channel.TypeWindow, call.Window{ID: id, Stdout: 1 << 40}.Append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if a := s.mustCall("test.record", params("name", "alpha")); a.cause != call.Denied {
			t.Errorf("after cancels of others' ids: %v", a.cause)
		}
	}
	if w.holding() != 1 {
		t.Error("somebody else has cancelled the call")
	}
	if err := first.send(channel.TypeCancel, held.ID[:]); err != nil {
		t.Fatal(err)
	}
	if a, err := first.await(held.ID); err != nil || a.cause != call.Cancelled {
		t.Errorf("cancelled by its own connection: %v %v", a.cause, err)
	}
}

func TestAnIDRunsOnceInASession(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	session, h := w.open("5m", "test.record", "test.hold")
	o := w.outsider(h)
	first, second := o.enter(), o.enter()
	again := func(s *stranger, r call.Request, what string) {
		t.Helper()
		r.Challenge = s.challenge
		if err := s.send(channel.TypeCall, s.signed(r)); err != nil {
			t.Fatal(err)
		}
		if a, err := s.await(r.ID); err != nil || a.cause != call.Denied {
			t.Errorf("an id used %s: %v %v", what, a.cause, err)
		}
	}
	once := first.request("test.record", params("name", "once"))
	if err := first.send(channel.TypeCall, first.signed(once)); err != nil {
		t.Fatal(err)
	}
	if a, err := first.await(once.ID); err != nil || a.cause != call.Exited {
		t.Fatalf("%v %v", a.cause, err)
	}
	again(first, once, "before on this connection")
	again(second, once, "on another connection")
	once.Params[0].Value = "else"
	again(second, once, "with other parameters")

	denied, a, err := first.call("test.kept", nil)
	if err != nil || a.cause != call.Denied {
		t.Fatalf("%v %v", a.cause, err)
	}
	once.ID = denied
	again(first, once, "for a call that was denied")

	held := second.request("test.hold", nil)
	if err := second.send(channel.TypeCall, second.signed(held)); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the call runs", func() bool { return w.holding() == 1 })
	once.ID = held.ID
	again(first, once, "by a call that runs")
	first.leg.Reset()
	third := o.enter()
	again(third, once, "before a new connection")
	w.mustHaveRun("<--name=once><1>", "<hold>")
	if n := counted(w.entries(session), "deny"); n != 7 {
		t.Errorf("%d denials in the log, want 7", n)
	}
}

func TestClientsThatFightEndOnlyEachOther(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	_, mine := w.open("5m", "test.record")
	_, yours := w.open("5m", "test.record")
	o, bystander := w.outsider(mine), w.outsider(yours).enter()

	last := o.enter()
	const fights = 6
	for range fights {
		next := o.enter(func(f *finished) { f.replaces = last.connID[:] })
		if _, err := last.end(); causeOf(err) != call.Replaced {
			t.Errorf("the one that was replaced is told: %v", err)
		}
		last = next
	}
	// Another session's connection is not theirs to replace.
	o.enter(func(f *finished) { f.replaces = bystander.connID[:] })
	// Beyond four, the one that is longest without a call goes.
	for range 4 {
		o.enter()
		if a := last.mustCall("test.kept", nil); a.cause != call.Denied {
			t.Errorf("the busy connection: %v", a.cause)
		}
	}
	if list := w.issuer(0, "share", "list", "--json"); !strings.Contains(list, `"connections":4`) {
		t.Errorf("not four connections: %s", list)
	}
	if a := bystander.mustCall("test.record", params("name", "bystander")); a.cause != call.Exited {
		t.Errorf("the bystander: %v", a.cause)
	}
	w.mustHaveRun("<--name=bystander><1>")
}

func TestAClaimIsNotToBeStolen(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	session, h := w.opened("share", "open", "--json", "--agent", "you", "--bearer", "--verb", "test.record", "--ttl", "5m")
	o := w.outsider(h)
	owner, thief := o.enter(), o.another()
	const tries = 12
	for range tries {
		if s, err := thief.join(func(f *finished) { f.replaces = owner.connID[:] }); err == nil {
			s.send(channel.TypeCall, s.signed(s.request("test.record", params("name", "stolen"))))
			t.Fatal("another key is let in")
		}
	}
	// The thief knows everything but the key: naming it does not help.
	if _, err := thief.join(func(f *finished) { f.key = o.signer.Public().(ed25519.PublicKey) }); err == nil {
		t.Error("the claim's key is believed without its signature")
	}
	all := w.entries(session)
	if counted(all, "claim") != 1 || counted(all, "connect") != 1 || counted(all, "refuse") != 1 {
		t.Errorf("in the log: %+v", all)
	}
	if list := w.issuer(0, "share", "list", "--json"); !strings.Contains(list, fmt.Sprintf(`"refused":%d`, tries)) {
		t.Errorf("the issuer is not shown %d refused keys: %s", tries, list)
	}
	r := owner.request("test.record", params("name", "waiting"))
	if err := owner.send(channel.TypeCall, owner.signed(r)); err != nil {
		t.Fatal(err)
	}
	if typ, body, err := owner.read(); err != nil || typ != channel.TypeNotice || body[0] != byte(call.NoticePending) {
		t.Errorf("the call does not wait: record %d %q, %v", typ, body, err)
	}
	w.issuer(3, "share", "confirm", session, "abandon abandon abandon abandon")
	w.issuer(0, "share", "revoke", session)
	if _, err := owner.end(); causeOf(err) != call.Revoked {
		t.Errorf("the owner is told: %v", err)
	}
	w.mustHaveRun()
}

func TestAnotherSharesPassportIsWorthNothing(t *testing.T) {
	t.Parallel()
	w := newHostileWorld(t)
	_, records := w.open("5m", "test.record:name=alpha")
	_, hosts := w.open("5m", "test.host:host=beta")
	a, b := w.outsider(records), w.outsider(hosts)
	s := a.enter()
	for _, try := range []struct {
		verb   string
		params []call.Param
	}{{"test.host", params("host", "beta")}, {"test.record", params("name", "beta")}} {
		if got := s.mustCall(try.verb, try.params); got.cause != call.Denied {
			t.Errorf("%s of the other session: %v", try.verb, got.cause)
		}
	}
	// A request that the other session's daemon would run, word for word.
	other := b.enter()
	r := other.request("test.host", params("host", "beta"))
	r.Challenge = s.challenge
	if err := s.send(channel.TypeCall, other.signed(r)); err != nil {
		t.Fatal(err)
	}
	if took, err := s.end(); took > 2*time.Second {
		t.Errorf("a request of the other session: %v after %v", err, took)
	}
	for name, edit := range map[string]func(o *outsider){
		"the other's secret":        func(o *outsider) { o.secret = b.secret },
		"the other's id":            func(o *outsider) { o.h.RID = hosts.RID },
		"the other's id and secret": func(o *outsider) { o.h.RID, o.secret = hosts.RID, b.secret },
		"the other's box":           func(o *outsider) { o.h.Enc, o.h.Box = hosts.Enc, hosts.Box },
		"another fingerprint":       func(o *outsider) { o.h.Fingerprint[0] ^= 1 },
		"a later hard limit":        func(o *outsider) { o.h.HardLimit = o.h.HardLimit.Add(time.Hour) },
		"the form of a bearer's":    func(o *outsider) { o.h.Sealed, o.opens = false, nil },
		"a secret that was made up": func(o *outsider) { o.secret = [32]byte{1} },
		"no relay's address in it": func(o *outsider) {
			o.h.Relays = []wire.Relay{{Address: o.h.Relays[0].Address, Pin: o.h.Relays[0].Pin}, o.h.Relays[0]}
		},
	} {
		mixed := *a
		edit(&mixed)
		if _, err := mixed.meet(); err == nil {
			t.Errorf("a handle with %s is answered", name)
		}
	}
	w.mustHaveRun()
}

func TestNothingRunsAfterASessionHasEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   func(w *world, session string)
		cause call.Cause
	}{
		"expired":                         {func(w *world, _ string) { w.clock.step(10*time.Minute, 10*time.Minute) }, call.Expired},
		"expired by the wall clock alone": {func(w *world, _ string) { w.clock.step(10*time.Minute, 0) }, call.Expired},
		"expired by the boot clock alone": {func(w *world, _ string) { w.clock.step(0, 10*time.Minute) }, call.Expired},
		"revoked":                         {func(w *world, session string) { w.issuer(0, "share", "revoke", session) }, call.Revoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHostileWorld(t)
			session, h := w.open("10m", "test.record")
			o := w.outsider(h)
			s := o.enter()
			if a := s.mustCall("test.record", params("name", "before")); a.cause != call.Exited {
				t.Fatalf("before the end: %v", a.cause)
			}
			prepared := s.signed(s.request("test.record", params("name", "after")))
			c.end(w, session)
			ended := time.Now()
			// On the connection that stands, with a request signed before.
			if err := s.send(channel.TypeCall, prepared); err == nil {
				_, err = s.end()
				if got := causeOf(err); got != c.cause && got != 0 {
					t.Errorf("the connection was told %v", got)
				}
			}
			// On new ones, with everything that came before FINISHED still good.
			for attempts := 0; time.Since(ended) < 1200*time.Millisecond; attempts++ {
				late, err := o.meet()
				if err != nil {
					continue // held to a rate
				}
				_ = late.send(channel.TypeFinished, late.honest().body(late))
				if attempts > 0 { // the first one waits to be told
					_ = late.send(channel.TypeCall, late.signed(late.request("test.record", params("name", "late"))))
				}
				if _, err := late.end(); attempts == 0 && causeOf(err) != c.cause {
					t.Errorf("a late client is told: %v", err)
				}
			}
			w.mustHaveRun("<--name=before><1>")
			if n := counted(w.entries(session), "connect"); n != 1 {
				t.Errorf("%d connections in the log", n)
			}
		})
	}
}
