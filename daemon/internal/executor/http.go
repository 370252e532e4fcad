package executor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// HTTPTarget is one service that requests may go to, as the configuration
// says. Nothing of it is ever chosen by a recipient.
type HTTPTarget struct {
	// URL is the base: scheme, host and the path that all requests lie below.
	URL string
	// Headers are sent as they are. SecretHeaders name a file each, for the
	// daemon's eyes alone (0600): its one line is the header's value.
	Headers, SecretHeaders map[string]string
	// CA is PEM: the only authorities that the service's certificate may come
	// from. Empty means the system's.
	CA []byte
}

// HTTPConfig names the targets.
type HTTPConfig struct {
	Targets map[string]HTTPTarget
	// Dial replaces net.Dialer.DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// HTTP sends requests to services whose address and credentials are the
// configuration's, one connection per call, past every proxy of the
// environment. The body of the answer is the standard output; where the status
// is not 2xx, it is the job's status, and a line of standard error.
//
// Redirects are followed on the same scheme, host and port only, and only of a
// GET or HEAD. A request that was cut off may have reached the service, which
// may be working on it still: nobody here can end that.
type HTTP struct {
	targets map[string]httpTarget
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// httpTarget is a target that has been checked.
type httpTarget struct {
	HTTPTarget
	base  *url.URL
	roots *x509.CertPool // nil: the system's
}

// Bounds of an http call, besides the job's own time.
const (
	maxRedirects = 5
	// maxHeader bounds the header of an answer; nobody is shown it.
	maxHeader = 64 << 10
)

// ErrRedirect says that the service sent the caller elsewhere.
var ErrRedirect = errors.New("a redirect that is not followed")

// NewHTTP checks every target; the secret files are read at each call.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	h := &HTTP{targets: make(map[string]httpTarget, len(cfg.Targets)), dial: cfg.Dial}
	if h.dial == nil {
		h.dial = (&net.Dialer{Timeout: connectTime}).DialContext
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Targets)) {
		checked, err := checkHTTPTarget(cfg.Targets[name])
		if err != nil {
			return nil, fmt.Errorf("http target %s: %w", name, err)
		}
		h.targets[name] = checked
	}
	return h, nil
}

