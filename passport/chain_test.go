package passport

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// allowed is every call of the world that the grant allows, as bits in the
// order of everyCall.
func allowed(g Grant) string {
	var b []byte
	everyCall(func(verb string, values map[string]string) {
		bit := byte('0')
		if g.Allows(verb, values) == nil {
			bit = '1'
		}
		b = append(b, bit)
	})
	return string(b)
}

func narrowedBy(g Grant, chain [][]Spec) (Grant, error) {
	for _, specs := range chain {
		var err error
		if g, err = g.Narrow(specs, Limits{}); err != nil {
			return Grant{}, err
		}
	}
	return g, nil
}

func noWider(inner, outer string) bool {
	for i := range inner {
		if inner[i] == '1' && outer[i] != '1' {
			return false
		}
	}
	return true
}

// Z2: however long a chain of narrowings is, each link allows no more than the
// one before; in whatever order the same pins come, the same calls are left;
// and the last link applied again changes nothing.
func TestAChainOfNarrowingsOnlyShrinks(t *testing.T) {
	r := source{rand.New(rand.NewPCG(3, 4))}
	chains, links, reordered := 0, 0, 0
	for chains < 20_000 {
		g := r.grant()
		chain := make([][]Spec, 0, 6)
		for range 1 + r.IntN(6) {
			chain = append(chain, r.specs(g))
		}
		last := g
		before := allowed(g)
		length := 0
		for _, specs := range chain {
			n, err := last.Narrow(specs, Limits{})
			if err != nil {
				break
			}
			now := allowed(n)
			if !noWider(now, before) {
				t.Fatalf("link %d of %+v widens %+v", length+1, chain, g)
			}
			last, before = n, now
			length++
		}
		if length == 0 {
			continue
		}
		chains, links = chains+1, links+length
		done := chain[:length]
		if again, err := last.Narrow(done[length-1], Limits{}); err == nil && allowed(again) != before {
			t.Fatalf("the last of %+v changes what it left of %+v", done, g)
		}
		other := slices.Clone(done)
		r.Shuffle(length, func(i, j int) { other[i], other[j] = other[j], other[i] })
		// An order may be refused where another is not: a range that reaches
		// beyond what is left is an error. What is not refused is the same.
		if n, err := narrowedBy(g, other); err == nil {
			if length > 1 {
				reordered++
			}
			if allowed(n) != before {
				t.Fatalf("%+v and %+v leave different parts of %+v", done, other, g)
			}
		}
	}
	t.Logf("%d chains of %d links, %d of them in two orders", chains, links, reordered)
	if reordered < 1000 {
		t.Error("too few chains were compared in two orders")
	}
}

// Z6: nothing that the daemon did not sign for this session and this key is
// taken for a passport.
func TestForgedPassportsAreRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	public := testKey.Public().(ed25519.PublicKey)
	_, mallory, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	forgeries := map[string]func(mine, theirs Signed, p Passport) Signed{
		"signed by another key": func(_, _ Signed, p Passport) Signed {
			s, err := Sign(mallory, p)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"another body under the signature": func(mine, theirs Signed, _ Passport) Signed {
			return append(bytes.Clone(mine[:64]), theirs[64:]...)
		},
		"cut":    func(mine, _ Signed, _ Passport) Signed { return mine[:r.IntN(len(mine))] },
		"longer": func(mine, _ Signed, _ Passport) Signed { return append(bytes.Clone(mine), byte(r.IntN(256))) },
		"a bit turned": func(mine, _ Signed, _ Passport) Signed {
			s := bytes.Clone(mine)
			s[r.IntN(len(s))] ^= 1 << r.IntN(8)
			return s
		},
		"for another session": func(_, _ Signed, p Passport) Signed { p.Session[r.IntN(16)] ^= 1; return signed(t, p) },
		"for another key": func(_, _ Signed, p Passport) Signed {
			p.Subject = bytes.Clone(p.Subject)
			p.Subject[r.IntN(32)] ^= 1
			return signed(t, p)
		},
		"no label under the signature": func(mine, _ Signed, _ Passport) Signed {
			return append(Signed(ed25519.Sign(testKey, mine[64:])), mine[64:]...)
		},
	}
	count := 0
	for range 250 {
		p, q := testPassport(), testPassport()
		p.Serial, q.Serial = r.Uint32(), r.Uint32()
		mine, theirs := signed(t, p), signed(t, q)
		for name, forge := range forgeries {
			count++
			got, err := Verify(forge(mine, theirs, p), public)
			if err == nil {
				err = got.CheckFor(p.Session, p.Subject)
			}
			if !errors.Is(err, ErrForged) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	t.Logf("%d forgeries", count)
}
