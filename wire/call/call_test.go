package call

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"openscope/bench/vectors"
	"openscope/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codec is one record body: how it is read, and how it is written again.
type codec struct {
	name   string
	parse  func([]byte) (any, error)
	append func(any) []byte
	sample any
}

func parser[T any](f func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return f(b) }
}

var codecs = []codec{
	{"CALL", parser(ParseRequest), func(v any) []byte { return v.(Request).Append(nil) },
		Request{ID: ID{1}, Challenge: Challenge{2}, Verb: "app.verb", Params: []Param{{"a", "1"}, {"b", ""}}}},
	{"CANCEL", parser(ParseCancel), func(v any) []byte { return AppendCancel(nil, v.(ID)) }, ID{1}},
	{"WINDOW", parser(ParseWindow), func(v any) []byte { return v.(Window).Append(nil) }, Window{ID{1}, 2, 3, MaxCredit}},
	{"OUT", parser(ParseOutput), func(v any) []byte { return v.(Output).Append(nil) }, Output{ID{1}, Stderr, 1 << 40, []byte("text")}},
	{"END", parser(ParseResult), func(v any) []byte { return v.(Result).Append(nil) },
		Result{ID: ID{1}, Cause: Exited, Status: -1, Stdout: Digest{5, [32]byte{6}}, Stderr: Digest{7, [32]byte{8}}, Challenge: Challenge{9}, ChainHead: [32]byte{10}}},
	{"PING", parser(ParsePing), func(v any) []byte { return v.(Ping).Append(nil) }, Ping{[8]byte{1}, Challenge{2}}},
	{"PONG", parser(ParsePong), func(v any) []byte { return v.(Pong).Append(nil) }, Pong{[8]byte{1}, Challenge{2}}},
	{"NOTICE", parser(ParseNotice), func(v any) []byte { return v.(Notice).Append(nil) }, Notice{NoticeReason, ID{1}, "why"}},
	{"ERROR", parser(ParseFault), func(v any) []byte { return v.(Fault).Append(nil) }, Fault{FaultProtocol, "why"}},
	{"CLOSE", parser(ParseClose), func(v any) []byte { return v.(Close).Append(nil) }, Close{Revoked, "why"}},
}

