package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"
)

// ProxySettings say through which HTTP proxy relays are reached, and which
// relays without. The zero ProxySettings is no proxy.
type ProxySettings struct {
	// URL is http://[USER:PASSWORD@]HOST[:PORT], or https://….
	URL string
	// Exempt is a list as that of NO_PROXY.
	Exempt string
	// Roots authenticate an https:// proxy, and never a relay; nil means the
	// system's.
	Roots *x509.CertPool
}

// ProxyFromEnvironment reads HTTPS_PROXY and NO_PROXY, in either case.
func ProxyFromEnvironment(getenv func(string) string) ProxySettings {
	either := func(name string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return getenv(strings.ToLower(name))
	}
	return ProxySettings{URL: either("HTTPS_PROXY"), Exempt: either("NO_PROXY")}
}

// Proxies is the proxy there is, if any, and who is reached without.
type Proxies struct {
	address string // host:port
	host    string // to authenticate, where there is TLS
	tls     bool
	roots   *x509.CertPool
	proof   func() string // of user and password, which nothing prints this way; nil is none
	exempt  []string
}

// Errors of a proxy that a person has to do something about.
var (
	ErrProxySettings = errors.New("a proxy is http://[USER:PASSWORD@]HOST[:PORT], or https://…")
	ErrProxyAuth     = errors.New("the proxy wants a user and a password, or others")
	ErrProxyRefuses  = errors.New("the proxy does not let through to it")
)

// NewProxies checks the settings. Without a proxy in them it returns nil. Errors
// never show the URL, which may hold a password.
func NewProxies(s ProxySettings) (*Proxies, error) {
	if s.URL == "" {
		return nil, nil
	}
	text := s.URL
	if !strings.Contains(text, "://") {
		text = "http://" + text // as everybody else reads it
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrProxySettings
	}
	p := &Proxies{host: u.Hostname(), roots: s.Roots, tls: u.Scheme == "https"}
	port := u.Port()
	switch {
	case u.Scheme == "http" && port == "":
		port = "80"
	case u.Scheme == "https" && port == "":
		port = "443"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, ErrProxySettings
	}
	p.address = net.JoinHostPort(p.host, port)
	if u.User != nil {
		password, _ := u.User.Password()
		plain := u.User.Username() + ":" + password
		p.proof = func() string { return base64.StdEncoding.EncodeToString([]byte(plain)) }
	}
	p.exempt = strings.FieldsFunc(strings.ToLower(s.Exempt), func(r rune) bool { return r == ',' || r == ' ' })
	return p, nil
}

// For returns the proxy to a relay, or nil where it is reached without.
func (p *Proxies) For(relay string) *Proxies {
	if p == nil {
		return nil
	}
	if slices.ContainsFunc(p.exempt, func(rule string) bool { return exempts(rule, relay) }) {
		return nil
	}
	return p
}

// exempts reads a word of NO_PROXY: everything, a name with those below it, an
// address, or a network; a name or an address may have a port.
func exempts(rule, relay string) bool {
	name, number := host(relay), port(relay)
	if rule == "*" {
		return true
	}
	ip, _ := netip.ParseAddr(name) // the zero Addr is in no network
	if network, err := netip.ParsePrefix(rule); err == nil {
		return network.Contains(ip)
	}
	if h, p, err := net.SplitHostPort(rule); err == nil {
		if p != number {
			return false
		}
		rule = h
	}
	if address, err := netip.ParseAddr(strings.Trim(rule, "[]")); err == nil {
		return address == ip
	}
	below := strings.TrimPrefix(strings.TrimPrefix(rule, "*"), ".")
	return below != "" && (name == below || strings.HasSuffix(name, "."+below))
}

// Address is the proxy's own host:port.
func (p *Proxies) Address() string { return p.address }

// maxProxyAnswer bounds what a proxy may answer CONNECT with.
const maxProxyAnswer = 16 << 10

// dial has the proxy connect to the relay, whose name it resolves.
func (p *Proxies) dial(ctx context.Context, w *Ways, relay string) (net.Conn, error) {
	conn, err := w.dialTCP(ctx, p.address)
	if err != nil {
		return nil, fmt.Errorf("reaching the proxy %s: %w", p.address, err)
	}
	stop := context.AfterFunc(ctx, func() { abort(conn) })
	defer stop()
	if p.tls {
		secured := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.host, RootCAs: p.roots, NextProtos: []string{"http/1.1"}})
		if err := secured.HandshakeContext(ctx); err != nil {
			abort(conn)
			return nil, fmt.Errorf("reaching the proxy %s: %w", p.address, err)
		}
		conn = secured
	}
	if err := p.connect(conn, relay); err != nil {
		abort(conn)
		return nil, fmt.Errorf("through the proxy %s: %w", p.address, err)
	}
	return conn, nil
}

// connect says CONNECT and takes the answer, and nothing behind it: the relay
// speaks second.
func (p *Proxies) connect(conn net.Conn, relay string) error {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	request := "CONNECT " + relay + " HTTP/1.1\r\nHost: " + relay + "\r\n"
	if p.proof != nil {
		request += "Proxy-Authorization: Basic " + p.proof() + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return err
	}
	in := bufio.NewReaderSize(io.LimitReader(conn, maxProxyAnswer), maxProxyAnswer)
	lines := textproto.NewReader(in)
	status, err := lines.ReadLine()
	if err != nil {
		return err
	}
	if _, err := lines.ReadMIMEHeader(); err != nil {
		return err
	}
	if err := proxyStatus(status); err != nil {
		return err
	}
	if in.Buffered() > 0 {
		return errors.New("it speaks before it is spoken to")
	}
	return conn.SetDeadline(time.Time{})
}

// proxyStatus is what the first line of an answer means. Of its text only the
// number is believed, and shown.
func proxyStatus(line string) error {
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	switch {
	case !strings.HasPrefix(proto, "HTTP/1.") || len(code) != 3 || strings.Trim(code, "0123456789") != "":
		return errors.New("it speaks no HTTP")
	case code[0] == '2':
		return nil
	case code == "407":
		return ErrProxyAuth
	}
	return fmt.Errorf("%w: HTTP status %s", ErrProxyRefuses, code)
}
