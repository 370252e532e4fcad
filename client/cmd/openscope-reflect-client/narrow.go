package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"openscope/passport"
	"openscope/wire/call"
	"openscope/wire/handle"
	"openscope/wire/term"
)

// The verbs that the daemon itself answers (wire/README.md §6.6).
const (
	narrowVerb  = "openscope.narrow"
	requestVerb = "openscope.request"
)

// maxSpecs is how many verbs one smaller handle can name.
const maxSpecs = 16

// narrowed is what narrow prints.
type narrowed struct {
	Handle string `json:"handle"`
	Key    string `json:"key"`
	// Identity is the file with the agent's private key, where it was made here.
	Identity string `json:"identity,omitempty"`
}

func narrowCommand(o *options) *term.Command {
	var verbs term.List
	var to string
	var ttl term.TTL
	return &term.Command{
		Name: "narrow", Short: "make a smaller handle for an agent of your own",
		Flags: func(fs *flag.FlagSet) {
			o.define(fs)
			fs.Var(&verbs, "verb", "a `SPEC` of what it may call, app.verb or app.verb:name=value,...; may be given several times")
			fs.StringVar(&to, "to", "", "the agent's public `KEY`; without it a new key is made next to yours")
			fs.Var(&ttl, "ttl", "how `LONG` it lasts, at most as long as your own session (the default)")
		},
		Run: func(ctx context.Context, env *term.Env, _ []string) error {
			params, err := narrowParams(verbs, time.Duration(ttl))
			if err != nil {
				return err
			}
			return o.narrow(ctx, env, to, params)
		},
		Long: `The issuer's grant has to allow it. The agent's calls count as yours, the issuer
sees them as your agent's, and all of it ends with your own session.`,
	}
}

// narrowParams are the parameters of the call, but for the key.
func narrowParams(specs []string, ttl time.Duration) ([]call.Param, error) {
	if len(specs) == 0 || len(specs) > maxSpecs {
		return nil, term.Errorf(term.Usage, "--verb is needed, at most %d times", maxSpecs).WithHint("run: " + program + " verbs")
	}
	var params []call.Param
	for i, text := range specs {
		if _, err := passport.ParseSpec(text); err != nil {
			return nil, term.Errorf(term.Usage, "--verb %s: %w", term.Clean(text), err)
		}
		params = append(params, call.Param{Name: "verb" + strconv.Itoa(i+1), Value: text})
	}
	if ttl%time.Second != 0 {
		return nil, term.Errorf(term.Usage, "--ttl: %s is not a number of whole seconds", ttl)
	}
	if ttl > 0 {
		params = append(params, call.Param{Name: "ttl_s", Value: strconv.Itoa(int(ttl / time.Second))})
	}
	return params, nil
}

// narrow makes the child. A key that is made for it is on disk before anything
// is asked for, and gone again if nothing comes of it.
func (o *options) narrow(ctx context.Context, env *term.Env, to string, params []call.Param) error {
	made := narrowed{Key: to}
	if to != "" {
		if _, err := handle.ParseRecipientKey(to); err != nil {
			return term.Errorf(term.Usage, "--to: %w", err).WithHint("the agent's key is what it prints with: " + program + " key")
		}
	}
	s, err := o.connect(ctx, env)
	if err != nil {
		return err
	}
	defer o.leave(s)
	if to == "" {
		if made.Key, made.Identity, err = o.newAgentKey(); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	r, err := s.Call(ctx, narrowVerb, append(params, call.Param{Name: "to", Value: made.Key}), &out, io.Discard)
	if err != nil {
		err = callError(ctx, err)
	} else if err = reservedError(narrowVerb, r); err == nil {
		made.Handle, err = childHandle(o, env, out.String())
	}
	if err != nil {
		if made.Identity != "" {
			_ = os.Remove(made.Identity) // a key for nothing
		}
		return err
	}
	return env.Print(made, func(w io.Writer) { made.print(w, env.Stderr) })
}

// childHandle holds what the daemon gave to what was asked for: a sealed handle
// of the same daemon.
func childHandle(o *options, env *term.Env, text string) (string, error) {
	child, err := handle.Parse(strings.TrimSuffix(text, "\n"))
	if err != nil || !child.Sealed {
		return "", term.Errorf(term.Unknown, "the daemon's answer is not a sealed handle")
	}
	own, err := o.readHandle(env)
	if err != nil {
		return "", err
	}
	if child.Fingerprint != own.Fingerprint {
		return "", term.Errorf(term.Denied, "the daemon's answer is a handle of another daemon")
	}
	return child.Text(), nil
}

// newAgentKey makes a key pair next to the user's own.
func (o *options) newAgentKey() (key, path string, err error) {
	var suffix [4]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return "", "", fmt.Errorf("naming the agent's key: %w", err)
	}
	path = filepath.Join(filepath.Dir(o.identity), "agent-"+hex.EncodeToString(suffix[:]))
	key, err = writeNewIdentity(path)
	return key, path, err
}

func (n narrowed) print(w, notes io.Writer) {
	fmt.Fprintln(w, n.Handle)
	identity := n.Identity
	if identity == "" {
		identity = "FILE"
		fmt.Fprintf(notes, "only the key %s can use it; the agent runs:\n", n.Key)
	} else {
		fmt.Fprintf(notes, "only the key in %s can use it; the agent runs:\n", n.Identity)
	}
	fmt.Fprintf(notes, "  %s --passport %s --identity %s\n", program, n.Handle, identity)
}
