package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"openscope/bench/vectors"
)

// relayMessage parses a body of one type and writes it again.
type relayMessage struct {
	name  string
	kind  MessageType
	again func(body []byte) ([]byte, error)
	// honest is one such message, framed.
	honest []byte
}

func appended[M interface{ Append([]byte) []byte }](m M, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return m.Append(nil), nil
}

func relayMessages() []relayMessage {
	signature := bytes.Repeat([]byte{3}, 64)
	return []relayMessage{
		{"hello", TypeHello, func(b []byte) ([]byte, error) { return appended(ParseHello(b)) },
			Hello{Token: TokenID{1}, Signature: signature}.Append(nil)},
		{"hello ack", TypeHelloAck, func(b []byte) ([]byte, error) { return appended(ParseHelloAck(b)) },
			HelloAck{Address: "relay.example.com:4433", Sessions: 1024, Legs: 8}.Append(nil)},
		{"register", TypeRegister, func(b []byte) ([]byte, error) { return appended(ParseRegister(b)) },
			Register{RID: RendezvousID{1}, RegisterKey: publicOf(1), JoinKey: publicOf(2), Lifetime: time.Hour, Signature: signature}.Append(nil)},
		{"register ack", TypeRegisterAck, func(b []byte) ([]byte, error) { return appended(ParseRegisterAck(b)) },
			RegisterAck{RID: RendezvousID{1}, Status: RegisterFull}.Append(nil)},
		{"unregister", TypeUnregister, func(b []byte) ([]byte, error) { return appended(ParseUnregister(b)) },
			Unregister{RID: RendezvousID{1}}.Append(nil)},
		{"kept", TypeKept, func(b []byte) ([]byte, error) { return appended(ParseKept(b)) },
			Kept{RID: RendezvousID{1}, Leg: 1 << 40}.Append(nil)},
		{"join", TypeJoin, func(b []byte) ([]byte, error) { return appended(ParseJoin(b)) },
			Join{RID: RendezvousID{1}, Signature: signature}.Append(nil)},
		{"answer", TypeAnswer, func(b []byte) ([]byte, error) { return appended(ParseAnswer(b)) },
			Answer{Status: StatusDraining}.Append(nil)},
		{"preface", TypePreface, func(b []byte) ([]byte, error) { return appended(ParsePreface(b)) },
			Preface{RID: RendezvousID{1}, Leg: 7, From: "192.0.2.1:5000"}.Append(nil)},
	}
}

// Every message has one form: what is parsed is written again as it was, and no
// message with a byte less or a byte more is one.
func TestEveryMessageHasOneForm(t *testing.T) {
	for _, m := range relayMessages() {
		t.Run(m.name, func(t *testing.T) {
			kind, body, err := ReadMessage(bytes.NewReader(m.honest))
			if err != nil || kind != m.kind || len(m.honest) > MaxRelayMessage {
				t.Fatalf("type %d, %d bytes: %v", kind, len(m.honest), err)
			}
			if again, err := m.again(body); err != nil || !bytes.Equal(again, m.honest) {
				t.Errorf("%x became %x: %v", m.honest, again, err)
			}
			for size := range body {
				if _, err := m.again(body[:size]); !errors.Is(err, ErrMessage) {
					t.Errorf("%d of %d bytes: %v", size, len(body), err)
				}
			}
			if _, err := m.again(append(body, 0)); !errors.Is(err, ErrMessage) {
				t.Errorf("a byte left over: %v", err)
			}
		})
	}
}

func TestAnotherVersionIsRefused(t *testing.T) {
	for _, m := range relayMessages() {
		switch m.kind {
		case TypeHello, TypeHelloAck, TypeJoin, TypePreface:
		default:
			continue
		}
		body := bytes.Clone(m.honest[messageHead:])
		body[0]++
		if _, err := m.again(body); !errors.Is(err, ErrMessage) {
			t.Errorf("%s of version %d: %v", m.name, body[0], err)
		}
	}
}

func TestReadMessageTakesOneMessageAndNothingBeyond(t *testing.T) {
	stream := bytes.NewReader(append(Unregister{RID: RendezvousID{1}}.Append(nil), "msg1 follows"...))
	if _, _, err := ReadMessage(iotest.OneByteReader(stream)); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(stream); string(rest) != "msg1 follows" {
		t.Errorf("%q is left", rest)
	}
}

