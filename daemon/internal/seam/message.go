package seam

import (
	"log/slog"
	"time"

	"openscope/passport"
	"openscope/wire"
	"openscope/wire/call"
	"openscope/wire/channel"
)

// A message is
//
//	size 4 (of what follows) | kind 1 | id 4 | body
//
// in which the id names a request to its answer, which is of the same kind with
// the highest bit set. Of a message that needs no answer it is zero.
type kind uint8

// What the core says.
const (
	kindSetup    kind = iota + 1 // Setup; the first, once
	kindServe                    // Served → nothing, once it is served
	kindStand                    // rid 16
	kindDrop                     // rid 16
	kindRegister                 // rid 16 → relays
	kindOutput                   // conn 16 | call 16 | stream 1 | data → result 1 | sent 4
	kindContinue                 // conn 16 | call 16 | stdout 8 | stderr 8
	kindEnd                      // conn 16 | call 16 | signature 64 | body → result 1
	kindNotify                   // conn 16 | NOTICE → result 1
	kindIssue                    // conn 16 | passport → result 1
	kindProbe                    // conn 16 → result 1
	kindClose                    // conn 16 | CLOSE
	kindAbort                    // the id is that of the request to give up
	kindTry                      // relay 1 | rung 1 → Tried
)

// What the net half says.
const (
	kindReady         kind = iota + 0x40 // Confinement; the first, once
	kindProveHello                       // exporter 32 → token 16 | signature 64
	kindProveRegister                    // exporter 32 | rid 16 → register
	kindAnswer                           // rid 16 | msg1 | encR | enc → conn 16 | p2 | signature
	kindAccept                           // conn 16 | ct2 | FINISHED → challenge 8 | remaining 8
	kindAttach                           // conn 16 | words | from → refusal
	kindCall                             // conn 16 | signature 64 | body → refusal
	kindCancel                           // conn 16 | call 16
	kindChallenge                        // conn 16 → challenge 8
	kindAcknowledge                      // conn 16 | WINDOW
	kindDetach                           // conn 16 | left 1 → nothing
	kindRelays                           // how each is reached
	kindLog                              // level 1 | message | n 1 | n × (key | value)
)

const (
	answerBit kind = 0x80
	frameHead      = 4 + 1 + 4
	// MaxChunk is how much output one message carries, and so how much of one
	// stream of one call there is on its way through the pipe.
	MaxChunk = 64 << 10

	maxHandshake = 4 << 10 // of each part of one
	maxFrom      = 128
	maxWords     = 64
	maxProblem   = 400
	maxRelays    = 8 // more than can be configured
	maxLogged    = 8 // attributes
	maxLogText   = 200
	maxAnswer    = 8 << 10
	maxPEM       = 1 << 20
	signature    = 64
)

// limits are how long the body of each message may be.
var limits = map[kind]int{
	kindSetup: 3 * maxPEM, kindServe: 256, kindStand: 16, kindDrop: 16, kindRegister: 16,
	kindOutput: 33 + MaxChunk, kindContinue: 48, kindEnd: 32 + signature + channel.MaxBody,
	kindNotify: 16 + 2*call.MaxText, kindIssue: 16 + passport.MaxSigned, kindProbe: 16,
	kindClose: 16 + 2*call.MaxText, kindAbort: 0, kindTry: 2,

	kindReady: 3, kindProveHello: 32, kindProveRegister: 48, kindAnswer: 16 + 3*(4+maxHandshake),
	kindAccept: 16 + 2*(4+maxHandshake), kindAttach: 16 + 4 + maxWords + 4 + maxFrom,
	kindCall: 16 + signature + channel.MaxBody, kindCancel: 32, kindChallenge: 16, kindAcknowledge: 64,
	kindDetach: 17, kindRelays: 1 + maxRelays*(2+8+4+maxProblem),
	kindLog: 2 + 4 + maxLogText + maxLogged*2*(4+maxLogText),
}

// asks are the messages that are answered.
var asks = map[kind]bool{
	kindServe: true, kindRegister: true, kindOutput: true, kindEnd: true, kindNotify: true, kindIssue: true, kindProbe: true, kindTry: true,
	kindProveHello: true, kindProveRegister: true, kindAnswer: true, kindAccept: true, kindAttach: true,
	kindCall: true, kindChallenge: true, kindDetach: true,
}

// fromCore reports whether a message is one that the core says.
func (k kind) fromCore() bool { return k <= kindTry }

// How a request to the net half came out.
const (
	resultDone   byte = iota
	resultFailed      // the connection fails
	resultOver        // call.ErrOver
)

// How a request to the core came out; in the answers to Attach and TakeCall, and
// before what the others return.
const (
	saidYes      byte = iota
	saidNo            // no reason is given
	saidProtocol      // it breaks the protocol
	saidEnded         // the session is over: CLOSE
)

func (s Setup) append(e encoder) encoder {
	e = e.byte(byte(len(s.Relays)))
	for _, r := range s.Relays {
		e = e.long([]byte(r.Address)).flag(r.Pin != nil)
		if r.Pin != nil {
			e = e.fixed(r.Pin[:])
		}
	}
	e = e.long(s.Roots).long([]byte(s.Proxy.URL)).long([]byte(s.Proxy.Exempt)).long(s.Proxy.CA)
	return e.u64(uint64(int64(s.Level))).flag(s.TryOnly)
}

