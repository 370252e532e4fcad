package call

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"openscope/bench/vectors"
	"openscope/wire"
)

const root = "../.."

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// parsers read each record's body and write it again.
var parsers = map[string]func([]byte) ([]byte, error){
	"CALL":   again(ParseRequest),
	"CANCEL": func(b []byte) ([]byte, error) { id, err := ParseCancel(b); return AppendCancel(nil, id), err },
	"WINDOW": again(ParseWindow),
	"OUT":    again(ParseOutput),
	"END":    again(ParseResult),
	"PING":   again(ParsePing),
	"PONG":   again(ParsePong),
	"NOTICE": again(ParseNotice),
	"ERROR":  again(ParseFault),
	"CLOSE":  again(ParseClose),
}

func again[T interface{ Append([]byte) []byte }](parse func([]byte) (T, error)) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		v, err := parse(b)
		if err != nil {
			return nil, err
		}
		return v.Append(nil), nil
	}
}

func vectorRequest() Request {
	return Request{
		ID: ID(fill(1, 16)), Challenge: Challenge(fill(2, 8)), Verb: "ssh.tail_logs",
		Params: []Param{{"service", "web"}, {"lines", "200"}},
	}
}

func vectorResult() Result {
	return Result{
		ID: ID(fill(1, 16)), Cause: Exited, Status: -1, Stdout: Digest{Bytes: 5, SHA256: [32]byte(fill(3, 32))},
		Stderr: Digest{SHA256: [32]byte(fill(4, 32))}, Challenge: Challenge(fill(5, 8)), ChainHead: [32]byte(fill(6, 32)),
	}
}

func TestBodiesAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Bodies of records, CALL and END without their signatures: wire/README.md §6.1. A good body is written again as it was."}
	good := func(record, name string, v interface{ Append([]byte) []byte }) {
		file.Cases = append(file.Cases, vectors.Case{Name: record + ", " + name, In: vectors.Values{"record": record, "body": vectors.Hex(v.Append(nil))}})
	}
	bad := func(record, name string, body []byte) {
		file.Cases = append(file.Cases, vectors.Case{
			Name: record + ", " + name, In: vectors.Values{"record": record, "body": vectors.Hex(body)}, Error: "malformed",
		})
	}
	request, id := vectorRequest(), ID(fill(1, 16))
	good("CALL", "two parameters", request)
	good("CALL", "no parameter", Request{ID: id, Verb: "a"})
	good("CALL", "an empty value", Request{ID: id, Verb: "a", Params: []Param{{"p", ""}}})
	good("CALL", "the longest verb, name and value", Request{ID: id, Verb: strings.Repeat("v", MaxVerb), Params: []Param{{strings.Repeat("n", MaxName), strings.Repeat("x", MaxValue)}}})
	good("CALL", "a value of any bytes", Request{ID: id, Verb: "a", Params: []Param{{"p", "\x00\xff\n\x1b"}}})
	good("CALL", "32 parameters", Request{ID: id, Verb: "a", Params: many(MaxParams)})
	good("WINDOW", "the most credit", Window{ID: id, Stdout: 1 << 40, Stderr: 7, Credit: MaxCredit})
	good("OUT", "stdout", Output{ID: id, Stream: Stdout, Data: []byte("line\n")})
	good("OUT", "stderr, later", Output{ID: id, Stream: Stderr, Offset: 1 << 33, Data: []byte{0}})
	good("PING", "of a daemon", Ping{Nonce: [8]byte(fill(1, 8)), Challenge: Challenge(fill(2, 8))})
	good("PONG", "of a client", Pong{Nonce: [8]byte(fill(1, 8))})
	for kind := NoticePending; kind <= NoticeReason; kind++ {
		good("NOTICE", fmt.Sprintf("kind %d", kind), Notice{Kind: kind, ID: id, Text: "words for a person"})
	}
	good("NOTICE", "200 bytes of text", Notice{Kind: NoticeReason, ID: id, Text: strings.Repeat("~", MaxText)})
	good("ERROR", "the protocol", Fault{Code: FaultProtocol, Text: "the protocol was broken"})
	good("ERROR", "no text", Fault{Code: FaultInternal})
	for cause := Exited; cause < Replaced; cause++ {
		r := vectorResult()
		r.Cause = cause
		good("END", cause.String(), r)
	}
	for _, cause := range []Cause{Expired, Revoked, Closed, AuditFailure, Replaced} {
		good("CLOSE", cause.String(), Close{Cause: cause, Text: "over"})
	}
	file.Cases = append(file.Cases, vectors.Case{Name: "CANCEL, an id", In: vectors.Values{"record": "CANCEL", "body": vectors.Hex(id[:])}})

	whole := request.Append(nil)
	set := func(b []byte, at int, value ...byte) []byte { b = bytes.Clone(b); copy(b[at:], value); return b }
	bad("CALL", "empty", nil)
	bad("CALL", "cut in the id", whole[:15])
	bad("CALL", "cut in the verb", whole[:30])
	bad("CALL", "cut in a value", whole[:len(whole)-1])
	bad("CALL", "a byte too many", append(bytes.Clone(whole), 0))
	bad("CALL", "an empty verb", Request{ID: id}.Append(nil))
	bad("CALL", "a verb of 129 bytes", Request{ID: id, Verb: strings.Repeat("v", MaxVerb+1)}.Append(nil))
	bad("CALL", "33 parameters", Request{ID: id, Verb: "a", Params: many(MaxParams + 1)}.Append(nil))
	bad("CALL", "255 parameters announced, two there", set(whole, 24+1+13, 255))
	bad("CALL", "a parameter without a name", Request{ID: id, Verb: "a", Params: []Param{{"", "x"}}}.Append(nil))
	bad("CALL", "a name of 65 bytes", Request{ID: id, Verb: "a", Params: []Param{{strings.Repeat("n", MaxName+1), "x"}}}.Append(nil))
	bad("CALL", "a value of 4,097 bytes", Request{ID: id, Verb: "a", Params: []Param{{"p", strings.Repeat("x", MaxValue+1)}}}.Append(nil))
	bad("CALL", "a value of 65,535 bytes announced", set(Request{ID: id, Verb: "a", Params: []Param{{"p", "x"}}}.Append(nil), 29, 0xff, 0xff))
	long := Request{ID: id, Verb: "a"}
	for i := range 4 {
		long.Params = append(long.Params, Param{fmt.Sprint(i), strings.Repeat("x", 4000)})
	}
	bad("CALL", "over 16,000 bytes", long.Append(nil))
	bad("CANCEL", "15 bytes", fill(1, 15))
	bad("CANCEL", "17 bytes", fill(1, 17))
	window := Window{ID: id, Credit: 1}.Append(nil)
	bad("WINDOW", "a byte short", window[:len(window)-1])
	bad("WINDOW", "a byte too many", append(bytes.Clone(window), 0))
	bad("WINDOW", "a byte more credit than there may be", Window{ID: id, Credit: MaxCredit + 1}.Append(nil))
	bad("WINDOW", "the largest number of credit", Window{ID: id, Credit: 1<<64 - 1}.Append(nil))
	bad("OUT", "no data", Output{ID: id, Stream: Stdout}.Append(nil))
	bad("OUT", "stream 0", Output{ID: id, Data: []byte("x")}.Append(nil))
	bad("OUT", "stream 3", Output{ID: id, Stream: 3, Data: []byte("x")}.Append(nil))
	bad("OUT", "cut in the offset", Output{ID: id, Stream: Stdout}.Append(nil)[:20])
	end := vectorResult().Append(nil)
	bad("END", "a byte short", end[:len(end)-1])
	bad("END", "a byte too many", append(bytes.Clone(end), 0))
	bad("END", "cause 0", set(end, 16, 0))
	bad("END", "replaced, which is for CLOSE alone", set(end, 16, byte(Replaced)))
	bad("END", "cause 15", set(end, 16, 15))
	for _, record := range []string{"PING", "PONG"} {
		bad(record, "15 bytes", fill(1, 15))
		bad(record, "17 bytes", fill(1, 17))
	}
	notice := Notice{Kind: NoticeReason, ID: id, Text: "why"}
	bad("NOTICE", "kind 0", set(notice.Append(nil), 0, 0))
	bad("NOTICE", "kind 5", set(notice.Append(nil), 0, 5))
	bad("NOTICE", "cut in the id", notice.Append(nil)[:16])
	bad("ERROR", "empty", nil)
	bad("ERROR", "code 0", Fault{Text: "x"}.Append(nil))
	bad("ERROR", "code 3", Fault{Code: 3, Text: "x"}.Append(nil))
	bad("CLOSE", "empty", nil)
	bad("CLOSE", "cause 0", Close{Text: "x"}.Append(nil))
	bad("CLOSE", "cause 15", Close{Cause: 15}.Append(nil))
	for _, text := range []struct{ name, text string }{
		{"an escape", "\x1b[2J"}, {"a newline", "a\nb"}, {"a tab", "a\tb"}, {"DEL", "a\x7f"}, {"a C1 control", "\x9b2J"},
		{"beyond ASCII", "é"}, {"a right-to-left mark", "\u200f"}, {"201 bytes", strings.Repeat("x", MaxText+1)},
	} {
		bad("NOTICE", "text with "+text.name, Notice{Kind: NoticeReason, ID: id, Text: text.text}.Append(nil))
		bad("ERROR", "text with "+text.name, Fault{Code: FaultProtocol, Text: text.text}.Append(nil))
		bad("CLOSE", "text with "+text.name, Close{Cause: Revoked, Text: text.text}.Append(nil))
	}
	vectors.Check(t, root, "call", file, func(t *testing.T, in vectors.Values) (vectors.Values, error) {
		body := in.Bytes(t, "body")
		back, err := parsers[in["record"]](body)
		if err == nil && !bytes.Equal(back, body) {
			t.Errorf("it is written again as %x", back)
		}
		return nil, err
	}, vectors.Classes{"malformed": ErrMalformed.Error()})
}

