package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"openscope/wire/handle"
	"openscope/wire/term"
)

// readHandle is the handle of --passport.
func (o *options) readHandle(env *term.Env) (handle.Handle, error) {
	if o.passport == "" {
		return handle.Handle{}, term.Errorf(term.Usage, "a handle is needed").
			WithHint("run: " + program + " --passport HANDLE, with the handle the issuer sent you")
	}
	text, err := env.Secret(o.passport)
	if err != nil {
		return handle.Handle{}, err
	}
	h, err := handle.Parse(text)
	if err != nil {
		return h, term.Errorf(term.Usage, "%w", err).
			WithHint("copy the whole handle, from osh1 to its end")
	}
	return h, nil
}

// inspection is what a handle says without asking anybody.
type inspection struct {
	Kind        string    `json:"kind"` // sealed or bearer
	Fingerprint string    `json:"fingerprint"`
	HardLimit   time.Time `json:"hard_limit"`
	Relays      []relay   `json:"relays"`
}

type relay struct {
	Address string `json:"address"`
	Pin     string `json:"pin,omitempty"`
}

// inspect never shows the fingerprint's words: those come from the issuer.
func (o *options) inspect(_ context.Context, env *term.Env, args []string) error {
	if len(args) == 1 {
		o.passport = args[0]
	}
	h, err := o.readHandle(env)
	if err != nil {
		return err
	}
	i := inspection{Kind: "bearer", Fingerprint: hex.EncodeToString(h.Fingerprint[:]), HardLimit: h.HardLimit.UTC()}
	if h.Sealed {
		i.Kind = "sealed"
	}
	for _, r := range h.Relays {
		shown := relay{Address: r.Address}
		if r.Pin != nil {
			shown.Pin = r.Pin.String()
		}
		i.Relays = append(i.Relays, shown)
	}
	return env.Print(i, func(w io.Writer) {
		if h.Sealed {
			fmt.Fprintln(w, "kind         sealed: only the key it was made for can open it")
		} else {
			fmt.Fprintln(w, "kind         bearer: whoever uses it first is the recipient")
		}
		fmt.Fprintf(w, "fingerprint  %s\nends         %s at the latest\n", i.Fingerprint, i.HardLimit.Format(time.RFC3339))
		for _, r := range i.Relays {
			fmt.Fprintf(w, "relay        %s %s\n", r.Address, r.Pin)
		}
	})
}
