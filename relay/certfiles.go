package relay

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// CertificateFiles is a certificate and its key in PEM files, read again when
// either has changed. Whoever may write them is this relay to the world.
type CertificateFiles struct {
	cert, key string
	logger    *slog.Logger

	mu      sync.Mutex // guards what is below
	read    [2]fileState
	asked   time.Time
	current *tls.Certificate
}

// certificateCheck bounds how often handshakes look at the files.
const certificateCheck = time.Second

// OpenCertificateFiles reads the files, which must be good at the start.
func OpenCertificateFiles(cert, key string, logger *slog.Logger) (*CertificateFiles, error) {
	c := &CertificateFiles{cert: cert, key: key, logger: logger}
	return c, c.refresh()
}

// Get is for [Config].Certificate. A new certificate that is bad, or half
// written, is logged, and the old one shown on.
func (c *CertificateFiles) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.asked) >= certificateCheck {
		c.asked = now
		if err := c.refresh(); err != nil {
			c.logger.Warn("certificate not reloaded", "error", err)
		}
	}
	return c.current, nil
}

func (c *CertificateFiles) refresh() error {
	var now [2]fileState
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("reading the certificate: %w", err)
		}
		now[i] = stateOf(info)
	}
	if now == c.read {
		return nil
	}
	loaded, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	if c.current != nil {
		c.logger.Info("certificate reloaded", "until", loaded.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	c.read, c.current = now, &loaded
	return nil
}
