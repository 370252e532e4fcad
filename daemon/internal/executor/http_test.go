package executor

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// service is a real server, and an executor with it as its target.
func service(t *testing.T, handler http.HandlerFunc, change func(*HTTPTarget)) (*HTTP, *httptest.Server) {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	target := HTTPTarget{
		URL: server.URL + "/api", Headers: map[string]string{"Accept": "application/json"},
		SecretHeaders: map[string]string{"Authorization": secretFile(t, "Bearer canary-token-1\n", 0o600)},
		CA:            pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	if change != nil {
		change(&target)
	}
	h, err := NewHTTP(HTTPConfig{Targets: map[string]HTTPTarget{"api": target}})
	if err != nil {
		t.Fatal(err)
	}
	return h, server
}

func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask runs one request to its end.
func ask(t *testing.T, h *HTTP, r *Request) (stdout, stderr string, o Outcome) {
	t.Helper()
	var out, errs collected
	o = h.Execute(t.Context(), Job{Target: "api", Request: r, As: me(t), Issuer: "alice", Stdout: &out, Stderr: &errs, Timeout: 20 * time.Second})
	return out.String(), errs.String(), o
}

func TestARequestIsWhatWasDeclared(t *testing.T) {
	h, _ := service(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s|%s|%s|%s|%s|%s", r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Accept"), r.Header.Get("X-User"), r.Header.Get("Content-Type"), body)
	}, nil)
	for _, c := range []struct {
		request Request
		want    string
	}{
		{Request{Method: "GET"}, "GET /api|Bearer canary-token-1|application/json|||"},
		{Request{Method: "GET", Segments: []string{"alerts", "a b?c#d&é"}, Query: []Field{{Name: "q", Value: "1&x=2#é"}, {Name: "n", Value: "5"}}, IssuerHeader: "X-User"},
			"GET /api/alerts/a%20b%3Fc%23d&%C3%A9?q=1%26x%3D2%23%C3%A9&n=5|Bearer canary-token-1|application/json|alice||"},
		{Request{Method: "POST", Body: []Field{{Name: "text", Value: `"},"admin":true,"x":{"` + "\r\nX-Evil: 1"}, {Name: "n", Value: "5", Bare: true}}},
			`POST /api|Bearer canary-token-1|application/json||application/json|{"text":"\"},\"admin\":true,\"x\":{\"\r\nX-Evil: 1","n":5}`},
		{Request{Method: "PUT", Form: true, Body: []Field{{Name: "a", Value: "1&b=2"}}},
			"PUT /api|Bearer canary-token-1|application/json||application/x-www-form-urlencoded|a=1%26b%3D2"},
	} {
		if got, _, o := ask(t, h, &c.request); got != c.want || o.Err != nil || o.Status != 0 {
			t.Errorf("got  %q\nwant %q\n%+v", got, c.want, o)
		}
	}
}

func TestARequestThatCouldBeReadOtherwiseIsRefused(t *testing.T) {
	var asked atomic.Int32
	h, _ := service(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) }, nil)
	for _, r := range []*Request{
		nil, {}, {Method: "get"}, {Method: "CONNECT"}, {Method: "GET\r\nX: 1"}, {Method: "GET", Body: []Field{{Name: "a", Value: "b"}}},
		{Method: "GET", Segments: []string{""}}, {Method: "GET", Segments: []string{"."}}, {Method: "GET", Segments: []string{".."}},
		{Method: "GET", Segments: []string{"a/b"}}, {Method: "GET", Segments: []string{`a\b`}}, {Method: "GET", Segments: []string{"%2e%2e"}},
		{Method: "GET", Segments: []string{"a\x00"}}, {Method: "GET", Segments: []string{"a;b"}}, {Method: "POST", Body: []Field{{Name: "n", Value: "1,2", Bare: true}}},
		{Method: "GET", IssuerHeader: "Host"}, {Method: "GET", IssuerHeader: "X\r\nY"}, {Method: "GET", IssuerHeader: "X-HTTP-Method-Override"},
		{Method: "GET", Query: []Field{{Name: "q", Value: strings.Repeat("x", maxRequest)}}},
	} {
		if _, _, o := ask(t, h, r); !errors.Is(o.Err, ErrJob) || o.Status != NoStatus {
			t.Errorf("%+v: %+v", r, o)
		}
	}
	for _, issuer := range []string{"", "a\r\nX-Evil: 1", "a b", "é"} {
		o := h.Execute(t.Context(), Job{Target: "api", Request: &Request{Method: "GET", IssuerHeader: "X-User"}, As: me(t), Issuer: issuer})
		if !errors.Is(o.Err, ErrJob) {
			t.Errorf("issuer %q: %+v", issuer, o)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the service was asked %d times", n)
	}
}

