package tunnel

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
)

// standsBehind is a relay over TCP that takes a daemon's hello and no more.
func standsBehind(t *testing.T) wire.Relay {
	return scriptedTCP(t, answersFirst(wire.Answer{Status: wire.StatusDraining}.Append(nil)))
}

// dialBy tries to stand there and fails unless the relay itself answers.
func dialBy(t *testing.T, relay wire.Relay, ways Ways) error {
	t.Helper()
	d, err := DialDaemon(within(t), DaemonConfig{Relay: relay, Ways: ways, Prove: func([32]byte) (wire.TokenID, []byte, error) {
		return wire.TokenID{}, make([]byte, 64), nil
	}})
	if err == nil {
		_ = d.Close()
	}
	return err
}

func through(t *testing.T, s ProxySettings) Ways {
	t.Helper()
	p, err := NewProxies(s)
	if err != nil {
		t.Fatal(err)
	}
	return Ways{Only: []Rung{Proxy}, Proxies: p}
}

// tinyproxy runs the real one, and returns its address.
func tinyproxy(t *testing.T, lines ...string) string {
	t.Helper()
	program, err := exec.LookPath("tinyproxy")
	if err != nil {
		t.Skip("no tinyproxy here: .ci/test installs it")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	file := filepath.Join(t.TempDir(), "conf")
	text := fmt.Sprintf("Port %s\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\n%s\n", port(address), strings.Join(lines, "\n"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-d", "-c", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	for range 500 {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return address
		}
		time.Sleep(10 * time.Millisecond) // until a process listens that cannot say so
	}
	t.Fatal("tinyproxy does not listen")
	return ""
}

func TestARelayIsReachedThroughARealProxy(t *testing.T) {
	t.Parallel()
	relay := standsBehind(t)
	open, guarded := tinyproxy(t), tinyproxy(t, "BasicAuth user pass-word")
	closed := tinyproxy(t, "ConnectPort 443")
	for name, c := range map[string]struct {
		url  string
		want error
	}{
		"open":            {"http://" + open, wire.ErrDraining}, // the relay's own word
		"without http://": {open, wire.ErrDraining},
		"password":        {"http://user:pass-word@" + guarded, wire.ErrDraining},
		"no password":     {"http://" + guarded, ErrProxyAuth},
		"another":         {"http://user:wrong@" + guarded, nil},
		"a port too many": {"http://" + closed, ErrProxyRefuses},
	} {
		err := dialBy(t, relay, through(t, ProxySettings{URL: c.url}))
		if err == nil || c.want != nil && !errors.Is(err, c.want) || strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A CA file authenticates the proxy, and never the relay.
func TestAnHTTPSProxyIsAuthenticated(t *testing.T) {
	t.Parallel()
	relay, plain := standsBehind(t), tinyproxy(t)
	authority, issue := newAuthority(t, "Proxy CA")
	front := issue("127.0.0.1")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{front}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go pipeTo(conn, plain)
		}
	}()
	url := "https://" + listener.Addr().String()
	if err := dialBy(t, relay, through(t, ProxySettings{URL: url, Roots: authority})); !errors.Is(err, wire.ErrDraining) {
		t.Errorf("with its CA: %v", err)
	}
	if err := dialBy(t, relay, through(t, ProxySettings{URL: url, Roots: x509.NewCertPool()})); err == nil || errors.Is(err, wire.ErrDraining) {
		t.Errorf("without: %v", err)
	}
	unpinned := wire.Relay{Address: relay.Address}
	if err := dialBy(t, unpinned, through(t, ProxySettings{URL: url, Roots: authority})); err == nil || errors.Is(err, wire.ErrDraining) {
		t.Errorf("the proxy's CA vouches for a relay: %v", err)
	}
}

// pipeTo joins a connection and an address, to the end of either.
func pipeTo(conn net.Conn, address string) {
	defer conn.Close()
	far, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer far.Close()
	go func() { _, _ = io.Copy(far, conn); _ = far.Close() }()
	_, _ = io.Copy(conn, far)
}

// newAuthority signs certificates for addresses.
func newAuthority(t *testing.T, name string) (*x509.CertPool, func(ip string) tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool, func(ip string) tls.Certificate {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.ParseIP(ip)}, NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
		if err != nil {
			t.Error(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
}

// A proxy that intercepts TLS has a certificate of its own for whoever is asked
// for. It learns neither the token's proof nor anything else, and is named.
func TestAnInterceptingProxyIsNamedAndToldNothing(t *testing.T) {
	t.Parallel()
	relay := standsBehind(t)
	trusted, issue := newAuthority(t, "Acme Inspection CA")
	for name, protocols := range map[string][]string{"that speaks our protocol": {wire.ALPN}, "that speaks none": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			heard := make(chan int, 2)
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
							return
						}
						_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
						inside := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{issue("127.0.0.1")}, NextProtos: protocols})
						n, _ := io.Copy(io.Discard, inside)
						heard <- int(n)
					}()
				}
			}()
			ways := through(t, ProxySettings{URL: "http://" + listener.Addr().String()})
			// By its pin; by its name, under roots that do not know the proxy; and
			// under roots that do, where what it cannot speak gives it away.
			asked := []DaemonConfig{{Relay: relay}, {Relay: wire.Relay{Address: relay.Address}, Roots: x509.NewCertPool()}}
			if protocols == nil {
				asked = append(asked, DaemonConfig{Relay: wire.Relay{Address: relay.Address}, Roots: trusted})
			}
			for i, cfg := range asked {
				cfg.Ways, cfg.Prove = ways, func([32]byte) (wire.TokenID, []byte, error) {
					t.Error("a proof was made for it")
					return wire.TokenID{}, make([]byte, 64), nil
				}
				_, err := DialDaemon(within(t), cfg)
				seen, ok := errors.AsType[*ImpostorError](err)
				if !ok || seen.Issuer != "Acme Inspection CA" || seen.Host() != "127.0.0.1" {
					t.Errorf("%d: %v", i, err)
				}
				if n := <-heard; n != 0 {
					t.Errorf("%d: it was told %d bytes", i, n)
				}
			}
		})
	}
}

