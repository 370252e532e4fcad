package bench

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cloudflare/circl/dh/x25519"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"golang.org/x/crypto/chacha20poly1305"

	"openscope/wire/handle"
)

// Project Wycheproof's files for the primitives this project stands on, each
// against the packages that are linked for it and called as they are called
// here. testdata/wycheproof says where the files are from.

// hexBytes is a field of a vector file.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// wycheproofCase is what the tests of all files have.
type wycheproofCase struct {
	ID      int `json:"tcId"`
	Comment string
	Flags   []string
	Result  string
}

func (c wycheproofCase) has(flag string) bool { return slices.Contains(c.Flags, flag) }

// wycheproofFile is a file whose groups are of type G.
type wycheproofFile[G any] struct {
	NumberOfTests int
	TestGroups    []G
}

// tests is a group that says nothing which its tests need.
type tests[T any] struct{ Tests []T }

func loadWycheproof[G any](t *testing.T, name string) (groups []G, verdicts *tally) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", "wycheproof", name+"_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file wycheproofFile[G]
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return file.TestGroups, &tally{t: t, name: name, promised: file.NumberOfTests}
}

// tally counts the verdicts on a file.
type tally struct {
	t                 *testing.T
	name              string
	promised          int
	accepted, refused int
}

// judge takes one verdict: err is why a test was refused, or that what was
// accepted came to something else than it should.
func (y *tally) judge(c wycheproofCase, err error) {
	y.t.Helper()
	if err == nil {
		y.accepted++
	} else {
		y.refused++
	}
	switch {
	case c.Result != "valid" && c.Result != "invalid":
		y.t.Errorf("%s %d: nobody decided what %q is to come to", y.name, c.ID, c.Result)
	case c.Result == "valid" && err != nil:
		y.t.Errorf("%s %d is refused: %v (%s %v)", y.name, c.ID, err, c.Comment, c.Flags)
	case c.Result == "invalid" && err == nil:
		y.t.Errorf("%s %d is accepted (%s %v)", y.name, c.ID, c.Comment, c.Flags)
	}
}

// done fails for a file of which not every test ran: one that is empty, or has
// another form than is read here, would pass silently.
func (y *tally) done() {
	y.t.Helper()
	ran := y.accepted + y.refused
	if ran == 0 || ran != y.promised {
		y.t.Errorf("%s: %d tests ran, the file says %d", y.name, ran, y.promised)
	}
	y.t.Logf("%s: %d tests ran: %d accepted, %d refused", y.name, ran, y.accepted, y.refused)
}

var errUnequal = errors.New("it comes to other bytes")

// mustBe is nil where bytes came without an error and are those wanted.
func mustBe(want []byte) func(got []byte, err error) error {
	return func(got []byte, err error) error {
		if err == nil && !bytes.Equal(got, want) {
			return errUnequal
		}
		return err
	}
}

// recovered turns a panic into a refusal: some of these packages panic for sizes
// that no caller here can give them.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

// x25519Sides are the two implementations that are linked: crypto/ecdh checks
// keys, circl's is below both KEMs.
var x25519Sides = []struct {
	name  string
	share func(private, public []byte) ([]byte, error)
}{
	{"crypto/ecdh", ecdhShare},
	{"circl", circlShare},
}

func ecdhShare(private, public []byte) ([]byte, error) {
	own, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return own.ECDH(theirs)
}

func circlShare(private, public []byte) ([]byte, error) {
	var shared x25519.Key
	own, theirs := x25519.Key(private), x25519.Key(public)
	if !x25519.Shared(&shared, &own, &theirs) {
		return nil, errors.New("a point of low order")
	}
	return shared[:], nil
}

type x25519Case struct {
	wycheproofCase
	Public, Private, Shared hexBytes
}

// decided settles what Wycheproof leaves open: points on the twist and
// encodings beyond the prime are taken, as RFC 7748 has it, and a share that
// would be zero is refused.
func (c x25519Case) decided() wycheproofCase {
	if c.Result == "acceptable" {
		c.Result = "valid"
		if c.has("ZeroSharedSecret") {
			c.Result = "invalid"
		}
	}
	return c.wycheproofCase
}

func TestWycheproofX25519SharesAreRightAndZeroIsRefused(t *testing.T) {
	for _, side := range x25519Sides {
		t.Run(side.name, func(t *testing.T) {
			groups, verdicts := loadWycheproof[tests[x25519Case]](t, "x25519")
			for _, group := range groups {
				for _, c := range group.Tests {
					verdicts.judge(c.decided(), mustBe(c.Shared)(side.share(c.Private, c.Public)))
				}
			}
			verdicts.done()
		})
	}
}