func TestBodiesReadBackAsTheyWereWritten(t *testing.T) {
	for _, c := range codecs {
		body := c.append(c.sample)
		got, err := c.parse(body)
		if err != nil || !reflect.DeepEqual(got, c.sample) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestBodiesThatAreCutAreRefused(t *testing.T) {
	texts := map[string]int{"NOTICE": 17, "ERROR": 1, "CLOSE": 1} // text may have any length
	for _, c := range codecs {
		body := c.append(c.sample)
		shortest := len(body)
		if n, ok := texts[c.name]; ok {
			shortest = n
		}
		if c.name == "OUT" {
			shortest = OutputHeader + 1
		}
		for n := range shortest {
			if v, err := c.parse(body[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s cut to %d bytes: %+v, %v", c.name, n, v, err)
			}
		}
		if _, text := texts[c.name]; text || c.name == "OUT" {
			continue
		}
		if v, err := c.parse(append(body, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s with a byte more: %+v, %v", c.name, v, err)
		}
	}
}

func TestBodiesOutOfBoundsAreRefused(t *testing.T) {
	long := strings.Repeat("x", MaxText+1)
	many := Request{Verb: "app.verb"}
	for i := range MaxParams + 1 {
		many.Params = append(many.Params, Param{fmt.Sprint("p", i), "v"})
	}
	for name, parse := range map[string]func() error{
		"OUT on stream 0":            func() error { _, err := ParseOutput(Output{Stream: 0, Data: []byte("x")}.Append(nil)); return err },
		"OUT on stream 3":            func() error { _, err := ParseOutput(Output{Stream: 3, Data: []byte("x")}.Append(nil)); return err },
		"OUT of nothing":             func() error { _, err := ParseOutput(Output{Stream: 1}.Append(nil)); return err },
		"a credit over 1 MiB":        func() error { _, err := ParseWindow(Window{Credit: MaxCredit + 1}.Append(nil)); return err },
		"END of cause 0":             func() error { _, err := ParseResult(Result{}.Append(nil)); return err },
		"END of an unknown cause":    func() error { _, err := ParseResult(Result{Cause: 15}.Append(nil)); return err },
		"END replaced":               func() error { _, err := ParseResult(Result{Cause: Replaced}.Append(nil)); return err },
		"CLOSE of cause 0":           func() error { _, err := ParseClose(Close{}.Append(nil)); return err },
		"CLOSE with a long text":     func() error { _, err := ParseClose(Close{Closed, long}.Append(nil)); return err },
		"CLOSE with an escape":       func() error { _, err := ParseClose(Close{Closed, "\x1b[2J"}.Append(nil)); return err },
		"CLOSE with a newline":       func() error { _, err := ParseClose(Close{Closed, "a\nb"}.Append(nil)); return err },
		"CLOSE beyond ASCII":         func() error { _, err := ParseClose(Close{Closed, "é"}.Append(nil)); return err },
		"NOTICE of kind 0":           func() error { _, err := ParseNotice(Notice{}.Append(nil)); return err },
		"NOTICE of an unknown kind":  func() error { _, err := ParseNotice(Notice{Kind: 5}.Append(nil)); return err },
		"ERROR of an unknown code":   func() error { _, err := ParseFault(Fault{Code: 3}.Append(nil)); return err },
		"a CALL without a verb":      func() error { _, err := ParseRequest(Request{}.Append(nil)); return err },
		"a verb of 129 bytes":        func() error { return Request{Verb: strings.Repeat("v", 129)}.Check() },
		"33 parameters":              func() error { _, err := ParseRequest(many.Append(nil)); return err },
		"a parameter without a name": func() error { return Request{Verb: "v", Params: []Param{{"", "x"}}}.Check() },
		"a value of 4,097 bytes":     func() error { return Request{Verb: "v", Params: []Param{{"n", strings.Repeat("x", 4097)}}}.Check() },
		"a request over a record": func() error {
			r := Request{Verb: "v"}
			for range 4 {
				r.Params = append(r.Params, Param{"n", strings.Repeat("x", 4096)})
			}
			return r.Check()
		},
	} {
		if err := parse(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzBodies(f *testing.F) {
	for i, c := range codecs {
		f.Add(byte(i), c.append(c.sample))
	}
	for i := range codecs {
		for _, body := range vectors.Load(f, root, "call").Inputs(f, "body", true) {
			f.Add(byte(i), body)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, body []byte) {
		c := codecs[int(which)%len(codecs)]
		vectors.HoldFuzzed(t, body, func(b []byte) { _, _ = c.parse(b) })
		v, err := c.parse(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s: an error of another kind: %v", c.name, err)
			}
			return
		}
		if again := c.append(v); !bytes.Equal(again, body) {
			t.Fatalf("%s: %x is read and written as %x", c.name, body, again)
		}
	})
}

func TestSignaturesAreBoundToEverything(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	public := key.Public().(ed25519.PublicKey)
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)).Public().(ed25519.PublicKey)
	rid, th2 := wire.RendezvousID{1}, [32]byte{2}
	body := []byte("a request")
	signature := SignRequest(key, rid, th2, body)
	if !VerifyRequest(public, rid, th2, body, signature) {
		t.Fatal("an honest request is refused")
	}
	for name, ok := range map[string]bool{
		"another key":        VerifyRequest(other, rid, th2, body, signature),
		"no key":             VerifyRequest(nil, rid, th2, body, signature),
		"another session":    VerifyRequest(public, wire.RendezvousID{9}, th2, body, signature),
		"another connection": VerifyRequest(public, rid, [32]byte{9}, body, signature),
		"another body":       VerifyRequest(public, rid, th2, []byte("a requesu"), signature),
		"a cut signature":    VerifyRequest(public, rid, th2, body, signature[:63]),
		"a result's label":   VerifyResult(public, rid, th2, body, signature),
	} {
		if ok {
			t.Errorf("a request passes with %s", name)
		}
	}
	request := RequestHash(body, signature)
	result := SignResult(key, rid, request, []byte("a result"))
	if !VerifyResult(public, rid, request, []byte("a result"), result) {
		t.Fatal("an honest result is refused")
	}
	if VerifyResult(public, rid, RequestHash(body, append(signature[:63:63], 0)), []byte("a result"), result) {
		t.Error("a result passes for another request")
	}
	if VerifyRequest(public, rid, request, []byte("a result"), result) {
		t.Error("a result passes as a request")
	}
}
