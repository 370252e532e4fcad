package catalog

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"openscope/daemon/internal/yamlfile"
)

// word is one element of an argv: text with at most one placeholder in it.
type word struct {
	before, param, after string // param is empty for plain text
}

var placeholder = regexp.MustCompile(`\{([a-z][a-z0-9_-]*)\}`)

// setArgv parses the argv, and holds it to the parameters: every placeholder
// has one, and every one a placeholder.
func (v *Verb) setArgv(argv []string) error {
	if strings.ContainsAny(argv[0], "{}") || argv[0] == "" {
		return yamlfile.WithFix(errors.New("argv: the command itself cannot be a parameter"), "write one verb for each command")
	}
	var wrong yamlfile.Mistakes
	used := make(map[string]bool)
	for _, text := range argv {
		w, err := v.newWord(text)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		used[w.param] = true
		v.argv = append(v.argv, w)
	}
	if len(wrong) > 0 {
		return wrong
	}
	for _, p := range v.params {
		if !used[p.name] {
			wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("parameter %s is used nowhere in argv", p.name), "write {"+p.name+"} into argv, or drop the parameter"))
		}
		if p.kind != typeFlag && !p.required && p.fallback == nil {
			wrong = append(wrong, yamlfile.WithFix(fmt.Errorf("parameter %s needs required: true or a default", p.name), "add one of the two"))
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	return v.refuseShell()
}

func (v *Verb) newWord(text string) (word, error) {
	w, i, err := v.parseWord("argv", text)
	if err != nil || i < 0 {
		return w, err
	}
	if p := v.params[i]; p.kind == typeFlag && text != "{"+w.param+"}" {
		return word{}, yamlfile.WithFix(fmt.Errorf("argv: the flag %s stands alone, it expands to its own argv", w.param), "make {"+w.param+"} a word of its own")
	} else if w.before == "" && p.mayLookLikeAnOption() {
		return word{}, yamlfile.WithFix(fmt.Errorf("argv: a value of %s could begin with -, and be taken for an option", w.param), "tighten its pattern or min, or join it to its option, as --name={"+w.param+"}")
	}
	return w, nil
}

// parseWord finds the placeholder of a word and its parameter; the index is -1
// where there is none.
func (v *Verb) parseWord(where, text string) (word, int, error) {
	found := placeholder.FindAllStringSubmatchIndex(text, -1)
	if strings.ContainsRune(text, 0) || len(found) > 1 {
		return word{}, -1, yamlfile.WithFix(fmt.Errorf("%s: %q has a NUL or more than one placeholder", where, text), "give each placeholder a word of its own")
	}
	if len(found) == 0 {
		return word{before: text}, -1, nil
	}
	m := found[0]
	w := word{before: text[:m[0]], param: text[m[2]:m[3]], after: text[m[1]:]}
	i := slices.IndexFunc(v.params, func(p param) bool { return p.name == w.param })
	if i < 0 {
		return word{}, -1, yamlfile.WithFix(fmt.Errorf("%s: there is no parameter %s", where, w.param), "declare it under params, or drop the braces")
	}
	return w, i, nil
}

// mayLookLikeAnOption reports whether some value would begin with a dash.
func (p *param) mayLookLikeAnOption() bool {
	switch {
	case p.kind == typeInteger:
		return p.lo < 0
	case p.kind != typeString && p.kind != typeEnum:
		return false
	case p.enum != nil:
		return slices.ContainsFunc(p.enum, func(v string) bool { return strings.HasPrefix(v, "-") })
	case p.pattern != nil:
		return slices.ContainsFunc([]string{"-", "-x", "--x", "-x=y", "-1"}, p.pattern.MatchString)
	}
	return false // the conservative pattern begins with a letter or digit
}

// interpreters take a program as an argument. A parameter must not become part
// of one: that would be a shell with extra steps.
var interpreters = []string{
	"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox", "toybox",
	"python", "python2", "python3", "perl", "ruby", "node", "lua", "php", "awk", "gawk", "mawk",
	"env", "xargs", "ssh", "eval", "nsenter", "chroot", "sudo", "su", "doas", "runuser", "setpriv",
	"watch", "script", "expect", "tclsh", "find", "parallel", "nohup", "setsid", "timeout", "nice",
}

// refuseShell refuses a verb that hands a parameter to an interpreter. A
// script of one's own, as the command, is the way to do that safely.
func (v *Verb) refuseShell() error {
	hasParam := slices.ContainsFunc(v.argv, func(w word) bool { return w.param != "" })
	if !hasParam {
		return nil
	}
	name := path.Base(v.argv[0].before)
	if slices.Contains(interpreters, name) {
		return yamlfile.WithFix(fmt.Errorf("argv: %s would be handed a parameter, which makes it a shell for the caller", name), "write a script with a fixed path, and make that the command")
	}
	return v.refuseCode()
}

// Shells stay shells behind whatever starts them, and these options take a
// program in many commands.
var (
	shells      = interpreters[:slices.Index(interpreters, "python")]
	codeOptions = []string{"-c", "-e", "--command", "--eval", "--execute", "--expression"}
)

// refuseCode refuses a free text behind a shell that another command starts, and
// where a command expects a program or a query.
func (v *Verb) refuseCode() error {
	shell := ""
	for i, w := range v.argv {
		if w.param == "" {
			if slices.Contains(shells, path.Base(w.before)) {
				shell = w.before
			}
			continue
		}
		if shell != "" {
			return yamlfile.WithFix(fmt.Errorf("argv: %s would be handed a parameter, which makes it a shell for the caller", shell), "write a script with a fixed path, and make that the command")
		}
		option := strings.TrimSuffix(w.before, "=")
		if w.before == "" && i > 0 {
			option = v.argv[i-1].before + v.argv[i-1].param
		}
		p := v.params[slices.IndexFunc(v.params, func(p param) bool { return p.name == w.param })]
		if p.kind == typeString && p.enum == nil && slices.Contains(codeOptions, option) {
			return yamlfile.WithFix(fmt.Errorf("argv: %s takes a program, and %s is free text", option, w.param), "write the program out, and make "+w.param+" an enum or integer, or pass it otherwise")
		}
	}
	return nil
}

// Argv is the command for resolved values. Flags become their own argv, or
// vanish.
func (v *Verb) Argv(values map[string]string) []string {
	var argv []string
	for _, w := range v.argv {
		if w.param == "" {
			argv = append(argv, w.before)
			continue
		}
		i := slices.IndexFunc(v.params, func(p param) bool { return p.name == w.param })
		p, value := v.params[i], values[w.param]
		if p.kind != typeFlag {
			argv = append(argv, w.before+value+w.after)
			continue
		}
		switch value {
		case "", "false":
		case "true":
			argv = append(argv, p.argv...)
		default: // a description of the free values, for --dry-run
			argv = append(argv, value)
		}
	}
	return argv
}