func parseSetup(body []byte) (Setup, error) {
	d := decoder{rest: body}
	s := Setup{Relays: make([]wire.Relay, min(d.byte(), maxRelays))}
	for i := range s.Relays {
		s.Relays[i].Address = string(d.long(wire.MaxAddress))
		if d.flag() {
			pin := wire.Pin(d.fixed(len(wire.Pin{})))
			s.Relays[i].Pin = &pin
		}
	}
	s.Roots = d.long(maxPEM)
	s.Proxy = Proxy{URL: string(d.long(maxPEM)), Exempt: string(d.long(maxPEM)), CA: d.long(maxPEM)}
	s.Level, s.TryOnly = slog.Level(int64(d.u64())), d.flag()
	return s, d.end()
}

func (s Served) append(e encoder) encoder {
	e = e.fixed(s.RID[:]).byte(byte(s.Mode)).fixed(s.HandleHash[:]).long(s.Recipient)
	return e.fixed(s.Keys.Reveal())
}

func parseServed(body []byte) (Served, error) {
	d := decoder{rest: body}
	s := Served{RID: wire.RendezvousID(d.id()), Mode: channel.Mode(d.byte()), HandleHash: [32]byte(d.fixed(32))}
	if recipient := d.long(32); len(recipient) > 0 {
		s.Recipient = recipient
	}
	s.Keys = channel.KeysOf([32]byte(d.fixed(32)))
	return s, d.end()
}

// appendRelays is an answer to Register: which of the configured relays took the
// session, and by which address each is to be reached.
func appendRelays(e encoder, configured, took []wire.Relay, problem error) encoder {
	if problem != nil {
		return e.byte(0).text(problem.Error(), maxProblem)
	}
	e = e.byte(byte(len(took)))
	next := 0
	for _, r := range took { // in the order of the configured ones
		for next < len(configured)-1 && !samePin(configured[next], r) {
			next++
		}
		e = e.byte(byte(next)).text(r.Address, wire.MaxAddress)
		next++
	}
	return e
}

// samePin reports whether a relay, by whatever address, may be the configured one.
func samePin(configured, r wire.Relay) bool { return configured.Pin == r.Pin }

// parseRelays believes no more of it than an address for a configured relay: its
// pin, or that it needs a name to be authenticated by, stays.
func parseRelays(body []byte, configured []wire.Relay) (took []wire.Relay, problem string, err error) {
	d := decoder{rest: body}
	n := int(d.byte())
	if n == 0 {
		problem = d.text(maxProblem)
		return nil, problem, d.end()
	}
	last := -1
	for range n {
		i, address := int(d.byte()), d.text(wire.MaxAddress)
		if d.bad || i <= last || i >= len(configured) || wire.CheckAddress(address) != nil {
			return nil, "", errMessage
		}
		last = i
		took = append(took, wire.Relay{Address: address, Pin: configured[i].Pin})
	}
	return took, "", d.end()
}

func appendStates(e encoder, states []RelayState) encoder {
	e = e.byte(byte(len(states)))
	for _, s := range states {
		e = e.flag(s.Connected).text(s.Rung, 8).text(s.Problem, maxProblem)
	}
	return e
}

// parseStates wants one for each configured relay; its address is ours.
func parseStates(body []byte, configured []wire.Relay) ([]RelayState, error) {
	d := decoder{rest: body}
	if int(d.byte()) != len(configured) {
		return nil, errMessage
	}
	states := make([]RelayState, len(configured))
	for i := range states {
		states[i] = RelayState{Address: configured[i].Address, Connected: d.flag(), Rung: d.text(8), Problem: d.text(maxProblem)}
	}
	return states, d.end()
}

func (t Tried) append(e encoder) encoder {
	return e.byte(byte(t.Kind)).u64(uint64(t.Took)).text(t.Problem, maxProblem).text(t.Host, wire.MaxAddress)
}

func parseTried(body []byte) (Tried, error) {
	d := decoder{rest: body}
	t := Tried{Kind: TriedKind(d.byte()), Took: time.Duration(d.u64()), Problem: d.text(maxProblem), Host: d.text(wire.MaxAddress)}
	if t.Kind >= triedKinds || t.Took < 0 {
		return Tried{}, errMessage
	}
	return t, d.end()
}

func (c Confinement) append(e encoder) encoder {
	return e.byte(byte(c.Landlock)).flag(c.NoNewPrivileges).flag(c.Syscalls)
}

func parseConfinement(body []byte) (Confinement, error) {
	d := decoder{rest: body}
	c := Confinement{Landlock: int(d.byte()), NoNewPrivileges: d.flag(), Syscalls: d.flag()}
	return c, d.end()
}

func appendRegister(e encoder, r wire.Register) encoder {
	return e.fixed(r.RegisterKey).fixed(r.JoinKey).u32(uint32(r.Lifetime / time.Second)).fixed(r.Signature)
}

func parseRegister(d *decoder, rid wire.RendezvousID) wire.Register {
	return wire.Register{
		RID: rid, RegisterKey: d.fixed(32), JoinKey: d.fixed(32),
		Lifetime: time.Duration(d.u32()) * time.Second, Signature: d.fixed(signature),
	}
}
