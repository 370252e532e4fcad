package daemon

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/executor"
	"openscope/daemon/internal/principal"
	"openscope/daemon/internal/session"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// core is the half of the daemon that holds authority. It opens no socket to
// the relay and parses nothing that is not signed by a recipient.
type core struct {
	// immutable
	cfg      Config
	identity wire.SigningKey
	clock    session.Clock
	rand     io.Reader
	log      *audit.Log
	logKey   wire.SigningKey // of the log's checkpoints; set with log, by openLog
	copied   chan struct{}   // closed when the log's copy, where one follows it, has all
	local    *executor.Exec
	logger   *slog.Logger
	network  network
	// netStatus is for status; nil where there is no net half.
	netStatus func() control.NetworkStatus
	sessions  *session.Table
	meter     *session.Meter // of calls made from inside
	overRate  tally          // of those, the calls refused for the rate
	feed      *feed
	notify    *notifier
	started   time.Time

	rules  atomic.Pointer[rules]
	ruling sync.Mutex // held while rules are replaced

	// calls counts the running ones, so that Run outlives them.
	calls running

	mu          sync.Mutex // guards what is below
	ctx         context.Context
	localCtx    context.Context // of the calls from inside
	stopLocal   context.CancelCauseFunc
	shares      map[wire.RendezvousID]*share
	pending     map[connID]*pendingHandshake
	connections map[connID]*connection
	waiting     map[string]*waitingCall // by name
	running     map[*runningCall]struct{}
	recipientMu sync.Mutex // one edit of the recipients file at a time
}

// share is a session with what the core needs to shake hands for it.
type share struct {
	*session.Session
	issuer   principal.Principal
	register wire.SigningKey
	join     ed25519.PublicKey
	th0      channel.Transcript
	// claims holds the log's entries for foreign keys to one in ten seconds.
	claims tally
	// ctx is the session's: its calls end with it, whatever carries them.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// live are its calls of which something may have to be sent, and endings
	// counts those that have ended; the core's lock guards them.
	live    map[call.ID]*liveCall
	endings uint64
	// lies holds the log's entries for refused lists to one in ten seconds.
	lies tally
	// issuing is held while passports are signed and sent, so that every
	// connection sees them in the order of their serial numbers.
	issuing sync.Mutex
}

// pendingHandshake is a msg2 that was signed and not yet answered.
type pendingHandshake struct {
	share      *share
	transcript channel.Transcript // th1b
	enc        []byte
	commitment [32]byte
	nonce      [32]byte
	signed     time.Duration // boot clock
	accepted   *connection
}

// handshakeFor is how long a signed msg2 may wait for FINISHED; the net half
// gives up after the same time.
const handshakeFor = 10 * time.Second

// maxPending bounds the handshakes the core remembers: 20 at once and 10 a
// second for each session, for [handshakeFor], over all sessions that matter.
const maxPending = 1024

// newCore reads everything the daemon trusts. It starts nothing.
func newCore(cfg Config) (*core, error) {
	identity, err := readIdentity(filepath.Join(cfg.StateDir, "identity.key"))
	if err != nil {
		return nil, err
	}
	local, err := executor.NewExec(executor.ExecConfig{})
	if err != nil {
		return nil, fmt.Errorf("preparing local execution: %w", err)
	}
	c := &core{
		cfg: cfg, identity: identity, local: local,
		clock: cfg.Clock, rand: cfg.Rand, logger: cfg.Logger,
		sessions:    session.NewTable(),
		feed:        newFeed(),
		shares:      make(map[wire.RendezvousID]*share),
		pending:     make(map[connID]*pendingHandshake),
		connections: make(map[connID]*connection),
		waiting:     make(map[string]*waitingCall),
		running:     make(map[*runningCall]struct{}),
	}
	if c.clock == nil {
		c.clock = systemClock{}
	}
	if c.rand == nil {
		c.rand = rand.Reader
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.cfg.MaxTTL == 0 {
		c.cfg.MaxTTL = session.HardCap
	}
	if c.cfg.ApproveWithin == 0 {
		c.cfg.ApproveWithin = defaultApproveWithin
	}
	c.meter = session.NewMeter(c.clock, localLimits())
	c.notify = newNotifier(cfg.Notify, c)
	c.started = c.clock.Wall()
	r, err := c.loadRules()
	if err != nil {
		return nil, err
	}
	r.lockdown = c.readLockdown()
	c.rules.Store(r)
	return c, nil
}

// localLimits bound the calls from inside, of all agents together.
func localLimits() session.Limits {
	return session.Limits{Concurrent: 64, PerSecond: 200, CallOutput: 1 << 30, Output: 1 << 62}
}

func (c *core) ProveHello(exporter [32]byte) (wire.TokenID, []byte, error) {
	return c.cfg.Token.ID(), c.cfg.Token.SignHello(exporter), nil
}

func (c *core) ProveRegister(exporter [32]byte, rid wire.RendezvousID) (wire.Register, error) {
	s, ok := c.shareOf(rid)
	if !ok {
		return wire.Register{}, fmt.Errorf("registering: no such session")
	}
	return wire.SignRegister(s.register.Reveal(), exporter, wire.Register{
		RID:         rid,
		RegisterKey: s.register.Public(),
		JoinKey:     s.join,
		Lifetime:    s.Lifetime.HardRemaining().Truncate(time.Second) + time.Second,
	}), nil
}

// Answer signs msg2 for a handshake that came from a holder of S
// (wire/README.md §5). The transcript is computed here, from the bytes.
func (c *core) Answer(_ context.Context, rid wire.RendezvousID, msg1, encR, enc []byte) (channel.Answer, error) {
	s, ok := c.shareOf(rid)
	if !ok {
		return channel.Answer{}, fmt.Errorf("answering a handshake: no such session")
	}
	commitment, err := channel.Commitment(msg1)
	if err != nil {
		return channel.Answer{}, fmt.Errorf("answering a handshake: %w", err)
	}
	p := &pendingHandshake{
		share: s, transcript: s.th0.WithMsg1(msg1).WithProof(encR),
		enc: append([]byte(nil), enc...), commitment: commitment, signed: c.clock.Boot(),
	}
	var id connID
	if _, err := io.ReadFull(c.rand, id[:]); err != nil {
		return channel.Answer{}, fmt.Errorf("answering a handshake: %w", err)
	}
	if _, err := io.ReadFull(c.rand, p.nonce[:]); err != nil {
		return channel.Answer{}, fmt.Errorf("answering a handshake: %w", err)
	}
	p2 := channel.P2(c.publicKey(), id, p.nonce)
	signature := ed25519.Sign(c.identity.Reveal(), p.transcript.DaemonSignedBytes(enc, p2))
	if err := c.remember(id, p); err != nil {
		return channel.Answer{}, err
	}
	return channel.Answer{ConnID: id, P2: p2, Signature: signature}, nil
}

// remember keeps the handshake until FINISHED, or until it is too old.
func (c *core) remember(id connID, p *pendingHandshake) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for old, other := range c.pending {
		if c.clock.Boot()-other.signed > handshakeFor {
			delete(c.pending, old)
		}
	}
	if len(c.pending) >= maxPending {
		return fmt.Errorf("answering a handshake: %d are waiting already", maxPending)
	}
	c.pending[id] = p
	return nil
}

