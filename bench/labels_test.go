package bench

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The promise of this file: the specification, the model and the code use the
// same labels, each for one thing, and hash the same things in the same order.

// labelled is a use of a label in the code: how, and what goes in after it.
type labelled struct {
	how   string // H, X, or use: a signature, an HPKE context, a salt
	parts []string
}

// codeLabels reads all labels out of the packages that compute with them.
func codeLabels(t *testing.T) map[string][]labelled {
	t.Helper()
	found := make(map[string][]labelled)
	inspectSource(t, []string{"wire", "wire/channel", "wire/call", "wire/handle", "wire/checkpoint", "wire/report", "passport"}, func(_ string, n ast.Node) {
		switch n := n.(type) {
		case *ast.CallExpr:
			collectCall(found, n)
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil && strings.HasPrefix(text, "openscope/1 ") && text != "openscope/1 " {
				name := strings.TrimPrefix(text, "openscope/1 ")
				if !strings.HasPrefix(name, "e2e ") { // the protocol's own name
					found[name] = append(found[name], labelled{how: "use"})
				}
			}
		}
	})
	return found
}

// inspectSource shows everything in the source of the packages, but for their
// tests, with the file that it is in.
func inspectSource(t *testing.T, dirs []string, show func(path string, n ast.Node)) {
	t.Helper()
	for _, dir := range dirs {
		paths, err := filepath.Glob("../" + dir + "/*.go")
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(paths), err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				show(strings.TrimPrefix(path, "../"), n)
				return true
			})
		}
	}
}

// collectCall enters wire.Hash("label", parts…), expand(key, "label", …),
// derive("label") and the two HMACs.
func collectCall(found map[string][]labelled, n *ast.CallExpr) {
	name := types.ExprString(n.Fun)
	name = name[strings.LastIndexByte(name, '.')+1:]
	at := map[string]int{"Hash": 0, "expand": 1, "derive": 0}
	i, ok := at[name]
	if !ok || len(n.Args) <= i {
		return
	}
	lit, ok := n.Args[i].(*ast.BasicLit)
	if !ok {
		return
	}
	label, err := strconv.Unquote(lit.Value)
	if err != nil {
		return
	}
	use := labelled{how: "X"}
	if name == "Hash" {
		use.how = "H"
	}
	for _, arg := range n.Args[i+1:] {
		use.parts = append(use.parts, types.ExprString(arg))
	}
	found[label] = append(found[label], use)
}

var tick = regexp.MustCompile("`([^`]+)`")

// specLabels is the table of §1.2: each label, and what it is for.
func specLabels(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../wire/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "### 1.2 Labels")
	table, _, end := strings.Cut(rest, "\n## 2 ")
	if !ok || !end {
		t.Fatal("§1.2 is not where it was")
	}
	labels := make(map[string]string)
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cell := strings.SplitN(line, "|", 3)[1]
		kind := "use"
		for _, m := range tick.FindAllStringSubmatch(cell, -1) {
			switch m[1] {
			case "H", "X":
				kind = m[1]
			default:
				labels[strings.TrimPrefix(m[1], "openscope/1 ")] = kind
			}
		}
	}
	return labels
}

func TestTheSpecificationListsEveryLabelOfTheCode(t *testing.T) {
	code, spec := codeLabels(t), specLabels(t)
	// Two MACs are labelled without the protocol's name before it, in a list.
	for _, name := range []string{"client finished", "daemon ready"} {
		if !codeHas(t, `LP([]byte("`+name+`")`) {
			t.Errorf("no MAC is labelled %q", name)
		}
		code[name] = []labelled{{how: "use"}}
	}
	for _, name := range slices.Sorted(maps.Keys(code)) {
		kinds := map[string]bool{}
		for _, use := range code[name] {
			kinds[use.how] = true
		}
		if want := spec[name]; want == "" {
			t.Errorf("the label %q is not in the table of §1.2", name)
		} else if len(kinds) == 1 && !kinds[want] {
			t.Errorf("the label %q is a %s in the table, and %v in the code", name, want, kinds)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec)) {
		if len(code[name]) == 0 {
			t.Errorf("the label %q of §1.2 is nowhere in the code", name)
		}
	}
	if len(code) < 35 {
		t.Errorf("only %d labels were found", len(code))
	}
}

