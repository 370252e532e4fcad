package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"openscope/daemon/internal/audit"
	"openscope/daemon/internal/control"
	"openscope/daemon/internal/policy"
	"openscope/wire/handle"
)

// mayEditRecipients: the recipients file is a grant too. Whoever may change it
// owns --to, so it takes root, or the daemon's own user.
func mayEditRecipients(ctx context.Context) error {
	who, err := asking(ctx)
	if err != nil {
		return err
	}
	if who.UID != 0 && int(who.UID) != os.Geteuid() {
		return control.Errorf(control.Denied, "only root may change who can be shared with").
			WithHint("run it with sudo")
	}
	return nil
}

// AddRecipient registers a key under an alias.
func (c *core) AddRecipient(ctx context.Context, req control.AddRecipientRequest) error {
	if err := mayEditRecipients(ctx); err != nil {
		return err
	}
	key, err := handle.ParseRecipientKey(req.Key)
	if err != nil {
		return control.Errorf(control.Usage, "recipient %s: %v", req.Alias, err).
			WithHint("the recipient runs: openscope-reflect-client key")
	}
	return c.editRecipients("recipient-add", req.Alias, func(all map[string]policy.Recipient) error {
		known, ok := all[req.Alias]
		if ok && known.Key != key.Text() && !req.Replace {
			return control.Errorf(control.Denied, "recipient %s has another key already", req.Alias).
				WithHint("if the recipient really has a new key, add --replace")
		}
		all[req.Alias] = policy.Recipient{Key: key.Text(), Note: req.Note}
		return nil
	})
}

// RemoveRecipient takes an alias out. Sessions that are open for it lose their
// right at the next call, since the grant is asked again.
func (c *core) RemoveRecipient(ctx context.Context, req control.RemoveRecipientRequest) error {
	if err := mayEditRecipients(ctx); err != nil {
		return err
	}
	return c.editRecipients("recipient-remove", req.Alias, func(all map[string]policy.Recipient) error {
		if _, ok := all[req.Alias]; !ok {
			return control.Errorf(control.NotFound, "there is no recipient %s", req.Alias).
				WithHint("run: openscope recipient list")
		}
		delete(all, req.Alias)
		return nil
	})
}

// ListRecipients lists the registry.
func (c *core) ListRecipients(context.Context) ([]control.RecipientInfo, error) {
	r := c.rules.Load()
	list := []control.RecipientInfo{}
	for _, alias := range slices.Sorted(maps.Keys(r.recipients)) {
		list = append(list, control.RecipientInfo{Alias: alias, Key: r.recipients[alias].Key, Note: r.recipients[alias].Note})
	}
	return list, nil
}

// editRecipients changes the file as it is now, logs the change, replaces the
// file, and takes it into use.
func (c *core) editRecipients(kind, alias string, edit func(map[string]policy.Recipient) error) error {
	c.recipientMu.Lock()
	defer c.recipientMu.Unlock()
	data, err := readOptional(c.cfg.Recipients)
	if err != nil {
		return control.Errorf(control.Config, "%v", err)
	}
	all, err := policy.ParseRecipients(c.cfg.Recipients, data)
	if err != nil {
		return control.Errorf(control.Config, "%v", err)
	}
	if err := edit(all); err != nil {
		return err
	}
	text := policy.FormatRecipients(all)
	if _, err := policy.ParseRecipients(c.cfg.Recipients, text); err != nil {
		return control.Errorf(control.Usage, "%v", err) // the alias does not fit the file
	}
	if err := c.record(audit.Event{Kind: kind, Recipient: alias, RecipientKey: all[alias].Key}); err != nil {
		return control.Errorf(control.Over, "%v", err)
	}
	if err := replaceFile(c.cfg.Recipients, text); err != nil {
		return fmt.Errorf("writing the recipients: %w", err)
	}
	if err := c.reload(); err != nil {
		return control.Errorf(control.Config, "%v", err)
	}
	return nil
}

// replaceFile writes a file so that a reader, or a crash, meets the old or the
// new one, whole.
func replaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Sync(); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Chmod(tmp.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
