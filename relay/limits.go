package relay

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound one relay process, whatever its peers do. A zero field means its
// default; README.md has the table with the reasons.
type Limits struct {
	// Connections stand at most, of daemons and clients together.
	Connections int
	// ConnectionsPerAddress stand at most from one IPv4 address or IPv6 /64.
	ConnectionsPerAddress int
	// Handshaking is how many handshakes are under way at once.
	Handshaking int
	// Handshakes are begun per second, at most, by everybody together; a
	// thirty-second of them where the processors have too much to do.
	Handshakes float64
	// HandshakesPerAddress are begun per second from one address; ten times as
	// many in one burst.
	HandshakesPerAddress float64
	// Buffered is how much all legs together may hold because somebody does not
	// read.
	Buffered int64
	// Memory is how much the process may hold before newcomers are refused and legs
	// ended.
	Memory int64
	// Token is for tokens that have no limits of their own.
	Token TokenLimits
}

// TokenLimits bound what one deployment token may take. A zero field means the
// relay's default.
type TokenLimits struct {
	Sessions    int   `json:"sessions,omitempty"`
	Connections int   `json:"connections,omitempty"`
	Joins       int   `json:"joins,omitempty"` // per second; ten times as many in one burst
	Rate        int64 `json:"rate,omitempty"`  // bytes per second, both ways together; no default
	Bytes       int64 `json:"bytes,omitempty"` // per day (UTC), both ways together; no default
}

// The defaults.
const (
	defaultConnections           = 16384
	defaultConnectionsPerAddress = 1024
	defaultHandshaking           = 512
	defaultHandshakesPerCore     = 400
	defaultHandshakesPerAddress  = 50
	defaultSessionsOfToken       = 1024
	defaultConnectionsOfToken    = 64
	defaultJoinsOfToken          = 50
	defaultBuffered              = 512 << 20
	// DefaultMemory is a const of its own for who tells the runtime too.
	DefaultMemory = 3 << 30

	// asksPerTurn is how many packets may make the relay ask for an address, for
	// each turn there is while handshakes yield. An honest client's are two.
	asksPerTurn = 4
	// packetsOfHandshake is what a handshake may need of the packets that could begin
	// another: the first ones, said again, and acknowledgements.
	packetsOfHandshake = 32
	// burst is how many seconds' worth may come at once.
	burst = 10
	// maxCallers bounds the addresses that are remembered; those beyond share
	// one account.
	maxCallers = 65536
)

func (l Limits) withDefaults() Limits {
	l.Connections = or(l.Connections, defaultConnections)
	l.ConnectionsPerAddress = or(l.ConnectionsPerAddress, defaultConnectionsPerAddress)
	l.Handshaking = or(l.Handshaking, defaultHandshaking)
	l.Handshakes = or(l.Handshakes, float64(defaultHandshakesPerCore*runtime.GOMAXPROCS(0)))
	l.HandshakesPerAddress = or(l.HandshakesPerAddress, defaultHandshakesPerAddress)
	l.Buffered = or(l.Buffered, defaultBuffered)
	l.Memory = or(l.Memory, DefaultMemory)
	l.Token = l.Token.or(TokenLimits{
		Sessions: defaultSessionsOfToken, Connections: defaultConnectionsOfToken, Joins: defaultJoinsOfToken,
	})
	return l
}

func (l TokenLimits) or(defaults TokenLimits) TokenLimits {
	return TokenLimits{
		Sessions: or(l.Sessions, defaults.Sessions), Connections: or(l.Connections, defaults.Connections),
		Joins: or(l.Joins, defaults.Joins), Rate: or(l.Rate, defaults.Rate), Bytes: or(l.Bytes, defaults.Bytes),
	}
}

