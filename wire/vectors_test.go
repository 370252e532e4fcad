package wire

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"openscope/bench/vectors"
)

// count is 1, 2, 3 … in n bytes.
func count(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

// The three who prove something to the relay, and the connection they do it on.
var (
	vectorExporter = [32]byte(bytes.Repeat([]byte{0xee}, 32))
	vectorRegister = keyOf(0x11)
	vectorJoin     = keyOf(0x22)
)

func vectorRegistration() Register {
	rid := NewRendezvousID(publicOf(0x11), publicOf(0x22))
	return SignRegister(vectorRegister, vectorExporter, Register{
		RID: rid, RegisterKey: publicOf(0x11), JoinKey: publicOf(0x22), Lifetime: 30 * time.Minute,
	})
}

// relayVectors collects the cases of one file.
type relayVectors struct{ vectors.File }

func (f *relayVectors) add(class, name string, in, out vectors.Values) {
	f.Cases = append(f.Cases, vectors.Case{Name: name, In: in, Out: out, Error: class})
}

func TestRelayMessagesAreThoseOfTheVectors(t *testing.T) {
	file := relayVectors{vectors.File{About: "Messages to and from a relay: wire/README.md §3.2. " +
		"A message that is refused ends the connection."}}
	signature := bytes.Repeat([]byte{0x51}, 64)
	rid := RendezvousID(count(16))
	good := map[string]interface{ Append([]byte) []byte }{
		"hello":                 Hello{Token: TokenID(count(16)), Signature: signature},
		"hello ack":             HelloAck{Address: "node-3.example.com:4433", Sessions: 1024, Legs: 8},
		"hello ack, no address": HelloAck{Sessions: 1, Legs: 8},
		"register":              vectorRegistration(),
		"register ack":          RegisterAck{RID: rid, Status: Registered},
		"register ack, refused": RegisterAck{RID: rid, Status: RegisterRefused},
		"register ack, full":    RegisterAck{RID: rid, Status: RegisterFull},
		"unregister":            Unregister{RID: rid},
		"kept":                  Kept{RID: rid, Leg: 1 << 33},
		"join":                  Join{RID: rid, Signature: signature},
		"preface":               Preface{RID: rid, Leg: 7, From: "192.0.2.1:50000"},
		"preface, no address":   Preface{RID: rid, Leg: 8},
		"answer":                Answer{Status: StatusTaken},
		"answer, refused":       Answer{Status: StatusRefused},
		"answer, draining":      Answer{Status: StatusDraining},
		"answer, superseded":    Answer{Status: StatusSuperseded},
	}
	for _, name := range slices.Sorted(maps.Keys(good)) {
		message := good[name].Append(nil)
		file.add("", name, vectors.Values{"message": vectors.Hex(message)}, vectors.Values{"type": fmt.Sprint(message[0])})
	}
	bad := func(name string, message []byte) {
		file.add("malformed", name, vectors.Values{"message": vectors.Hex(message)}, nil)
	}
	change := func(from string, edit func(body []byte) []byte) []byte {
		message := good[from].Append(nil)
		return AppendMessage(nil, MessageType(message[0]), edit(message[messageHead:]))
	}
	set := func(at int, value byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = value; return b }
	}
	for _, name := range []string{"hello", "hello ack", "register", "register ack", "unregister", "kept", "join", "preface", "answer"} {
		bad(name+", a byte short", change(name, func(b []byte) []byte { return b[:len(b)-1] }))
		bad(name+", a byte too many", change(name, func(b []byte) []byte { return append(b, 0) }))
		if name != "answer" { // of one byte
			bad(name+", empty", change(name, func([]byte) []byte { return nil }))
		}
	}
	for _, name := range []string{"hello", "hello ack", "join", "preface"} {
		bad(name+", version 2", change(name, set(0, 2)))
	}
	bad("hello ack, an address of 101 characters", HelloAck{Address: string(bytes.Repeat([]byte{'a'}, 96)) + ":4433"}.Append(nil))
	bad("hello ack, an address in upper case", HelloAck{Address: "Relay:4433"}.Append(nil))
	bad("hello ack, an address without a port", HelloAck{Address: "relay"}.Append(nil))
	bad("register ack, status 3", change("register ack", set(16, 3)))
	bad("preface, an address with an escape", Preface{RID: rid, From: "\x1b[2J"}.Append(nil))
	bad("preface, an address beyond ASCII", Preface{RID: rid, From: "é"}.Append(nil))
	bad("type 0", AppendMessage(nil, 0, count(16)))
	bad("answer, status 4", change("answer", set(0, 4)))
	bad("type 11", AppendMessage(nil, 11, count(16)))
	bad("257 bytes", AppendMessage(nil, TypeHeartbeat, make([]byte, 254)))
	vectors.Check(t, "..", "relay-message", file.File, judgeMessage, vectors.Classes{"malformed": ErrMessage.Error()})
}

