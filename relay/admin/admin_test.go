package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"openscope/relay"
)

// start serves until the test ends, and returns what a path answers.
func start(t *testing.T, cfg Config) func(path string) (int, string) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := Listen(t.Context(), "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(path string) (int, string) {
		answer, err := http.Get("http://" + s.Address() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
}

func TestTheOperatorSeesNumbersAndNobodysName(t *testing.T) {
	t.Parallel()
	get := start(t, Config{
		Stats: func() relay.Stats { return relay.Stats{Legs: 17, BytesUp: 4711, RefusedJoin: 3} },
		Ready: func() error { return nil },
	})
	code, body := get("/metrics")
	for _, want := range []string{"openscope_relay_legs 17\n", "openscope_relay_forwarded_up_bytes_total 4711\n", `openscope_relay_refused_total{what="join"} 3` + "\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "openscope_") && strings.Contains(line, "{") && !strings.Contains(line, `{what="`) {
			t.Errorf("a label that is not known to be harmless: %s", line)
		}
	}
	if code != http.StatusOK {
		t.Error(code)
	}
	if code, _ := get("/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("profiles, unasked: %d", code)
	}
}

func TestReadyIsNotHealthy(t *testing.T) {
	t.Parallel()
	var why error
	draining := false
	get := start(t, Config{Stats: func() relay.Stats { return relay.Stats{Draining: draining} }, Ready: func() error { return why }, Profile: true})
	for _, step := range []struct {
		why      error
		draining bool
		code     int
	}{{nil, false, 200}, {errors.New("no tokens yet"), false, 503}, {nil, true, 503}} {
		why, draining = step.why, step.draining
		if code, body := get("/readyz"); code != step.code || why != nil && !strings.Contains(body, why.Error()) {
			t.Errorf("%v: ready says %d %s", step, code, body)
		}
		if code, _ := get("/healthz"); code != 200 {
			t.Errorf("%v: healthy says %d", step, code)
		}
	}
	if code, _ := get("/debug/pprof/goroutine?debug=1"); code != http.StatusOK {
		t.Errorf("profiles, asked for: %d", code)
	}
}

func TestProfilesStayOnLoopback(t *testing.T) {
	t.Parallel()
	if _, err := Listen(t.Context(), "0.0.0.0:0", Config{Profile: true, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrProfileExposed) {
		t.Error(err)
	}
}
