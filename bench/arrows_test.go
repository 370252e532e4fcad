package bench

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path that all packages here begin with.
const module = "openscope"

// arrow is a package and all that its code outside tests may import besides
// the standard library.
type arrow struct {
	pkg     string // below the module
	imports string // packages of this module, by their paths below it
	outside string // modules
	why     string
}

// arrows are the packages there are. One that is missing is an error, and so
// is one that is not listed: a new package states here what it may know.
var arrows = []arrow{
	{"passport", "", "github.com/fxamacker/cbor/v2",
		"the capability algebra is one of the two grounds: no I/O, and nothing of how it travels"},

	{"wire", "", "",
		"the other ground, and all that a relay may know"},
	{"wire/call", "wire", "",
		"what is said inside the channel: bytes and accounting, neither keys nor sockets"},
	{"wire/checkpoint", "wire", "golang.org/x/mod",
		"what a checkpoint says is read by the recipient too: neither log nor file, and the note and the tree are Go's own"},
	{"wire/report", "wire wire/call wire/checkpoint", "golang.org/x/mod",
		"the record that both ends sign and check: neither the log it comes from nor the folder where receipts are kept"},
	{"wire/handle", "wire", "filippo.io/edwards25519",
		"a handle is read offline, before anything is trusted: it opens nothing itself"},
	{"wire/channel", "wire", "github.com/cloudflare/circl golang.org/x/crypto golang.org/x/time",
		"the handshake and the records know no call, no passport and no transport but wire.Leg"},
	{"wire/tunnel", "wire", "github.com/quic-go/quic-go github.com/libp2p/go-yamux/v5 golang.org/x/net golang.org/x/sys golang.org/x/time",
		"reaching a relay needs nothing of what is said through it; x/net has the type in which quic-go reads a batch of datagrams"},
	{"wire/term", "", "github.com/peterbourgon/ff/v3 github.com/lmittmann/tint golang.org/x/sys golang.org/x/term",
		"what three command lines share knows of none of the three"},

	{"relay", "wire wire/tunnel", "github.com/quic-go/quic-go golang.org/x/sys golang.org/x/time",
		"blindness is a property of the link graph: nothing here can decrypt or parse a call"},
	{"relay/admin", "relay", "github.com/prometheus/client_golang",
		"the operator's numbers: what peers can reach knows nothing of HTTP"},
	{"relay/fleet", "relay wire", "github.com/nats-io/nats.go",
		"the tokens of many nodes: the data path knows nothing of NATS"},
	{"relay/acme", "", "golang.org/x/crypto",
		"a certificate and who issues it: neither the data path nor peers; the protocol is Go's own"},
	{"relay/cmd/openscope-relay", "relay relay/acme relay/admin relay/fleet wire wire/term", "github.com/peterbourgon/ff/v3 github.com/lmittmann/tint golang.org/x/sys golang.org/x/term",
		"as its package: the program is what an operator is asked to trust"},

	{"daemon", "daemon/internal/yamlfile daemon/internal/seam daemon/internal/network passport wire wire/channel wire/call wire/checkpoint wire/handle wire/report " + internals, "go.yaml.in/yaml/v3 golang.org/x/sys golang.org/x/time",
		"the composition: it meets everything, but neither the recipient's side nor the terminal, nor a relay: that is the net half's"},
	{"daemon/cmd/openscope", "daemon relay passport wire wire/channel wire/checkpoint wire/handle wire/term " + internals, "github.com/peterbourgon/ff/v3 github.com/lmittmann/tint golang.org/x/sys golang.org/x/term go.yaml.in/yaml/v3",
		"relay is for openscope dev, which embeds one"},
	{"daemon/internal/audit", "wire/checkpoint", "golang.org/x/mod",
		"the log is text and bytes: it must not depend on what it records; its Merkle tree and signed notes are Go's own"},
	{"daemon/internal/catalog", "daemon/internal/yamlfile passport", "",
		"what verbs there are, in the algebra's terms"},
	{"daemon/internal/control", "wire/term", "",
		"the local socket speaks for an interface; daemon implements it"},
	{"daemon/internal/executor", "", "golang.org/x/crypto golang.org/x/sys",
		"it runs what it is given, and knows nothing of who decided"},
	{"daemon/internal/policy", "daemon/internal/yamlfile passport", "go.yaml.in/yaml/v3 golang.org/x/sys",
		"decisions are pure: a file and the algebra"},
	{"daemon/internal/principal", "", "",
		"who asks is the kernel's word alone"},
	{"daemon/internal/yamlfile", "", "go.yaml.in/yaml/v3",
		"the form of a file: what it says is for those who read one"},
	{"daemon/internal/seam", "passport wire wire/call wire/channel", "golang.org/x/time",
		"what the two halves of the daemon say to each other: it reaches nobody and decides nothing"},
	{"daemon/internal/network", "daemon/internal/seam passport wire wire/call wire/channel wire/tunnel", "",
		"the net half, which asks across the seam for all that takes authority: no policy, log or executor"},
	{"daemon/internal/render", "", "",
		"what people see of a record is pure text: it reads no log and signs nothing"},
	{"daemon/internal/session", "passport wire wire/call", "golang.org/x/time",
		"what is open and until when, without the wire it came by"},

	{"client", "passport wire wire/tunnel wire/channel wire/call wire/handle wire/report wire/term", "golang.org/x/sys",
		"the recipient's side, which never sees the daemon's"},
	{"client/mcp", "client passport wire/call wire/term", "github.com/modelcontextprotocol/go-sdk",
		"an agent's view of a session: it is handed one, and reaches no network of its own"},
	{"client/cmd/openscope-reflect-client", "client client/mcp passport wire wire/call wire/handle wire/report wire/term", "github.com/peterbourgon/ff/v3 github.com/lmittmann/tint golang.org/x/sys golang.org/x/term",
		"a thin main"},

	{"bench", "", "", "tests only"},
	{"bench/mutants", "", "",
		"it edits a copy of the source, and needs none of it"},
	{"bench/release", "", "",
		"it packs what it is given the paths of"},
	{"bench/vectors", "", "",
		"it is for the tests of both grounds, and so knows neither"},
	{"bench/perf", "wire wire/call wire/channel wire/tunnel", "github.com/quic-go/quic-go golang.org/x/sys",
		"it measures the wire with ends of its own; the relay is the program that ships"},
	{"bench/demo", "relay wire", "",
		"it drives the programs as a person would; a relay in it is there to show what a relay sees"},
}

