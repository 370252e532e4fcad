package bench

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	"openscope/wire/handle"
)

// cctvVector is a signature with what is odd about its two points.
type cctvVector struct {
	A, R, S hexBytes
	M       string
	Flags   []string
}

func (v cctvVector) has(flags ...string) bool {
	return slices.ContainsFunc(flags, func(flag string) bool { return slices.Contains(v.Flags, flag) })
}

// C4: testdata/cctv says what each verdict rests on.
func TestCCTVEd25519SignaturesAndKeysAreJudgedAsDocumented(t *testing.T) {
	text, err := os.ReadFile("../testdata/cctv/ed25519.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []cctvVector
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	verified, registered := 0, 0
	for i, v := range all {
		verifies := ed25519.Verify(ed25519.PublicKey(v.A), []byte(v.M), slices.Concat(v.R, v.S))
		if verifies == v.has("LowOrderResidue", "NonCanonicalR") {
			t.Errorf("%d: verifies %v, with %v", i, verifies, v.Flags)
		}
		err := handle.CheckEd25519(v.A)
		if (err != nil) != v.has("LowOrderA", "NonCanonicalA") || err != nil && !errors.Is(err, handle.ErrRecipientKey) {
			t.Errorf("%d: registering the key: %v, with %v", i, err, v.Flags)
		}
		if verifies {
			verified++
		}
		if err == nil {
			registered++
		}
	}
	t.Logf("%d vectors: %d verify, the keys of %d can be registered", len(all), verified, registered)
	if len(all) != 768 || verified == 0 || registered == 0 {
		t.Error("want 768 vectors, some of them honest")
	}
}
