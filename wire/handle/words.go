package handle

import (
	"crypto/subtle"
	_ "embed"
	"encoding/hex"
	"strings"
)

// bip39 is the English list of BIP-39; its notice is in bip39-LICENSE. No two
// of its words share their first four letters.
//
//go:embed bip39-english.txt
var bip39 string

var wordList = strings.Fields(bip39)

// Words, and bits of a secret, that people compare (§10).
const (
	fingerprintWords = 8
	sessionWords     = 4
	bitsPerWord      = 11
	uniqueLetters    = 4
)

// FingerprintWords is the first 88 bits of a daemon's fingerprint.
func FingerprintWords(fp [32]byte) []string { return words(fp[:], fingerprintWords) }

// SessionWords is the first 44 bits of a connection's session secret.
func SessionWords(sas []byte) []string { return words(sas, sessionWords) }

func words(secret []byte, n int) []string {
	out := make([]string, n)
	for i := range out {
		index := 0
		for bit := i * bitsPerWord; bit < (i+1)*bitsPerWord; bit++ {
			index = index<<1 | int(secret[bit/8]>>(7-bit%8)&1)
		}
		out[i] = wordList[index]
	}
	return out
}

// MatchFingerprint compares what a person typed with the fingerprint: eight
// words, of which four letters suffice, or all 64 hex digits.
func MatchFingerprint(fp [32]byte, typed string) bool {
	if digits, err := hex.DecodeString(strings.ToLower(strings.Join(strings.Fields(typed), ""))); err == nil && len(digits) == len(fp) {
		return subtle.ConstantTimeCompare(digits, fp[:]) == 1
	}
	return matchWords(FingerprintWords(fp), typed)
}

// MatchSessionWords compares what a person typed with a connection's words.
func MatchSessionWords(sas []byte, typed string) bool {
	return matchWords(SessionWords(sas), typed)
}

func matchWords(want []string, typed string) bool {
	got := strings.FieldsFunc(strings.ToLower(typed), func(r rune) bool {
		return (r < 'a' || r > 'z') && !(r >= '0' && r <= '9')
	})
	if len(got) != len(want) {
		return false
	}
	same := 1
	for i := range want {
		same &= matchWord(want[i], got[i])
	}
	return same == 1
}

// matchWord takes a whole word, or as many of its letters as make it unique.
func matchWord(want, got string) int {
	if len(got) >= uniqueLetters && strings.HasPrefix(want, got) {
		got = want
	}
	return subtle.ConstantTimeCompare([]byte(want), []byte(got))
}
