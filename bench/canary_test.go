package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"openscope/bench/vectors"
	"openscope/client"
	"openscope/daemon"
	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/handle"
)

func TestEveryWayOfPrintingIsSearchedFor(t *testing.T) {
	var secret [32]byte
	for i := range secret {
		secret[i] = byte(0xa1 + 7*i)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%d", "%x", "%X", "%#x", "% x", "%s", "%q", "%o", "%b"} {
		for _, v := range []any{secret, secret[:], struct{ s [32]byte }{secret}, &struct{ s []byte }{secret[:]}} {
			printed := strings.ToLower(fmt.Sprintf(format, v))
			found := false
			for _, trace := range vectors.Traces(secret[:]) {
				found = found || strings.Contains(printed, trace)
			}
			if !found {
				t.Errorf("%s of %T is not found: %s", format, v, printed)
			}
		}
	}
}

func TestNothingThatHoldsASecretPrintsIt(t *testing.T) {
	w := newWorld(t)
	_, h := w.opened("share", "open", "--json", "--agent", "you", "--bearer", "--verb", "test.echo", "--ttl", "5m")
	s := w.mustConnect(h)
	vectors.HoldConcealed(t, h.Secret.Reveal(), h)
	vectors.HoldConcealed(t, h.Secret.Reveal(), client.Config{Handle: h})

	keys := channel.NewKeys(h.Secret)
	prk := extract([]byte("openscope/1 S"), h.Secret.Reveal())
	vectors.HoldConcealed(t, prk, keys)
	vectors.HoldConcealed(t, prk, *keys)
	opens, signs := w.vendor.X25519(), w.vendor.Ed25519()
	handshake := channel.ClientConfig{Keys: keys, Recipient: w.vendor.X25519, Signer: wire.SigningKeyOf(signs)}
	for _, secret := range [][]byte{prk, opens.Bytes(), signs.Seed()} {
		vectors.HoldConcealed(t, secret, handshake)
		vectors.HoldConcealed(t, secret, &handshake)
	}
	vectors.HoldConcealed(t, prk, channel.DaemonConfig{Keys: keys})
	seed := identitySeed(t, w.vendor)
	vectors.HoldConcealed(t, seed, w.vendor)
	vectors.HoldConcealed(t, seed, *w.vendor)
	vectors.HoldConcealed(t, seed, client.Config{Identity: w.vendor})

	token, err := wire.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tokenSeed, err := wire.DecodeText(wire.TokenPrefix, token.Text(), 128)
	if err != nil {
		t.Fatal(err)
	}
	vectors.HoldConcealed(t, tokenSeed, daemon.Config{Token: token})
	claim := decoded(t, filepath.Join(w.path("client"), "claims", h.RID.String()))[8:]
	rx, tx := recordKey(s, "rx"), recordKey(s, "tx")
	conn := sessionConn(s) // the session lets go of it
	_ = s.Close()
	w.stop() // fmt takes no locks: what is printed from here on must be at rest
	for _, secret := range [][]byte{claim, rx, tx} {
		vectors.HoldConcealed(t, secret, s)
		vectors.HoldConcealed(t, secret, conn)
	}
	vectors.HoldConcealed(t, decoded(t, w.path("identity.key")), w.daemon)
}

// sessionConn is the connection of a session, which gives it to nobody.
func sessionConn(s *client.Session) any {
	return reflect.NewAt(reflect.TypeFor[*channel.Conn](), reflect.ValueOf(s).Elem().FieldByName("link").Elem().FieldByName("conn").Addr().UnsafePointer()).Elem().Interface()
}

// identitySeed is what a recipient's private text says.
func identitySeed(t *testing.T, id *handle.RecipientIdentity) []byte {
	t.Helper()
	return decodedText(t, id.Text())
}

// decoded is the secret in a file of the product's.
func decoded(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return decodedText(t, string(text))
}

// secretPrefixes begin the text forms of secrets.
var secretPrefixes = []string{"openscope-secret-key-1", "openscope-daemon-key-1", "openscope-checkpoint-key-1", "openscope-claim-1", "ost1"}

