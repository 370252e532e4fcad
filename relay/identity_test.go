package relay_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
	"openscope/wire/tunnel"
)

// authority signs certificates that relays are known by name with.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{key: key}
	a.certificate = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, key)
	return a
}

// sign fills in what the template lacks; an authority without a certificate
// signs its own.
func (a authority) sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-2*time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent := a.certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func (a authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// named has the relay show a certificate of the authority.
func (a authority) named(t *testing.T, template *x509.Certificate) func(*relay.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shown := &tls.Certificate{Certificate: [][]byte{a.sign(t, template, key).Raw}, PrivateKey: key}
	return func(c *relay.Config) {
		c.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown, nil }
	}
}

// meets is what a daemon and a client make of the relay at that address; that
// they prove themselves to none that they do not know is checked here.
func (n *node) meets(t *testing.T, to wire.Relay, roots *x509.CertPool, trusted bool) {
	t.Helper()
	proved := 0
	token := n.token("daemon-of-" + time.Now().Format("150405.000000000"))
	d, err := tunnel.DialDaemon(within(t, patience), tunnel.DaemonConfig{
		Relay: to, Roots: roots,
		Prove: func(exporter [32]byte) (wire.TokenID, []byte, error) {
			proved++
			return prove(token)(exporter)
		},
	})
	if err == nil {
		defer d.Close()
	}
	l, joinErr := tunnel.Join(within(t, patience), tunnel.ClientConfig{
		Relays: []wire.Relay{to}, Roots: roots,
		Sign: func([32]byte) []byte {
			proved++
			return make([]byte, 64)
		},
	})
	if joinErr == nil {
		defer l.Reset()
	}
	if trusted && (err != nil || joinErr != nil || proved != 2) {
		t.Errorf("not met: %v, %v, %d proofs", err, joinErr, proved)
	}
	if !trusted && (err == nil || !errors.Is(joinErr, tunnel.ErrUnreachable) || proved != 0) {
		t.Errorf("met: %v, %v, %d proofs", err, joinErr, proved)
	}
}

func TestAPinIsOfOneKey(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	flipped := n.pin
	flipped[31] ^= 1
	for name, c := range map[string]struct {
		pin     *wire.Pin
		roots   *x509.CertPool
		trusted bool
	}{
		"its pin":                     {&n.pin, nil, true},
		"one bit of the pin":          {&flipped, nil, false},
		"a pin of zeros":              {&wire.Pin{}, nil, false},
		"no pin, and nobody's word":   {nil, x509.NewCertPool(), false},
		"no pin, the system's roots":  {nil, nil, false},
		"no pin, another's authority": {nil, newAuthority(t).roots(), false},
	} {
		t.Run(name, func(t *testing.T) {
			n.meets(t, wire.Relay{Address: n.address, Pin: c.pin}, c.roots, c.trusted)
		})
	}
}

func TestWithoutAPinTheNameIsAuthenticated(t *testing.T) {
	t.Parallel()
	trusted := newAuthority(t)
	here := []net.IP{net.IPv4(127, 0, 0, 1)}
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for name, c := range map[string]struct {
		by       authority
		template *x509.Certificate
		trusted  bool
	}{
		"its name":            {trusted, &x509.Certificate{IPAddresses: here, ExtKeyUsage: server}, true},
		"another name":        {trusted, &x509.Certificate{DNSNames: []string{"relay.example.com"}, ExtKeyUsage: server}, false},
		"another authority":   {newAuthority(t), &x509.Certificate{IPAddresses: here, ExtKeyUsage: server}, false},
		"a name that expired": {trusted, &x509.Certificate{IPAddresses: here, ExtKeyUsage: server, NotAfter: time.Now().Add(-time.Hour)}, false},
		"a client's certificate": {trusted, &x509.Certificate{
			IPAddresses: here, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, c.by.named(t, c.template))
			n.meets(t, wire.Relay{Address: n.address}, trusted.roots(), c.trusted)
		})
	}
}

// A pin is enough, and nothing else is asked: neither name nor roots.
func TestAPinOutweighsTheRoots(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.meets(t, wire.Relay{Address: n.address, Pin: &n.pin}, x509.NewCertPool(), true)
	a := newAuthority(t)
	named := startNode(t, a.named(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}))
	named.meets(t, wire.Relay{Address: named.address, Pin: &n.pin}, a.roots(), false)
}
