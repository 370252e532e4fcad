package tunnel

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// rungAfter is the head start of each rung before the next: two round trips
	// and some of a path that works.
	rungAfter = 300 * time.Millisecond
	// addressAfter is that of each address of a name before the next.
	addressAfter = 250 * time.Millisecond
	// maxAddresses are tried of a name.
	maxAddresses = 8
)

// attempt is one way to a relay, and when it is tried if nothing has worked.
type attempt struct {
	rung    Rung
	address string // host:port; an IP address, but for a proxy
	after   time.Duration
}

// attempts are the ways to try, in their order.
func attempts(rungs []Rung, name string, addresses []string) []attempt {
	var all []attempt
	for i, r := range rungs {
		if r == Proxy { // which looks the name up itself
			all = append(all, attempt{r, name, time.Duration(i) * rungAfter})
			continue
		}
		for j, address := range addresses[:min(len(addresses), maxAddresses)] {
			all = append(all, attempt{r, address, time.Duration(i)*rungAfter + time.Duration(j)*addressAfter})
		}
	}
	slices.SortStableFunc(all, func(a, b attempt) int { return cmp.Compare(a.after, b.after) })
	return all
}

// race tries one way after the other, without giving the earlier ones up, and
// returns the first that works, once all others have ended. A way that has
// failed does not hold up the next.
func race(ctx context.Context, all []attempt, try func(context.Context, attempt) (link, error)) (link, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		link link
		err  error
	}
	results := make(chan result, len(all))
	var running sync.WaitGroup
	started, ended, began := 0, 0, time.Now()
	start := func() {
		if started == len(all) { // the timer ran while the one before it failed
			return
		}
		a := all[started]
		started++
		running.Go(func() {
			l, err := try(ctx, a)
			results <- result{l, err}
		})
	}
	defer func() { // whoever came too late is sent home
		cancel()
		running.Wait()
		close(results)
		for r := range results {
			if r.err == nil {
				r.link.close()
			}
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var errs error
	for ended < len(all) {
		select {
		case r := <-results:
			if r.err == nil {
				return r.link, nil
			}
			errs = errors.Join(errs, r.err)
			if ended++; ended == started && started < len(all) {
				start()
			}
		case <-timer.C:
			start()
		case <-ctx.Done():
			return nil, errors.Join(errs, context.Cause(ctx))
		}
		if started < len(all) {
			timer.Reset(all[started].after - time.Since(began))
		}
	}
	if errs == nil {
		errs = errors.New("there is no way to it")
	}
	return nil, errs
}
