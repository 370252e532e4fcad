package channel

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// records is one direction of an established channel in memory.
func records(t *testing.T) (out *tx, sent *memoryLeg, in func([]byte) *rx) {
	t.Helper()
	key := func() recordKey { return recordKey{key: bytes.Repeat([]byte{3}, 32), iv: bytes.Repeat([]byte{4}, 12)} }
	sent = &memoryLeg{}
	sender := newTx(sent, key())
	sender.dir.count = 1 // FINISHED has gone
	return &sender, sent, func(b []byte) *rx {
		r := newRx(&memoryLeg{Reader: bytes.NewReader(b)}, key(), daemonRole)
		r.dir.count = 1
		return &r
	}
}

func TestRecordsArriveAsTheyWereSent(t *testing.T) {
	s := newSite(t)
	client, daemon := connected(t, s, Sealed)
	for _, size := range []int{0, 1, 252, 253, 254, 255, 256, 509, 510, MaxBody - 1, MaxBody} {
		body := bytes.Repeat([]byte{byte(size)}, size)
		sent := make(chan error)
		go func() { sent <- client.Write(TypeCall, body[:size/2], body[size/2:]) }()
		typ, got, err := daemon.Read()
		if err := errors.Join(err, <-sent); err != nil || typ != TypeCall || !bytes.Equal(got, body) {
			t.Fatalf("a body of %d: %v, type %d, %d bytes", size, err, typ, len(got))
		}
	}
}

func TestSizesOnTheWireAreMultiplesOf256(t *testing.T) {
	for _, c := range []struct{ body, wire int }{
		{0, 2 + 256 + 16}, {253, 2 + 256 + 16}, {254, 2 + 512 + 16}, {MaxBody, 2 + 16384 + 16},
	} {
		out, sent, _ := records(t)
		if err := out.write(TypeCall, [][]byte{make([]byte, c.body)}); err != nil {
			t.Fatal(err)
		}
		if sent.written.Len() != c.wire {
			t.Errorf("a body of %d is %d bytes on the wire, want %d", c.body, sent.written.Len(), c.wire)
		}
	}
	out, _, _ := records(t)
	if err := out.write(TypeCall, [][]byte{make([]byte, MaxBody+1)}); !errors.Is(err, ErrRecord) {
		t.Errorf("a body that is too long: %v", err)
	}
}

func TestEveryBitOfARecordCounts(t *testing.T) {
	out, sent, in := records(t)
	if err := out.write(TypeCall, [][]byte{[]byte("run this")}); err != nil {
		t.Fatal(err)
	}
	flips(sent.written.Bytes(), func(bit int, flipped []byte) {
		r := in(flipped)
		if _, _, err := r.read(); err == nil {
			t.Fatalf("bit %d flipped, and the record opens", bit)
		}
		if _, _, err := r.read(); err == nil || errors.Is(err, io.EOF) {
			t.Fatalf("bit %d flipped, and the connection goes on: %v", bit, err)
		}
	})
	if _, body, err := in(sent.written.Bytes()).read(); err != nil || string(body) != "run this" {
		t.Fatalf("the record as it was: %q, %v", body, err)
	}
}

func TestRecordsOutOfOrderEndTheConnection(t *testing.T) {
	const size = 2 + 256 + 16
	for _, c := range []struct {
		name  string
		order []int
		good  int // how many open
	}{
		{"as sent", []int{0, 1, 2}, 3},
		{"swapped", []int{1, 0, 2}, 0},
		{"repeated", []int{0, 0, 1}, 1},
		{"one missing", []int{0, 2}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, sent, in := records(t)
			for i := range 3 {
				if err := out.write(TypeCall, [][]byte{{byte(i)}}); err != nil {
					t.Fatal(err)
				}
			}
			var stream []byte
			for _, i := range c.order {
				stream = append(stream, sent.written.Bytes()[i*size:(i+1)*size]...)
			}
			r, good := in(stream), 0
			for {
				if _, _, err := r.read(); err != nil {
					break
				}
				good++
			}
			if good != c.good {
				t.Errorf("%d records open, want %d", good, c.good)
			}
		})
	}
}

