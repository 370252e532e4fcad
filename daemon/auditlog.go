package daemon

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
)

// AuditTail writes the log's newest entries as JSON lines, and with Follow what
// is appended until the caller goes: everything to root and the daemon's own
// user, to anybody else the entries of their own.
func (c *core) AuditTail(ctx context.Context, req control.AuditRequest, w io.Writer) error {
	who, err := asking(ctx)
	if err != nil {
		return err
	}
	if req.Kind != "" && !slices.Contains(audit.Kinds, req.Kind) {
		return control.Errorf(control.Usage, "no entry is of the kind %q", req.Kind).WithHint("one of: " + strings.Join(audit.Kinds, ", "))
	}
	wanted := func(r audit.Record) bool {
		return mayRead(who, r) && asksFor(req, r)
	}
	var shown []audit.Record
	var last uint64
	known := false // the session, whatever else is asked of its entries
	for record, err := range c.log.Tail(ctx, -1, false) {
		if err != nil {
			return control.Errorf(control.Config, "%v", err).WithHint("run: openscope audit verify")
		}
		last = record.Seq
		known = known || record.Session == req.Session && mayRead(who, record)
		if !wanted(record) {
			continue
		}
		shown = append(shown, record)
		if req.Lines > 0 && len(shown) > req.Lines {
			shown = shown[1:]
		}
	}
	if req.Session != "" && len(shown) == 0 && !known {
		return errNoSession(req.Session)
	}
	encoder := json.NewEncoder(w)
	for _, record := range shown {
		if err := encoder.Encode(record); err != nil {
			return err
		}
	}
	if !req.Follow {
		return nil
	}
	for record, err := range c.log.Tail(ctx, -1, true) {
		if err != nil {
			return err
		}
		if record.Seq <= last || !wanted(record) {
			continue
		}
		if err := encoder.Encode(record); err != nil {
			return err
		}
	}
	return nil
}

// asksFor reports whether an entry is among those that were asked for.
func asksFor(req control.AuditRequest, r audit.Record) bool {
	for _, f := range []struct{ asked, is string }{{req.Session, r.Session}, {req.Kind, r.Kind}, {req.Verb, r.Verb}, {req.Call, r.Call}} {
		if f.asked != "" && f.asked != f.is {
			return false
		}
	}
	return (!req.Denied || r.Decision == "deny" || r.Kind == "refuse") && !r.Wall.Before(req.Since)
}

// mayRead: the log tells what others do, so only root, the daemon's own user
// and the issuer of an entry see it.
func mayRead(who principal.Principal, r audit.Record) bool {
	if who.UID == 0 || int(who.UID) == os.Geteuid() {
		return true
	}
	return r.Issuer != nil && r.Issuer.UID == who.UID
}
