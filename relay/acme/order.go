package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/acme"
)

// Protocol is what the authority's question is asked in (RFC 8737).
const Protocol = acme.ALPNProto

const challengeType = "tls-alpn-01"

// order has a certificate issued, and returns its chain.
func (c *Certificates) order(ctx context.Context) ([][]byte, error) {
	account := &acme.Account{}
	if c.cfg.Contact != "" {
		account.Contact = []string{"mailto:" + c.cfg.Contact}
	}
	if _, err := c.client.Register(ctx, account, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("registering with the authority: %w", err)
	}
	order, err := c.client.AuthorizeOrder(ctx, acme.DomainIDs(c.cfg.Domain))
	if err != nil {
		return nil, fmt.Errorf("ordering: %w", err)
	}
	for _, url := range order.AuthzURLs {
		if err := c.prove(ctx, url); err != nil {
			return nil, fmt.Errorf("proving the name: %w", err)
		}
	}
	if order, err = c.client.WaitOrder(ctx, order.URI); err != nil {
		return nil, fmt.Errorf("ordering: %w", err)
	}
	request, err := x509.CreateCertificateRequest(c.cfg.Rand, &x509.CertificateRequest{DNSNames: []string{c.cfg.Domain}}, c.key)
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate: %w", err)
	}
	chain, _, err := c.client.CreateCertFromOrder(ctx, order, request, true)
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate: %w", err)
	}
	return chain, nil
}

// prove answers one question about the name, unless it was answered before.
func (c *Certificates) prove(ctx context.Context, url string) error {
	authorization, err := c.client.GetAuthorization(ctx, url)
	if err != nil || authorization.Status == acme.StatusValid {
		return err
	}
	for _, challenge := range authorization.Challenges {
		if challenge.Type != challengeType {
			continue
		}
		answer, err := c.client.TLSALPN01ChallengeCert(challenge.Token, c.cfg.Domain)
		if err != nil {
			return err
		}
		c.open(&answer)
		defer c.open(nil)
		if _, err := c.client.Accept(ctx, challenge); err != nil {
			return err
		}
		_, err = c.client.WaitAuthorization(ctx, authorization.URI)
		return err
	}
	return fmt.Errorf("the authority does not offer %s", challengeType)
}

func (c *Certificates) open(answer *tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.challenge = answer
}
