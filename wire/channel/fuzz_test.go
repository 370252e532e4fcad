package channel

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/wire"
)

// chunked reads in pieces of whatever sizes the fuzzer likes.
type chunked struct {
	data, sizes []byte
	at          int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(c.sizes) > 0 {
		n = max(1, int(c.sizes[c.at%len(c.sizes)]))
		c.at++
	}
	n = copy(p[:min(n, len(p))], c.data)
	c.data = c.data[n:]
	return n, nil
}

// FuzzDaemon (F3): whatever a client sends, with or without S, nobody but an
// honest one is accepted. remac has the input pass the first check, which keeps
// strangers from everything behind it.
func FuzzDaemon(f *testing.F) {
	file := vectors.Load(f, root, "handshake")
	for i, said := range file.Inputs(f, "from_client", true) {
		f.Add(byte(i), said, []byte{128}, i%2 == 0)
	}
	good := accepted(f, file, "daemon", "from_client")
	for _, mode := range []Mode{Sealed, Bearer} {
		said := newFixed(mode).fuzzClient(f)
		f.Add(byte(mode), said, []byte{255}, false)
		f.Add(byte(mode), said, []byte{1, 2, 200}, true)
		f.Add(byte(mode), said[:Msg1Size], []byte{}, true)
		said[Msg1Size-40] ^= 1
		f.Add(byte(mode), said, []byte{7}, true)
	}
	f.Fuzz(func(t *testing.T, mode byte, in, sizes []byte, remac bool) {
		fix := newFixed(Mode(mode & 1))
		if remac && len(in) >= Msg1Size {
			in = bytes.Clone(in)
			in[0], in[1] = Version, typeMsg1
			copy(in[mac1At:Msg1Size], mac1(NewKeys(fix.secret), fix.th0(fix.rid), in[:mac1At]))
		}
		vectors.HoldFuzzed(t, in, func(b []byte) {
			cfg := fix.server()
			cfg.Authority = &vectorAuthority{fixed: fix}
			_, _ = Daemon(t.Context(), &memoryLeg{Reader: &chunked{data: b, sizes: sizes}}, cfg)
		})
		cfg := fix.server()
		cfg.Authority = &vectorAuthority{fixed: fix}
		leg := &memoryLeg{Reader: &chunked{data: in, sizes: sizes}}
		conn, err := Daemon(t.Context(), leg, cfg)
		if honest := beginsWith(in, good[fix.mode]); err == nil != honest {
			t.Fatalf("honest %v: %v", honest, err)
		}
		if err != nil && (conn != nil || !errors.Is(err, ErrHandshake)) {
			t.Fatalf("%v with a connection: %v", err, conn != nil)
		}
		if sent := leg.written.Len(); err != nil && sent != 0 && sent != Msg2Size(fix.mode) {
			t.Fatalf("%d bytes were sent", sent)
		}
	})
}

// accepted is what the honest peers of the vectors say to one side, by mode.
func accepted(f *testing.F, file vectors.File, to, name string) map[Mode][][]byte {
	good := make(map[Mode][][]byte)
	for _, c := range file.Cases {
		if c.In["role"] != to || c.Error != "" {
			continue
		}
		mode := Sealed
		if c.In["mode"] == "1" {
			mode = Bearer
		}
		good[mode] = append(good[mode], c.In.Bytes(f, name))
	}
	if len(good[Sealed]) < 2 || len(good[Bearer]) < 2 {
		f.Fatal("the vectors lack honest peers")
	}
	return good
}

// beginsWith reports whether one of those stands at the beginning of what came.
func beginsWith(in []byte, good [][]byte) bool {
	return slices.ContainsFunc(good, func(said []byte) bool { return bytes.HasPrefix(in, said) })
}

// fuzzClient is what the honest client of the fixed session says.
func (f *fixed) fuzzClient(t testing.TB) []byte {
	t.Helper()
	return f.clientSays(t, clientLies{})
}

// FuzzClient (F4): a hostile daemon that knows S says what it likes, also under
// the right keys, and is believed only when it is the honest one.
func FuzzClient(f *testing.F) {
	file := vectors.Load(f, root, "handshake")
	good := accepted(f, file, "client", "from_daemon")
	for i, said := range file.Inputs(f, "from_daemon", true) {
		f.Add(byte(i), said, []byte{128}, []byte(nil), false)
	}
	for _, mode := range []Mode{Sealed, Bearer} {
		fix := newFixed(mode)
		said := fix.daemonSays(f, daemonLies{})
		f.Add(byte(mode), said, []byte{255}, []byte(nil), false)
		f.Add(byte(mode), said[:Msg2Size(mode)], []byte{1}, []byte(nil), false)
		var plain []byte
		fix.daemonSays(f, daemonLies{plain: func(b []byte) []byte { plain = bytes.Clone(b); return b }})
		f.Add(byte(mode), said, []byte{9}, plain, true)
		f.Add(byte(mode), said, []byte{9}, plain[:60], true)
	}
	f.Fuzz(func(t *testing.T, mode byte, in, sizes, plain []byte, sealed bool) {
		fix := newFixed(Mode(mode & 1))
		if sealed { // what the fuzzer says is under the right keys
			in = fix.daemonSays(t, daemonLies{plain: func(b []byte) []byte {
				return append(append([]byte(nil), plain...), make([]byte, max(0, len(b)-len(plain)))...)[:len(b)]
			}})
		}
		vectors.HoldFuzzed(t, in, func(b []byte) {
			_, _ = Client(t.Context(), &memoryLeg{Reader: &chunked{data: b, sizes: sizes}}, fix.client())
		})
		leg := &memoryLeg{Reader: &chunked{data: in, sizes: sizes}}
		conn, err := Client(t.Context(), leg, fix.client())
		if honest := beginsWith(in, good[fix.mode]); err == nil != honest {
			t.Fatalf("honest %v: %v", honest, err)
		}
		if err != nil && (conn != nil || !errors.Is(err, ErrHandshake)) {
			t.Fatalf("%v with a connection: %v", err, conn != nil)
		}
	})
}