// judgeMessage reads a message of whatever type and writes it again.
func judgeMessage(t *testing.T, in vectors.Values) (vectors.Values, error) {
	message := in.Bytes(t, "message")
	kind, body, err := ReadMessage(bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	for _, m := range relayMessages() {
		if m.kind != kind {
			continue
		}
		again, err := m.again(body)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(again, message) {
			return nil, fmt.Errorf("it is written again as %x", again)
		}
		return vectors.Values{"type": fmt.Sprint(uint8(kind))}, nil
	}
	return nil, fmt.Errorf("%w: type %d", ErrMessage, kind)
}

var errProof = errors.New("the proof is wrong")

func TestProofsAreThoseOfTheVectors(t *testing.T) {
	file := relayVectors{vectors.File{About: "Proofs to a relay: wire/README.md §3.1. exporter is the TLS connection's, " +
		"key the public half that the relay holds: the token's, or the join key of the registration. seed is the Ed25519 seed it was signed with."}}
	token := tokenOf(t, 0x33)
	messages := map[string][]byte{
		"hello":    Hello{Token: token.ID(), Signature: token.SignHello(vectorExporter)}.Append(nil),
		"register": vectorRegistration().Append(nil),
		"join": Join{
			RID: vectorRegistration().RID, Signature: SignJoin(vectorJoin, vectorExporter, vectorRegistration().RID),
		}.Append(nil),
	}
	keys := map[string][]byte{"hello": token.Public(), "register": {}, "join": publicOf(0x22)}
	seeds := map[string][]byte{"hello": {0x33}, "register": {0x11}, "join": {0x22}}
	otherExporter := bytes.Repeat([]byte{0xef}, 32)
	for _, name := range slices.Sorted(maps.Keys(messages)) {
		in := func(message, exporter, key []byte) vectors.Values {
			return vectors.Values{"message": vectors.Hex(message), "exporter": vectors.Hex(exporter), "key": vectors.Hex(key)}
		}
		message := messages[name]
		signed := in(message, vectorExporter[:], keys[name])
		signed["seed"] = vectors.Hex(bytes.Repeat(seeds[name], 32))
		file.add("", name, signed, nil)
		file.add("proof", name+" on another connection", in(message, otherExporter, keys[name]), nil)
		flip := func(at int) []byte {
			changed := bytes.Clone(message)
			changed[at] ^= 1
			return changed
		}
		file.add("proof", name+", a bit of the signature", in(flip(len(message)-1), vectorExporter[:], keys[name]), nil)
		switch name {
		case "register":
			file.add("proof", "register, another id", in(flip(messageHead), vectorExporter[:], nil), nil)
			file.add("proof", "register, another register key", in(flip(messageHead+16), vectorExporter[:], nil), nil)
			file.add("proof", "register, another join key", in(flip(messageHead+48), vectorExporter[:], nil), nil)
			file.add("proof", "register, another lifetime", in(flip(messageHead+83), vectorExporter[:], nil), nil)
		default:
			file.add("proof", name+", another key", in(message, vectorExporter[:], publicOf(0x44)), nil)
			file.add("proof", name+", another name in it", in(flip(messageHead+1), vectorExporter[:], keys[name]), nil)
		}
	}
	swapped := Join{RID: RendezvousID(token.ID()), Signature: token.SignHello(vectorExporter)}.Append(nil)
	file.add("proof", "join, with a hello's signature", vectors.Values{
		"message": vectors.Hex(swapped), "exporter": vectors.Hex(vectorExporter[:]), "key": vectors.Hex(token.Public()),
	}, nil)
	vectors.Check(t, "..", "relay-proof", file.File, func(t *testing.T, in vectors.Values) (vectors.Values, error) {
		return nil, judgeProof(in.Bytes(t, "message"), [32]byte(in.Bytes(t, "exporter")), in.Bytes(t, "key"))
	}, vectors.Classes{"proof": errProof.Error()})
}

// judgeProof verifies one proof.
func judgeProof(message []byte, exporter [32]byte, key []byte) error {
	kind, body, err := ReadMessage(bytes.NewReader(message))
	if err != nil {
		return err
	}
	switch kind {
	case TypeHello:
		m, err := ParseHello(body)
		if err != nil {
			return err
		}
		if !m.Verify(key, exporter) {
			return errProof
		}
		return nil
	case TypeRegister:
		m, err := ParseRegister(body)
		if err != nil {
			return err
		}
		if err := m.Verify(exporter); err != nil {
			return fmt.Errorf("%w: %w", errProof, err)
		}
		return nil
	}
	m, err := ParseJoin(body)
	if err != nil {
		return err
	}
	if !m.Verify(key, exporter) {
		return errProof
	}
	return nil
}

func TestAHostileRelayMessageCostsLittle(t *testing.T) {
	inputs := vectors.Load(t, "..", "relay-message").Inputs(t, "message", true)
	most := vectors.HoldAllocations(t, inputs, 20, func(b []byte) {
		kind, body, err := ReadMessage(bytes.NewReader(b))
		for _, m := range relayMessages() {
			if err == nil && m.kind == kind {
				_, _ = m.again(body)
			}
		}
	})
	t.Logf("at most %d bytes beyond four times the input", most)
}
