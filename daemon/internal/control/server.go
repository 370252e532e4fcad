package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"openscope/wire/term"
)

// Bounds of a request and of the socket.
const (
	maxRequest     = 64 << 10
	maxConnections = 256
	headerTimeout  = 5 * time.Second
	stopGrace      = time.Second
)

// Server answers the socket.
type Server struct {
	daemon Daemon
	http   *http.Server
	logger *slog.Logger
}

// NewServer builds a server. connContext puts who is asking, by the kernel's
// word, into the context of each connection.
func NewServer(d Daemon, connContext func(context.Context, net.Conn) context.Context, logger *slog.Logger) *Server {
	s := &Server{daemon: d, logger: logger}
	s.http = &http.Server{
		Handler: s.routes(), ConnContext: connContext,
		ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Run serves until the context ends; it closes the listener.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if s.http.Shutdown(grace) != nil {
			_ = s.http.Close() // what does not end by itself is ended
		}
	})
	err := s.http.Serve(&bounded{Listener: l, free: make(chan struct{}, maxConnections)})
	if stop() {
		return err // it ended without being asked
	}
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// bounded holds the number of connections; beyond it they wait in the kernel.
type bounded struct {
	net.Listener
	free chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	b.free <- struct{}{}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.free
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		<-b.free
		return nil, errors.Join(errors.New("the control socket is not a unix socket"), conn.Close())
	}
	return &Conn{UnixConn: unix, release: sync.OnceFunc(func() { <-b.free })}, nil
}

// Conn is a connection to the socket, which gives its place back when closed.
type Conn struct {
	*net.UnixConn
	release func()
}

// Close closes the connection.
func (c *Conn) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	d := s.daemon
	handle(mux, "status", func(ctx context.Context, _ struct{}) (Status, error) { return d.Status(ctx) })
	handle(mux, "fingerprint", func(ctx context.Context, _ struct{}) (Fingerprint, error) { return d.Fingerprint(ctx) })
	handle(mux, "agents", func(ctx context.Context, _ struct{}) ([]string, error) { return d.Agents(ctx) })
	handle(mux, "verbs", d.Verbs)
	handle(mux, "share/open", func(ctx context.Context, r OpenRequest) (OpenResult, error) {
		r.TTL = time.Duration(r.TTLS)
		return d.OpenShare(ctx, r)
	})
	handle(mux, "share/confirm", noResult(d.ConfirmShare))
	handle(mux, "share/list", d.ListShares)
	handle(mux, "share/extend", func(ctx context.Context, r ExtendRequest) (ExtendResult, error) {
		r.TTL = time.Duration(r.TTLS)
		return d.ExtendShare(ctx, r)
	})
	handle(mux, "share/revoke", d.RevokeShare)
	handle(mux, "share/answer", noResult(d.AnswerCall))
	handle(mux, "recipient/add", noResult(d.AddRecipient))
	handle(mux, "recipient/list", func(ctx context.Context, _ struct{}) ([]RecipientInfo, error) { return d.ListRecipients(ctx) })
	handle(mux, "recipient/remove", noResult(d.RemoveRecipient))
	handle(mux, "explain", d.Explain)
	handle(mux, "lockdown", d.Lockdown)
	mux.HandleFunc("POST /v1/call", s.call)
	mux.HandleFunc("POST /v1/audit", s.audit)
	mux.HandleFunc("POST /v1/audit/report", s.report)
	mux.HandleFunc("POST /v1/share/watch", s.watch)
	return mux
}

func noResult[Req any](f func(context.Context, Req) error) func(context.Context, Req) (struct{}, error) {
	return func(ctx context.Context, r Req) (struct{}, error) { return struct{}{}, f(ctx, r) }
}

// handle serves one method: a strict request in, a result or an error out.
func handle[Req, Res any](mux *http.ServeMux, name string, f func(context.Context, Req) (Res, error)) {
	mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if err := decode(w, r, &req); err != nil {
			writeError(w, err)
			return
		}
		result, err := f(r.Context(), req)
		if err != nil {
			writeError(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode(result) // the caller may have gone
	})
}

// decode reads one bounded JSON object: unknown fields and anything after it
// are errors.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return Errorf(Usage, "reading the request: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Errorf(Usage, "reading the request: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Errorf(Usage, "reading the request: something follows it")
	}
	return nil
}

// failure is an error on the wire.
type failure struct {
	Code    term.Code `json:"code"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
}

func newFailure(err error) *failure {
	if e, ok := errors.AsType[*Error](err); ok {
		return &failure{Code: e.Code, Message: err.Error(), Hint: e.Hint}
	}
	return &failure{Code: Internal, Message: err.Error()}
}

func writeError(w http.ResponseWriter, err error) {
	w.WriteHeader(http.StatusUnprocessableEntity)
	_ = json.NewEncoder(w).Encode(newFailure(err)) // the caller may have gone
}

// frame is one line of a call's answer: output of one stream, then the result
// or an error.
type frame struct {
	Stdout []byte      `json:"stdout,omitempty"`
	Stderr []byte      `json:"stderr,omitempty"`
	Result *CallResult `json:"result,omitempty"`
	Error  *failure    `json:"error,omitempty"`
}

// frames writes lines to a caller as they come. The first error sticks.
type frames struct {
	mu  sync.Mutex
	enc *json.Encoder
	out *http.ResponseController
}

func newFrames(w http.ResponseWriter) *frames {
	return &frames{enc: json.NewEncoder(w), out: http.NewResponseController(w)}
}

func (f *frames) write(line frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enc.Encode(line); err != nil {
		return err
	}
	return f.out.Flush()
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func (f *frames) stream(line func([]byte) frame) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if err := f.write(line(p)); err != nil {
			return 0, err
		}
		return len(p), nil
	})
}

func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	var req CallRequest
	if err := decode(w, r, &req); err != nil {
		writeError(w, err)
		return
	}
	out := newFrames(w)
	result, err := s.daemon.Call(r.Context(), req,
		out.stream(func(p []byte) frame { return frame{Stdout: p} }),
		out.stream(func(p []byte) frame { return frame{Stderr: p} }))
	last := frame{Result: &result}
	if err != nil {
		last = frame{Error: newFailure(err)}
	}
	_ = out.write(last) // the caller may have gone
}

// audit streams the log's lines as they are; an error comes as the only line,
// or not at all once lines have gone out.
func (s *Server) audit(w http.ResponseWriter, r *http.Request) {
	stream(s, w, r, s.daemon.AuditTail)
}

func (s *Server) report(w http.ResponseWriter, r *http.Request) {
	stream(s, w, r, s.daemon.AuditReport)
}

// stream answers with what is written. After the first byte an error can only
// end it: the connection is broken off, so that what came is not taken for all.
func stream[R any](s *Server, w http.ResponseWriter, r *http.Request, answer func(context.Context, R, io.Writer) error) {
	var req R
	if err := decode(w, r, &req); err != nil {
		writeError(w, err)
		return
	}
	flushed := &flushing{to: w, out: http.NewResponseController(w)}
	if err := answer(r.Context(), req, flushed); err != nil {
		if flushed.wrote {
			s.logger.Debug("answering", "error", fmt.Sprint(err))
			panic(http.ErrAbortHandler)
		}
		writeError(w, err)
	}
}

// flushing passes every write on at once.
type flushing struct {
	to    io.Writer
	out   *http.ResponseController
	wrote bool
}

func (f *flushing) Write(p []byte) (int, error) {
	f.wrote = true
	n, err := f.to.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.out.Flush()
}
