package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"openscope/wire/term"
)

// Daemon is what the socket offers. Package daemon implements it; Client is the
// other end of it. Errors are *Error where a person has to be told.
type Daemon interface {
	Status(ctx context.Context) (Status, error)
	Fingerprint(ctx context.Context) (Fingerprint, error)
	Agents(ctx context.Context) ([]string, error)
	Verbs(ctx context.Context, r VerbsRequest) ([]VerbInfo, error)
	Call(ctx context.Context, r CallRequest, stdout, stderr io.Writer) (CallResult, error)
	OpenShare(ctx context.Context, r OpenRequest) (OpenResult, error)
	ConfirmShare(ctx context.Context, r ConfirmRequest) error
	ListShares(ctx context.Context, r ListRequest) ([]Share, error)
	ExtendShare(ctx context.Context, r ExtendRequest) (ExtendResult, error)
	RevokeShare(ctx context.Context, r RevokeRequest) (RevokeResult, error)
	AnswerCall(ctx context.Context, r AnswerRequest) error
	Watch(ctx context.Context, r WatchRequest, emit func(Event) error) error
	AddRecipient(ctx context.Context, r AddRecipientRequest) error
	ListRecipients(ctx context.Context) ([]RecipientInfo, error)
	RemoveRecipient(ctx context.Context, r RemoveRecipientRequest) error
	Explain(ctx context.Context, r ExplainRequest) (Explanation, error)
	Lockdown(ctx context.Context, r LockdownRequest) (LockdownResult, error)
	AuditTail(ctx context.Context, r AuditRequest, w io.Writer) error
	AuditReport(ctx context.Context, r ReportRequest, w io.Writer) error
}

// Error is an error with an exit code and a hint, as it reaches the person.
type Error = term.Error

// The codes the daemon uses.
const (
	Internal    = term.Internal
	Usage       = term.Usage
	Denied      = term.Denied
	NotFound    = term.NotFound
	Failed      = term.Failed
	Config      = term.Config
	Unreachable = term.Unreachable
	Limited     = term.Limited
	Over        = term.Over
)

// Errorf is an Error.
func Errorf(code term.Code, format string, args ...any) *Error {
	return term.Errorf(code, format, args...)
}

// Seconds is a duration that JSON has as a number of seconds.
type Seconds time.Duration

// MarshalJSON writes seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Seconds())
}

// UnmarshalJSON reads seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var seconds float64
	if err := json.Unmarshal(b, &seconds); err != nil {
		return err
	}
	*s = Seconds(seconds * float64(time.Second))
	return nil
}

// Status is the daemon's health.
type Status struct {
	Started  time.Time     `json:"started"`
	PID      int           `json:"pid"`
	LogOK    bool          `json:"log_ok"`
	Sessions int           `json:"sessions"`           // live ones of whoever asks
	Lockdown string        `json:"lockdown,omitempty"` // why nothing runs
	Relays   []RelayStatus `json:"relays"`
	Network  NetworkStatus `json:"network"`
}

// NetworkStatus is how the process is that faces the network.
type NetworkStatus struct {
	PID      int    `json:"pid"`  // 0 where it is no process of its own
	User     string `json:"user"` // whose rights it has
	Restarts int    `json:"restarts"`
	Problem  string `json:"problem,omitempty"` // why there is none
	// What holds it.
	NoNewPrivileges bool `json:"no_new_privileges"`
	Landlock        bool `json:"landlock"`
	Syscalls        bool `json:"syscalls"`
}

// RelayStatus is how one relay is reached.
type RelayStatus struct {
	Address   string `json:"address"`
	Connected bool   `json:"connected"`
	Rung      string `json:"rung,omitempty"` // the way by which it is
	Problem   string `json:"problem,omitempty"`
}

// Fingerprint is the daemon's, in both forms.
type Fingerprint struct {
	Words []string `json:"words"`
	Hex   string   `json:"hex"`
}

// VerbsRequest asks for an agent's live surface.
type VerbsRequest struct {
	Agent string `json:"agent"`
}

// VerbInfo is a verb with its parameters and their bounds.
type VerbInfo struct {
	Name    string      `json:"name"`
	Summary string      `json:"summary"`
	Class   string      `json:"class"`
	Params  []ParamInfo `json:"params"`
	// Schema is the parameters as JSON Schema, for a program that fills them in.
	Schema json.RawMessage `json:"schema"`
}

