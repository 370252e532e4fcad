package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"openscope/bench/vectors"
	"openscope/wire"
)

func seeded(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }

func resigned(e Endorsement, by ed25519.PrivateKey, signed []byte) string {
	e.signature = ed25519.Sign(by, signed)
	return e.Text()
}

func TestEndorsementsAndCheckpointsAreThoseOfTheVectors(t *testing.T) {
	file := vectors.File{About: "Checkpoints with the endorsement of their key (wire/README.md §15.1). The identity is the Ed25519 key of the seed 01…01, the checkpoint key that of 02…02. " +
		"daemon and key are the endorsement's; size, root and head the checkpoint's."}
	identity, key := seeded(1), seeded(2)
	good := Endorse(identity, key.Public().(ed25519.PublicKey))
	signer, err := good.Signer(wire.SigningKeyOf(key))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Checkpoint{Size: 9, Root: [32]byte{3}, Head: [32]byte{4}}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	add := func(class, name, endorsement, signed string) {
		v := vectors.Case{Name: name, In: vectors.Values{"endorsement": endorsement, "checkpoint": signed}, Error: class}
		if class == "" {
			if v.Out, err = judgeCheckpoint(t, v.In); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		file.Cases = append(file.Cases, v)
	}
	noted := func(text string) string {
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		return string(signed)
	}
	text := func(size, root, head string) string {
		return noted("openscope/1 checkpoint\n" + size + "\n" + root + "\n" + head + "\n")
	}
	root, head := base64.StdEncoding.EncodeToString(c.Root[:]), fmt.Sprintf("%x", c.Head)
	add("", "nine entries", good.Text(), c.Note)
	add("", "no entry", good.Text(), text("0", root, head))
	add("endorsement", "signed by another identity", resigned(good, seeded(3), endorsedBytes(good.Key)), c.Note)
	add("endorsement", "signed under another label", resigned(good, identity, wire.LP([]byte("openscope/1 result"), good.Key)), c.Note)
	add("endorsement", "signed without a label", resigned(good, identity, good.Key), c.Note)
	add("text", "a character changed", strings.Replace(good.Text(), "osl10", "osl11", 1), c.Note)
	add("text", "another prefix", "osk1"+good.Text()[4:], c.Note)
	add("version", "another version", wire.EncodeText("osl1", append([]byte{2}, make([]byte, 128)...)), c.Note)
	add("version", "a byte more", wire.EncodeText("osl1", append([]byte{1}, make([]byte, 129)...)), c.Note)
	other := Endorse(identity, seeded(5).Public().(ed25519.PublicKey))
	add("note", "signed by a key that was not endorsed", other.Text(), c.Note)
	add("signature", "another size", good.Text(), strings.Replace(c.Note, "\n9\n", "\n8\n", 1))
	add("note", "no signature", good.Text(), c.Note[:strings.Index(c.Note, "\n\n")+2])
	add("title", "a note about something else", good.Text(), noted("openscope/1 receipt\n9\n"+root+"\n"+head+"\n"))
	add("title", "a line more", good.Text(), noted("openscope/1 checkpoint\n9\n"+root+"\n"+head+"\nmore\n"))
	add("numbers", "fewer than no entries", good.Text(), text("-1", root, head))
	add("numbers", "half a root", good.Text(), text("9", base64.StdEncoding.EncodeToString(c.Root[:16]), head))
	add("numbers", "half a head", good.Text(), text("9", root, head[:32]))
	vectors.Check(t, "../..", "checkpoint", file, judgeCheckpoint, vectors.Classes{
		"endorsement": "its signature is not the daemon's", "text": wire.ErrText.Error(), "version": "of another version",
		"note": "note has no verifiable signatures", "signature": "invalid signature for key", "title": "a note about something else", "numbers": "its numbers are none",
	})
}

func judgeCheckpoint(t *testing.T, in vectors.Values) (vectors.Values, error) {
	e, err := ParseEndorsement(in["endorsement"])
	if err != nil {
		return nil, err
	}
	key, err := e.Verifier()
	if err != nil {
		return nil, err
	}
	c, err := Parse(in["checkpoint"], key)
	if err != nil {
		if strings.Contains(err.Error(), "malformed note") { // x/mod's words for a note without signatures
			err = fmt.Errorf("note has no verifiable signatures: %w", err)
		}
		return nil, err
	}
	return vectors.Values{
		"daemon": vectors.Hex(e.Daemon), "key": vectors.Hex(e.Key),
		"size": fmt.Sprint(c.Size), "root": vectors.Hex(c.Root[:]), "head": vectors.Hex(c.Head[:]),
	}, nil
}

func TestAKeySignsOnlyUnderItsOwnEndorsement(t *testing.T) {
	e := Endorse(seeded(1), seeded(2).Public().(ed25519.PublicKey))
	if _, err := e.Signer(wire.SigningKeyOf(seeded(3))); err == nil {
		t.Error("another key signs under it")
	}
	s, err := e.Signer(wire.SigningKeyOf(seeded(2)))
	if err != nil {
		t.Fatal(err)
	}
	seed := seeded(2).Seed()
	if shown := fmt.Sprintf("%v %+v %#v %x", s, s, s, s); strings.Contains(shown, fmt.Sprintf("%x", seed)) || strings.Contains(shown, fmt.Sprint(seed)) {
		t.Errorf("the signer prints its key: %s", shown)
	}
}

func FuzzCheckpoint(f *testing.F) {
	e := Endorse(seeded(1), seeded(2).Public().(ed25519.PublicKey))
	signer, err := e.Signer(wire.SigningKeyOf(seeded(2)))
	if err != nil {
		f.Fatal(err)
	}
	c, err := Checkpoint{Size: 9}.Sign(signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Text(), c.Note)
	for _, in := range vectors.Load(f, "../..", "checkpoint").Cases {
		f.Add(in.In["endorsement"], in.In["checkpoint"])
	}
	key, err := e.Verifier()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, endorsement, signed string) {
		// What is taken, an identity or the key has signed; and it says it in one way.
		if parsed, err := ParseEndorsement(endorsement); err == nil {
			if again, err := ParseEndorsement(parsed.Text()); err != nil || !again.Key.Equal(parsed.Key) {
				t.Errorf("%q is read as %q", endorsement, parsed.Text())
			}
		}
		if parsed, err := Parse(signed, key); err == nil && parsed.Size < 0 {
			t.Errorf("%q has %d entries", signed, parsed.Size)
		}
	})
}
