package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openscope/wire/term"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type whoKey struct{}

// stub answers every method with what the test gave it, and remembers what it
// was asked.
type stub struct {
	Daemon
	mu    sync.Mutex
	asked []any
	who   any
	err   error
	call  func(ctx context.Context, stdout, stderr io.Writer) (CallResult, error)
}

func (s *stub) note(ctx context.Context, request any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.who = append(s.asked, request), ctx.Value(whoKey{})
	return s.err
}

func (s *stub) Status(ctx context.Context) (Status, error) {
	return Status{PID: 7, LogOK: true, Relays: []RelayStatus{{Address: "a", Connected: true}}}, s.note(ctx, "status")
}

func (s *stub) OpenShare(ctx context.Context, r OpenRequest) (OpenResult, error) {
	return OpenResult{ID: "s-1", Words: []string{"a"}}, s.note(ctx, r)
}

func (s *stub) ExtendShare(ctx context.Context, r ExtendRequest) (ExtendResult, error) {
	return ExtendResult{Added: []string{}}, s.note(ctx, r)
}

func (s *stub) ConfirmShare(ctx context.Context, r ConfirmRequest) error { return s.note(ctx, r) }

func (s *stub) ListShares(ctx context.Context, r ListRequest) ([]Share, error) {
	return []Share{}, s.note(ctx, r)
}

func (s *stub) Call(ctx context.Context, r CallRequest, stdout, stderr io.Writer) (CallResult, error) {
	if err := s.note(ctx, r); err != nil {
		return CallResult{}, err
	}
	return s.call(ctx, stdout, stderr)
}

func (s *stub) AuditReport(ctx context.Context, r ReportRequest, w io.Writer) error {
	if err := s.note(ctx, r); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "# Session\n"); err != nil || r.Format != "broken" {
		return err
	}
	return errors.New("the log can no longer be read")
}

func (s *stub) AuditTail(ctx context.Context, r AuditRequest, w io.Writer) error {
	if err := s.note(ctx, r); err != nil {
		return err
	}
	for i := range 3 {
		fmt.Fprintf(w, "{\"seq\":%d}\n", i)
	}
	if r.Follow {
		<-ctx.Done()
	}
	return nil
}

// serve runs a server on a socket of its own.
func serve(t *testing.T, d Daemon) (c *Client, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sub", "s.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server := NewServer(d, func(ctx context.Context, conn net.Conn) context.Context {
		_, known := conn.(*Conn)
		return context.WithValue(ctx, whoKey{}, known)
	}, slog.New(slog.DiscardHandler))
	go func() { done <- server.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return Dial(path), path
}

func TestRequestsAndAnswersArriveAsTheyWereMade(t *testing.T) {
	d := &stub{}
	c, _ := serve(t, d)
	open := OpenRequest{Agent: "you", Specs: []string{"app.a:p=x"}, To: "v", TTL: 90 * time.Second, MaxCalls: 5, MaxOutput: 6, Note: "n", DryRun: true}
	got, err := c.OpenShare(t.Context(), open)
	open.TTLS = Seconds(open.TTL)
	if err != nil || got.ID != "s-1" || !reflect.DeepEqual(d.asked[0], open) {
		t.Errorf("%+v, %v; asked %+v", got, err, d.asked[0])
	}
	if d.who != true {
		t.Error("the server does not hand the connection to who finds out whose it is")
	}
	if s, err := c.Status(t.Context()); err != nil || s.PID != 7 || len(s.Relays) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.ExtendShare(t.Context(), ExtendRequest{ID: "s-1", TTL: time.Minute}); err != nil || d.asked[2].(ExtendRequest).TTL != time.Minute {
		t.Errorf("%v; asked %+v", err, d.asked[2])
	}
	if err := c.ConfirmShare(t.Context(), ConfirmRequest{ID: "s-1", Words: "a b"}); err != nil {
		t.Error(err)
	}
}

func TestErrorsKeepTheirCodeAndHint(t *testing.T) {
	d := &stub{err: Errorf(Denied, "no").WithHint("run: something")}
	c, _ := serve(t, d)
	_, err := c.OpenShare(t.Context(), OpenRequest{})
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != Denied || e.Message != "no" || e.Hint != "run: something" {
		t.Errorf("%+v", err)
	}
	d.err = errors.New("a bug")
	if _, err := c.ListShares(t.Context(), ListRequest{}); term.CodeOf(err) != Internal {
		t.Errorf("%+v", err)
	}
	if _, err := c.Call(t.Context(), CallRequest{}, io.Discard, io.Discard); err == nil || err.Error() != "a bug" {
		t.Errorf("%+v", err)
	}
	if _, err := Dial(filepath.Join(t.TempDir(), "none")).Status(t.Context()); term.CodeOf(err) != Unreachable {
		t.Errorf("%+v", err)
	}
}

func TestOutputStreamsAndACallEndsWithItsCaller(t *testing.T) {
	ended := make(chan struct{})
	d := &stub{call: func(ctx context.Context, stdout, stderr io.Writer) (CallResult, error) {
		io.WriteString(stdout, "out\xff")
		io.WriteString(stderr, "err")
		<-ctx.Done()
		close(ended)
		return CallResult{}, ctx.Err()
	}}
	c, _ := serve(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	var stderr bytes.Buffer
	got := make(chan string, 1)
	_, err := c.Call(ctx, CallRequest{Verb: "app.a"}, writerFunc(func(p []byte) (int, error) { got <- string(p); cancel(); return len(p), nil }), &stderr)
	if out := <-got; out != "out\xff" || !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", out, err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the call goes on without its caller")
	}

	d.call = func(_ context.Context, stdout, _ io.Writer) (CallResult, error) {
		for range 1000 {
			io.WriteString(stdout, strings.Repeat("x", 1000))
		}
		return CallResult{Call: "id", Cause: "exited", Status: 3}, nil
	}
	var stdout bytes.Buffer
	r, err := c.Call(t.Context(), CallRequest{}, &stdout, io.Discard)
	if err != nil || r.Status != 3 || stdout.Len() != 1_000_000 {
		t.Errorf("%+v, %v, %d bytes", r, err, stdout.Len())
	}
}

