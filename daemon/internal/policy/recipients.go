package policy

import (
	"fmt"
	"regexp"
	"strings"

	"openscope/daemon/internal/yamlfile"
)

// Recipient is one entry of the recipients file.
type Recipient struct {
	Key  string `yaml:"key"`
	Note string `yaml:"note"`
}

var (
	aliasName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	keyText   = regexp.MustCompile(`^osk1[0-9a-z]{111}$`)
	noteText  = regexp.MustCompile(`^[ -~]{0,200}$`)
)

const recipientFix = "let openscope recipient add ALIAS KEY --replace write it"

// ParseRecipients reads the registry behind --to. The error is a [yamlfile.Mistakes].
func ParseRecipients(name string, data []byte) (map[string]Recipient, error) {
	var file struct {
		Recipients map[string]Recipient `yaml:"recipients"`
	}
	wrong := &collector{yamlfile.NewCollector(name, yamlfile.Lines{})}
	wrong.Decode(data, &file)
	for _, alias := range sortedKeys(file.Recipients) {
		line, r := wrong.Lines().At("recipients/"+alias), file.Recipients[alias]
		switch {
		case !aliasName.MatchString(alias):
			wrong.AddAt(line, fmt.Errorf("%.100q: an alias is lower-case letters, digits, . _ and -", alias), recipientFix)
		case !keyText.MatchString(r.Key):
			wrong.AddAt(line, fmt.Errorf("%s: the key is not osk1 and 111 characters", alias), recipientFix)
		case !noteText.MatchString(r.Note):
			wrong.AddAt(line, fmt.Errorf("%s: the note is not one printable line", alias), recipientFix)
		}
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if file.Recipients == nil {
		file.Recipients = map[string]Recipient{}
	}
	return file.Recipients, nil
}

// FormatRecipients writes the registry as ParseRecipients reads it.
func FormatRecipients(all map[string]Recipient) []byte {
	var b strings.Builder
	b.WriteString("# Who can be shared with: openscope recipient add ALIAS KEY\nrecipients:\n")
	if len(all) == 0 {
		return []byte("# Who can be shared with: openscope recipient add ALIAS KEY\nrecipients: {}\n")
	}
	for _, alias := range sortedKeys(all) {
		fmt.Fprintf(&b, "  %q:\n    key: %q\n", alias, all[alias].Key)
		if all[alias].Note != "" {
			fmt.Fprintf(&b, "    note: %q\n", all[alias].Note)
		}
	}
	return []byte(b.String())
}