func TestWycheproofX25519KeysOfLowOrderCannotBeRegistered(t *testing.T) {
	signing, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	groups, verdicts := loadWycheproof[tests[x25519Case]](t, "x25519")
	for _, group := range groups {
		for _, c := range group.Tests {
			public, err := ecdh.X25519().NewPublicKey(c.Public)
			if err != nil {
				t.Fatal(err)
			}
			_, err = handle.ParseRecipientKey(handle.RecipientKey{X25519: public, Ed25519: signing}.Text())
			verdicts.judge(c.decided(), err)
		}
	}
	verdicts.done()
}

type ed25519Group struct {
	PublicKey struct{ PK hexBytes }
	Tests     []struct {
		wycheproofCase
		Msg, Sig hexBytes
	}
}

func TestWycheproofEd25519SignaturesAreJudgedRight(t *testing.T) {
	groups, verdicts := loadWycheproof[ed25519Group](t, "ed25519")
	for _, group := range groups {
		for _, c := range group.Tests {
			var err error
			if !ed25519.Verify(ed25519.PublicKey(group.PublicKey.PK), c.Msg, c.Sig) {
				err = errors.New("the signature is wrong")
			}
			verdicts.judge(c.wycheproofCase, err)
		}
	}
	verdicts.done()
}

type aeadCase struct {
	wycheproofCase
	Key, IV, AAD, Msg, CT, Tag hexBytes
}

// New's AEAD panics for nonces of all but twelve bytes; a record's is an array
// of twelve.
func (c aeadCase) seal() (sealed []byte, err error) {
	defer recovered(&err)
	aead, err := chacha20poly1305.New(c.Key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, c.IV, c.Msg, c.AAD), nil
}

func (c aeadCase) open() (opened []byte, err error) {
	defer recovered(&err)
	aead, err := chacha20poly1305.New(c.Key)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, c.IV, slices.Concat(c.CT, c.Tag), c.AAD)
}

func TestWycheproofChaCha20Poly1305OpensNothingThatWasChanged(t *testing.T) {
	groups, verdicts := loadWycheproof[tests[aeadCase]](t, "chacha20_poly1305")
	for _, group := range groups {
		for _, c := range group.Tests {
			verdicts.judge(c.wycheproofCase, mustBe(c.Msg)(c.open()))
			if err := mustBe(slices.Concat(c.CT, c.Tag))(c.seal()); c.Result == "valid" && err != nil {
				t.Errorf("sealing %d: %v", c.ID, err)
			}
		}
	}
	verdicts.done()
}

type hkdfCase struct {
	wycheproofCase
	IKM, Salt, Info, OKM hexBytes
	Size                 int
}

// derive is in the two steps that this project takes apart.
func (c hkdfCase) derive() ([]byte, error) {
	key, err := hkdf.Extract(sha256.New, c.IKM, c.Salt)
	if err != nil {
		return nil, err
	}
	return hkdf.Expand(sha256.New, key, string(c.Info), c.Size)
}

func TestWycheproofHKDFDerivesTheSameAndNotTooMuch(t *testing.T) {
	groups, verdicts := loadWycheproof[tests[hkdfCase]](t, "hkdf_sha256")
	for _, group := range groups {
		for _, c := range group.Tests {
			verdicts.judge(c.wycheproofCase, mustBe(c.OKM)(c.derive()))
		}
	}
	verdicts.done()
}

type hmacGroup struct {
	TagSize int // bits
	Tests   []struct {
		wycheproofCase
		Key, Msg, Tag hexBytes
	}
}

func TestWycheproofHMACTagsAreJudgedRight(t *testing.T) {
	groups, verdicts := loadWycheproof[hmacGroup](t, "hmac_sha256")
	for _, group := range groups {
		for _, c := range group.Tests {
			h := hmac.New(sha256.New, c.Key)
			h.Write(c.Msg)
			verdicts.judge(c.wycheproofCase, mustBe(c.Tag)(h.Sum(nil)[:group.TagSize/8], nil))
		}
	}
	verdicts.done()
}

// mlkemSide is an implementation of ML-KEM-768. circl's is inside X-Wing on the
// wire, Go's inside the tests' second opinion.
type mlkemSide struct {
	name string
	// generate returns no decapsulation key where its encoding is a seed.
	generate    func(seed []byte) (encapsulation, decapsulation []byte, err error)
	encapsulate func(key, random []byte) (shared, ciphertext []byte, err error)
	decapsulate func(seed, ciphertext []byte) ([]byte, error)
}