func TestTheLogIsStreamedUntilTheReaderGoes(t *testing.T) {
	c, _ := serve(t, &stub{})
	var lines bytes.Buffer
	if err := c.AuditTail(t.Context(), AuditRequest{}, &lines); err != nil || strings.Count(lines.String(), "\n") != 3 {
		t.Errorf("%q, %v", lines.String(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	err := c.AuditTail(ctx, AuditRequest{Follow: true}, writerFunc(func(p []byte) (int, error) {
		if seen += bytes.Count(p, []byte("\n")); seen == 3 {
			cancel()
		}
		return len(p), nil
	}))
	if err != nil || seen != 3 {
		t.Errorf("%d lines, %v", seen, err)
	}
}

// post sends a raw body.
func post(t *testing.T, path, method, body string) (status int, answer string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Post("http://openscope/v1/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// What came of a report that broke off is not taken for a report.
func TestAReportThatBreaksOffIsAnErrorToItsReader(t *testing.T) {
	d := new(stub)
	client, _ := serve(t, d)
	var whole, part strings.Builder
	if err := client.AuditReport(t.Context(), ReportRequest{Session: "s-1", Format: "md"}, &whole); err != nil || whole.String() != "# Session\n" {
		t.Errorf("%q, %v", whole.String(), err)
	}
	if err := client.AuditReport(t.Context(), ReportRequest{Session: "s-1", Format: "broken"}, &part); err == nil {
		t.Errorf("%q is a report", part.String())
	}
	d.err = Errorf(NotFound, "no such session")
	if err := client.AuditReport(t.Context(), ReportRequest{Session: "s-2"}, io.Discard); err == nil || err.Error() != "no such session" {
		t.Errorf("got %v", err)
	}
}

func TestRequestsThatAreNotUnderstoodReachNobody(t *testing.T) {
	d := &stub{}
	_, path := serve(t, d)
	for name, body := range map[string]string{
		"nothing":             "",
		"no JSON":             "hello",
		"an unknown field":    `{"agent":"you","uid":0}`,
		"a wrong type":        `{"agent":7}`,
		"two objects":         `{"agent":"you"}{"agent":"you"}`,
		"something after it":  `{"agent":"you"} x`,
		"a list":              `[]`,
		"more than 64 KiB":    `{"agent":"` + strings.Repeat("x", 70_000) + `"}`,
		"deeply nested":       strings.Repeat(`{"a":`, 20_000),
		"a number of seconds": `{"agent":"you","ttl_s":"1m"}`,
	} {
		if status, answer := post(t, path, "share/open", body); status == http.StatusOK || !strings.Contains(answer, `"code":2`) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	for _, method := range []string{"", "nothing", "share", "share/open/more", "../status"} {
		if status, _ := post(t, path, method, "{}"); status == http.StatusOK {
			t.Errorf("the method %q exists", method)
		}
	}
	if len(d.asked) != 0 {
		t.Errorf("%d requests got through", len(d.asked))
	}
	if status, _ := post(t, path, "share/open", "{}"); status != http.StatusOK {
		t.Errorf("an honest one: %d", status)
	}
}

func TestTheSocketIsForEverybodyAndReplacesOnlyADeadOne(t *testing.T) {
	_, path := serve(t, &stub{})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	dead := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(dead)
	if err != nil {
		t.Fatalf("over a dead one: %v", err)
	}
	again.Close()
}

func TestGarbageAndSilenceHoldNobodyUp(t *testing.T) {
	c, path := serve(t, &stub{})
	for range 50 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "\x16\x03\x01 garbage\r\n\r\n")
	}
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	reader := bufio.NewReader(silent)
	silent.SetReadDeadline(time.Now().Add(headerTimeout + 5*time.Second))
	if _, err := reader.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent connection stays: %v", err)
	}
}
