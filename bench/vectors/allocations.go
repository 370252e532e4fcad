package vectors

import (
	"encoding/json"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Load reads a published file, for tests that want its inputs.
func Load(t testing.TB, root, name string) File {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "testdata", "vectors", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var file File
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// Inputs are the values of that name in all cases, as bytes: in hex or as text.
func (f File) Inputs(t testing.TB, name string, inHex bool) [][]byte {
	t.Helper()
	var inputs [][]byte
	for _, c := range f.Cases {
		switch value, ok := c.In[name]; {
		case !ok:
		case inHex:
			inputs = append(inputs, c.In.Bytes(t, name))
		default:
			inputs = append(inputs, []byte(value))
		}
	}
	if len(inputs) == 0 {
		t.Fatalf("no case has a value %q", name)
	}
	return inputs
}

// HoldAllocations fails where parsing a hostile input of n bytes allocates more
// than 4n + 64 KiB beyond what an empty one does: for the inputs, and for many
// changed ones. It returns the most that was seen beyond 4n, in bytes.
func HoldAllocations(t *testing.T, inputs [][]byte, changes int, parse func([]byte)) int64 {
	t.Helper()
	parse(nil) // what is made once
	own := allocated(func() { parse(nil) })
	r := rand.New(rand.NewPCG(uint64(len(inputs)), 7))
	most := int64(-1 << 62)
	hold := func(input []byte) {
		beyond := allocated(func() { parse(input) }) - own - 4*int64(len(input))
		if beyond > 64<<10 { // what else runs in this process counts too: once more
			beyond = allocated(func() { parse(input) }) - own - 4*int64(len(input))
		}
		if beyond > 64<<10 {
			t.Errorf("%d bytes allocate %d beyond four times their size: %.40x", len(input), beyond, input)
		}
		most = max(most, beyond)
	}
	for _, input := range inputs {
		hold(input)
		for range changes {
			hold(changed(r, input))
		}
	}
	return most
}

// HoldFuzzed fails where parsing what a fuzzer came up with allocates more than
// four times its size and 64 KiB. Counting stops the world, and so one input in
// sixteen is looked at: always the same ones, so that what fails fails again.
func HoldFuzzed[T string | []byte](t *testing.T, input T, parse func(T)) {
	t.Helper()
	holdFuzzed(t, input, 4, parse)
}

// HoldFuzzedYAML is [HoldFuzzed] for the files of the policy. A YAML parser takes
// up to 600 times a file's size, for lists in lists; nobody can write these files
// who could not stop the daemon, and none has more than a mebibyte.
func HoldFuzzedYAML(t *testing.T, text string, parse func(string)) {
	t.Helper()
	holdFuzzed(t, text, 1024, parse)
}

func holdFuzzed[T string | []byte](t *testing.T, input T, times int64, parse func(T)) {
	t.Helper()
	h := fnv.New32a()
	h.Write([]byte(input))
	if h.Sum32()%16 != 0 {
		return
	}
	most := times*int64(len(input)) + 64<<10
	got := allocated(func() { parse(input) })
	for range 2 { // what else runs in this process counts too
		if got <= most {
			return
		}
		got = min(got, allocated(func() { parse(input) }))
	}
	if got > most {
		t.Fatalf("%d bytes allocate %d", len(input), got)
	}
}

func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// changed is the input with a few bytes changed to what parsers find hard, or
// cut, or longer.
func changed(r *rand.Rand, input []byte) []byte {
	out := append([]byte(nil), input...)
	for range 1 + r.IntN(4) {
		if len(out) == 0 {
			break
		}
		out[r.IntN(len(out))] = []byte{0, 1, 0x7f, 0x80, 0xff, 0x9b, 0xbf, byte(r.IntN(256))}[r.IntN(8)]
	}
	switch r.IntN(4) {
	case 0:
		return out[:r.IntN(len(out)+1)]
	case 1:
		return append(out, out[:r.IntN(len(out)+1)]...)
	}
	return out
}