func TestAStreamCutAnywhereIsNotAnEnd(t *testing.T) {
	out, sent, in := records(t)
	if err := out.write(TypeCall, [][]byte{[]byte("x")}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < sent.written.Len(); n++ {
		if _, _, err := in(sent.written.Bytes()[:n]).read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

// forge seals a plaintext that no honest sender would.
func forge(t *testing.T, plain []byte) []byte {
	t.Helper()
	out, _, _ := records(t)
	if err := out.dir.step(len(plain)); err != nil {
		t.Fatal(err)
	}
	head := []byte{byte((len(plain) + tagSize) >> 8), byte(len(plain) + tagSize)}
	return append(head, out.dir.aead.Seal(nil, out.dir.nonce[:], plain, head)...)
}

func TestThereIsOneWayToWriteARecord(t *testing.T) {
	plain := func(size int, edit func([]byte)) []byte {
		b := make([]byte, size)
		b[0] = byte(TypeCall)
		edit(b)
		return b
	}
	for _, c := range []struct {
		name  string
		plain []byte
	}{
		{"an unknown type", plain(256, func(b []byte) { b[0] = 14 })},
		{"type zero", plain(256, func(b []byte) { b[0] = 0 })},
		{"a daemon's type from a client", plain(256, func(b []byte) { b[0] = byte(TypeEnd) })},
		{"FINISHED again", plain(256, func(b []byte) { b[0] = byte(TypeFinished) })},
		{"a body longer than the record", plain(256, func(b []byte) { b[1], b[2] = 0, 254 })},
		{"a body of 65,535", plain(256, func(b []byte) { b[1], b[2] = 255, 255 })},
		{"more padding than needed", plain(512, func(b []byte) { b[2] = 1 })},
		{"padding that is not zero", plain(256, func(b []byte) { b[255] = 1 })},
		{"a size that is no multiple of 256", plain(300, func(b []byte) { b[2] = 255 })},
	} {
		_, _, in := records(t)
		if _, _, err := in(forge(t, c.plain)).read(); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, _, in := records(t)
	if _, _, err := in(forge(t, plain(256, func([]byte) {}))).read(); err != nil {
		t.Errorf("the forge itself: %v", err)
	}
}

func TestALengthIsRefusedBeforeAnythingIsRead(t *testing.T) {
	for _, size := range []int{0, 1, 16, 271, 273, 16_401, 16_656, 65_535} {
		_, _, in := records(t)
		leg := bytes.NewReader(append([]byte{byte(size >> 8), byte(size)}, make([]byte, 70_000)...))
		r := in(nil)
		r.leg = &memoryLeg{Reader: leg}
		if _, _, err := r.read(); !errors.Is(err, ErrRecord) || leg.Len() != 70_000 {
			t.Errorf("a length of %d: %v, %d bytes read of it", size, err, 70_000-leg.Len())
		}
	}
}

func TestADirectionIsSpentBeforeItsNonceRepeats(t *testing.T) {
	out, _, _ := records(t)
	out.dir.count = maxRecords - 2
	for i, want := range []error{nil, nil, ErrSpent, ErrSpent} {
		if err := out.write(TypePing, nil); !errors.Is(err, want) {
			t.Errorf("record 2^32-2+%d: %v, want %v", i, err, want)
		}
	}
	out, _, _ = records(t)
	out.dir.bytes = maxDirection - 256
	for i, want := range []error{nil, ErrSpent} {
		if err := out.write(TypePing, nil); !errors.Is(err, want) {
			t.Errorf("64 GiB-256+%d: %v, want %v", i, err, want)
		}
	}
}

// countedAEAD is an AEAD that is asked for one nonce after the other, and for
// none twice.
type countedAEAD struct {
	cipher.AEAD
	t    *testing.T
	iv   [12]byte
	next uint64
}

func (a *countedAEAD) Seal(dst, nonce, plain, aad []byte) []byte {
	number := binary.BigEndian.Uint64(nonce[4:]) ^ binary.BigEndian.Uint64(a.iv[4:])
	if !bytes.Equal(nonce[:4], a.iv[:4]) || number != a.next {
		a.t.Fatalf("the nonce %x comes where that of record %d should", nonce, a.next)
	}
	a.next++
	return a.AEAD.Seal(dst, nonce, plain, aad)
}

func TestEachRecordHasItsOwnNonce(t *testing.T) {
	out, sent, _ := records(t)
	counted := &countedAEAD{AEAD: out.dir.aead, t: t, iv: out.dir.iv, next: 1}
	out.dir.aead = counted
	for range instrumentedRecords {
		sent.written.Reset()
		if err := out.write(TypePing, nil); err != nil {
			t.Fatal(err)
		}
	}
	if counted.next != 1+instrumentedRecords {
		t.Errorf("%d records were sealed", counted.next-1)
	}
}

// loopLeg gives back what was written to it.
type loopLeg struct {
	memoryLeg
	buffer bytes.Buffer
}

func (l *loopLeg) Read(p []byte) (int, error)  { return l.buffer.Read(p) }
func (l *loopLeg) Write(p []byte) (int, error) { return l.buffer.Write(p) }

// How fast it is, beside the bare AEAD, bench/BenchmarkRecord says.
func TestARecordOfAnySizeAllocatesNothing(t *testing.T) {
	leg := &loopLeg{}
	key := func() recordKey { return recordKey{key: bytes.Repeat([]byte{3}, 32), iv: bytes.Repeat([]byte{4}, 12)} }
	out, in := newTx(leg, key()), newRx(leg, key(), daemonRole)
	out.dir.count, in.dir.count = 1, 1
	for _, size := range []int{MaxBody, 1, 4096, MaxBody} {
		bodies := [][]byte{make([]byte, size)}
		carry := func() {
			if err := out.write(TypeCall, bodies); err != nil {
				t.Fatal(err)
			}
			if typ, body, err := in.read(); err != nil || typ != TypeCall || len(body) != size {
				t.Fatalf("type %d, %d bytes: %v", typ, len(body), err)
			}
		}
		if n := testing.AllocsPerRun(200, carry); n != 0 {
			t.Errorf("a record of %d bytes, sealed and opened, allocates %v times", size, n)
		}
	}
}