func TestNoRedirectLeavesTheHostOrRepeatsAChange(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	var posts atomic.Int32
	h, server := service(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
		}
		switch strings.TrimPrefix(r.URL.Path, "/api/") {
		case "here":
			http.Redirect(w, r, "/api/end", http.StatusFound)
		case "end":
			fmt.Fprint(w, "arrived with ", r.Header.Get("Authorization"))
		case "round":
			http.Redirect(w, r, "/api/round", http.StatusFound)
		case "off":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case "port":
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		case "plain":
			http.Redirect(w, r, strings.Replace("https://"+r.Host, "https:", "http:", 1), http.StatusFound)
		case "user":
			http.Redirect(w, r, "https://x:y@"+r.Host+"/api/end", http.StatusFound)
		}
	}, nil)
	if got, _, o := ask(t, h, &Request{Method: "GET", Segments: []string{"here"}}); got != "arrived with Bearer canary-token-1" || o.Err != nil {
		t.Errorf("on the host: %q, %+v", got, o)
	}
	for _, where := range []string{"off", "port", "plain", "user", "round"} {
		if got, _, o := ask(t, h, &Request{Method: "GET", Segments: []string{where}}); !errors.Is(o.Err, ErrRedirect) || got != "" {
			t.Errorf("%s: %q, %+v", where, got, o)
		}
	}
	for _, where := range []string{"here", "off"} {
		if _, _, o := ask(t, h, &Request{Method: "POST", Segments: []string{where}}); !errors.Is(o.Err, ErrRedirect) {
			t.Errorf("POST %s: %+v", where, o)
		}
	}
	if elsewhere.Load() != 0 || posts.Load() != 2 {
		t.Errorf("%d requests off %s, %d posts", elsewhere.Load(), server.URL, posts.Load())
	}
}

func TestAnAnswerThatIsNoSuccessIsAStatus(t *testing.T) {
	h, _ := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "no such alert")
	}, nil)
	if out, errs, o := ask(t, h, &Request{Method: "GET"}); out != "no such alert" || errs != "HTTP 404 Not Found\n" || o.Status != 404 || o.Err != nil {
		t.Errorf("%q, %q, %+v", out, errs, o)
	}
}

func TestAnAnswerCutShortIsNotTakenForAWholeOne(t *testing.T) {
	h, _ := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
		panic(http.ErrAbortHandler)
	}, nil)
	if out, _, o := ask(t, h, &Request{Method: "GET"}); o.Err == nil {
		t.Errorf("%q, %+v", out, o)
	}
}

