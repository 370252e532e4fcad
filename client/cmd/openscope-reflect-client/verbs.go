package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"openscope/client"
	"openscope/passport"
	"openscope/wire/term"
)

// listing is what verbs --json prints.
type listing struct {
	Issuer     string    `json:"issuer"`
	Expires    time.Time `json:"expires"`
	RemainingS float64   `json:"remaining_s"`
	MaxCalls   uint32    `json:"max_calls,omitempty"`  // in the whole session
	MaxOutput  uint64    `json:"max_output,omitempty"` // of each call
	Verbs      []verb    `json:"verbs"`
}

type verb struct {
	Name    string  `json:"name"`
	Summary string  `json:"summary"`
	Class   string  `json:"class"`
	Params  []param `json:"params"`
	// TimeoutS and MaxOutput are the verb's own; 0 is the session's.
	TimeoutS  float64 `json:"timeout_s,omitempty"`
	MaxOutput uint64  `json:"max_output,omitempty"`
	// Schema is the parameters as JSON Schema, for a program that fills them in.
	Schema passport.Schema `json:"schema"`
}

type param struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Summary  string `json:"summary,omitempty"`
	Allowed  string `json:"allowed"`
	Default  string `json:"default,omitempty"`
	Required bool   `json:"required"`
	Pinned   bool   `json:"pinned"` // it may be left out: there is one value
}

// verbs is the verbs command.
func (o *options) verbs(ctx context.Context, env *term.Env, _ []string) error {
	s, err := o.connect(ctx, env)
	if err != nil {
		return err
	}
	defer o.leave(s)
	return printVerbs(env, s)
}

func printVerbs(env *term.Env, s *client.Session) error {
	l := newListing(s)
	return env.Print(l, func(w io.Writer) { l.print(w) })
}

func newListing(s *client.Session) listing {
	p := s.Passport()
	l := listing{Issuer: p.Issuer, Expires: p.Expires.UTC(), RemainingS: s.Remaining().Seconds(), Verbs: []verb{},
		MaxCalls: p.Grant.Limits.MaxCalls, MaxOutput: p.Grant.Limits.MaxOutput}
	for _, v := range p.Grant.Verbs {
		shown := verb{Name: v.Name, Summary: v.Summary, Class: string(v.Class), Params: []param{}, Schema: v.Schema(),
			TimeoutS: v.Timeout.Seconds(), MaxOutput: v.MaxOutput}
		for _, q := range v.Params {
			shown.Params = append(shown.Params, newParam(q))
		}
		l.Verbs = append(l.Verbs, shown)
	}
	return l
}

func newParam(p passport.Param) param {
	shown := param{Name: p.Name, Type: p.Type, Summary: p.Summary, Required: p.Required, Allowed: allowed(p.Allowed), Pinned: len(p.Allowed.Set) == 1}
	if p.Default != nil {
		shown.Default = *p.Default
	}
	return shown
}

func allowed(c passport.Constraint) string {
	switch {
	case c.Any:
		return "any"
	case len(c.Set) > 0:
		return strings.Join(c.Set, "|")
	case c.Range != nil:
		return strconv.FormatInt(c.Range.Lo, 10) + ".." + strconv.FormatInt(c.Range.Hi, 10)
	case c.Prefix != "":
		return c.Prefix + "..."
	}
	return "nothing"
}

// print shows the listing to a person, as a table; its text is the issuer's, and
// cleaned.
func (l listing) print(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "shared by %s, for another %s%s\n\n", l.Issuer, time.Duration(l.RemainingS*float64(time.Second)).Round(time.Second),
		behind(limitsOf(0, l.MaxOutput, l.MaxCalls)))
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERB\tCLASS\tLIMITS\tPARAMETERS\tWHAT IT DOES")
	for _, v := range l.Verbs {
		limits := limitsOf(v.TimeoutS, v.MaxOutput, 0)
		if limits == "" {
			limits = "-"
		}
		first := "-"
		if len(v.Params) > 0 {
			first = v.Params[0].line()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", v.Name, v.Class, limits, first, v.Summary)
		for _, p := range v.Params[min(1, len(v.Params)):] {
			fmt.Fprintf(table, "\t\t\t%s\t\n", p.line())
		}
	}
	table.Flush() // into memory
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, term.Clean(strings.TrimRight(line, " \n")))
	}
}

// line is a parameter in a table.
func (p param) line() string {
	switch {
	case p.Pinned:
		return p.Name + "=" + p.Allowed + " (fixed)"
	case p.Required:
		return p.Name + "=" + p.Allowed + " (required)"
	case p.Default != "":
		return p.Name + "=" + p.Allowed + " (else " + p.Default + ")"
	}
	return p.Name + "=" + p.Allowed
}

// limitsOf are limits in words; empty where there is none.
func limitsOf(timeoutS float64, output uint64, calls uint32) string {
	var all []string
	if timeoutS > 0 {
		all = append(all, time.Duration(timeoutS*float64(time.Second)).String())
	}
	if output > 0 {
		all = append(all, size(output))
	}
	if calls > 0 {
		all = append(all, fmt.Sprintf("%d calls", calls))
	}
	return strings.Join(all, ", ")
}

// behind puts a comma before what there is.
func behind(text string) string {
	if text == "" {
		return ""
	}
	return ", " + text
}

// help says all about one verb.
func (sh *shell) help(name string) error {
	found := false
	for _, v := range newListing(sh.session).Verbs {
		if v.Name != name {
			continue
		}
		found = true
		v.help(sh.screen)
	}
	if !found {
		return fmt.Errorf("%s was not shared with you; see: verbs", name)
	}
	return nil
}

func (v verb) help(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)\n  %s\n", v.Name, v.Class, v.Summary)
	if limits := limitsOf(v.TimeoutS, v.MaxOutput, 0); limits != "" {
		fmt.Fprintf(&b, "  limits: %s\n", limits)
	}
	example := v.Name
	for _, p := range v.Params {
		fmt.Fprintf(&b, "  %s  %s", p.line(), p.Type)
		if p.Summary != "" {
			fmt.Fprintf(&b, ": %s", p.Summary)
		}
		b.WriteString("\n")
		if p.Required && !p.Pinned {
			example += " " + p.Name + "=..."
		}
	}
	fmt.Fprintf(&b, "  call it: %s\n", example)
	fmt.Fprint(w, term.Clean(b.String()))
}
