package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"openscope/wire"
)

// certificateYears is long, because daemons pin the key: an expiry would end
// their service and prove nothing.
const certificateYears = 20

// SelfSigned returns the certificate kept in dir, made at the first call, and
// the pin that daemons know it by. The key's file is mode 0600.
func SelfSigned(dir string, rand io.Reader, now time.Time) (tls.Certificate, wire.Pin, error) {
	certFile, keyFile := filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "certificate.key")
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		if err := writeSelfSigned(certFile, keyFile, rand, now); err != nil {
			return tls.Certificate{}, wire.Pin{}, fmt.Errorf("making a certificate: %w", err)
		}
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return tls.Certificate{}, wire.Pin{}, fmt.Errorf("reading the certificate: %w", err)
	}
	return cert, wire.PinOf(cert.Leaf), nil
}

func writeSelfSigned(certFile, keyFile string, rand io.Reader, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "openscope-relay"},
		DNSNames:     []string{"openscope-relay"},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.AddDate(certificateYears, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(keyFile), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}
