package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"openscope/relay"
)

// Config is what the listener shows.
type Config struct {
	Stats func() relay.Stats
	// Ready says why this node should get no new peers, or nil.
	Ready func() error
	// Profile adds /debug/pprof, on a loopback address only: a profile tells more
	// than numbers.
	Profile bool
	Logger  *slog.Logger
}

// ErrProfileExposed refuses profiles on an address that others can reach.
var ErrProfileExposed = errors.New("profiles are shown on a loopback address only")

// Server is the listener: Listen opens it, Run serves.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen opens the address.
func Listen(ctx context.Context, address string, cfg Config) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	tcp, ok := listener.Addr().(*net.TCPAddr)
	if cfg.Profile && (!ok || !tcp.IP.IsLoopback()) {
		return nil, errors.Join(ErrProfileExposed, listener.Close())
	}
	return &Server{listener: listener, http: &http.Server{
		Handler: handler(cfg),
		// Small and short: nobody but a scraper comes here.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}}, nil
}

// Address is where it listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin listener: %w", err)
	}
	return nil
}

func handler(cfg Config) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{cfg.Stats}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := cfg.Ready()
		if err == nil && cfg.Stats().Draining {
			err = errors.New("draining")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	if cfg.Profile {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}