// ParamInfo is one parameter.
type ParamInfo struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Summary  string `json:"summary,omitempty"`
	Default  string `json:"default,omitempty"`
	Allowed  string `json:"allowed"`
	Required bool   `json:"required"`
	Pinned   bool   `json:"pinned"`
}

// Param is one parameter of a call, as text.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// CallRequest is a call from inside.
type CallRequest struct {
	Agent  string  `json:"agent"`
	Verb   string  `json:"verb"`
	Params []Param `json:"params"`
}

// CallResult is how it ended.
type CallResult struct {
	Call        string `json:"call"`
	Cause       string `json:"cause"`
	Status      int    `json:"status"`
	Reason      string `json:"reason,omitempty"`
	StdoutBytes uint64 `json:"stdout_bytes"`
	StderrBytes uint64 `json:"stderr_bytes"`
}

// OpenRequest asks for a session. TTL zero is the longest allowed.
type OpenRequest struct {
	Agent     string        `json:"agent"`
	Specs     []string      `json:"specs"`
	To        string        `json:"to"`
	Bearer    bool          `json:"bearer"`
	TTL       time.Duration `json:"-"`
	TTLS      Seconds       `json:"ttl_s"` // TTL on the wire
	MaxCalls  uint32        `json:"max_calls"`
	MaxOutput uint64        `json:"max_output"`
	NoConfirm bool          `json:"no_confirm"`
	Note      string        `json:"note"`
	Approve   []string      `json:"approve"` // verbs to be asked for
	DryRun    bool          `json:"dry_run"`
}

// OpenResult is the session, or with DryRun what it would be.
type OpenResult struct {
	ID             string     `json:"id,omitempty"`
	Handle         HandleText `json:"handle,omitempty"`
	Expires        time.Time  `json:"expires"`
	HardLimit      time.Time  `json:"hard_limit"`
	Words          []string   `json:"words"`
	FingerprintHex string     `json:"fingerprint_hex"`
	Verbs          []VerbInfo `json:"verbs"`
	DryRun         []Concrete `json:"dry_run,omitempty"`
	Approve        []string   `json:"approve,omitempty"` // verbs whose calls wait for an answer
	Warnings       []string   `json:"warnings,omitempty"`
}

// HandleText is a handle on its way to the issuer, who passes it on. It crosses
// the socket as the text it is, and prints as nothing: who shows it converts it.
type HandleText string

// Format hides the handle, whatever the verb.
func (HandleText) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(a handle)") }

// LogValue hides the handle from log handlers.
func (HandleText) LogValue() slog.Value { return slog.StringValue("(a handle)") }

// Concrete is what a delegated verb comes to.
type Concrete struct {
	Verb string `json:"verb"`
	Line string `json:"line"`
}

// ConfirmRequest confirms a bearer session's words.
type ConfirmRequest struct {
	ID    string `json:"id"`
	Words string `json:"words"`
}

// ListRequest asks for live sessions, all of them, or one.
type ListRequest struct {
	All bool   `json:"all"`
	ID  string `json:"id"`
}

// Share is one session as the list has it.
type Share struct {
	ID          string    `json:"id"`
	Agent       string    `json:"agent"`
	Issuer      string    `json:"issuer"`
	Recipient   string    `json:"recipient"`
	Key         string    `json:"key,omitempty"`    // the recipient's; of a bearer session none
	Parent      string    `json:"parent,omitempty"` // session that the recipient narrowed this one from
	Verbs       []string  `json:"verbs"`
	Opened      time.Time `json:"opened"`
	Expires     time.Time `json:"expires"`
	RemainingS  float64   `json:"remaining_s"`
	State       string    `json:"state"`
	Cause       string    `json:"cause,omitempty"`
	Connections int       `json:"connections"`
	Calls       int       `json:"calls"`
	Refused     int       `json:"refused"`
	LastCall    string    `json:"last_call,omitempty"`
	From        string    `json:"from,omitempty"`
	Note        string    `json:"note,omitempty"`
	Error       string    `json:"error,omitempty"`

	// Outcomes counts how calls ended, by cause.
	Outcomes map[string]int `json:"outcomes,omitempty"`
	Waiting  []WaitingCall  `json:"waiting,omitempty"`
	Running  []RunningCall  `json:"running,omitempty"`
}

