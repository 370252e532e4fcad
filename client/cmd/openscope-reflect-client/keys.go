package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"openscope/client"
	"openscope/wire/handle"
	"openscope/wire/term"
)

func keygenCommand(o *options) *term.Command {
	var out string
	return &term.Command{
		Name: "keygen", Short: "make your key pair; never overwrites one",
		Flags: func(fs *flag.FlagSet) {
			o.define(fs)
			fs.StringVar(&out, "o", "", "the `FILE` to write instead of --identity")
		},
		Run: func(_ context.Context, env *term.Env, _ []string) error {
			if out == "" {
				out = o.identity
			}
			return keygen(env, out)
		},
	}
}

// publicKey is what key and keygen print.
type publicKey struct {
	Key  string `json:"key"`
	File string `json:"file"`
}

func keygen(env *term.Env, path string) error {
	public, err := writeNewIdentity(path)
	if err != nil {
		return err
	}
	key := publicKey{Key: public, File: path}
	return env.Print(key, func(w io.Writer) {
		fmt.Fprintln(w, key.Key)
		fmt.Fprintf(env.Stderr, "your private key is in %s; send the line above to the issuer, who runs:\n  openscope recipient add YOUR-NAME %s\n", path, key.Key)
	})
}

// writeNewIdentity makes a key pair, writes the private half to a new file, and
// returns the public one.
func writeNewIdentity(path string) (public string, err error) {
	id, err := handle.NewRecipientIdentity(rand.Reader)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", term.Errorf(term.Config, "%w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", term.Errorf(term.Config, "%s exists already", path).
			WithHint("run: " + program + " key, or give another file with -o")
	}
	if err != nil {
		return "", term.Errorf(term.Config, "%w", err)
	}
	_, err = file.WriteString(id.Text() + "\n")
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", term.Errorf(term.Config, "writing %s: %w", path, err)
	}
	return id.Public().Text(), nil
}

// key prints the public half of the identity.
func (o *options) key(_ context.Context, env *term.Env, _ []string) error {
	id, err := o.readIdentity()
	if err != nil {
		return err
	}
	key := publicKey{Key: id.Public().Text(), File: o.identity}
	return env.Print(key, func(w io.Writer) { fmt.Fprintln(w, key.Key) })
}

// readIdentity reads the private key, which nobody else may be able to.
func (o *options) readIdentity() (*handle.RecipientIdentity, error) {
	info, err := os.Stat(o.identity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, term.Errorf(term.Config, "you have no key yet: %s does not exist", o.identity).
			WithHint("run: " + program + " keygen")
	}
	if err != nil {
		return nil, term.Errorf(term.Config, "%w", err)
	}
	if !client.IsPrivate(info) {
		return nil, term.Errorf(term.Config, "%s: mode %04o lets others read your key", o.identity, info.Mode().Perm()).
			WithHint("run: chmod 600 " + o.identity)
	}
	text, err := os.ReadFile(o.identity)
	if err != nil {
		return nil, term.Errorf(term.Config, "%w", err)
	}
	id, err := handle.ParseRecipientIdentity(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, term.Errorf(term.Config, "%s: not a private key of %s", o.identity, program)
	}
	return id, nil
}