func decodedText(t *testing.T, text string) []byte {
	t.Helper()
	for _, prefix := range secretPrefixes {
		if secret, err := wire.DecodeText(prefix, strings.ToLower(text), 256); err == nil {
			return secret
		}
	}
	t.Fatalf("not the text of a secret: %.10s...", text)
	return nil
}

// canaries are secrets with the forms in which they could be printed.
type canaries map[string][]string

func (c canaries) add(name string, secret []byte, text string) {
	c[name] = vectors.Traces(secret)
	// Of a text form any long enough piece is too much; its end is never the prefix.
	body := strings.ToLower(strings.TrimSpace(text))
	for at := 32; at+12 <= len(body); at += 12 {
		c[name] = append(c[name], body[at:at+12])
	}
}

// search returns which canaries show in an output.
func (c canaries) search(output string) (found []string) {
	output = strings.ToLower(output)
	for name, traces := range c {
		for _, trace := range traces {
			if strings.Contains(output, trace) {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

// failing is a command line that must fail, with what it is given.
type failing struct {
	program string
	args    []string
	env     []string
}

func TestTwoThousandFailingRunsShowNoSecret(t *testing.T) {
	s := newSite(t)
	s.open("25m", "test.echo")
	bearer := regexp.MustCompile(`osh1b[0-9a-z]+`).FindString(s.must("openscope", "share", "open", "--agent", "you", "--bearer", "--verb", "test.mark", "--ttl", "25m"))
	h, err := handle.Parse(bearer)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	token, vendor, identity := read("token"), read("vendor.key"), read("etc/state/identity.key")
	logKey := read("etc/state/checkpoint.key")
	all := make(canaries)
	all.add("S of a bearer handle", h.Secret.Reveal(), bearer[len(bearer)-60:])
	all.add("the deployment token", decodedText(t, token), token)
	all.add("the recipient's key", decodedText(t, vendor), vendor)
	all.add("the daemon's key", decodedText(t, identity), identity)
	all.add("the key of the log's checkpoints", decodedText(t, logKey), logKey)
	all.add("the bearer's join key", ed25519.NewKeyFromSeed(expand(extract([]byte("openscope/1 S"), h.Secret.Reveal()), "relay join", nil)).Seed(), "")

	const runs = 2000
	secrets := []string{bearer, strings.TrimSpace(token), strings.TrimSpace(vendor), strings.TrimSpace(identity)}
	work := make(chan failing)
	var workers sync.WaitGroup
	var mu sync.Mutex
	codes := make(map[int]int)
	for range 4 {
		workers.Go(func() {
			for f := range work {
				output, code := runFailing(t, append(s.env(), f.env...), f)
				mu.Lock()
				codes[code]++
				mu.Unlock()
				if found := all.search(output); len(found) > 0 {
					t.Errorf("%s %.60q shows %v:\n%s", f.program, f.args, found, output)
				}
			}
		})
	}
	r := mathrand.New(mathrand.NewPCG(2000, 1))
	for i := range runs {
		work <- s.anyFailing(r, i, secrets)
	}
	close(work)
	workers.Wait()
	if codes[0] > 0 || codes[1] > 0 || codes[-1] > 0 {
		t.Errorf("exit codes: %v; a failure has a code of its own, and 1 is a bug", codes)
	}
	for name, output := range map[string]string{
		"the relay's output": s.relay.out.String(), "the daemon's output": s.daemon.out.String(), "the audit log": read("etc/state/audit.log"),
	} {
		if found := all.search(output); len(found) > 0 {
			t.Errorf("%s shows %v", name, found)
		}
	}
	t.Logf("%d failing runs, exit codes %v", runs, codes)
}

// anyFailing draws a command line that fails, with a secret somewhere in it.
func (s *site) anyFailing(r *mathrand.Rand, i int, secrets []string) failing {
	secret := secrets[r.IntN(len(secrets))]
	broken := spoiled(r, secret)
	env := func(name, value string) []string { return []string{name + "=" + value} }
	kinds := []failing{
		{"openscope-reflect-client", []string{"call", "test.echo"}, env("OPENSCOPE_PASSPORT", broken)},
		{"openscope-reflect-client", []string{"--passport", broken, "verbs"}, nil},
		{"openscope-reflect-client", []string{"--passport", secrets[0], "--fingerprint", "abandon abandon", "call", "test.mark"}, nil},
		{"openscope-reflect-client", []string{"--passport", secrets[0], "--fingerprint", secret, "verbs"}, nil},
		{"openscope-reflect-client", []string{"--identity", secret, "verbs"}, nil},
		{"openscope-reflect-client", []string{"call", secret}, env("OPENSCOPE_PASSPORT", "osh1b")},
		{"openscope-reflect-client", []string{"call", "test.echo", secret}, nil},
		{"openscope-reflect-client", []string{"call", "test.echo", "text=a", "--" + secret}, nil},
		{"openscope-reflect-client", []string{secret}, nil},
		{"openscope-reflect-client", []string{"-" + broken, "--json"}, nil},
		{"openscope", []string{"share", "revoke", secret}, nil},
		{"openscope", []string{"share", "extend", secret, "--ttl", "5m"}, nil},
		{"openscope", []string{"share", "confirm", secret, "abandon abandon abandon abandon"}, nil},
		{"openscope", []string{"share", "open", "--agent", secret, "--to", "vendor-b", "--verb", "test.echo"}, nil},
		{"openscope", []string{"share", "open", "--agent", "you", "--to", secret, "--verb", "test.echo"}, nil},
		{"openscope", []string{"share", "open", "--agent", "you", "--to", "vendor-b", "--verb", secret}, nil},
		{"openscope", []string{"share", "open", "--agent", "you", "--to", "vendor-b", "--verb", "test.echo", "--ttl", secret}, nil},
		{"openscope", []string{"call", "--agent", "you", secret}, nil},
		{"openscope", []string{"recipient", "add", "mallory", broken}, nil},
		{"openscope", []string{"recipient", "add", secret, "osk1"}, nil},
		{"openscope", []string{"recipient", "remove", secret}, nil},
		{"openscope", []string{"init", "--dir", s.path(fmt.Sprintf("etc-%d", i)), "--relay", s.listen, "--token", broken + "!"}, nil},
		{"openscope", []string{"init", "--dir", s.path(fmt.Sprintf("etc-%d", i)), "--relay", secret, "--token", "ost1"}, nil},
		{"openscope", []string{"daemon"}, env("OPENSCOPE_CONFIG", s.path("token"))},
		{"openscope", []string{"audit", "verify", s.path("vendor.key")}, nil},
		{"openscope", []string{secret, "--json"}, nil},
		{"openscope-relay", []string{"token", "revoke", secret, "--state", s.path("relay")}, nil},
		{"openscope-relay", []string{"serve", "--listen", secret, "--self-signed", "--state", s.path("relay")}, nil},
		{"openscope-relay", []string{"serve", "--" + secret}, nil},
		{"openscope-relay", []string{secret}, nil},
	}
	return kinds[i%len(kinds)]
}

// spoiled is a secret's text that no longer reads, most of it still there.
func spoiled(r *mathrand.Rand, text string) string {
	at := 6 + r.IntN(len(text)-6)
	switch r.IntN(5) {
	case 0:
		return text[:at] + "!" + text[at:]
	case 1:
		return text[:len(text)-1-r.IntN(4)]
	case 2:
		return text + text[at:]
	case 3:
		return text[:at] + "\x1b[31m" + text[at:]
	}
	return text[:at] + string("0123456789abcdefghjkmnpqrstvwxyz"[(strings.IndexByte("0123456789abcdefghjkmnpqrstvwxyz", text[at]|0x20)+1)%32]) + text[at+1:]
}

// runFailing runs it with nothing on its stdin; -1 stands for one that hangs.
func runFailing(t *testing.T, env []string, f failing) (output string, code int) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	template := command(env, f.program, f.args...)
	cmd := exec.CommandContext(ctx, template.Path, f.args...)
	cmd.Env, cmd.Dir = template.Env, t.TempDir()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		return out.String(), -1
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	}
	return out.String(), 0
}