func TestASlowAnswerEndsWithItsCall(t *testing.T) {
	gone := make(chan struct{}, 8)
	h, _ := service(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/body" {
			fmt.Fprint(w, "first")
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
		gone <- struct{}{}
	}, nil)
	for _, where := range []string{"body", "header"} {
		for _, why := range []string{"cancel", "timeout"} {
			ctx, cancel := context.WithCancel(t.Context())
			job := Job{Target: "api", Request: &Request{Method: "GET", Segments: []string{where}}, As: me(t)}
			if why == "timeout" {
				job.Timeout = 300 * time.Millisecond
			} else {
				time.AfterFunc(300*time.Millisecond, cancel)
			}
			began := time.Now()
			o := h.Execute(ctx, job)
			if took := time.Since(began); took > time.Second || o.TimedOut != (why == "timeout") || why == "cancel" && !errors.Is(o.Err, context.Canceled) {
				t.Errorf("%s, %s: %v, %+v", where, why, took, o)
			}
			cancel()
			<-gone // the service sees it too
		}
	}
}

func TestAFloodEndsWhereTheWriterSaysSo(t *testing.T) {
	h, _ := service(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}, nil)
	full, took := errors.New("full"), 0
	o := h.Execute(t.Context(), Job{Target: "api", Request: &Request{Method: "GET"}, As: me(t), Stdout: writerFunc(func(p []byte) (int, error) {
		if took += len(p); took > 1<<20 {
			return 0, full
		}
		return len(p), nil
	})})
	if !errors.Is(o.Err, full) {
		t.Errorf("%+v", o)
	}
	big, _ := service(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 2*maxHeader)) }, nil)
	if _, _, o := ask(t, big, &Request{Method: "GET"}); o.Err == nil {
		t.Error("a header of any size is taken")
	}
}

func TestAServiceThatIsNotTheConfiguredOneIsNotAsked(t *testing.T) {
	var asked atomic.Int32
	h, _ := service(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) }, func(target *HTTPTarget) { target.CA = nil })
	if _, _, o := ask(t, h, &Request{Method: "GET"}); o.Err == nil || asked.Load() != 0 {
		t.Errorf("a certificate of nobody's: %+v", o)
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	h, _ = service(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) }, nil)
	if _, _, o := ask(t, h, &Request{Method: "GET"}); o.Err != nil || asked.Load() != 1 {
		t.Errorf("a proxy of the environment: %+v", o)
	}
}

func TestASecretFileIsForTheDaemonAlone(t *testing.T) {
	var asked atomic.Int32
	good := secretFile(t, "x", 0o600)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{secretFile(t, "x", 0o644), secretFile(t, "two\nlines", 0o600), secretFile(t, "a\r\nX-Evil: 1", 0o600), secretFile(t, "", 0o600), link, "/nowhere"} {
		h, _ := service(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) }, func(target *HTTPTarget) { target.SecretHeaders["Authorization"] = path })
		if _, _, o := ask(t, h, &Request{Method: "GET"}); o.Err == nil || o.Status != NoStatus {
			t.Errorf("%s: %+v", path, o)
		}
	}
	if asked.Load() != 0 {
		t.Error("the service was asked")
	}
}

func TestHTTPTargetsAreCheckedWhenTheyAreRead(t *testing.T) {
	for _, target := range []HTTPTarget{
		{}, {URL: "ftp://h"}, {URL: "https://"}, {URL: "https:h"}, {URL: "https://u:p@h"}, {URL: "https://h/?a=b"}, {URL: "https://h/#x"}, {URL: "https://h/a/../b"}, {URL: "https://h//a"}, {URL: "https://h/\x00"},
		{URL: "http://example.com", SecretHeaders: map[string]string{"Authorization": "/x"}},
		{URL: "https://h", SecretHeaders: map[string]string{"Authorization": "x"}},
		{URL: "https://h", SecretHeaders: map[string]string{"Host": "/x"}},
		{URL: "https://h", Headers: map[string]string{"Host": "other"}}, {URL: "https://h", Headers: map[string]string{"X": "a\r\nY: b"}}, {URL: "https://h", Headers: map[string]string{"Proxy-Authorization": "x"}},
		{URL: "https://h", CA: []byte("no certificate")},
	} {
		if _, err := NewHTTP(HTTPConfig{Targets: map[string]HTTPTarget{"t": target}}); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%+v: %v", target, err)
		}
	}
}
