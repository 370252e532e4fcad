package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"openscope/relay"
	"openscope/wire"
)

// run watches until Close, anew whenever a watch has ended.
func (b *Bucket) run(ctx context.Context) {
	defer close(b.done)
	for ctx.Err() == nil {
		if err := b.watch(ctx); err != nil && ctx.Err() == nil {
			b.logger.Debug("watching the tokens", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(checkEvery):
		}
	}
}

// watch takes every entry, replaces what was known with them, and then takes
// changes, until it seems to miss some.
func (b *Bucket) watch(ctx context.Context) error {
	kv, err := b.quick.KeyValue(bucketName)
	if errors.Is(err, nats.ErrBucketNotFound) {
		b.replace(newSnapshot()) // no token was ever made
		return nil
	}
	if err != nil {
		return err
	}
	watcher, err := kv.WatchAll(nats.Context(ctx))
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }() // its server may have gone
	fresh, whole := newSnapshot(), false
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	behind := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case change, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errors.New("the watch has ended")
			case change == nil: // all that there was
				whole = true
				b.replace(fresh)
			case whole:
				b.apply(change)
			default:
				if err := fresh.apply(change); err != nil {
					b.logger.Warn("token not taken", "error", err)
				}
			}
		case <-tick.C:
			if behind = b.behind(behind, whole); behind > 1 {
				return errors.New("the watch has missed a change")
			}
		}
	}
}

// behind counts how many times in a row the stream had more than was seen. A
// server that does not answer says nothing about it.
func (b *Bucket) behind(times int, whole bool) int {
	info, err := b.quick.StreamInfo("KV_"+bucketName, nats.MaxWait(checkEvery))
	if err != nil {
		return times
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if whole && info.State.LastSeq <= b.seen {
		return 0
	}
	return times + 1
}

// snapshot is the bucket, whole.
type snapshot struct {
	seen   uint64
	byName map[string]relay.TokenEntry
	byID   map[wire.TokenID]string
}

func newSnapshot() *snapshot {
	return &snapshot{byName: make(map[string]relay.TokenEntry), byID: make(map[wire.TokenID]string)}
}

// apply takes one change. An entry that is no token takes the one of its name
// away: nobody is taken for what cannot be read.
func (s *snapshot) apply(change nats.KeyValueEntry) error {
	s.seen = max(s.seen, change.Revision())
	if old, ok := s.byName[change.Key()]; ok {
		if id, err := old.ID(); err == nil && s.byID[id] == change.Key() {
			delete(s.byID, id)
		}
		delete(s.byName, change.Key())
	}
	if change.Operation() != nats.KeyValuePut {
		return nil
	}
	e, err := parse(change)
	if err != nil {
		return err
	}
	if len(s.byName) >= maxTokens {
		return fmt.Errorf("more than %d tokens", maxTokens)
	}
	id, err := e.ID()
	if err != nil {
		return err
	}
	s.byName[e.Name], s.byID[id] = e, e.Name
	return nil
}

func parse(change nats.KeyValueEntry) (e relay.TokenEntry, err error) {
	if len(change.Value()) > maxValue {
		return e, fmt.Errorf("token %q: %d bytes", change.Key(), len(change.Value()))
	}
	if err := json.Unmarshal(change.Value(), &e); err != nil {
		return e, fmt.Errorf("token %q: %w", change.Key(), err)
	}
	if e.Name != change.Key() {
		return e, fmt.Errorf("token %q has the name %q", change.Key(), e.Name)
	}
	_, err = e.ID()
	return e, err
}

func (b *Bucket) replace(s *snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready, b.seen, b.byName, b.byID = true, s.seen, s.byName, s.byID
}

func (b *Bucket) apply(change nats.KeyValueEntry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &snapshot{seen: b.seen, byName: b.byName, byID: b.byID}
	if err := s.apply(change); err != nil {
		b.logger.Warn("token not taken", "error", err)
	}
	b.seen = s.seen
}