// internals are the daemon's parts. They do not import each other: they meet
// in daemon. What two of them speak of is in a part of its own (yamlfile, seam).
const internals = "daemon/internal/audit daemon/internal/catalog daemon/internal/control daemon/internal/executor " +
	"daemon/internal/policy daemon/internal/principal daemon/internal/render daemon/internal/session"

// holder is something that only some packages may import outside tests,
// whatever the table above says. A line that names packages none of which does
// is stale, and an error.
type holder struct {
	what    string // an import path, and all below it
	holders string // packages that must import it
	may     string // packages that may
	why     string
}

var holders = []holder{
	{"github.com/quic-go/quic-go", "wire/tunnel relay", "bench/perf",
		"one wrapping of the transport at each end of it; the yardsticks of the benchmark are bare"},
	{module + "/wire/tunnel", "client daemon/internal/network", "relay bench/perf",
		"what a relay says is parsed by the part of the daemon that is held, and by no other"},
	{"github.com/libp2p", "wire/tunnel", "",
		"as quic-go: one wrapping of the daemon's streams over TCP"},
	{"github.com/cloudflare/circl", "wire/channel", "",
		"HPKE lives in one place"},
	{"crypto/hpke", "", "",
		"Go's own is the second opinion in tests: two of them on the wire would be one too many"},
	{"os/exec", "daemon/internal/executor", "bench/demo bench/mutants bench/perf bench/release",
		"one place that starts processes; the demo, the benchmark and the release stand outside the product"},
	{"golang.org/x/crypto/ssh", "daemon/internal/executor", "",
		"as above"},
	{"github.com/peterbourgon/ff", "", "wire/term " + mains,
		"flags are for programs"},
	{"github.com/lmittmann/tint", "", "wire/term " + mains,
		"packages are handed a logger"},
	{"flag", "wire/term", mains + " bench/demo bench/perf bench/release bench/vectors",
		"flags are for programs"},
	{module + "/wire/term", mains, "client client/mcp daemon/internal/control",
		"a package that speaks to a person is a program's, or next to it"},
	{"github.com/modelcontextprotocol/go-sdk", "client/mcp", "",
		"agents speak to the recipient's side alone; the SDK brings an HTTP stack that nothing else may link"},
	{module + "/client", "client/cmd/openscope-reflect-client client/mcp", "",
		"client and daemon never import each other"},
	{module + "/daemon", "daemon/cmd/openscope", "",
		"client and daemon never import each other; the parts meet in daemon"},
	{"golang.org/x/crypto/acme", "relay/acme", "",
		"one place that speaks to an authority"},
	{"github.com/nats-io", "relay/fleet", "",
		"tokens only: a fleet shares nothing else"},
	{"github.com/prometheus/client_golang", "relay/admin", "",
		"one place that shows numbers"},
	{module + "/relay", "", "relay/cmd/openscope-relay daemon/cmd/openscope bench/demo relay/admin relay/fleet",
		"openscope dev embeds one"},
	{"plugin", "", "", "what is linked is what was reviewed"},
	{"net/rpc", "", "", "what is parsed is listed in wire/README.md"},
	{"encoding/gob", "", "", "what is parsed is listed in wire/README.md"},
}

