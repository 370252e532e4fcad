package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"log/slog"
	"os"
	"time"

	"openscope/relay"
	"openscope/relay/acme"
	"openscope/wire/term"
)

// certificateFlags say where the certificate is from: files, an authority, or
// here.
type certificateFlags struct {
	cert, key  string
	selfSigned bool

	domain, directory, ca, contact string
}

func (f *certificateFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&f.cert, "cert", "", "the certificate's PEM `FILE`, read again when it changes")
	fs.StringVar(&f.key, "key", "", "the PEM `FILE` of its private key")
	fs.BoolVar(&f.selfSigned, "self-signed", false, "make a certificate, and keep it in --state")
	fs.StringVar(&f.domain, "acme", "", "have a certificate issued for this `DOMAIN`, and kept in --state")
	fs.StringVar(&f.directory, "acme-directory", "", "the authority's ACME `URL` (Let's Encrypt)")
	fs.StringVar(&f.ca, "acme-ca", "", "the PEM `FILE` that the authority is authenticated by (the system's roots)")
	fs.StringVar(&f.contact, "acme-contact", "", "the mail `ADDRESS` for the authority's warnings (none)")
}

// certificateSource is the certificate, now and later.
type certificateSource struct {
	get       func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error) // nil: nobody asks
	ready     func() error
	run       func(context.Context)
}

// certificate is the one of --cert and --key, of --acme, or the self-signed one.
func (f *serveFlags) certificate(logger *slog.Logger) (certificateSource, error) {
	files := f.from.cert != "" || f.from.key != ""
	switch {
	case f.from.selfSigned && files:
		return certificateSource{}, term.Errorf(term.Usage, "--self-signed excludes --cert and --key")
	case f.from.domain != "" && (files || f.from.selfSigned):
		return certificateSource{}, term.Errorf(term.Usage, "--acme excludes --self-signed, --cert and --key")
	case f.from.domain == "" && (f.from.directory != "" || f.from.ca != "" || f.from.contact != ""):
		return certificateSource{}, term.Errorf(term.Usage, "--acme-directory, --acme-ca and --acme-contact are for --acme")
	case f.from.domain != "":
		return f.issued(logger)
	case f.from.selfSigned:
		certificate, _, err := relay.SelfSigned(f.tokens.state, rand.Reader, time.Now())
		if err != nil {
			return certificateSource{}, term.Errorf(term.Config, "%w", err)
		}
		return kept(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }), nil
	case f.from.cert == "" || f.from.key == "":
		return certificateSource{}, term.Errorf(term.Usage, "a certificate is needed: --self-signed, --acme, or --cert and --key").
			WithHint("run: " + program + " serve --self-signed")
	}
	read, err := relay.OpenCertificateFiles(f.from.cert, f.from.key, logger)
	if err != nil {
		return certificateSource{}, term.Errorf(term.Config, "%w", err)
	}
	return kept(read.Get), nil
}

// kept is a certificate that nothing has to be done for.
func kept(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) certificateSource {
	return certificateSource{get: get, ready: func() error { return nil }, run: func(context.Context) {}}
}

// issued is an authority's.
func (f *serveFlags) issued(logger *slog.Logger) (certificateSource, error) {
	var roots *x509.CertPool
	if f.from.ca != "" {
		text, err := os.ReadFile(f.from.ca)
		if err != nil {
			return certificateSource{}, term.Errorf(term.Config, "reading --acme-ca: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(text) {
			return certificateSource{}, term.Errorf(term.Config, "reading --acme-ca: %s holds no certificate", f.from.ca)
		}
	}
	certificates, err := acme.Open(acme.Config{
		Domain: f.from.domain, Dir: f.tokens.state, Directory: f.from.directory, Roots: roots, Contact: f.from.contact,
		Logger: logger, Rand: rand.Reader, Clock: time.Now,
	})
	if errors.Is(err, acme.ErrDomain) {
		return certificateSource{}, term.Errorf(term.Usage, "--acme: %w", err)
	}
	if err != nil {
		return certificateSource{}, term.Errorf(term.Config, "%w", err)
	}
	return certificateSource{get: certificates.Get, challenge: certificates.Challenge, ready: certificates.Ready, run: certificates.Run}, nil
}
