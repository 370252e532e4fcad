package catalog

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"openscope/daemon/internal/yamlfile"
	"openscope/passport"
)

// HTTPTarget is a service that http verbs ask.
type HTTPTarget struct {
	Name string
	// URL is the base that every path lies below.
	URL string
	// Headers are sent as they are; SecretHeaders name files, absolute.
	Headers, SecretHeaders map[string]string
	// CAFile, absolute, holds the only authorities to be believed; or empty.
	CAFile string
}

// Request is a call of an http verb with its values filled in.
type Request struct {
	Method       string
	Segments     []string
	Query, Body  []Field // sorted by name
	Form         bool
	IssuerHeader string
}

// Field is a name and a value; Bare is a number, true or false, without quotes
// in JSON.
type Field struct {
	Name, Value string
	Bare        bool
}

// request is an http verb's request as the file has it.
type request struct {
	method       string
	segments     []word
	query, body  []field
	form         bool
	issuerHeader string
}

type field struct {
	name string
	word word
}

var (
	methods    = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	fieldName  = regexp.MustCompile(`^[A-Za-z0-9_.$\[\]-]{1,64}$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

func newHTTPTarget(name string, f httpFile, dir string) (HTTPTarget, error) {
	t := HTTPTarget{Name: name, URL: f.URL, Headers: f.Headers, SecretHeaders: map[string]string{}, CAFile: f.CAFile}
	var wrong yamlfile.Mistakes
	if !targetName.MatchString(name) {
		wrong = append(wrong, errTargetName)
	}
	if u, err := url.Parse(f.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		wrong = append(wrong, yamlfile.WithFix(errors.New("url is needed, with scheme and host"), "write it like https://grafana.internal/api"))
	}
	for _, header := range slices.Sorted(maps.Keys(f.SecretHeaders)) {
		file := f.SecretHeaders[header]
		if file == "" {
			wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("secret_headers: %s has no file", header), "name a file of mode 0600 that holds the header's value"))
		}
		t.SecretHeaders[header] = absolute(dir, file)
	}
	if t.CAFile != "" {
		t.CAFile = absolute(dir, t.CAFile)
	}
	return t, wrong.OrNil()
}

func absolute(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// setRequest parses what an http verb asks, and holds it to the parameters.
func (v *Verb) setRequest(f *requestFile) error {
	r := &request{method: f.Method, form: f.Form, issuerHeader: f.IssuerHeader}
	wrong := v.checkRequest(f)
	used := make(map[string]bool)
	for _, text := range f.Path {
		w, err := v.newValue(text)
		if err == nil {
			err = v.checkSegment(w)
		}
		if err != nil {
			wrong = append(wrong, err)
		}
		used[w.param] = true
		r.segments = append(r.segments, w)
	}
	r.query = v.newFields("query", f.Query, used, &wrong)
	r.body = v.newFields("body", f.Body, used, &wrong)
	for _, p := range v.params {
		if len(wrong) == 0 && !used[p.name] {
			wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("parameter %s is used nowhere in the request", p.name), "write {"+p.name+"} into path, query or body, or drop the parameter"))
		}
	}
	v.request = r
	return wrong.OrNil()
}

func (v *Verb) checkRequest(f *requestFile) (wrong yamlfile.Mistakes) {
	reads := f.Method == "GET" || f.Method == "HEAD"
	switch {
	case !slices.Contains(methods, f.Method):
		wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("request.method %q is none", f.Method), "use one of "+strings.Join(methods, ", ")))
	case v.Class == passport.Read && !reads:
		wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("a verb of class read does not %s", f.Method), "make it class change, or raw where it is a query"))
	case reads && len(f.Body) > 0:
		wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("a %s has no body", f.Method), "put the fields under query"))
	}
	if f.IssuerHeader != "" && !headerName.MatchString(f.IssuerHeader) {
		wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("issuer_header %q is no header's name", f.IssuerHeader), "use letters, digits and -, as X-On-Behalf-Of"))
	}
	return wrong
}

// newValue is a word of a request, where a flag has no meaning.
func (v *Verb) newValue(text string) (word, error) {
	w, i, err := v.parseWord("request", text)
	if err != nil || i < 0 {
		return w, err
	}
	if v.params[i].kind == typeFlag {
		return w, yamlfile.WithFix(fmt.Errorf("request: %s is a flag", w.param), "make it type boolean")
	}
	return w, nil
}

func (v *Verb) newFields(where string, f map[string]string, used map[string]bool, wrong *yamlfile.Mistakes) []field {
	var all []field
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if !fieldName.MatchString(name) {
			*wrong = append(*wrong, yamlfile.WithFix(fmt.Errorf("%s: %q is no field's name", where, name), "use letters, digits, _ . - $ [ and ]"))
		}
		w, err := v.newValue(f[name])
		if err != nil {
			*wrong = append(*wrong, err)
		}
		used[w.param] = true
		all = append(all, field{name: name, word: w})
	}
	return all
}

// checkSegment makes a parameter in the path one that cannot leave its place,
// and holds what the file itself gives it to that.
func (v *Verb) checkSegment(w word) error {
	if w.param == "" {
		if !isSegment(w.before) {
			return yamlfile.WithFix(fmt.Errorf("request.path: %q is not one segment", w.before), "write the path as a list, as [alerts, \"{id}\"]")
		}
		return nil
	}
	if !isSegmentText(w.before) || !isSegmentText(w.after) {
		return yamlfile.WithFix(fmt.Errorf("request.path: %q is not one segment", w.before+"{"+w.param+"}"+w.after), "write the path as a list, as [alerts, \"{id}\"]")
	}
	i := slices.IndexFunc(v.params, func(p param) bool { return p.name == w.param })
	p := &v.params[i]
	if !p.required && p.fallback == nil {
		return yamlfile.WithFix(fmt.Errorf("parameter %s stands in the path and may be missing", p.name), "add required: true or a default")
	}
	p.segment = true
	for _, value := range p.enum {
		if err := p.fits(value); err != nil {
			return fmt.Errorf("parameter %s: enum: %q %w", p.name, value, err)
		}
	}
	if p.fallback != nil {
		if err := p.fits(*p.fallback); err != nil {
			return fmt.Errorf("parameter %s: default: %q %w", p.name, *p.fallback, err)
		}
	}
	return nil
}

// isSegmentText refuses what a server could take for the border of a segment,
// once or twice decoded.
func isSegmentText(s string) bool { return !strings.ContainsAny(s, "/\\%;\x00") }

func isSegment(s string) bool { return s != "" && s != "." && s != ".." && isSegmentText(s) }

// Request is the request for resolved values; nil for a verb that runs an argv.
// A parameter that is not given leaves its field out.
func (v *Verb) Request(values map[string]string) *Request {
	if v.request == nil {
		return nil
	}
	r := &Request{Method: v.request.method, Form: v.request.form, IssuerHeader: v.request.issuerHeader}
	for _, w := range v.request.segments {
		r.Segments = append(r.Segments, w.before+values[w.param]+w.after)
	}
	r.Query, r.Body = v.fields(v.request.query, values), v.fields(v.request.body, values)
	return r
}

func (v *Verb) fields(fields []field, values map[string]string) []Field {
	var all []Field
	for _, f := range fields {
		value, given := values[f.word.param]
		if f.word.param != "" && !given {
			continue
		}
		bare := false
		if i := slices.IndexFunc(v.params, func(p param) bool { return p.name == f.word.param }); i >= 0 && f.word.before+f.word.after == "" {
			kind := v.params[i].kind
			bare = kind == typeInteger || kind == typeBoolean
		}
		all = append(all, Field{Name: f.name, Value: f.word.before + value + f.word.after, Bare: bare})
	}
	return all
}
