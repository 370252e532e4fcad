package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	half "openscope/daemon/internal/network"
	"openscope/daemon/internal/seam"
)

// proxyFile is the way out through an HTTP proxy as the configuration has it. A
// password stands in a file of its own: the configuration may be read by others.
type proxyFile struct {
	URL         string `yaml:"url"`
	Credentials string `yaml:"credentials_file"`
	CA          string `yaml:"ca_file"`
	Exempt      string `yaml:"exempt"`
}

// settings are those of the file, or of the environment where it names no proxy.
func (f proxyFile) settings(within func(string) string) (seam.Proxy, error) {
	if f == (proxyFile{}) {
		return half.ProxyFromEnvironment(os.Getenv), nil
	}
	scheme, rest, ok := strings.Cut(f.URL, "://")
	if !ok || strings.Contains(rest, "@") {
		return seam.Proxy{}, errors.New("url: http://HOST[:PORT] or https://…, with user and password in credentials_file")
	}
	s := seam.Proxy{URL: f.URL, Exempt: f.Exempt}
	if f.Credentials != "" {
		text, err := readSecret(within(f.Credentials))
		if err != nil {
			return s, fmt.Errorf("credentials_file: %w", err)
		}
		user, password, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
		if !ok {
			return s, errors.New("credentials_file: it is not USER:PASSWORD")
		}
		s.URL = scheme + "://" + url.UserPassword(user, password).String() + "@" + rest
	}
	if f.CA != "" {
		pem, err := os.ReadFile(within(f.CA))
		if err != nil {
			return s, fmt.Errorf("ca_file: %w", err)
		}
		if s.CA = pem; !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return s, fmt.Errorf("ca_file: %s: no certificate in it", f.CA)
		}
	}
	return s, half.CheckProxy(s)
}