func or[T int | int64 | float64](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

var errCrowded = errors.New("more than the relay's limits allow")

// door counts who comes in, before any cryptography is done for them. Every
// newcomer has proved its address first (Retry): nobody spends another's share
// by forging.
type door struct {
	limits Limits
	pace   *pace
	asks   *rate.Limiter // for addresses, while handshakes yield

	mu          sync.Mutex // guards what is below
	callers     map[netip.Prefix]*caller
	shaking     map[netip.AddrPort]*shaking
	others      *caller // of addresses beyond maxCallers
	standing    int
	handshaking int
	closed      bool // nobody comes in: too much is held
}

// caller is one address.
type caller struct {
	standing int
	begun    *rate.Limiter
}

func newDoor(l Limits) *door {
	asks := rate.NewLimiter(rate.Limit(asksPerTurn*l.Handshakes/paceRange), asksPerTurn)
	d := &door{limits: l, pace: newPace(l.Handshakes), asks: asks, callers: make(map[netip.Prefix]*caller), shaking: make(map[netip.AddrPort]*shaking)}
	d.others = d.newCaller()
	return d
}

func (d *door) newCaller() *caller {
	return &caller{begun: rate.NewLimiter(rate.Limit(d.limits.HandshakesPerAddress), int(max(burst*d.limits.HandshakesPerAddress, 1)))}
}

func addrPort(addr net.Addr) netip.AddrPort {
	switch a := addr.(type) {
	case *net.UDPAddr:
		return unmapped(a.AddrPort())
	case *net.TCPAddr:
		return unmapped(a.AddrPort())
	}
	return netip.AddrPort{}
}

// unmapped is the same address where a socket of both families has it as IPv6's.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// callerPrefix is what one holder of addresses is counted by: who has an IPv6
// address has a /64 of them.
func callerPrefix(ip netip.Addr) netip.Prefix {
	ip = ip.WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits) // fails for no address only, which is one caller too
	return prefix
}

// shaking is the handshakes under way from one address and port.
type shaking struct {
	handshakes int
	packets    int // that may still come for them while others are not heard
}

// visit is one connection that was let in.
type visit struct {
	door   *door
	prefix netip.Prefix
	caller *caller
	from   netip.AddrPort
	turn   time.Time // when its handshake may begin
	shaken bool
}

// enter lets a connection begin its handshake, or refuses it.
func (d *door) enter(addr net.Addr) (*visit, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from := addrPort(addr)
	prefix := callerPrefix(from.Addr())
	c := d.callers[prefix]
	switch {
	case c != nil:
	case len(d.callers) < maxCallers:
		c = d.newCaller()
		d.callers[prefix] = c
	default:
		c = d.others
	}
	if d.closed || !c.begun.Allow() || c.standing >= d.limits.ConnectionsPerAddress ||
		d.standing >= d.limits.Connections || d.handshaking >= d.limits.Handshaking {
		return nil, errCrowded
	}
	turn, ok := d.pace.reserve(time.Now())
	if !ok {
		return nil, errCrowded
	}
	c.standing++
	d.standing++
	d.handshaking++
	s := d.shaking[from]
	if s == nil {
		s = new(shaking)
		d.shaking[from] = s
	}
	s.handshakes++
	s.packets += packetsOfHandshake
	return &visit{door: d, prefix: prefix, caller: c, from: from, turn: turn}, nil
}

// expects reports whether a packet that could begin a connection is worth
// opening: while a turn is to be given, and its address has not begun too many
// handshakes, any is, but for those of too many whose addresses would have to be
// asked for first. What belongs to a handshake under way always is.
func (d *door) expects(from netip.AddrPort, token bool, now time.Time) bool {
	full, yields := d.pace.state(now)
	from = unmapped(from)
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.callers[callerPrefix(from.Addr())]; full || c != nil && c.begun.TokensAt(now) < 1 {
		s := d.shaking[from]
		if s == nil || s.packets == 0 {
			return false
		}
		s.packets--
		return true
	}
	return token || !yields || d.asks.AllowN(now, 1)
}

// close has the door refuse everybody, or nobody on that account.
func (d *door) close(closed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = closed
}

// done is told once the handshake has succeeded.
func (v *visit) done() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.settle()
}

func (v *visit) settle() {
	if !v.shaken {
		v.shaken = true
		v.door.handshaking--
		if s := v.door.shaking[v.from]; s.handshakes == 1 {
			delete(v.door.shaking, v.from)
		} else {
			s.handshakes--
		}
	}
}

// leave is told once the connection has ended, however.
func (v *visit) leave() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.settle()
	v.caller.standing--
	v.door.standing--
}

// sweep forgets the addresses that are owed nothing.
func (d *door) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for prefix, c := range d.callers {
		if c.standing == 0 && c.begun.TokensAt(now) >= float64(c.begun.Burst()) {
			delete(d.callers, prefix)
		}
	}
}

func (d *door) counts() (standing, handshaking, callers int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.standing, d.handshaking, len(d.callers)
}