func TestReadMessageKeepsTheBound(t *testing.T) {
	largest := AppendMessage(nil, TypeHeartbeat, make([]byte, MaxRelayMessage-messageHead))
	if _, body, err := ReadMessage(bytes.NewReader(largest)); err != nil || len(body)+messageHead != 256 {
		t.Errorf("256 bytes: %d, %v", len(body), err)
	}
	for _, size := range []int{MaxRelayMessage - messageHead + 1, 1 << 10, 1<<16 - 1} {
		long := bytes.NewReader(AppendMessage(nil, TypeHeartbeat, make([]byte, size)))
		if _, _, err := ReadMessage(long); !errors.Is(err, ErrMessage) {
			t.Errorf("a body of %d bytes: %v", size, err)
		}
		if long.Len() != size {
			t.Errorf("%d bytes of a refused body were read", size-long.Len())
		}
	}
}

func TestReadMessageCutShort(t *testing.T) {
	whole := AppendMessage(nil, TypeKept, make([]byte, 24))
	for size := range whole {
		if _, _, err := ReadMessage(bytes.NewReader(whole[:size])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestPrefaceShowsPeopleNothingUnprintable(t *testing.T) {
	for _, from := range []string{"a\x1b[2J", "a\n", "\x7f", "é", "\x00"} {
		_, body, err := ReadMessage(bytes.NewReader(Preface{From: from}.Append(nil)))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := ParsePreface(body); !errors.Is(err, ErrMessage) {
			t.Errorf("%q was taken as %q", from, p.From)
		}
	}
}

// FuzzReadMessage: whatever comes, no panic; what is read is written again as
// it was; and no more than a message's bound is held or consumed.
func FuzzReadMessage(f *testing.F) {
	for _, message := range vectors.Load(f, "..", "relay-message").Inputs(f, "message", true) {
		f.Add(message)
	}
	for _, m := range relayMessages() {
		f.Add(m.honest)
		f.Add(m.honest[:len(m.honest)-1])
	}
	f.Add(AppendHeartbeat(nil))
	f.Add([]byte{1, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		vectors.HoldFuzzed(t, data, func(b []byte) { _, _, _ = ReadMessage(bytes.NewReader(b)) })
		r := bytes.NewReader(data)
		kind, body, err := ReadMessage(r)
		consumed := len(data) - r.Len()
		if consumed > MaxRelayMessage || cap(body) > MaxRelayMessage {
			t.Fatalf("%d bytes consumed, %d held", consumed, cap(body))
		}
		if err == nil && !bytes.Equal(AppendMessage(nil, kind, body), data[:consumed]) {
			t.Fatalf("%x was read from %x", AppendMessage(nil, kind, body), data[:consumed])
		}
	})
}

// FuzzParse: whatever a message of whatever type holds, no panic, and what is
// taken is written again as it was.
func FuzzParse(f *testing.F) {
	for _, m := range relayMessages() {
		f.Add(uint8(m.kind), m.honest[messageHead:])
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		if len(body) > MaxRelayMessage-messageHead {
			return // ReadMessage hands out none
		}
		for _, m := range relayMessages() {
			if uint8(m.kind) != kind {
				continue
			}
			vectors.HoldFuzzed(t, body, func(b []byte) { _, _ = m.again(b) })
			again, err := m.again(body)
			if err == nil && !bytes.Equal(again, AppendMessage(nil, m.kind, body)) {
				t.Fatalf("%s: %x became %x", m.name, body, again)
			}
			if err != nil && !errors.Is(err, ErrMessage) {
				t.Fatalf("%s: %v", m.name, err)
			}
		}
	})
}

// FuzzDecodeText: what is taken encodes back to the same characters, without
// the white space, quotes and case of how it was pasted.
func FuzzDecodeText(f *testing.F) {
	f.Add(EncodeText("ost1", make([]byte, 32)))
	f.Add(`"` + EncodeText("ost1", []byte("payload")) + `" `)
	f.Add("ost1")
	f.Fuzz(func(t *testing.T, text string) {
		vectors.HoldFuzzed(t, text, func(s string) { _, _ = DecodeText("ost1", s, maxTokenText) })
		payload, err := DecodeText("ost1", text, maxTokenText)
		if err != nil {
			return
		}
		if again := EncodeText("ost1", payload); again != normalText(text) || len(again) > maxTokenText {
			t.Fatalf("%q was taken for %q", text, again)
		}
	})
}