// Accept verifies FINISHED against the core's own transcript: the commitment,
// the key and the signature. Until it returns nothing has been claimed,
// logged or displaced.
func (c *core) Accept(_ context.Context, id connID, ct2, body []byte) (channel.Acceptance, error) {
	c.mu.Lock()
	p, ok := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if !ok || c.clock.Boot()-p.signed > handshakeFor {
		return channel.Acceptance{}, fmt.Errorf("accepting a handshake: it is not known, or too old")
	}
	transcript := p.transcript.WithMsg2(p.enc, ct2)
	finished, err := channel.ParseFinished(body)
	if err != nil {
		return channel.Acceptance{}, fmt.Errorf("accepting a handshake: %w", err)
	}
	if err := finished.Verify(transcript, p.share.RID, p.commitment); err != nil {
		return channel.Acceptance{}, fmt.Errorf("accepting a handshake: %w", err)
	}
	if err := c.claim(p.share, finished.Key); err != nil {
		return channel.Acceptance{}, fmt.Errorf("accepting a handshake: %w", err)
	}
	conn := c.newConnection(id, p.share, finished, transcript.TH2())
	conn.challenges.Remember(call.Challenge(p.nonce[:8]))
	challenge, err := conn.challenges.Issue()
	if err != nil {
		return channel.Acceptance{}, fmt.Errorf("accepting a handshake: %w", err)
	}
	p.accepted = conn
	c.mu.Lock()
	c.pending[id] = p // until Attach, which follows at once
	c.mu.Unlock()
	return channel.Acceptance{Challenge: challenge, Remaining: p.share.Lifetime.Remaining()}, nil
}

func (c *core) shareOf(rid wire.RendezvousID) (*share, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.shares[rid]
	return s, ok
}

func (c *core) publicKey() ed25519.PublicKey { return c.identity.Public() }

// record appends an event to the log. An error means that nothing further may
// run: the caller fails closed.
func (c *core) record(e audit.Event) error {
	if _, err := c.log.Append(e); err != nil {
		c.logger.Error("the log cannot be written", "error", err)
		return fmt.Errorf("writing the log: %w", err)
	}
	c.feed.recorded(e, c.clock.Wall())
	c.notify.recorded(e, c.clock.Wall())
	return nil
}

// sessionEvent is an event with the session's part filled in.
func sessionEvent(kind string, s *session.Session) audit.Event {
	return audit.Event{
		Kind:         kind,
		Issuer:       &audit.Issuer{UID: s.Issuer.UID, User: s.Issuer.User, Agent: s.Issuer.Agent},
		Session:      s.ID,
		Parent:       parentID(s),
		Recipient:    s.Recipient.Alias,
		RecipientKey: hex.EncodeToString(s.Claim.Key()),
	}
}

// parentID names the session that this one was narrowed from.
func parentID(s *session.Session) string {
	if s.Parent == nil {
		return ""
	}
	return s.Parent.ID
}
