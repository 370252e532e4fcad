package executor

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// Request is what an http job asks of its target: the parts that a verb
// declares, with their values filled in. The host, the base path and the
// credentials are the target's, and never here.
type Request struct {
	Method string
	// Segments are appended to the target's base path, each escaped by itself.
	Segments []string
	// Query and Body are fields in the order of the verb's file.
	Query, Body []Field
	// Form sends the body as a form instead of JSON.
	Form bool
	// IssuerHeader, where it is set, carries [Job.Issuer].
	IssuerHeader string
}

// Field is a declared name with a value.
type Field struct {
	Name, Value string
	// Bare writes the value into JSON as it is: a number, true or false.
	Bare bool
}

// maxRequest bounds what is sent: every value is bounded, and so is their
// number.
const maxRequest = 256 << 10

// check refuses what a server could read otherwise than it was declared.
func (r *Request) check() error {
	if r == nil {
		return refuse("no request")
	}
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, r.Method) {
		return refuse("no method %q", r.Method)
	}
	if (r.Method == "GET" || r.Method == "HEAD") && len(r.Body) > 0 {
		return refuse("a body in a %s", r.Method)
	}
	total := 0
	for _, s := range r.Segments {
		// Servers and proxies differ in when they undo %2F and %25.
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\%;\x00") {
			return refuse("%.100q is not one segment of a path", s)
		}
		total += len(s)
	}
	for _, f := range slices.Concat(r.Query, r.Body) {
		if f.Bare && !json.Valid([]byte(f.Value)) {
			return refuse("%.100q is no number, true or false", f.Value)
		}
		total += len(f.Name) + len(f.Value)
	}
	if total > maxRequest {
		return refuse("%d bytes of request, %d at most", total, maxRequest)
	}
	if r.IssuerHeader != "" && !isHeaderName(r.IssuerHeader) {
		return refuse("%q is no header for the issuer", r.IssuerHeader)
	}
	return nil
}

// url is the request's address below the base.
func (r *Request) url(base *url.URL) *url.URL {
	at := *base
	raw, plain := strings.TrimSuffix(base.EscapedPath(), "/"), strings.TrimSuffix(base.Path, "/")
	for _, s := range r.Segments {
		raw += "/" + url.PathEscape(s)
		plain += "/" + s
	}
	if len(r.Segments) > 0 {
		at.Path, at.RawPath = plain, raw
	}
	at.RawQuery = encodeFields(r.Query)
	return &at
}

func encodeFields(fields []Field) string {
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(f.Name) + "=" + url.QueryEscape(f.Value))
	}
	return b.String()
}

// body is what is sent, and its type; nil for none.
func (r *Request) body() (data []byte, kind string) {
	if len(r.Body) == 0 {
		return nil, ""
	}
	if r.Form {
		return []byte(encodeFields(r.Body)), "application/x-www-form-urlencoded"
	}
	var b bytes.Buffer
	for i, f := range r.Body {
		b.WriteByte("{,"[min(i, 1)])
		b.Write(jsonString(f.Name))
		b.WriteByte(':')
		if f.Bare {
			b.WriteString(f.Value)
		} else {
			b.Write(jsonString(f.Value))
		}
	}
	b.WriteByte('}')
	return b.Bytes(), "application/json"
}

// jsonString cannot fail: json writes any string.
func jsonString(s string) []byte {
	text, _ := json.Marshal(s)
	return text
}

// isHeaderName reports whether a verb or target may name this header: a token,
// and none that frames, routes or authenticates the connection itself.
func isHeaderName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for _, c := range []byte(name) {
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	lower := strings.ToLower(name)
	return !strings.HasPrefix(lower, "proxy-") && !slices.Contains([]string{
		"host", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade", "expect", "keep-alive",
		"accept-encoding", "content-encoding", "x-http-method", "x-http-method-override", "x-method-override",
	}, lower)
}
