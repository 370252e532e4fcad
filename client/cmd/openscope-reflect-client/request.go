package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"openscope/client"
	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/term"
)

// maxReason is the longest reason, in bytes of printable ASCII.
const maxReason = 200

func requestCommand(o *options) *term.Command {
	var reason string
	return &term.Command{
		Name: "request", Args: "VERB [name=value ...]", MinArgs: 1, MaxArgs: -1,
		Short: "ask the issuer for something that is not in the passport",
		Flags: func(fs *flag.FlagSet) {
			o.define(fs)
			fs.StringVar(&reason, "reason", "", "a `TEXT` that tells the issuer what it is needed for")
		},
		Run: func(ctx context.Context, env *term.Env, args []string) error {
			spec, err := requestSpec(args)
			if err != nil {
				return err
			}
			if err := checkReason(reason); err != nil {
				return err
			}
			return o.request(ctx, env, spec, reason)
		},
		Long: `Values that are named become pinned, the others stay as free as the issuer's grant
leaves them. It waits for the issuer's answer. What the grant does not allow is
refused at once.`,
	}
}

// requestSpec is what is asked for, as one SPEC.
func requestSpec(args []string) (string, error) {
	params, err := readParams(args[1:])
	if err != nil {
		return "", err
	}
	var pins []string
	for _, p := range params {
		pins = append(pins, p.Name+"="+passport.OneOf(p.Value).String())
	}
	spec := args[0]
	if len(pins) > 0 {
		spec += ":" + strings.Join(pins, ",")
	}
	if strings.Contains(args[0], ":") {
		return "", term.Errorf(term.Usage, "VERB is app.verb, and its values are words of their own, as name=value")
	}
	if _, err := passport.ParseSpec(spec); err != nil {
		return "", term.Errorf(term.Usage, "%w", err)
	}
	return spec, nil
}

func checkReason(reason string) error {
	if reason == "" {
		return term.Errorf(term.Usage, "--reason is needed: the issuer will be shown it")
	}
	if len(reason) > maxReason || strings.ContainsFunc(reason, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return term.Errorf(term.Usage, "--reason is at most %d characters of plain ASCII", maxReason)
	}
	return nil
}

func (o *options) request(ctx context.Context, env *term.Env, spec, reason string) error {
	s, err := o.connect(ctx, env)
	if err != nil {
		return err
	}
	defer o.leave(s)
	var out strings.Builder
	params := []call.Param{{Name: "verb", Value: spec}, {Name: "reason", Value: reason}}
	r, err := s.Call(ctx, requestVerb, params, &out, io.Discard)
	if err != nil {
		return callError(ctx, err)
	}
	if err := reservedError(requestVerb, r); err != nil {
		return err
	}
	added := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	shown := struct {
		Added []string `json:"added"`
	}{added}
	return env.Print(shown, func(w io.Writer) {
		for _, v := range added {
			fmt.Fprintln(w, "you may now call", term.Clean(v))
		}
	})
}

// reservedError is [resultError] for a verb that no passport lists: refused, it
// was not allowed, and not unknown.
func reservedError(verb string, r client.Result) error {
	if r.Cause != call.Denied {
		return resultError(nil, verb, r)
	}
	return term.Errorf(term.Denied, "refused: %s", r.Reason)
}
