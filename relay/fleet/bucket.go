package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"openscope/relay"
	"openscope/wire"
)

const (
	// bucketName is the bucket, and so the stream KV_openscope-tokens.
	bucketName = "openscope-tokens"
	// replicas let any one of three servers go.
	replicas = 3
	// requestLimit bounds one question to NATS.
	requestLimit = 5 * time.Second
	// watchLimit bounds one of the watch's: a question that came while there was
	// no leader is never answered, and the next one may be.
	watchLimit = time.Second
	// checkEvery is how often a node compares what it saw with what the stream
	// holds: a watch that died with its server is so found out at once.
	checkEvery = 500 * time.Millisecond
	// maxValue bounds an entry, and maxTokens what a node remembers of them.
	maxValue  = 4 << 10
	maxTokens = 100_000
)

// Config says where the bucket is.
type Config struct {
	// Servers are nats:// or tls:// URLs, with commas between them.
	Servers string
	// Credentials and CA are files; empty is none, and the system's.
	Credentials, CA string
	Logger          *slog.Logger
}

// Bucket is the fleet's tokens as this node last saw them. While NATS is away
// they hold on as they are; a node that has never seen them takes nobody.
type Bucket struct {
	conn   *nats.Conn
	js     nats.JetStreamContext // for the operator, who waits
	quick  nats.JetStreamContext // for the watch, which asks again
	logger *slog.Logger
	stop   context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex // guards what is below
	ready  bool
	seen   uint64 // the last revision
	byName map[string]relay.TokenEntry
	byID   map[wire.TokenID]string
}

var errNotSeen = errors.New("the fleet's tokens have not been seen yet")

// Open begins to connect, and to watch; it does not wait for either. Close ends
// its goroutines.
func Open(ctx context.Context, cfg Config) (*Bucket, error) {
	options := []nats.Option{
		nats.Name("openscope-relay"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(200 * time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.Timeout(2 * time.Second), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				cfg.Logger.Warn("tokens not watched", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { cfg.Logger.Debug("tokens", "error", err) }),
	}
	if cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(cfg.Credentials))
	}
	if cfg.CA != "" {
		options = append(options, nats.RootCAs(cfg.CA))
	}
	conn, err := nats.Connect(cfg.Servers, options...)
	if err != nil {
		return nil, fmt.Errorf("opening the fleet's tokens: %w", err)
	}
	js, err := conn.JetStream(nats.MaxWait(requestLimit))
	quick, quickErr := conn.JetStream(nats.MaxWait(watchLimit))
	if err := errors.Join(err, quickErr); err != nil {
		conn.Close()
		return nil, fmt.Errorf("opening the fleet's tokens: %w", err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // running sessions outlive the signal that begins a drain
	b := &Bucket{conn: conn, js: js, quick: quick, logger: cfg.Logger, stop: stop, done: make(chan struct{})}
	go b.run(ctx)
	return b, nil
}

// Close ends the watch and the connection.
func (b *Bucket) Close() error {
	b.stop()
	b.conn.Close() // what waits for an answer gets an error
	<-b.done
	return nil
}

// Lookup implements relay.Tokens, from memory.
func (b *Bucket) Lookup(id wire.TokenID) (relay.Deployment, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, ok := b.byID[id]
	if !b.ready || !ok {
		return relay.Deployment{}, false
	}
	return b.byName[name].Deployment(time.Now())
}

// Ready says why nobody is taken yet, or nil.
func (b *Bucket) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ready {
		return errNotSeen
	}
	return nil
}

// List returns the tokens as the bucket has them, by name.
func (b *Bucket) List() ([]relay.TokenEntry, error) {
	kv, err := b.open(false)
	if errors.Is(err, nats.ErrBucketNotFound) {
		return nil, nil // none was ever made
	}
	if err != nil {
		return nil, fmt.Errorf("listing the tokens: %w", err)
	}
	names, err := kv.Keys()
	if err != nil && !errors.Is(err, nats.ErrNoKeysFound) {
		return nil, fmt.Errorf("listing the tokens: %w", err)
	}
	entries := make([]relay.TokenEntry, 0, len(names))
	for _, name := range names {
		value, err := kv.Get(name)
		if errors.Is(err, nats.ErrKeyNotFound) {
			continue // revoked meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("listing the tokens: %w", err)
		}
		e, err := parse(value)
		if err != nil {
			return nil, fmt.Errorf("listing the tokens: %w", err)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b relay.TokenEntry) int { return cmp.Compare(a.Name, b.Name) })
	return entries, nil
}

// AddLimited is the token file's: the token is returned once a majority of the
// servers has its public half.
func (b *Bucket) AddLimited(e relay.TokenEntry, rand io.Reader) (wire.Token, error) {
	token, e, err := relay.NewTokenEntry(e, rand, time.Now())
	if err != nil {
		return wire.Token{}, err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return wire.Token{}, fmt.Errorf("changing the tokens: %w", err)
	}
	kv, err := b.open(true)
	if err != nil {
		return wire.Token{}, fmt.Errorf("changing the tokens: %w", err)
	}
	if _, err := kv.Create(e.Name, text); errors.Is(err, nats.ErrKeyExists) {
		return wire.Token{}, relay.ErrTokenExists
	} else if err != nil {
		return wire.Token{}, fmt.Errorf("changing the tokens: %w", err)
	}
	return token, nil
}

// Revoke drops a token; every node that is watching ends its connections.
func (b *Bucket) Revoke(name string) error {
	kv, err := b.open(false)
	if errors.Is(err, nats.ErrBucketNotFound) {
		return relay.ErrNoToken
	}
	if err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	if _, err := kv.Get(name); errors.Is(err, nats.ErrKeyNotFound) || errors.Is(err, nats.ErrInvalidKey) {
		return relay.ErrNoToken
	} else if err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	if err := kv.Delete(name); err != nil {
		return fmt.Errorf("changing the tokens: %w", err)
	}
	return nil
}

// open finds the bucket, and makes it where it may.
func (b *Bucket) open(create bool) (nats.KeyValue, error) {
	kv, err := b.js.KeyValue(bucketName)
	if !create || !errors.Is(err, nats.ErrBucketNotFound) {
		return kv, err
	}
	config := nats.KeyValueConfig{
		Bucket: bucketName, Description: "deployment tokens of OpenScope relays, public halves",
		MaxValueSize: maxValue, Storage: nats.FileStorage, Replicas: replicas,
	}
	if kv, err = b.js.CreateKeyValue(&config); err == nil || b.conn.ConnectedClusterName() != "" {
		return kv, err
	}
	config.Replicas = 1 // a single server, which is no fleet's, but a start
	return b.js.CreateKeyValue(&config)
}
