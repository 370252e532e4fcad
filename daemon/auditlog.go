package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/principal"
)

// followInterval is how often a followed log is looked at for more.
const followInterval = 200 * time.Millisecond

// AuditTail writes the log's entries as JSON lines: all of them to root and
// the daemon's own user, to anybody else those of their own.
func (c *core) AuditTail(ctx context.Context, req control.AuditRequest, w io.Writer) error {
	who, err := asking(ctx)
	if err != nil {
		return err
	}
	file, err := os.Open(c.logPath())
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	defer file.Close()
	var shown []audit.Record
	for record, err := range audit.Read(file) {
		if err != nil {
			break // a line that is being written; the rest comes when following
		}
		if mayRead(who, record) && (req.Session == "" || record.Session == req.Session) {
			shown = append(shown, record)
			if req.Lines > 0 && len(shown) > req.Lines {
				shown = shown[1:]
			}
		}
	}
	if req.Session != "" && len(shown) == 0 {
		return control.Errorf(control.NotFound, "the log has no session %s of yours", req.Session).
			WithHint("run: openscope share list --all")
	}
	encoder := json.NewEncoder(w)
	var last uint64
	for _, record := range shown {
		if err := encoder.Encode(record); err != nil {
			return err
		}
		last = record.Seq
	}
	if !req.Follow {
		return nil
	}
	return c.follow(ctx, who, req, last, encoder)
}

// follow writes what is appended after the given entry until the caller goes.
func (c *core) follow(ctx context.Context, who principal.Principal, req control.AuditRequest, last uint64, to *json.Encoder) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	var offset int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		file, err := os.Open(c.logPath())
		if err != nil {
			return fmt.Errorf("following the log: %w", err)
		}
		for record, err := range audit.Read(io.NewSectionReader(file, offset, 1<<62)) {
			if err != nil {
				break
			}
			if record.Seq > last && mayRead(who, record) && (req.Session == "" || record.Session == req.Session) {
				if err := to.Encode(record); err != nil {
					file.Close()
					return err
				}
				last = record.Seq
			}
		}
		file.Close()
	}
}

// mayRead: the log tells what others do, so only root, the daemon's own user
// and the issuer of an entry see it.
func mayRead(who principal.Principal, r audit.Record) bool {
	if who.UID == 0 || int(who.UID) == os.Geteuid() {
		return true
	}
	return r.Issuer != nil && r.Issuer.UID == who.UID
}