func many(n int) []Param {
	params := make([]Param, n)
	for i := range params {
		params[i] = Param{fmt.Sprintf("p%d", i), "x"}
	}
	return params
}

var errSignature = errors.New("the signature is wrong")

func TestSignaturesAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Signed CALLs and ENDs: wire/README.md §6.2 and §6.4. record is CALL, signed by key over th2, or END, signed by key as the answer to request, " +
		"a CALL with its signature. seed is that of the signer."}
	recipient, daemon := ed25519.NewKeyFromSeed(fill(0x99, 32)), ed25519.NewKeyFromSeed(fill(0xda, 32))
	rid, th2 := wire.RendezvousID(fill(0x1d, 16)), [32]byte(fill(0x72, 32))
	call := vectorRequest().Append(nil)
	signature := SignRequest(recipient, rid, th2, call)
	signed := append(bytes.Clone(call), signature...)
	end := vectorResult().Append(nil)
	answer := append(bytes.Clone(end), SignResult(daemon, rid, RequestHash(call, signature), end)...)
	values := map[string]vectors.Values{
		"CALL": {
			"record": "CALL", "rid": vectors.Hex(rid[:]), "th2": vectors.Hex(th2[:]), "key": vectors.Hex(recipient.Public().(ed25519.PublicKey)),
			"seed": vectors.Hex(recipient.Seed()), "signed": vectors.Hex(signed),
		},
		"END": {
			"record": "END", "rid": vectors.Hex(rid[:]), "request": vectors.Hex(signed), "key": vectors.Hex(daemon.Public().(ed25519.PublicKey)),
			"seed": vectors.Hex(daemon.Seed()), "signed": vectors.Hex(answer),
		},
	}
	for _, record := range []string{"CALL", "END"} {
		file.Cases = append(file.Cases, vectors.Case{Name: record, In: values[record]})
		other := func(name, value string, edit func([]byte)) {
			in := vectors.Values{}
			for k, v := range values[record] {
				in[k] = v
			}
			b := in.Bytes(t, value)
			edit(b)
			in[value] = vectors.Hex(b)
			delete(in, "seed")
			file.Cases = append(file.Cases, vectors.Case{Name: record + ", " + name, In: in, Error: "signature"})
		}
		other("of another session", "rid", func(b []byte) { b[0] ^= 1 })
		other("by another key", "key", func(b []byte) { copy(b, daemon.Public().(ed25519.PublicKey)); b[31] ^= 0x80 })
		other("a bit of the body", "signed", func(b []byte) { b[20] ^= 1 })
		other("a bit of the signature", "signed", func(b []byte) { b[len(b)-1] ^= 1 })
		if record == "CALL" {
			other("on another connection", "th2", func(b []byte) { b[0] ^= 1 })
			other("a bit of a value", "signed", func(b []byte) { b[len(b)-65] ^= 1 })
			continue
		}
		other("to another request", "request", func(b []byte) { b[20] ^= 1 })
		other("to the request with another signature", "request", func(b []byte) { b[len(b)-1] ^= 1 })
		other("another status", "signed", func(b []byte) { binary.BigEndian.PutUint32(b[17:], 0) })
	}
	vectors.Check(t, root, "call-signature", file, judgeSignature, vectors.Classes{"signature": errSignature.Error()})
}

func judgeSignature(t *testing.T, in vectors.Values) (vectors.Values, error) {
	rid, key, signed := wire.RendezvousID(in.Bytes(t, "rid")), in.Bytes(t, "key"), in.Bytes(t, "signed")
	body, signature := signed[:len(signed)-64], signed[len(signed)-64:]
	good := false
	if in["record"] == "CALL" {
		good = VerifyRequest(key, rid, [32]byte(in.Bytes(t, "th2")), body, signature)
	} else {
		request := in.Bytes(t, "request")
		hash := RequestHash(request[:len(request)-64], request[len(request)-64:])
		good = VerifyResult(key, rid, hash, body, signature)
	}
	if !good {
		return nil, errSignature
	}
	return nil, nil
}

func TestAHostileBodyCostsLittle(t *testing.T) {
	inputs := vectors.Load(t, root, "call").Inputs(t, "body", true)
	for record, parse := range parsers {
		most := vectors.HoldAllocations(t, inputs, 5, func(b []byte) { _, _ = parse(b) })
		t.Logf("%s: at most %d bytes beyond four times the input", record, most)
	}
}
