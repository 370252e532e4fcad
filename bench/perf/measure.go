package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measurement is one figure, or a few of one kind, of one way.
type measurement struct {
	name string
	take func(context.Context, *way, *results) error
}

// openings is how many openings one figure of open-to-first-byte is the median of.
const openings = 15

func measurements(o options) []measurement {
	var all []measurement
	for _, n := range []int{1, 10, 100} {
		all = append(all, measurement{fmt.Sprintf("bulk, %d", n), func(_ context.Context, w *way, r *results) error {
			return takeBulk(w, r, n, o.duration)
		}})
	}
	all = append(all,
		measurement{"round trip", takeTrips("trips", o.trips)},
		measurement{"round trip beside a full session", takeTrips("trips beside bulk", o.trips/4)},
		measurement{"round trip within a full session", func(ctx context.Context, w *way, r *results) error {
			if w.name != "records" {
				return nil // a bare stream has one thing on it at a time
			}
			return takeTrips("trips within bulk", o.trips/4)(ctx, w, r)
		}},
		measurement{"open to first byte", func(_ context.Context, w *way, r *results) error {
			a, err := w.client.tell(order{Do: "open", N: openings})
			if err != nil {
				return err
			}
			slices.Sort(a.Trips)
			r.add(w.name, "open p50", milliseconds(quantile(a.Trips, 0.5)))
			return nil
		}},
		measurement{"openings per second", func(_ context.Context, w *way, r *results) error {
			a, err := w.client.tell(order{Do: "shake", Duration: o.duration})
			if err != nil {
				return err
			}
			r.add(w.name, "openings per s", float64(a.Count)/a.Took.Seconds())
			return nil
		}},
	)
	return slices.DeleteFunc(all, func(m measurement) bool { return !o.kinds.has(m.name) })
}

// takeBulk is throughput, and what it costs each process in processor time.
func takeBulk(w *way, r *results, n int, d time.Duration) error {
	if err := w.client.send(order{Do: "bulk", N: n, Duration: d}); err != nil {
		return err
	}
	if _, err := w.client.hear(); err != nil { // bytes flow
		return err
	}
	before, err := w.cpu()
	if err != nil {
		return err
	}
	a, err := w.client.hear()
	if err != nil {
		return err
	}
	after, err := w.cpu()
	if err != nil {
		return err
	}
	key, gigabytes := strconv.Itoa(n), float64(a.Bytes)/1e9
	if gigabytes == 0 {
		return fmt.Errorf("no byte came through %d sessions", n)
	}
	r.add(w.name, "MB/s "+key, 1e3*gigabytes/a.Took.Seconds())
	for i, who := range []string{"client", "relay", "origin"} {
		if who != "relay" || len(w.relay) > 0 {
			r.add(w.name, who+" cpu s/GB "+key, (after[i]-before[i]).Seconds()/gigabytes)
		}
	}
	return nil
}

func takeTrips(what string, n int) func(context.Context, *way, *results) error {
	return func(_ context.Context, w *way, r *results) error {
		a, err := w.client.tell(order{Do: what, N: n})
		if err != nil {
			return err
		}
		slices.Sort(a.Trips)
		r.add(w.name, what+" p50", milliseconds(quantile(a.Trips, 0.5)))
		r.add(w.name, what+" p99", milliseconds(quantile(a.Trips, 0.99)))
		return nil
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// busySessions are full at once when the relay's memory is weighed.
const busySessions = 100

// weighBusy is the relay's memory, all of it, while many sessions are full.
func weighBusy(ctx context.Context, o options, w *way, r *results) error {
	if w.name == "ssh" || len(w.relay) == 0 {
		return nil
	}
	if err := w.client.send(order{Do: "bulk", N: busySessions, Duration: 2 * o.duration}); err != nil {
		return err
	}
	if _, err := w.client.hear(); err != nil { // bytes flow
		return err
	}
	if err := pause(ctx, o.duration); err != nil {
		return err
	}
	held, err := resident(w.relay)
	if err != nil {
		return err
	}
	r.add(w.name, "MiB fresh", float64(w.fresh)/(1<<20))
	r.add(w.name, "MiB with 100 full sessions", float64(held)/(1<<20))
	r.add(w.name, "MiB more with 100 full sessions", float64(held-w.fresh)/(1<<20))
	_, err = w.client.hear()
	return err
}

// weighIdle is the relay's memory and processor time for sessions that do
// nothing. Where there is no relay, the origin is weighed: it holds as many
// connections as a relay would hold of clients.
func weighIdle(ctx context.Context, o options, w *way, r *results) error {
	if w.name == "ssh" {
		return nil // its sessions are channels of one connection, and no like thing
	}
	pids := w.holders()
	if _, err := w.client.tell(order{Do: "hold", N: o.idle}); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil { // what opening left behind is collected
		return err
	}
	held, err := resident(pids)
	if err != nil {
		return err
	}
	cpuBefore, err := cpuOf(pids)
	if err != nil {
		return err
	}
	if err := pause(ctx, o.idleFor); err != nil {
		return err
	}
	cpuAfter, err := cpuOf(pids)
	if err != nil {
		return err
	}
	r.add(w.name, "idle KiB a session", float64(held-w.fresh)/1024/float64(o.idle))
	r.add(w.name, "idle % of a core", 100*(cpuAfter-cpuBefore).Seconds()/o.idleFor.Seconds())
	_, err = w.client.tell(order{Do: "hold"})
	return err
}

// holders are the processes that hold the sessions.
func (w *way) holders() []int {
	if len(w.relay) == 0 {
		return []int{w.origin.cmd.Process.Pid}
	}
	return w.relay
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cpu is the processor time so far of client, relay and origin.
func (w *way) cpu() (times [3]time.Duration, err error) {
	for i, pids := range [][]int{{w.client.cmd.Process.Pid}, w.relay, {w.origin.cmd.Process.Pid}} {
		if times[i], err = cpuOf(pids); err != nil {
			return times, err
		}
	}
	return times, nil
}

// tick is the unit of /proc/PID/stat on Linux.
const tick = 10 * time.Millisecond

// cpuOf is the processor time of processes and all below them: sshd works in
// children.
func cpuOf(pids []int) (sum time.Duration, err error) {
	parents, times := map[int]int{}, map[int]time.Duration{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has gone
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		times[pid] = time.Duration(user+system) * tick
	}
	for pid, spent := range times {
		for at := pid; at > 1; at = parents[at] {
			if slices.Contains(pids, at) {
				sum += spent
				break
			}
		}
	}
	return sum, nil
}

// resident is the memory of processes, in bytes.
func resident(pids []int) (sum int64, err error) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, err
		}
		pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += pages * int64(os.Getpagesize())
	}
	return sum, nil
}
