package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// results are all figures, by way and name, in the order they were taken.
type results struct {
	o       options
	figures map[string][]float64 // by way + "\x00" + name
	load    []string
}

func newResults(o options) *results { return &results{o: o, figures: make(map[string][]float64)} }

func (r *results) add(way, name string, figure float64) {
	key := way + "\x00" + name
	r.figures[key] = append(r.figures[key], figure)
}

func (r *results) of(way, name string) []float64 { return r.figures[way+"\x00"+name] }

// noteMachine remembers how busy the machine is besides.
func (r *results) noteMachine() {
	load, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		r.load = append(r.load, strings.Join(strings.Fields(string(load))[:3], " "))
	}
}

func median(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(figures))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// bar is what a ratio must keep, and what we want; a ratio without one is there to
// be compared with.
type bar struct {
	what      string
	a, b      [2]string // way and name; b[0] empty compares a with 1
	most      bool      // the ratio is to stay under, not over
	must, aim float64
}

var bars = []bar{
	{"relay CPU a byte, of the naive relay's", [2]string{"relay", "relay cpu s/GB 1"}, [2]string{"naive", "relay cpu s/GB 1"}, true, 0.68, 0.5},
	{"throughput, of the bare hop's", [2]string{"relay", "MB/s 1"}, [2]string{"hop", "MB/s 1"}, false, 0.65, 0.75},
	{"throughput, of a hop's with our sockets and windows", [2]string{"relay", "MB/s 1"}, [2]string{"tuned", "MB/s 1"}, false, 0, 0},
	{"records' throughput, of our relay's with bare streams", [2]string{"records", "MB/s 1"}, [2]string{"relay", "MB/s 1"}, false, 0.90, 0.90},
	{"throughput, of OpenSSH's", [2]string{"relay", "MB/s 1"}, [2]string{"ssh", "MB/s 1"}, false, 1, 1},
	{"records' throughput, of OpenSSH's", [2]string{"records", "MB/s 1"}, [2]string{"ssh", "MB/s 1"}, false, 0, 0},
	{"round trip p50 when idle, of the naive relay's", [2]string{"relay", "trips p50"}, [2]string{"naive", "trips p50"}, true, 1.2, 1},
	{"round trip p99 beside a full session, of the naive relay's", [2]string{"relay", "trips beside bulk p99"}, [2]string{"naive", "trips beside bulk p99"}, true, 0.6, 0.35},
	{"round trip p99 within a full session, of that beside one", [2]string{"records", "trips within bulk p99"}, [2]string{"records", "trips beside bulk p99"}, true, 1, 1},
	{"100 sessions' throughput, of 10 sessions'", [2]string{"relay", "MB/s 100"}, [2]string{"relay", "MB/s 10"}, false, 0.85, 0.85},
	{"100 sessions' throughput of 10 sessions', of the hop", [2]string{"hop", "MB/s 100"}, [2]string{"hop", "MB/s 10"}, false, 0, 0},
	{"memory with 100 full sessions, of the naive relay's", [2]string{"relay", "MiB with 100 full sessions"}, [2]string{"naive", "MiB with 100 full sessions"}, true, 0.5, 0.5},
	{"that memory beyond a fresh process, of the naive relay's", [2]string{"relay", "MiB more with 100 full sessions"}, [2]string{"naive", "MiB more with 100 full sessions"}, true, 0, 0},
	{"memory of an idle session, KiB", [2]string{"relay", "idle KiB a session"}, [2]string{}, true, 90, 75},
	{"idle sessions, % of a core", [2]string{"records", "idle % of a core"}, [2]string{}, true, 2, 1},
	{"open to first byte with records, of the bare hop's", [2]string{"records", "open p50"}, [2]string{"hop", "open p50"}, true, 2.5, 2.5},
}

// ratios are a over b, round by round.
func (r *results) ratios(b bar) []float64 {
	over := r.of(b.a[0], b.a[1])
	if b.b[0] == "" {
		return over
	}
	under := r.of(b.b[0], b.b[1])
	var all []float64
	for i := range min(len(over), len(under)) {
		if under[i] > 0 {
			all = append(all, over[i]/under[i])
		}
	}
	return all
}

// limits are the bar, and the goal in brackets.
func (b bar) limits() string {
	if b.must == 0 {
		return ""
	}
	return fmt.Sprintf("%v (%v)", b.must, b.aim)
}

func (b bar) verdict(figure float64) string {
	met := func(limit float64) bool { return b.most == (figure <= limit) || figure == limit }
	switch {
	case b.must == 0:
		return ""
	case met(b.aim):
		return "goal met"
	case met(b.must):
		return "bar met"
	}
	return "**missed**"
}

// write prints the tables, and keeps them where they were asked for.
func (r *results) write(w io.Writer) error {
	text := r.markdown()
	if _, err := io.WriteString(w, text); err != nil || r.o.out == "" {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.o.out, "results.svg"), []byte(r.chart()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.o.out, "RESULTS.md"), []byte(text), 0o644)
}

func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results of the hot path\n\nMade by `make bench`: %d rounds, all ways in turns within each, on %d cores (%s, %s/%s). Medians; in brackets the least and the most.\n"+
		"Single figures drift with the machine: only the ratios of one run hold. Load averages at start and end: %s.\n",
		r.o.rounds, runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(r.load, "; "))
	if spread := r.disturbance(); spread > 1.5 {
		fmt.Fprintf(&b, "\n**The machine was disturbed**: the bare hop alone varied by a factor of %.1f. Run it again when it is quiet.\n", spread)
	}
	b.WriteString("\n| ratio | median | least to most | bar (goal) | |\n|---|---|---|---|---|\n")
	for _, x := range bars {
		ratios := r.ratios(x)
		if len(ratios) == 0 {
			fmt.Fprintf(&b, "| %s | - | - | %s | not measured |\n", x.what, x.limits())
			continue
		}
		m := median(ratios)
		fmt.Fprintf(&b, "| %s | %.2f | %.2f to %.2f | %s | %s |\n", x.what, m, slices.Min(ratios), slices.Max(ratios), x.limits(), x.verdict(m))
	}
	b.WriteString("\n![throughput and relay CPU](results.svg)\n\n| |")
	ways := r.ways()
	for _, way := range ways {
		fmt.Fprintf(&b, " %s |", way)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(ways)) + "\n")
	for _, name := range r.names() {
		fmt.Fprintf(&b, "| %s |", label(name))
		for _, way := range ways {
			figures := r.of(way, name)
			if len(figures) == 0 {
				b.WriteString(" |")
				continue
			}
			fmt.Fprintf(&b, " %.3g (%.3g, %.3g) |", median(figures), slices.Min(figures), slices.Max(figures))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// label is a figure's name with its unit.
func label(name string) string {
	if strings.HasPrefix(name, "trips") || strings.HasPrefix(name, "open p") {
		return name + ", ms"
	}
	return name
}

// disturbance is how much the figure varied that nothing of ours is in.
func (r *results) disturbance() float64 {
	hop := r.of("hop", "MB/s 1")
	if len(hop) == 0 || slices.Min(hop) == 0 {
		return 1
	}
	return slices.Max(hop) / slices.Min(hop)
}

func (r *results) ways() (ways []string) {
	for _, way := range []string{"hop", "tuned", "naive", "relay", "records", "packets", "ssh"} {
		for key := range r.figures {
			if strings.HasPrefix(key, way+"\x00") {
				ways = append(ways, way)
				break
			}
		}
	}
	return ways
}

func (r *results) names() (names []string) {
	for key := range r.figures {
		_, name, _ := strings.Cut(key, "\x00")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