var mlkemSides = []mlkemSide{
	{"circl", circlGenerate, circlEncapsulate, circlDecapsulate},
	{"crypto/mlkem", goGenerate, goEncapsulate, goDecapsulate},
}

func circlGenerate(seed []byte) (encapsulation, decapsulation []byte, err error) {
	defer recovered(&err) // of a seed of another size: X-Wing's is hashed to this one
	public, private := mlkem768.Scheme().DeriveKeyPair(seed)
	if encapsulation, err = public.MarshalBinary(); err != nil {
		return nil, nil, err
	}
	decapsulation, err = private.MarshalBinary()
	return encapsulation, decapsulation, err
}

func circlEncapsulate(key, random []byte) (shared, ciphertext []byte, err error) {
	public, err := mlkem768.Scheme().UnmarshalBinaryPublicKey(key)
	if err != nil {
		return nil, nil, err
	}
	ciphertext, shared, err = mlkem768.Scheme().EncapsulateDeterministically(public, random)
	return shared, ciphertext, err
}

func circlDecapsulate(seed, ciphertext []byte) ([]byte, error) {
	_, expanded, err := circlGenerate(seed)
	if err != nil {
		return nil, err
	}
	return circlDecapsulateExpanded(expanded, ciphertext)
}

func circlDecapsulateExpanded(expanded, ciphertext []byte) ([]byte, error) {
	private, err := mlkem768.Scheme().UnmarshalBinaryPrivateKey(expanded)
	if err != nil {
		return nil, err
	}
	return mlkem768.Scheme().Decapsulate(private, ciphertext)
}

func goGenerate(seed []byte) (encapsulation, decapsulation []byte, err error) {
	private, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		return nil, nil, err
	}
	return private.EncapsulationKey().Bytes(), nil, nil
}

func goEncapsulate(key, random []byte) (shared, ciphertext []byte, err error) {
	public, err := mlkem.NewEncapsulationKey768(key)
	if err != nil {
		return nil, nil, err
	}
	return mlkemtest.Encapsulate768(public, random)
}

func goDecapsulate(seed, ciphertext []byte) ([]byte, error) {
	private, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		return nil, err
	}
	return private.Decapsulate(ciphertext)
}

type mlkemCase struct {
	wycheproofCase
	Seed, EK, DK, M, C, K hexBytes
}

// whole generates the key pair and decapsulates.
func (c mlkemCase) whole(side mlkemSide) error {
	public, _, err := side.generate(c.Seed)
	if err == nil && c.EK != nil && !bytes.Equal(public, c.EK) {
		return errUnequal
	}
	return errors.Join(err, mustBe(c.K)(side.decapsulate(c.Seed, c.C)))
}

func (c mlkemCase) generated(side mlkemSide) error {
	public, private, err := side.generate(c.Seed)
	if private != nil && !bytes.Equal(private, c.DK) {
		return errUnequal
	}
	return mustBe(c.EK)(public, err)
}

func (c mlkemCase) encapsulated(side mlkemSide) error {
	shared, ciphertext, err := side.encapsulate(c.EK, c.M)
	return errors.Join(mustBe(c.K)(shared, err), mustBe(c.C)(ciphertext, err))
}

func (c mlkemCase) decapsulatedExpanded(mlkemSide) error {
	return mustBe(c.K)(circlDecapsulateExpanded(c.DK, c.C))
}

func TestWycheproofMLKEM768IsRightAndRefusesBadKeys(t *testing.T) {
	for _, file := range []struct {
		name  string
		sides []mlkemSide
		run   func(mlkemCase, mlkemSide) error
	}{
		{"mlkem_768", mlkemSides, mlkemCase.whole},
		{"mlkem_768_keygen_seed", mlkemSides, mlkemCase.generated},
		{"mlkem_768_encaps", mlkemSides, mlkemCase.encapsulated},
		// Go's has seeds only.
		{"mlkem_768_semi_expanded_decaps", mlkemSides[:1], mlkemCase.decapsulatedExpanded},
	} {
		for _, side := range file.sides {
			t.Run(file.name+" "+side.name, func(t *testing.T) {
				groups, verdicts := loadWycheproof[tests[mlkemCase]](t, file.name)
				for _, group := range groups {
					for _, c := range group.Tests {
						verdicts.judge(c.wycheproofCase, file.run(c, side))
					}
				}
				verdicts.done()
			})
		}
	}
}