// FuzzRecords (F5): a stream of records, cut and changed and in pieces of any
// size, gives the records that were sent, in order, and then an error or its
// end: nothing else, ever.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("one record"), []byte{3, 255}, uint16(0), byte(0))
	f.Add(bytes.Repeat([]byte("x"), 20_000), []byte{100}, uint16(300), byte(1))
	f.Add(bytes.Repeat([]byte("y"), 700), []byte{1}, uint16(290), byte(0x80))
	f.Fuzz(func(t *testing.T, text, sizes []byte, at uint16, flip byte) {
		if len(text) > 1<<20 {
			return
		}
		var sent memoryLeg
		key := func() recordKey { return recordKey{fill(0x4b, 32), fill(0x1f, 12)} }
		tx := newTx(&sent, key())
		tx.dir.count = 1
		var bodies [][]byte
		const most = 256 // records: more of them are no other case, and take seconds
		for i, rest := 0, text; len(rest) > 0 && i < most; i++ {
			n := 1 + int(at)%MaxBody
			if len(sizes) > 0 {
				n = 1 + int(sizes[i%len(sizes)])*60
			}
			n = min(n, len(rest), MaxBody)
			if err := tx.write(TypeOut, [][]byte{rest[:n]}); err != nil {
				t.Fatal(err)
			}
			bodies, rest = append(bodies, rest[:n]), rest[n:]
		}
		stream := sent.written.Bytes()
		changed := flip != 0 && int(at) < len(stream)
		if changed {
			stream[at] ^= flip
		}
		vectors.HoldFuzzed(t, stream, func(b []byte) {
			rx := newRx(&memoryLeg{Reader: &chunked{data: b, sizes: sizes}}, key(), clientRole)
			rx.dir.count = 1
			for err := error(nil); err == nil; {
				_, _, err = rx.read()
			}
		})
		rx := newRx(&memoryLeg{Reader: &chunked{data: stream, sizes: sizes}}, key(), clientRole)
		rx.dir.count = 1
		for i := 0; ; i++ {
			kind, body, err := rx.read()
			if err != nil {
				if !changed && (!errors.Is(err, io.EOF) || i != len(bodies)) {
					t.Fatalf("after %d of %d records: %v", i, len(bodies), err)
				}
				if changed && errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && i == len(bodies) {
					t.Fatal("a changed stream was read to its end")
				}
				return
			}
			if i >= len(bodies) || kind != TypeOut || !bytes.Equal(body, bodies[i]) {
				t.Fatalf("record %d is another", i)
			}
		}
	})
}

// FuzzOpenedRecord: whatever stands in a record that opens, there is one way to
// write what is accepted.
func FuzzOpenedRecord(f *testing.F) {
	f.Add([]byte{byte(TypeOut), 0, 1, 'x'})
	f.Add(append([]byte{byte(TypeEnd), 1, 0}, make([]byte, 512-3)...))
	f.Fuzz(func(t *testing.T, plain []byte) {
		plain = append(bytes.Clone(plain), make([]byte, (padTo-len(plain)%padTo)%padTo)...)
		if len(plain) == 0 || len(plain) > maxPlain {
			return
		}
		vectors.HoldFuzzed(t, plain, func(b []byte) { _, _, _ = parsePlain(b) })
		kind, body, err := parsePlain(plain)
		if err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Fatal(err)
			}
			return
		}
		again := binary.BigEndian.AppendUint16([]byte{byte(kind)}, uint16(len(body)))
		again = append(again, body...)
		again = append(again, make([]byte, (padTo-len(again)%padTo)%padTo)...)
		if !bytes.Equal(again, plain) {
			t.Fatalf("%x is read as a record that is written %x", plain, again)
		}
	})
}

// FuzzFinished: FINISHED and READY have one form each.
func FuzzFinished(f *testing.F) {
	f.Add(Finished{Key: make([]byte, 32), Resume: make([]Resume, 2), Signature: make([]byte, 64)}.unsigned())
	f.Add(append(Finished{Key: make([]byte, 32)}.unsigned(), make([]byte, ed25519.SignatureSize)...))
	f.Add(newReady(make([]byte, 32), Acceptance{Remaining: time.Minute}))
	f.Fuzz(func(t *testing.T, body []byte) {
		vectors.HoldFuzzed(t, body, func(b []byte) {
			_, _ = ParseFinished(b)
			_, _, _ = parseReady(b)
			_, _ = parseDaemonSays(b)
		})
		if said, err := ParseFinished(body); err == nil {
			if again := append(said.unsigned(), said.Signature...); !bytes.Equal(again, body) {
				t.Fatalf("%x is written again as %x", body, again)
			}
		}
		if mac, a, err := parseReady(body); err == nil {
			if again := newReady(mac, a); !bytes.Equal(again, body) {
				t.Fatalf("%x is written again as %x", body, again)
			}
		}
		if says, err := parseDaemonSays(body); err == nil {
			if again := wire.LP(P2(says.key, says.connID, says.nonce), says.signature); !bytes.Equal(again, body) {
				t.Fatalf("%x is written again as %x", body, again)
			}
		}
	})
}
