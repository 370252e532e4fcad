package bench

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// plainComparisons are the places in the packages below that compare bytes in
// the time it takes to find a difference, each with the reason why it may.
var plainComparisons = map[string]string{
	"passport/signed.go: bytes.Equal(again, body)":                                 "a passport is no secret, and its signature has been verified",
	"passport/layout.go: slices.Equal(p.Allowed.Set, w.Set)":                       "as above: the order of a set",
	"passport/constraint.go: slices.Equal(c.Set, o.Set)":                           "what a grant allows is shown to both sides",
	"daemon/internal/audit/line.go: bytes.Equal(end, appendHash(nil, hash))":       "a reader of the log computes the hash from the line before it",
	"daemon/internal/audit/line.go: bytes.HasPrefix(end, []byte(hashKey))":         "the name of a field",
	"wire/channel/msg2.go: string(again) != string(b)":                             "the sender's own bytes, encoded again",
	"wire/handle/recipient.go: string(point.Bytes()) != string(public)":            "a public key",
	"relay/tcp.go: r.cfg.Challenge == nil":                                         "whether there is a function",
	"relay/tcp.go: slices.Equal(who.SupportedProtos, []string{…})":                 "what a peer says it speaks",
	"passport/meet.go: slices.Equal(other.paramNames(), v.paramNames())":           "names, which both sides are shown",
	"daemon/left.go: reflect.DeepEqual(c.left(before, share), c.left(now, share))": "the rules of this machine, before and after a reload",
	"client/known.go: d.fingerprint == fp":                                         "a fingerprint is public",
	"client/known.go: k.lines[i].fingerprint != fp":                                "as above",
	"daemon/internal/audit/verify.go: slices.Equal(now, files)":                    "names of the files of a log, by who reads it",
	"daemon/internal/audit/line.go: bytes.Equal(record.Line(), line)":              "a line of the log, by who reads it",
}

// secretive are the packages in which MACs, commitments, challenges and codes
// are compared.
var secretive = []string{"passport", "wire", "wire/call", "wire/channel", "wire/handle", "daemon", "daemon/internal/session", "daemon/internal/audit", "client", "relay"}

// C8: what somebody could guess byte by byte is compared in constant time.
// Everything else is on the list above.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	seen, constant := make(map[string]bool), 0
	inspectSource(t, secretive, func(path string, n ast.Node) {
		compared, ok := comparison(n)
		switch {
		case !ok:
		case strings.HasPrefix(compared, "subtle."), strings.HasPrefix(compared, "hmac."):
			constant++
		default:
			place := path + ": " + compared
			seen[place] = true
			if plainComparisons[place] == "" {
				t.Errorf("%s: in constant time, or with a reason in the table", place)
			}
		}
	})
	for place := range plainComparisons {
		if !seen[place] {
			t.Errorf("%s is no longer there", place)
		}
	}
	if constant < 9 {
		t.Errorf("only %d comparisons in constant time: the test shows little", constant)
	}
}

// comparison is a comparison of bytes: by a function for it, of two conversions
// to text, or with == of what has a name that is telling.
func comparison(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.CallExpr:
		name := types.ExprString(n.Fun)
		return types.ExprString(n), slices.Contains([]string{
			"bytes.Equal", "bytes.Compare", "bytes.HasPrefix", "slices.Equal", "slices.Compare", "reflect.DeepEqual",
			"subtle.ConstantTimeCompare", "hmac.Equal",
		}, name)
	case *ast.BinaryExpr:
		if n.Op != token.EQL && n.Op != token.NEQ {
			return "", false
		}
		left, right := types.ExprString(n.X), types.ExprString(n.Y)
		return left + " " + n.Op.String() + " " + right, secretName(n.X) || secretName(n.Y) ||
			strings.HasPrefix(left, "string(") && strings.HasPrefix(right, "string(")
	}
	return "", false
}

// secretName reports whether an expression ends in the name of something that
// must not be guessed.
func secretName(e ast.Expr) bool {
	if _, ok := e.(*ast.BasicLit); ok {
		return false
	}
	name := strings.ToLower(types.ExprString(e))
	if strings.HasPrefix(name, "len(") {
		return false
	}
	name = name[strings.LastIndexByte(name, '.')+1:]
	for _, secret := range []string{"mac", "mac1", "commit", "commitment", "fingerprint", "secret", "prk", "psk", "sas", "challenge", "fp"} {
		if strings.TrimRight(name, "[]:()") == secret {
			return true
		}
	}
	return false
}
