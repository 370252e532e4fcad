package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/policy"
	"openscope/wire/call"
)

// lockdown is the kill switch, on: nothing runs and nothing is opened until root
// lifts it. It is a part of the rules, so that every call meets it where it
// meets the grants.
type lockdown struct {
	Since  time.Time `json:"since"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// refusal is what anybody is told who wants something meanwhile.
func (l *lockdown) refusal() error {
	text := fmt.Sprintf("in lockdown since %s, by %s", l.Since.UTC().Format(time.RFC3339), l.By)
	if l.Reason != "" {
		text += ": " + l.Reason
	}
	return errors.New(text)
}

func (c *core) lockdownPath() string { return filepath.Join(c.cfg.StateDir, "lockdown") }

// readLockdown reads what an earlier run of the daemon left. A file that is
// there and cannot be believed is a lockdown too.
func (c *core) readLockdown() *lockdown {
	data, err := policy.ReadProtected(c.lockdownPath(), os.Geteuid())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l := new(lockdown)
	if err == nil {
		err = json.Unmarshal(data, l)
	}
	if err != nil {
		return &lockdown{Since: c.clock.Wall(), By: "the daemon", Reason: fmt.Sprintf("%s cannot be read", c.lockdownPath())}
	}
	return l
}

// unlocked are the rules, unless the switch is on.
func (c *core) unlocked() (*rules, error) {
	r := c.rules.Load()
	if r.lockdown != nil {
		return nil, control.Errorf(control.Denied, "%v", r.lockdown.refusal()).WithHint("root can lift it: openscope lockdown off")
	}
	return r, nil
}

// Lockdown turns the kill switch on or off. On is for root and everybody who may
// act as an agent; off is for root alone.
func (c *core) Lockdown(ctx context.Context, req control.LockdownRequest) (control.LockdownResult, error) {
	who, err := asking(ctx)
	if err != nil {
		return control.LockdownResult{}, err
	}
	switch {
	case !req.On && who.UID != 0:
		return control.LockdownResult{}, control.Errorf(control.Denied, "only root lifts a lockdown").WithHint("run it with sudo")
	case !req.On:
		return control.LockdownResult{Ended: []string{}}, c.liftLockdown(who.Name)
	case who.UID != 0 && !c.rules.Load().policy.MayActAtAll(policyWho(who)):
		return control.LockdownResult{}, control.Errorf(control.Denied, "%s may act as no agent, and so turns nothing off", who.Name)
	}
	return c.lockDown(&lockdown{Since: c.clock.Wall().UTC(), By: who.Name, Reason: printable(req.Reason)})
}

// lockDown refuses everything new, ends everything that stands, and only then
// sees to it that this stays so after a restart: a disk that is full does not
// keep the switch from working.
func (c *core) lockDown(l *lockdown) (control.LockdownResult, error) {
	c.setLockdown(l)
	c.stopLocalCalls(&ended{cause: call.Revoked, reason: l.refusal().Error()})
	result := control.LockdownResult{Ended: []string{}}
	for _, s := range c.sessions.All() {
		if share, ok := c.shareOf(s.RID); ok && s.Live() == nil {
			c.endShare(share, call.Revoked, "lockdown")
			result.Ended = append(result.Ended, s.ID)
		}
	}
	err := c.record(audit.Event{Kind: "lockdown", Decision: "deny", Reason: l.refusal().Error()})
	if err := errors.Join(c.writeLockdown(l), err); err != nil {
		return result, control.Errorf(control.Config, "everything is ended, but a restart of the daemon would lift the lockdown, or the log lacks it: %v", err)
	}
	return result, nil
}

func (c *core) liftLockdown(by string) error {
	if c.rules.Load().lockdown == nil {
		return nil
	}
	// The log has it before anything may run again.
	if err := c.record(audit.Event{Kind: "lockdown", Decision: "allow", Reason: "lifted by " + by}); err != nil {
		return control.Errorf(control.Over, "the lockdown stays: %v", err)
	}
	if err := os.Remove(c.lockdownPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return control.Errorf(control.Config, "the lockdown stays: %v", err)
	}
	c.setLockdown(nil)
	return nil
}

// setLockdown changes the switch in the rules as they are.
func (c *core) setLockdown(l *lockdown) {
	c.ruling.Lock()
	defer c.ruling.Unlock()
	r := *c.rules.Load()
	r.lockdown = l
	c.rules.Store(&r)
}

// writeLockdown makes the switch durable: the file is whole, or not there.
func (c *core) writeLockdown(l *lockdown) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(c.lockdownPath()+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(data, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), c.lockdownPath()); err != nil {
		return err
	}
	dir, err := os.Open(c.cfg.StateDir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