const mains = "daemon/cmd/openscope relay/cmd/openscope-relay client/cmd/openscope-reflect-client"

// opaque is what a relay must not be able to do: decrypt, or understand.
var opaque = []string{
	module + "/wire/channel", module + "/wire/call", module + "/wire/handle", module + "/passport",
	module + "/client", module + "/daemon", "github.com/cloudflare/circl", "github.com/fxamacker/cbor",
}

func TestEveryPackageImportsOnlyWhatItMay(t *testing.T) {
	found := packages(t)
	for _, a := range arrows {
		imports, ok := found[a.pkg]
		if !ok {
			t.Errorf("package %s is missing (%s)", a.pkg, a.why)
			continue
		}
		for imported, file := range imports {
			if !a.allows(imported) {
				t.Errorf("%s imports %s, which %s may not: %s", file, imported, a.pkg, a.why)
			}
		}
	}
	for pkg := range found {
		if !slices.ContainsFunc(arrows, func(a arrow) bool { return a.pkg == pkg }) {
			t.Errorf("package %s is not in the table of arrows: say what it may import, and why", pkg)
		}
	}
}

func (a arrow) allows(imported string) bool {
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		return slices.Contains(strings.Fields(a.imports), own)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(strings.Fields(a.outside), func(m string) bool { return within(imported, m) })
}

// within reports whether an import path is root or below it.
func within(imported, root string) bool {
	return imported == root || strings.HasPrefix(imported, root+"/")
}

func TestSomeThingsAreForSomePackagesOnly(t *testing.T) {
	found := packages(t)
	for _, h := range holders {
		for pkg, imports := range found {
			for imported, file := range imports {
				// The folder of a program is below its package: daemon/cmd is not daemon's importer.
				if within(imported, h.what) && !slices.Contains(strings.Fields(h.holders+" "+h.may), pkg) && !within(module+"/"+pkg, h.what) {
					t.Errorf("%s imports %s: %s", file, imported, h.why)
				}
			}
		}
		for _, pkg := range strings.Fields(h.holders) {
			if !importsWithin(found[pkg], h.what) {
				t.Errorf("%s does not import %s: the table is stale, or the package is missing", pkg, h.what)
			}
		}
		all := strings.Fields(h.holders + " " + h.may)
		if len(all) > 0 && !slices.ContainsFunc(all, func(pkg string) bool { return importsWithin(found[pkg], h.what) }) {
			t.Errorf("none of %s imports %s: the table is stale, or they are missing", all, h.what)
		}
	}
}

