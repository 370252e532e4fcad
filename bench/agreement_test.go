package bench

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/wire/call"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

// fromVector is a client as a published case has it.
func fromVector(t *testing.T, in vectors.Values) (client *second, signer ed25519.PrivateKey) {
	t.Helper()
	random, fingerprint := in.Bytes(t, "random"), [32]byte(in.Bytes(t, "fp"))
	cfg := secondConfig{
		handleHash: [32]byte(in.Bytes(t, "hh")), rid: [16]byte(in.Bytes(t, "rid")), secret: in.Bytes(t, "s"),
		seed: [32]byte(sha3.SumSHAKE256(random[:32], 32)), nonce: [32]byte(random[32:]), fingerprint: &fingerprint,
	}
	if in["mode"] == "0" {
		var err error
		if cfg.opens, err = ecdh.X25519().NewPrivateKey(in.Bytes(t, "recipient_private")); err != nil {
			t.Fatal(err)
		}
	}
	client, err := newSecond(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client, ed25519.NewKeyFromSeed(in.Bytes(t, "signer_seed"))
}

// recorded is what a daemon said, and what the client said to it.
type recorded struct {
	io.Reader
	bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error) { return r.Reader.Read(p) }

// shakeWith runs a client's whole handshake against a recorded daemon.
func shakeWith(client *second, signer ed25519.PrivateKey, fromDaemon []byte) (sent []byte, out vectors.Values, err error) {
	leg := &recorded{Reader: bytes.NewReader(fromDaemon)}
	if err := client.shake(leg); err != nil {
		return nil, nil, err
	}
	finished := client.finished(signer)
	leg.Write(client.up.seal(padded(1, finished)))
	challenge, remaining, err := client.awaitReady(leg, finished)
	if err != nil {
		return nil, nil, err
	}
	return leg.Bytes(), vectors.Values{
		"challenge": vectors.Hex(challenge[:]), "remaining_ms": fmt.Sprint(remaining), "conn_id": vectors.Hex(client.connID[:]),
		"daemon_key": vectors.Hex(client.daemonKey), "session_words_secret": vectors.Hex(client.sessionWords()),
		"th0": vectors.Hex(client.th0[:]), "th1": vectors.Hex(client.th1[:]), "th1b": vectors.Hex(client.th1b[:]), "th2": vectors.Hex(client.th2[:]),
		"prkS": vectors.Hex(client.prk), "mac1_key": vectors.Hex(client.mac1Key), "ssR": vectors.Hex(client.ssR), "psk": vectors.Hex(client.psk),
		"join_seed": vectors.Hex(expand(client.prk, "relay join", nil)),
		"master":    vectors.Hex(client.master), "sas": vectors.Hex(expand(client.master, "sas", nil)),
		"fin_c": vectors.Hex(expand(client.master, "fin c", nil)), "fin_d": vectors.Hex(expand(client.master, "fin d", nil)),
		"key_c2d": vectors.Hex(client.up.key), "iv_c2d": vectors.Hex(client.up.iv),
		"key_d2c": vectors.Hex(client.down.key), "iv_d2c": vectors.Hex(client.down.iv),
		"sent": vectors.Hex(leg.Bytes()),
	}, nil
}

func TestTheSecondImplementationJudgesHandshakesAsTheVectorsDo(t *testing.T) {
	honest, refused := 0, 0
	for _, c := range vectors.Load(t, "..", "handshake").Cases {
		if c.In["role"] != "client" {
			continue
		}
		client, signer := fromVector(t, c.In)
		_, out, err := shakeWith(client, signer, c.In.Bytes(t, "from_daemon"))
		if (err == nil) != (c.Error == "") {
			t.Errorf("%s: %v, want the class %q", c.Name, err, c.Error)
		}
		if err != nil {
			refused++
			continue
		}
		honest++
		for name, want := range c.Out {
			if out[name] != want {
				t.Errorf("%s: %s is %.80s, want %.80s", c.Name, name, out[name], want)
			}
		}
	}
	if honest < 2 || refused < 60 {
		t.Errorf("%d honest handshakes and %d others: where are the vectors?", honest, refused)
	}
}

func TestTheSecondImplementationJudgesRecordsAsTheVectorsDo(t *testing.T) {
	allowed := map[string]string{"daemon": "\x04\x05\x06\x09\x0a\x0d", "client": "\x03\x07\x08\x09\x0a\x0b\x0c\x0d"}
	for _, c := range vectors.Load(t, "..", "record").Cases {
		stream, err := streamOf(c.In.Bytes(t, "key"), c.In.Bytes(t, "iv"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(c.In["first"], &stream.count); err != nil {
			t.Fatal(err)
		}
		from := bytes.NewReader(c.In.Bytes(t, "stream"))
		for n := 0; ; n++ {
			first := stream.count == 0
			typ, body, opened := stream.open(from)
			if errors.Is(opened, io.EOF) {
				break
			}
			if err = opened; err == nil && (first || !bytes.ContainsRune([]byte(allowed[c.In["to"]]), rune(typ))) {
				err = fmt.Errorf("record %d out of order", typ)
			}
			if err != nil {
				break
			}
			if want := c.Out[fmt.Sprint(n)]; c.Error == "" && want != fmt.Sprintf("%d %x", typ, body) {
				t.Errorf("%s: record %d is %d %.40x, want %.60s", c.Name, n, typ, body, want)
			}
		}
		if (err == nil) != (c.Error == "") {
			t.Errorf("%s: %v, want the class %q", c.Name, err, c.Error)
		}
	}
}

func TestBothImplementationsDeriveTheSame(t *testing.T) {
	for range agreements {
		e := newEnds(t)
		var random [64]byte
		if _, err := rand.Read(random[:]); err != nil {
			t.Fatal(err)
		}
		fingerprint := [32]byte(channel.Fingerprint(e.public()))
		client, err := newSecond(secondConfig{
			handleHash: [32]byte{2}, rid: e.rid, secret: e.secret.Reveal(), opens: e.recipient,
			seed: [32]byte(random[:32]), nonce: [32]byte(random[32:]), fingerprint: &fingerprint,
		})
		if err != nil {
			t.Fatal(err)
		}
		up, down := newMemoryPipe(), newMemoryPipe()
		daemon := e.serve(t, memoryEnd{up, down})
		leg := memoryEnd{down, up}
		if err := client.shake(leg); err != nil {
			t.Fatal(err)
		}
		finished := client.finished(e.signer)
		leg.Write(client.up.seal(padded(1, finished)))
		if _, _, err := client.awaitReady(leg, finished); err != nil {
			t.Fatal(err)
		}
		r := <-daemon
		if r.err != nil || r.conn.TH2() != client.th2 || !bytes.Equal(r.conn.SessionWords(), client.sessionWords()) {
			t.Fatalf("the ends differ: %v", r.err)
		}
		text := random[:]
		leg.Write(client.up.seal(padded(byte(channel.TypePing), text)))
		if typ, body, err := r.conn.Read(); err != nil || typ != channel.TypePing || !bytes.Equal(body, text) {
			t.Fatalf("the daemon reads %d %x, %v", typ, body, err)
		}
		if err := r.conn.Write(channel.TypePong, text); err != nil {
			t.Fatal(err)
		}
		if typ, body, err := client.down.open(leg); err != nil || typ != byte(channel.TypePong) || !bytes.Equal(body, text) {
			t.Fatalf("the client reads %d %x, %v", typ, body, err)
		}
	}
}

func TestTheSecondImplementationCallsARealDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, mode := range []string{"sealed", "bearer"} {
		var id string
		var h handle.Handle
		if mode == "sealed" {
			id, h = w.open("5m", "test.count", "test.mark")
		} else {
			id, h = w.opened("share", "open", "--json", "--agent", "you", "--bearer", "--verb", "test.count", "--verb", "test.mark", "--ttl", "5m")
		}
		o := w.outsider(h)
		s, err := o.meet()
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		finished := s.finished(o.signer)
		if err := s.send(channel.TypeFinished, finished); err != nil {
			t.Fatal(err)
		}
		challenge, remaining, err := s.awaitReady(s.leg, finished)
		if err != nil || remaining == 0 || time.Duration(remaining)*time.Millisecond > 5*time.Minute {
			t.Fatalf("%s: READY with %d ms: %v", mode, remaining, err)
		}
		s.challenge = challenge
		if typ, _, err := s.read(); err != nil || typ != channel.TypePassport {
			t.Fatalf("%s: record %d instead of the passport, %v", mode, typ, err)
		}
		if mode == "bearer" {
			w.issuer(0, "share", "confirm", id, sessionWords(t, s.second))
		}
		before := w.marks()
		if a := s.mustCall("test.mark", nil); a.cause != call.Exited || w.marks() != before+1 {
			t.Errorf("%s: %v %s, %d marks", mode, a.cause, a.reason, w.marks())
		}
		if output := s.hear("test.count"); len(output) != 1_988_895 || !bytes.HasSuffix(output, []byte("\n300000\n")) {
			t.Errorf("%s: %d bytes of output, ending with %.20q", mode, len(output), output[max(0, len(output)-20):])
		}
	}
}

// sessionWords are the four words to be compared: 44 bits, eleven a word (§10).
func sessionWords(t *testing.T, c *second) string {
	t.Helper()
	list, err := os.ReadFile("../wire/handle/bip39-english.txt")
	if err != nil {
		t.Fatal(err)
	}
	words, bits := strings.Fields(string(list)), binary.BigEndian.Uint64(c.sessionWords())
	var four []string
	for i := range 4 {
		four = append(four, words[bits>>(64-11*(i+1))&0x7ff])
	}
	return strings.Join(four, " ")
}

// hear makes a call, and returns its output once the END is signed, is for this
// request, and has the output's hash.
func (s *stranger) hear(verb string) (output []byte) {
	s.w.t.Helper()
	record := s.signed(s.request(verb, nil))
	if err := s.send(channel.TypeCall, record); err != nil {
		s.w.t.Fatal(err)
	}
	at := len(record) - 64
	request := hash("request", record[:at], record[at:])
	for {
		typ, body, err := s.read()
		if err == nil {
			err = s.take(typ, body)
		}
		if err != nil {
			s.w.t.Fatal(err)
		}
		switch typ {
		case channel.TypeOut:
			output = append(output, body[25:]...) // id 16, stream 1, offset 8
		case channel.TypeEnd:
			said, signature := body[:len(body)-64], body[len(body)-64:]
			if !ed25519.Verify(s.daemonKey, lp([]byte("openscope/1 result"), s.rid[:], request[:], said), signature) {
				s.w.t.Error("the result is not signed for this request")
			}
			sum := sha256.Sum256(output)
			if !bytes.Contains(said, sum[:]) {
				s.w.t.Error("the output's hash is not in the result")
			}
			return output
		}
	}
}