func codeHas(t *testing.T, text string) bool {
	t.Helper()
	paths, err := filepath.Glob("../wire/channel/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), text) {
			return true
		}
	}
	return false
}

// transcripts are what is hashed and signed in the handshake: the line of the
// specification, the line of the model, and the parts in the code's words.
var transcripts = []struct {
	label string
	code  []string // of wire.Hash
	spec  string
	model string
}{
	{"th0", []string{"[]byte{…}", "handleHash[:]", "recipient", "rid[:]"},
		`th0 = H("th0", mode, hh, pkR or "", rid)`, "let th0 = H(L_th0, (mode, hh, k2b(pkR), rid)) in"},
	{"th1", []string{"t.th[:]", "msg1"}, `th1    = H("th1", th0, msg1)`, "let th1 = H(L_th1, (th0, msg1)) in"},
	{"th1b", []string{"t.th[:]", "encR"}, `th1b = H("th1b", th1, encR)`, "let th1b = H(L_th1b, (th1, encR)) in"},
	{"sig", []string{"t.th[:]", "enc", "p2"}, `H("sig", th1b, enc, P2)`, "H(L_sig, (th1b, enc, P2))"},
	{"th2", []string{"t.th[:]", "enc", "ct2"}, `th2  = H("th2", th1b, enc, ct2)`, "let th2 = H(L_th2, (th1b, enc, ct2)) in"},
	{"th3", []string{"t.th[:]", "finished"}, `th3 = H("th3", th2, FINISHED body)`, "let th3 = H(L_th3, (th2, FINISHED)) in"},
	{"commit", []string{"nonce[:]"}, `commit = H("commit", nC)`, "let commit = H(L_commit, nC) in"},
	{"request", []string{"body", "signature"}, `H("request", CALL body, CALL signature)`, "H(L_request_hash, (request, rsig))"},
	{"rid", []string{"register", "join"}, `rid = H("rid", pub_register, pub_join)[0:16]`, ""},
	{"daemon fingerprint", []string{"public"}, `fp = H("daemon fingerprint", pkD)`, "H(L_daemon_fingerprint, p2b(pkD))"},
}

func TestTheSpecificationTheModelAndTheCodeHashTheSameInOrder(t *testing.T) {
	spec, err := os.ReadFile("../wire/README.md")
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile("../wire/model/handshake.pv.in")
	if err != nil {
		t.Fatal(err)
	}
	code := codeLabels(t)
	for _, c := range transcripts {
		found := false
		for _, use := range code[c.label] {
			found = found || use.how == "H" && slices.Equal(use.parts, c.code)
		}
		if !found {
			t.Errorf("%s: the code hashes %v, not %v", c.label, code[c.label], c.code)
		}
		if !strings.Contains(string(spec), c.spec) {
			t.Errorf("%s: the specification does not say %s", c.label, c.spec)
		}
		if !strings.Contains(string(model), c.model) {
			t.Errorf("%s: the model does not say %s", c.label, c.model)
		}
	}
}

var modelLabel = regexp.MustCompile(`\bL_[a-z0-9_]+\b`)

// Every label of the handshake is in the model, and none that there is not.
func TestTheModelHasTheLabelsOfTheHandshake(t *testing.T) {
	model, err := os.ReadFile("../wire/model/handshake.pv.in")
	if err != nil {
		t.Fatal(err)
	}
	uses := map[string]int{}
	for _, name := range modelLabel.FindAllString(string(model), -1) {
		uses[strings.ReplaceAll(strings.TrimPrefix(name, "L_"), "_", " ")]++
	}
	spec := specLabels(t)
	for name, n := range uses {
		if name == "request hash" {
			name = "request" // H and a signature: two uses of one name, told apart in the model
		}
		if spec[name] == "" {
			t.Errorf("the model's label %q is not in §1.2", name)
		}
		if n < 2 {
			t.Errorf("the model declares %q and does not use it", name)
		}
	}
	for _, name := range []string{
		"th0", "th1", "th1b", "th2", "th3", "commit", "sig", "handle", "daemon fingerprint", "msg1 mac", "psk", "fin c", "fin d", "key c2d", "key d2c",
		"handle seal", "recipient proof", "channel", "master", "daemon signature", "client signature", "request", "result", "client finished", "daemon ready",
	} {
		if uses[name] == 0 {
			t.Errorf("the model does not use %q", name)
		}
	}
}