func TestWhoIsExemptGoesWithoutTheProxy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule, relay string
		exempt      bool
	}{
		{"", "relay.example.com:443", false}, {"*", "relay.example.com:443", true},
		{"example.com", "relay.example.com:443", true}, {".example.com", "relay.example.com:443", true},
		{"*.example.com", "relay.example.com:443", true}, {"ample.com", "relay.example.com:443", false},
		{"a.com, EXAMPLE.com", "relay.example.com:443", true}, {"relay.example.com:444", "relay.example.com:443", false},
		{"relay.example.com:443", "relay.example.com:443", true}, {"10.0.0.0/8", "10.1.2.3:443", true},
		{"10.0.0.0/8", "11.1.2.3:443", false}, {"10.1.2.3", "10.1.2.3:443", true}, {"10.1.2.3", "10.1.2.33:443", false},
		{"::1", "[::1]:443", true}, {"[::1]:443", "[::1]:443", true}, {"0.0.0.0/0", "relay.example.com:443", false}, {".", "relay.example.com:443", false},
	} {
		p, err := NewProxies(ProxySettings{URL: "proxy:3128", Exempt: c.rule})
		if err != nil || (p.For(c.relay) == nil) != c.exempt {
			t.Errorf("%q, %s: %v", c.rule, c.relay, err)
		}
	}
	for _, bad := range []string{"ftp://proxy", "http://", "http://proxy/path", "socks5://proxy:1", "http://user:secret@[::1", "http://proxy:1?x"} {
		if _, err := NewProxies(ProxySettings{URL: bad}); !errors.Is(err, ErrProxySettings) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Where UDP goes nowhere, TCP is found within the bar of 3 s; what worked is
// tried first from then on; and where both work it is QUIC.
func TestTheRungThatWorksIsFoundAndRemembered(t *testing.T) {
	t.Parallel()
	relay := standsBehind(t) // no QUIC at this address
	hole, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: portNumber(t, relay)})
	if err != nil {
		t.Skipf("the relay's port number is taken for UDP: %v", err)
	}
	defer hole.Close()
	known := new(Known)
	began := time.Now()
	if err := dialBy(t, relay, Ways{Known: known}); !errors.Is(err, wire.ErrDraining) {
		t.Fatal(err)
	}
	first := time.Since(began)
	if first > 3*time.Second {
		t.Errorf("it took %v", first)
	}
	if r, ok := known.of(relay.Address); !ok || r != TCP {
		t.Errorf("remembered: %v, %v", r, ok)
	}
	began = time.Now()
	if err := dialBy(t, relay, Ways{Known: known}); !errors.Is(err, wire.ErrDraining) {
		t.Fatal(err)
	}
	t.Logf("found after %v, and again after %v", first, time.Since(began))

	both := scripted(t, func(conn *quic.Conn) { control(conn, honestAck) })
	d, err := DialDaemon(within(t), DaemonConfig{Relay: both, Prove: func([32]byte) (wire.TokenID, []byte, error) {
		return wire.TokenID{}, make([]byte, 64), nil
	}})
	if err != nil || d.Rung() != QUIC {
		t.Fatalf("%v", err)
	}
	_ = d.Close()
}

func portNumber(t *testing.T, relay wire.Relay) int {
	t.Helper()
	address, err := net.ResolveTCPAddr("tcp", relay.Address)
	if err != nil {
		t.Fatal(err)
	}
	return address.Port
}