// The states of a session.
const (
	StateWaiting     = "waiting" // for the recipient
	StateConnected   = "connected"
	StateUnconfirmed = "unconfirmed"
	StateEnded       = "ended"
)

// RunningCall is a call that runs.
type RunningCall struct {
	ID     string    `json:"id"` // the recipient's
	Verb   string    `json:"verb"`
	Params []Param   `json:"params"`
	Since  time.Time `json:"since"`
}

// WaitingCall is a call that waits for a person's answer.
type WaitingCall struct {
	Call   string    `json:"call"` // the name to approve or deny it by
	ID     string    `json:"id"`   // the recipient's
	Verb   string    `json:"verb"`
	Params []Param   `json:"params"`
	Line   string    `json:"line"` // what it comes to
	Since  time.Time `json:"since"`
	// Asked is there for a request for more, and for no other call.
	Asked *Asked `json:"asked,omitempty"`
	// WithinS is how long it waits in all.
	WithinS float64 `json:"within_s"`
}

// Asked is what a recipient asks to have added to their passport.
type Asked struct {
	Spec   string   `json:"spec"` // as they wrote it
	Reason string   `json:"reason"`
	Adds   []string `json:"adds"` // what they would be able to call besides
	Has    []string `json:"has"`  // what they can call now of the same verbs
}

// AnswerRequest answers one waiting call.
type AnswerRequest struct {
	Call    string `json:"call"`
	Approve bool   `json:"approve"`
	Reason  string `json:"reason"` // of a refusal
}

// ExtendRequest moves a session's end, or adds verbs.
type ExtendRequest struct {
	ID    string        `json:"id"`
	TTL   time.Duration `json:"-"`
	TTLS  Seconds       `json:"ttl_s"` // TTL on the wire
	Specs []string      `json:"specs"`
}

// ExtendResult is what came of it.
type ExtendResult struct {
	Expires time.Time `json:"expires"`
	Before  time.Time `json:"expired_before"` // when it would have ended
	Added   []string  `json:"added"`
}

// RevokeRequest ends one session, or all of whoever asks.
type RevokeRequest struct {
	ID     string `json:"id"`
	All    bool   `json:"all"`
	Reason string `json:"reason"`
}

// RevokeResult names those that were ended.
type RevokeResult struct {
	Revoked []string `json:"revoked"`
}

// AddRecipientRequest registers a key.
type AddRecipientRequest struct {
	Alias   string `json:"alias"`
	Key     string `json:"key"`
	Note    string `json:"note"`
	Replace bool   `json:"replace"`
}

// RemoveRecipientRequest takes an alias out.
type RemoveRecipientRequest struct {
	Alias string `json:"alias"`
}

// RecipientInfo is one entry of the registry.
type RecipientInfo struct {
	Alias string `json:"alias"`
	Key   string `json:"key"`
	Note  string `json:"note,omitempty"`
}

// ExplainRequest asks which rule would decide.
type ExplainRequest struct {
	Agent  string  `json:"agent"`
	Verb   string  `json:"verb"`
	Params []Param `json:"params"`
}

// Explanation is which rule, and why.
type Explanation struct {
	Allowed bool   `json:"allowed"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
}

// LockdownRequest turns the kill switch on or off.
type LockdownRequest struct {
	On     bool   `json:"on"`
	Reason string `json:"reason"`
}

// LockdownResult names the sessions that it ended.
type LockdownResult struct {
	Ended []string `json:"ended"`
}

// AuditRequest asks for the newest entries of the log.
type AuditRequest struct {
	Session string `json:"session"`
	Lines   int    `json:"lines"` // zero: all
	Follow  bool   `json:"follow"`
	// What is empty asks for nothing in particular.
	Kind   string    `json:"kind"`
	Verb   string    `json:"verb"`
	Call   string    `json:"call"`
	Denied bool      `json:"denied"` // only what was refused
	Since  time.Time `json:"since"`
}

// ReportRequest asks for the signed record of a session, as md, html or json.
type ReportRequest struct {
	Session string `json:"session"`
	Format  string `json:"format"`
}
