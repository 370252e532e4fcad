package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"openscope/bench/vectors"
)

func TestASecretPrintsNowhere(t *testing.T) {
	secret, err := NewSecret(rand.Reader)
	token, errs := NewToken(rand.Reader)
	key, errs2 := NewSigningKey(rand.Reader)
	if err := errors.Join(err, errs, errs2); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret []byte
		value  any
	}{{secret.Reveal(), secret}, {token.key().Seed(), token}, {key.Reveal().Seed(), key}} {
		vectors.HoldConcealed(t, c.secret, c.value)
		if text, err := json.Marshal(c.value); err == nil {
			t.Errorf("%T marshals as %s", c.value, text)
		}
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("secrets", "secret", secret, "token", token, "key", key)
	}
	if strings.Count(log.String(), hidden) != 4 || strings.Count(log.String(), hiddenToken) != 2 {
		t.Errorf("in a log: %s", log.String())
	}
}

func TestAKeyIsDrawnWholeOrNotAtAll(t *testing.T) {
	for n := range 32 {
		short := func() io.Reader { return bytes.NewReader(make([]byte, n)) }
		_, err := NewSecret(short())
		_, errKey := NewSigningKey(short())
		_, errToken := NewToken(short())
		if err == nil || errKey == nil || errToken == nil {
			t.Errorf("drawn from %d bytes: %v, %v, %v", n, err, errKey, errToken)
		}
	}
	seed := bytes.Repeat([]byte{7}, 32)
	key, err := NewSigningKey(bytes.NewReader(seed))
	if err != nil || !bytes.Equal(key.Reveal().Seed(), seed) || !key.Public().Equal(ed25519.NewKeyFromSeed(seed).Public()) {
		t.Errorf("the key is not the seed's: %v", err)
	}
	if got := fmt.Sprintf("%x", Secret{}.Reveal()); got != strings.Repeat("0", 64) {
		t.Errorf("the zero secret is %s", got)
	}
}
