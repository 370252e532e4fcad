package daemon

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/render"
	"openscope/wire"
	"openscope/wire/channel"
	"openscope/wire/handle"
	"openscope/wire/report"
)

// AuditReport writes the signed record of one session (wire/README.md §15.2), to
// root and the daemon's own user, or to whoever opened it.
func (c *core) AuditReport(ctx context.Context, req control.ReportRequest, w io.Writer) error {
	who, err := asking(ctx)
	if err != nil {
		return err
	}
	if req.Format != "md" && req.Format != "html" && req.Format != "json" {
		return control.Errorf(control.Usage, "a report is md, html or json, not %q", req.Format)
	}
	extract, err := c.log.Extract(ctx, report.MaxEntries, func(r audit.Record) bool {
		return mayRead(who, r) && (r.Session == req.Session || r.Parent == req.Session)
	})
	if err != nil {
		return control.Errorf(control.Config, "%v", err).WithHint("run: openscope audit verify")
	}
	if len(extract.Records) == 0 || extract.Records[0].Session != req.Session {
		return errNoSession(req.Session)
	}
	text, err := c.report(req, extract)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

func errNoSession(id string) error {
	return control.Errorf(control.NotFound, "the log has no session %s of yours", id).
		WithHint("run: openscope share list --all")
}

// report is the record as it is asked for. The daemon's signature covers what
// people read of it too.
func (c *core) report(req control.ReportRequest, extract audit.Extract) (string, error) {
	endorsed, err := audit.KeyNote(c.logPath())
	if err != nil {
		return "", fmt.Errorf("reporting: %w", err)
	}
	r := &report.Report{
		Session: req.Session, Made: c.clock.Wall(), Endorsement: endorsed, Checkpoint: extract.Checkpoint.Note,
		RID: ridOf(req.Session, extract.Records),
	}
	for i, record := range extract.Records {
		r.Entries = append(r.Entries, report.Entry{Line: string(record.Line()), Proof: extract.Proofs[i]})
	}
	if req.Format == "json" {
		r.Sign(c.identity.Reveal())
		text, err := r.JSON()
		return string(text), err
	}
	shown := shownSession(req.Session, extract)
	shown.Made = r.Made
	shown.Daemon = strings.Join(handle.FingerprintWords(channel.Fingerprint(c.publicKey())), " ")
	before, after := render.Markdown(shown)
	if req.Format == "html" {
		if before, after, err = render.HTML(shown); err != nil {
			return "", err
		}
	}
	r.Text = report.TextHash(before, after)
	r.Sign(c.identity.Reveal())
	block, err := r.Block()
	return before + block + after, err
}

// ridOf is the session's rendezvous id, which its entries name.
func ridOf(id string, records []audit.Record) (rid wire.RendezvousID) {
	for _, r := range records {
		if b, err := hex.DecodeString(r.RID); r.Session == id && err == nil && len(b) == len(rid) {
			return wire.RendezvousID(b)
		}
	}
	return rid
}

// shownSession puts the entries of a session together for people.
func shownSession(id string, extract audit.Extract) *render.Session {
	s := &render.Session{
		ID: id, Entries: len(extract.Records), Size: extract.Checkpoint.Size, Root: hex.EncodeToString(extract.Checkpoint.Root[:]),
	}
	b := &shownBuilder{Session: s, calls: make(map[string]int), connections: make(map[string]int)}
	for _, r := range extract.Records {
		b.take(r)
	}
	return s
}

type shownBuilder struct {
	*render.Session
	calls       map[string]int // by call id, in Calls
	connections map[string]int // by connection, in Connections
}

func (b *shownBuilder) take(r audit.Record) {
	own := r.Session == b.ID
	switch {
	case r.Kind == "open" && own:
		b.open(r)
	case r.Kind == "connect" && own:
		b.connections[r.Connection] = len(b.Connections)
		b.Connections = append(b.Connections, render.Span{Start: r.Wall, Label: "connected from " + r.From})
	case r.Kind == "disconnect" && own:
		if i, ok := b.connections[r.Connection]; ok {
			b.Connections[i].End = r.Wall
		}
	case (r.Kind == "expire" || r.Kind == "revoke" || r.Kind == "close") && own:
		b.Ended, b.End = r.Wall, r.Cause
	case r.Kind == "claim" && own:
		b.RecipientKey = r.RecipientKey
	}
	if r.Call == "" {
		b.Events = append(b.Events, render.Event{Seq: r.Seq, Time: r.Wall, Kind: r.Kind, Text: eventText(r, own), Count: r.Count})
		return
	}
	b.call(r, own)
}

func (b *shownBuilder) open(r audit.Record) {
	b.Opened, b.Note, b.RecipientKey = r.Wall, r.Reason, r.RecipientKey
	if b.Recipient = r.Recipient; b.Recipient == "" {
		b.Recipient = "whoever holds the handle"
	}
	if r.Issuer != nil {
		b.Issuer, b.Agent = r.Issuer.User, r.Issuer.Agent
	}
	for _, p := range r.Params {
		b.Shared = append(b.Shared, strings.TrimSpace(p.Name+" "+p.Value))
	}
}

// call takes what an entry says of a call into the one it is about.
func (b *shownBuilder) call(r audit.Record, own bool) {
	i, known := b.calls[r.Call]
	if !known {
		i = len(b.Calls)
		b.calls[r.Call] = i
		b.Calls = append(b.Calls, render.Call{Seq: r.Seq, ID: r.Call, Verb: r.Verb, Params: paramText(r.Params), Start: r.Wall, Outcome: render.Open})
	}
	c := &b.Calls[i]
	if !own {
		c.By = r.Session
	}
	if r.Rule != "" {
		c.Rule = r.Rule
	}
	switch r.Kind {
	case "call":
		c.Start = r.Wall
	case "approve":
		c.Approved, _, _ = strings.Cut(strings.TrimPrefix(r.Reason, "approved by "), " (uid")
	case "deny":
		c.Outcome, c.Cause, c.Reason, c.End = render.Refused, r.Cause, r.Reason, r.Wall
	case "result":
		c.Outcome, c.Cause, c.Reason, c.End = render.Failed, r.Cause, r.Reason, r.Wall
		if r.Status != nil {
			c.Status = *r.Status
		}
		if c.Cause == "exited" && c.Status == 0 {
			c.Outcome = render.Done
		}
		for _, d := range []*audit.Digest{r.Stdout, r.Stderr} {
			if d != nil {
				c.Bytes += d.Bytes
			}
		}
	}
}

func paramText(params []audit.Param) string {
	words := make([]string, len(params))
	for i, p := range params {
		words[i] = p.Name + "=" + p.Value
		if p.SHA256 != "" {
			words[i] += fmt.Sprintf("… (%d bytes)", p.Length)
		}
	}
	return strings.Join(words, " ")
}

// eventText is what an entry that is not about a call says.
func eventText(r audit.Record, own bool) string {
	var words []string
	if !own {
		words = append(words, "session "+r.Session+", narrowed from this one")
	}
	if r.From != "" {
		words = append(words, "from "+r.From)
	}
	if r.Cause != "" {
		words = append(words, r.Cause)
	}
	if r.Kind != "open" || !own { // there it is the note, which stands above
		if r.Reason != "" && r.Reason != r.Cause {
			words = append(words, r.Reason)
		}
		if text := paramText(r.Params); text != "" {
			words = append(words, text)
		}
	}
	return strings.Join(words, "; ")
}
