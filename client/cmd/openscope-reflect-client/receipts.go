package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"openscope/client"
	"openscope/wire/report"
	"openscope/wire/term"
)

func receiptsCommand(o *options) *term.Command {
	return &term.Command{
		Name: "receipts", Args: "[REPORT]", MaxArgs: 1, Flags: o.define,
		Short: "hold an issuer's report of a session to what the daemon signed to you",
		Long: `The client keeps every result that a daemon signs. Without a word it lists the
sessions there are receipts of. With the FILE of a report (openscope audit
report, in any of its formats, or - for standard input) it checks the report:
that nothing in it was changed, left out or added.`,
		Run: func(_ context.Context, env *term.Env, args []string) error {
			if len(args) == 0 {
				return o.listReceipts(env)
			}
			return o.checkReport(env, args[0])
		},
	}
}

func (o *options) receipts() *client.Receipts {
	return client.NewReceipts(filepath.Dir(o.knownDaemons))
}

// keepReceipts is what a session does with each receipt. That one could not be
// kept is said once, and stops nothing.
func (o *options) keepReceipts(env *term.Env) func(report.Receipt) {
	var failed sync.Once
	kept := o.receipts()
	return func(r report.Receipt) {
		if err := kept.Keep(r); err != nil {
			failed.Do(func() { fmt.Fprintf(env.Stderr, "no receipt: %s\n", term.Clean(err.Error())) })
		}
	}
}

// keptSession is one line of the list, as JSON has it.
type keptSession struct {
	RID         string    `json:"rid"`
	Daemon      string    `json:"daemon,omitempty"` // the name it was given
	Fingerprint string    `json:"fingerprint"`
	Receipts    int       `json:"receipts"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
}

func (o *options) listReceipts(env *term.Env) error {
	kept, err := o.receipts().Sessions()
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	known, err := client.OpenKnownDaemons(o.knownDaemons)
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	if len(kept) == 0 && !env.JSON {
		if _, err := fmt.Fprintln(env.Stdout, "no receipts are kept yet"); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
	}
	for _, k := range kept {
		name, _ := known.Name(k.Fingerprint)
		err := env.Print(keptSession{
			RID: hex.EncodeToString(k.RID[:]), Daemon: name, Fingerprint: hex.EncodeToString(k.Fingerprint[:]),
			Receipts: k.Receipts, First: k.First.UTC(), Last: k.Last.UTC(),
		}, func(w io.Writer) {
			if name == "" {
				name = hex.EncodeToString(k.Fingerprint[:8])
			}
			fmt.Fprintf(w, "%x  %s  %d receipts, the last of %s\n", k.RID, name, k.Receipts, k.Last.Local().Format("2006-01-02 15:04:05"))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkedReport is what a check found, as JSON has it.
type checkedReport struct {
	Session     string           `json:"session"`
	RID         string           `json:"rid"`
	Daemon      string           `json:"daemon,omitempty"` // the name it was given
	Fingerprint string           `json:"fingerprint"`
	Made        time.Time        `json:"made"`
	Entries     int              `json:"entries"`
	Calls       int              `json:"calls"`
	Receipts    int              `json:"receipts"`
	Broken      int              `json:"broken"` // lines of the receipts that are none
	Matched     int              `json:"matched"`
	Final       bool             `json:"final"`
	Agrees      bool             `json:"agrees"`
	Findings    []report.Finding `json:"findings"`
}

func (o *options) checkReport(env *term.Env, name string) error {
	data, err := readReport(env, name)
	if err != nil {
		return term.Errorf(term.Usage, "%w", err)
	}
	r, err := report.Read(data)
	if err == nil {
		err = r.Verify()
	}
	if err != nil {
		return term.Errorf(term.Config, "%s: %w", name, err).WithHint("do not rely on it; ask the issuer for: openscope audit report, and the file as it comes")
	}
	kept, broken, err := o.receipts().Of(r.RID)
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	known, err := client.OpenKnownDaemons(o.knownDaemons)
	if err != nil {
		return term.Errorf(term.Config, "%w", err)
	}
	checked, fingerprint := report.Check(r, kept), client.ReportedBy(r)
	shown := checkedReport{
		Session: r.Session, RID: hex.EncodeToString(r.RID[:]), Fingerprint: hex.EncodeToString(fingerprint[:]), Made: r.Made.UTC(),
		Entries: checked.Entries, Calls: checked.Calls, Receipts: len(kept), Broken: broken, Matched: checked.Matched,
		Final: checked.Final, Agrees: checked.Agrees(), Findings: checked.Findings,
	}
	shown.Daemon, _ = known.Name(fingerprint)
	if err := env.Print(shown, shown.print); err != nil {
		return err
	}
	return shown.verdict(name, o.receipts().Path(r.RID))
}

// verdict is what the check comes to. Receipts that are none speak against
// nobody: they say that the check went by less than was kept.
func (c checkedReport) verdict(name, kept string) error {
	switch {
	case !c.Agrees:
		return term.Errorf(term.Config, "%s does not agree with what was signed", name).WithHint("keep the file: with your receipts it is evidence")
	case c.Broken > 0:
		return term.Errorf(term.Config, "%s: %d lines are not what a daemon signed; the report agrees with the others", kept, c.Broken).
			WithHint("if it was a crash that tore one, take it out of the file")
	case c.Receipts == 0:
		return term.Errorf(term.NotFound, "there are no receipts of session %s here", c.Session).
			WithHint("the report is the daemon's, and whole in itself; what was left out of it only receipts can tell")
	}
	return nil
}

func (c checkedReport) print(w io.Writer) {
	fmt.Fprintf(w, "session %s, reported %s: %d entries, all in the daemon's log, with %d calls\n",
		term.Clean(c.Session), c.Made.UTC().Format("2006-01-02 15:04:05 UTC"), c.Entries, c.Calls)
	if c.Daemon != "" {
		fmt.Fprintf(w, "signed by %s, whom you know\n", term.Clean(c.Daemon))
	} else {
		fmt.Fprintf(w, "signed by the daemon with the fingerprint %s\n", c.Fingerprint)
	}
	fmt.Fprintf(w, "%d of your %d receipts are in it, byte for byte\n", c.Matched, c.Receipts)
	for _, f := range c.Findings {
		mark := "note"
		if f.Bad {
			mark = "BAD"
		}
		if f.Seq > 0 {
			mark += fmt.Sprintf(" entry %d", f.Seq)
		}
		if f.Call != "" {
			mark += " call " + f.Call
		}
		fmt.Fprintf(w, "%s: %s\n", term.Clean(mark), term.Clean(f.Text))
	}
	if !c.Final {
		fmt.Fprintln(w, "the session had not ended, or not all of its calls: ask for the report again when it has")
	}
}

func readReport(env *term.Env, name string) ([]byte, error) {
	from := env.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	data, err := io.ReadAll(io.LimitReader(from, report.MaxFile+1))
	if err == nil && len(data) > report.MaxFile {
		err = errors.New("the report has more than 64 MiB")
	}
	return data, err
}
