package network

import (
	"crypto/x509"
	"errors"
	"log/slog"

	"openscope/daemon/internal/seam"
	"openscope/wire/tunnel"
)

// ProxyFromEnvironment reads HTTPS_PROXY and NO_PROXY, in either case.
func ProxyFromEnvironment(getenv func(string) string) seam.Proxy {
	s := tunnel.ProxyFromEnvironment(getenv)
	return seam.Proxy{URL: s.URL, Exempt: s.Exempt}
}

// CheckProxy refuses settings that name no proxy. Its errors never show the URL,
// which may hold a password.
func CheckProxy(p seam.Proxy) error {
	_, err := newProxies(p)
	return err
}

func newProxies(p seam.Proxy) (*tunnel.Proxies, error) {
	s := tunnel.ProxySettings{URL: p.URL, Exempt: p.Exempt}
	if len(p.CA) > 0 {
		if s.Roots = x509.NewCertPool(); !s.Roots.AppendCertsFromPEM(p.CA) {
			return nil, errors.New("the proxy's CA file has no certificate in it")
		}
	}
	return tunnel.NewProxies(s)
}

// proxies are those of settings that were checked before, but for the
// environment's: one that makes no sense is not used.
func proxies(p seam.Proxy, logger *slog.Logger) *tunnel.Proxies {
	all, err := newProxies(p)
	if err != nil {
		logger.Error("the proxy is not used", "error", err)
	}
	return all
}