func checkHTTPTarget(t HTTPTarget) (httpTarget, error) {
	base, err := url.Parse(t.URL)
	if err != nil {
		return httpTarget{}, errors.New("its url is not one") // the parser's text would quote it
	}
	switch {
	case base.Scheme != "https" && base.Scheme != "http":
		return httpTarget{}, errors.New("its url begins with https:// or http://")
	case base.Hostname() == "" || base.Opaque != "":
		return httpTarget{}, errors.New("its url names no host")
	case base.User != nil:
		return httpTarget{}, errors.New("its url holds a password: put it into a file and name that under secret_headers")
	case base.RawQuery != "" || base.ForceQuery || base.Fragment != "":
		return httpTarget{}, errors.New("its url ends with the path: a query belongs into the verb")
	case strings.Contains(base.Path, "//") || strings.Contains(base.Path+"/", "/../") || strings.Contains(base.Path+"/", "/./"):
		return httpTarget{}, errors.New("its url's path is not in its shortest form")
	case base.Scheme == "http" && len(t.SecretHeaders) > 0 && !isLoopback(base.Hostname()):
		return httpTarget{}, errors.New("secret_headers go over https only, or to this machine")
	}
	for name, value := range t.Headers {
		if !isHeaderName(name) || !isHeaderValue(value) {
			return httpTarget{}, fmt.Errorf("header %q cannot be set", name)
		}
	}
	for name, file := range t.SecretHeaders {
		if !isHeaderName(name) {
			return httpTarget{}, fmt.Errorf("header %q cannot be set", name)
		}
		if !strings.HasPrefix(file, "/") {
			return httpTarget{}, fmt.Errorf("secret file %q is not an absolute path", file)
		}
	}
	checked := httpTarget{HTTPTarget: t, base: base}
	if len(t.CA) > 0 {
		checked.roots = x509.NewCertPool()
		if !checked.roots.AppendCertsFromPEM(t.CA) {
			return httpTarget{}, errors.New("its CA file has no certificate in it")
		}
	}
	return checked, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// isHeaderValue takes printable ASCII only: no line can begin in it.
func isHeaderValue(v string) bool {
	return v != "" && len(v) <= 8<<10 && !strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// Describe says what would be asked of which service.
func (h *HTTP) Describe(job Job) string {
	t, ok := h.targets[job.Target]
	if !ok || job.Request == nil {
		return "no http target " + strconv.Quote(job.Target)
	}
	r := job.Request
	line := "over http as " + job.Issuer + ": " + r.Method + " " + t.base.Scheme + "://" + t.base.Host + strings.TrimSuffix(t.base.Path, "/")
	for _, s := range r.Segments {
		line += "/" + s
	}
	for _, f := range r.Query {
		line += " " + Quote([]string{"?" + f.Name + "=" + f.Value})
	}
	for _, f := range r.Body {
		line += " " + Quote([]string{f.Name + "=" + f.Value})
	}
	return line
}

// Execute implements [Executor].
func (h *HTTP) Execute(ctx context.Context, job Job) Outcome {
	t, ok := h.targets[job.Target]
	if !ok {
		return notRun(refuse("no http target %q", job.Target))
	}
	if job.As.Name == "" {
		return notRun(refuse("no identity to run as"))
	}
	if err := job.Request.check(); err != nil {
		return notRun(err)
	}
	ctx, cancel := bound(ctx, job.Timeout)
	defer cancel(nil)
	if ctx.Err() != nil {
		return killed(ctx, NoStatus)
	}
	req, err := t.request(ctx, job)
	if err != nil {
		return notRun(err)
	}
	transport := h.transport(t)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: t.redirect}
	resp, err := client.Do(req)
	if ctx.Err() != nil {
		closeBody(resp)
		return killed(ctx, NoStatus)
	}
	if err != nil {
		closeBody(resp)
		return notRun(fmt.Errorf("asking %s: %w", t.base.Host, withoutURL(err)))
	}
	return readAnswer(ctx, cancel, resp, job)
}

// closeBody also serves an error: after a refused redirect there is an answer.
func closeBody(r *http.Response) {
	if r != nil {
		_ = r.Body.Close()
	}
}

// withoutURL leaves out the address, which holds the call's values.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

func (t httpTarget) request(ctx context.Context, job Job) (*http.Request, error) {
	body, kind := job.Request.body()
	req, err := http.NewRequestWithContext(ctx, job.Request.Method, job.Request.url(t.base).String(), bytes.NewReader(body))
	if err != nil {
		return nil, refuse("the request: %w", withoutURL(err))
	}
	req.Header.Set("User-Agent", "openscope")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for name, value := range t.Headers {
		req.Header.Set(name, value)
	}
	for name, file := range t.SecretHeaders {
		value, err := readSecretLine(file)
		if err != nil {
			return nil, err
		}
		req.Header.Set(name, value)
	}
	if name := job.Request.IssuerHeader; name != "" {
		if !isAccountName(job.Issuer) {
			return nil, refuse("%q cannot stand in a header", job.Issuer)
		}
		req.Header.Set(name, job.Issuer)
	}
	return req, nil
}

// transport is made anew for each call: no connection outlives one.
func (h *HTTP) transport(t httpTarget) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // the environment decides nothing
		DialContext:            h.dial,
		TLSClientConfig:        &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    connectTime,
		DisableKeepAlives:      true,
		DisableCompression:     true, // a limit on bytes is one on the bytes that came
		MaxResponseHeaderBytes: maxHeader,
	}
}

// redirect follows only where the configuration's address and credentials were
// meant to go.
func (t httpTarget) redirect(next *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case first.Method != http.MethodGet && first.Method != http.MethodHead:
		return fmt.Errorf("%w: of a %s", ErrRedirect, first.Method)
	case next.URL.Scheme != t.base.Scheme || !strings.EqualFold(next.URL.Host, t.base.Host) || next.URL.User != nil:
		return fmt.Errorf("%w: off the host", ErrRedirect)
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: the %dth", ErrRedirect, len(via))
	}
	next.Header.Del("Referer")
	return nil
}

// readAnswer carries the body to the job's writer.
func readAnswer(ctx context.Context, cancel context.CancelCauseFunc, resp *http.Response, job Job) Outcome {
	defer closeBody(resp)
	body := &noticed{Reader: resp.Body}
	out := startPump("stdout", body, func() { closeBody(resp) }, job.Stdout, cancel)
	whole := true
	select {
	case <-out.done:
	case <-ctx.Done():
		closeBody(resp)
		whole = settle([]*pump{out})
	}
	status := 0
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		status = resp.StatusCode
	}
	if err := writeError(out); err != nil {
		return Outcome{Status: status, Err: err}
	}
	if ctx.Err() != nil || !whole {
		return killed(ctx, status)
	}
	if body.err != nil {
		return Outcome{Status: status, Err: fmt.Errorf("reading the answer: %w", body.err)}
	}
	if status != 0 && job.Stderr != nil {
		if _, err := fmt.Fprintf(job.Stderr, "HTTP %d %s\n", status, http.StatusText(status)); err != nil {
			return Outcome{Status: status, Err: fmt.Errorf("writing stderr: %w", err)}
		}
	}
	return Outcome{Status: status}
}

// noticed keeps how a body ended: a pump does not tell an answer that was cut
// short from a whole one, and here that can be told. err is readable when the
// pump is done.
type noticed struct {
	io.Reader
	err error
}

func (n *noticed) Read(p []byte) (int, error) {
	count, err := n.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return count, err
}