func importsWithin(imports map[string]string, root string) bool {
	for imported := range imports {
		if within(imported, root) {
			return true
		}
	}
	return false
}

// packages is every package of the module with all that its files outside
// tests import, whatever they are built for, and a file that does.
func packages(t *testing.T) map[string]map[string]string {
	t.Helper()
	found := make(map[string]map[string]string)
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != ".." && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if path.Ext(base) != ".go" || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		return addImports(found, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func addImports(found map[string]map[string]string, name string) error {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	name = filepath.ToSlash(strings.TrimPrefix(name, ".."+string(filepath.Separator)))
	imports := found[path.Dir(name)]
	if imports == nil {
		imports = make(map[string]string)
		found[path.Dir(name)] = imports
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		imports[imported] = name
	}
	return nil
}

func TestTheRelayLinksNothingThatDecrypts(t *testing.T) {
	deps := linked(t, "relay/cmd/openscope-relay")
	for _, want := range []string{module + "/relay", module + "/wire", "github.com/quic-go/quic-go"} {
		if !slices.Contains(deps, want) {
			t.Errorf("the relay does not link %s: the list of what it links is not what it should be", want)
		}
	}
	for _, dep := range deps {
		for _, not := range opaque {
			if within(dep, not) {
				t.Errorf("the relay links %s", dep)
			}
		}
	}
}

func TestTheClientLinksNothingOfTheDaemon(t *testing.T) {
	deps := linked(t, "client/cmd/openscope-reflect-client")
	if !slices.Contains(deps, module+"/client") {
		t.Error("the client does not link its own package")
	}
	for _, dep := range deps {
		if within(dep, module+"/daemon") || within(dep, module+"/relay") {
			t.Errorf("the client links %s", dep)
		}
	}
}

func TestTheDaemonLinksNothingOfTheClient(t *testing.T) {
	deps := linked(t, "daemon/cmd/openscope")
	if !slices.Contains(deps, module+"/daemon") {
		t.Error("the daemon does not link its own package")
	}
	for _, dep := range deps {
		if within(dep, module+"/client") {
			t.Errorf("the daemon links %s", dep)
		}
	}
}

// linked is every package that a program is made of.
func linked(t *testing.T, program string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", module+"/"+program)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing what %s links: %v\n%s", program, err, stderr.Bytes())
	}
	return strings.Fields(string(out))
}

// The same, asked of the program itself: what is in its symbol table and in
// the list of modules it was built from. The daemon, which must have all that
// the relay must not, shows that the search finds such things.
func TestTheRelaysBinaryHasNothingThatDecrypts(t *testing.T) {
	relay := symbols(t, "openscope-relay")
	if !mentions(relay, module+"/relay") {
		t.Error("the relay's own functions are not in its symbol table: it proves nothing")
	}
	daemon := symbols(t, "openscope")
	for _, not := range opaque {
		if mentions(relay, not) {
			t.Errorf("the relay's symbol table names %s", not)
		}
		if not != module+"/client" && !mentions(daemon, not) {
			t.Errorf("the search does not find %s even in the daemon: it proves nothing", not)
		}
	}
	info, err := buildinfo.ReadFile(filepath.Join(programs, "openscope-relay"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range info.Deps {
		if slices.ContainsFunc(opaque, func(not string) bool { return within(dep.Path, not) }) {
			t.Errorf("the relay was built from module %s", dep.Path)
		}
	}
}

func symbols(t *testing.T, program string) []elf.Symbol {
	t.Helper()
	file, err := elf.Open(filepath.Join(programs, program))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, err := file.Symbols()
	if err != nil {
		t.Fatalf("reading the symbols of %s: %v", program, err)
	}
	return all
}

// mentions reports whether a symbol belongs to the package at root, or to one
// below it. The linker writes a dot in a path's last part as %2e; none of the
// paths asked for has one there.
func mentions(all []elf.Symbol, root string) bool {
	return slices.ContainsFunc(all, func(s elf.Symbol) bool {
		return strings.Contains(s.Name, root+".") || strings.Contains(s.Name, root+"/")
	})
}
