package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.yaml.in/yaml/v3"

	"openscope/daemon/internal/catalog"
	"openscope/daemon/internal/policy"
	"openscope/daemon/internal/yamlfile"
)

// Check reads everything that a daemon with this configuration would trust, and
// starts nothing. The error is all that is wrong: see [Mistakes].
func Check(cfg Config) error {
	c := &core{cfg: cfg}
	_, err := c.loadRules()
	return err
}

// CheckFile reads one file as a daemon would, before it goes live: grants,
// verbs, recipients or the configuration, told apart by the keys at the top.
func CheckFile(path string) (kind string, err error) {
	data, err := policy.ReadProtected(path, os.Geteuid())
	if err != nil {
		return "", err
	}
	switch kind = kindOf(data); kind {
	case "grants":
		_, err = policy.Parse(path, data)
	case "verbs":
		err = checkVerbs(path, data)
	case "recipients":
		_, err = policy.ParseRecipients(path, data)
	case "configuration":
		_, err = LoadConfig(path)
	default:
		err = fmt.Errorf("%s: neither grants, nor verbs, nor recipients, nor a configuration", path)
	}
	return kind, err
}

// checkVerbs also builds what the verbs run by.
func checkVerbs(path string, data []byte) error {
	verbs, err := catalog.Parse(path, data)
	if err != nil {
		return err
	}
	return (&rules{catalog: verbs}).setExecutors()
}

// Mistakes are the errors that an error of [Check], [CheckFile] or [LoadConfig]
// is made of, each with its file and place; each has a [Fix] of its own.
func Mistakes(err error) []error { return flat(err) }

func flat(err error) yamlfile.Mistakes {
	if err == nil {
		return nil
	}
	parts, ok := errors.AsType[yamlfile.Mistakes](err)
	if !ok {
		return yamlfile.Mistakes{err}
	}
	var all yamlfile.Mistakes
	for _, part := range parts {
		all = append(all, flat(part)...)
	}
	return all
}

// Fix is how to mend what an error of [Check], [CheckFile] or [LoadConfig] is
// about, or empty.
func Fix(err error) string {
	if e, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return e.Hint()
	}
	if e, ok := errors.AsType[*policy.ProtectionError](err); ok && e.Fix != "" {
		return "run: " + e.Fix
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "run: openscope init"
	}
	return yamlfile.CompareFix
}

// kindOf looks at the keys only; what is wrong with the rest is for the parser
// of that kind to say.
func kindOf(data []byte) string {
	var top yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&top); err != nil || len(top.Content) == 0 {
		return guessKind(data)
	}
	for i := 0; i+1 < len(top.Content[0].Content); i += 2 {
		if kind := kindOfKey(top.Content[0].Content[i].Value); kind != "" {
			return kind
		}
	}
	return ""
}

// guessKind serves a file that is not YAML at all, so that the parser can say
// where.
func guessKind(data []byte) string {
	for line := range bytes.Lines(data) {
		if key, _, ok := bytes.Cut(line, []byte(":")); ok {
			if kind := kindOfKey(string(key)); kind != "" {
				return kind
			}
		}
	}
	return ""
}

func kindOfKey(key string) string {
	switch key {
	case "agents":
		return "grants"
	case "verbs", "ssh", "http":
		return "verbs"
	case "recipients":
		return "recipients"
	case "relays", "token_file", "state_dir", "socket", "max_ttl", "approve_within", "notify":
		return "configuration"
	}
	return ""
}
