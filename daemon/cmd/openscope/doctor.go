package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"openscope/daemon"
	"openscope/wire/term"
)

func doctorCommand(p *paths) *term.Command {
	return &term.Command{
		Name: "doctor", Short: "what works and what does not, with the command that mends it",
		Long: `Looks at the configuration and the files it names, the clock, the daemon, each way
to each relay, and every ssh and http target, and changes nothing. Run it as root:
what it cannot see otherwise is a warning.`,
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&p.config, "config", p.config, "the configuration `FILE` (OPENSCOPE_CONFIG)")
		},
		Run: p.doctor,
	}
}

// examined is what doctor prints.
type examined struct {
	OK       bool             `json:"ok"`
	Failures int              `json:"failures"`
	Warnings int              `json:"warnings"`
	Checks   []daemon.Finding `json:"checks"`
}

func (p *paths) doctor(ctx context.Context, env *term.Env, _ []string) error {
	found := daemon.Examine(ctx, p.config)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	result := examined{Checks: found}
	code := term.Unreachable
	for i, f := range found {
		found[i].Subject, found[i].Detail, found[i].Mend = term.OneLine(f.Subject), term.OneLine(f.Detail), term.OneLine(f.Mend)
		switch f.State {
		case daemon.FindingWarning:
			result.Warnings++
		case daemon.FindingFailure:
			result.Failures++
			code = worse(code, f.Check)
		}
	}
	result.OK = result.Failures == 0
	if err := env.Print(result, func(w io.Writer) { printFindings(w, found) }); err != nil || result.OK {
		return err
	}
	return term.Errorf(code, "%d of %d checks failed", result.Failures, len(found)).
		WithHint("each failure above is followed by the command that mends it")
}

// worse is the exit code once this check has failed too: what is on this machine
// comes before what cannot be reached from it.
func worse(code term.Code, check string) term.Code {
	switch check {
	case "daemon", "relay", "ssh", "http":
		return code
	}
	return term.Config
}

func printFindings(w io.Writer, found []daemon.Finding) {
	for _, f := range found {
		fmt.Fprintf(w, "%-8s %-13s %s: %s\n", f.State, f.Check, f.Subject, f.Detail)
		if f.Mend != "" {
			fmt.Fprintf(w, "%22s to mend it: %s\n", "", f.Mend)
		}
	}
}
