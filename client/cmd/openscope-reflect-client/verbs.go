package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
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
	Verbs      []verb    `json:"verbs"`
}

type verb struct {
	Name    string  `json:"name"`
	Summary string  `json:"summary"`
	Class   string  `json:"class"`
	Params  []param `json:"params"`
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
}

// verbs is the verbs command.
func (o *options) verbs(ctx context.Context, env *term.Env, _ []string) error {
	s, err := o.connect(ctx, env)
	if err != nil {
		return err
	}
	defer s.Close()
	return printVerbs(env, s)
}

func printVerbs(env *term.Env, s *client.Session) error {
	l := newListing(s)
	return env.Print(l, func(w io.Writer) { l.print(w) })
}

func newListing(s *client.Session) listing {
	p := s.Passport()
	l := listing{Issuer: p.Issuer, Expires: p.Expires.UTC(), RemainingS: s.Remaining().Seconds(), Verbs: []verb{}}
	for _, v := range p.Grant.Verbs {
		shown := verb{Name: v.Name, Summary: v.Summary, Class: string(v.Class), Params: []param{}, Schema: v.Schema()}
		for _, q := range v.Params {
			shown.Params = append(shown.Params, newParam(q))
		}
		l.Verbs = append(l.Verbs, shown)
	}
	return l
}

func newParam(p passport.Param) param {
	shown := param{Name: p.Name, Type: p.Type, Summary: p.Summary, Required: p.Required, Allowed: allowed(p.Allowed)}
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

// print shows the listing to a person; its text is the issuer's, and cleaned.
func (l listing) print(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "shared by %s, for another %s\n", l.Issuer, time.Duration(l.RemainingS*float64(time.Second)).Round(time.Second))
	for _, v := range l.Verbs {
		fmt.Fprintf(&b, "\n%s (%s)\n    %s\n", v.Name, v.Class, v.Summary)
		for _, p := range v.Params {
			fmt.Fprintf(&b, "    %s=%s", p.Name, p.Allowed)
			switch {
			case p.Required:
				b.WriteString("  required")
			case p.Default != "":
				fmt.Fprintf(&b, "  default %s", p.Default)
			}
			b.WriteString("\n")
		}
	}
	fmt.Fprint(w, term.Clean(b.String()))
}
