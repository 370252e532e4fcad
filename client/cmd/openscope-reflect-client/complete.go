package main

import (
	"slices"
	"strings"

	"openscope/passport"
)

// commands are the prompt's own words.
var commands = []string{"cancel", "exit", "help", "jobs", "quit", "verbs"}

// complete completes the word before pos: a verb, a parameter that is free, a
// value of those that can be listed. several are the ways to go on, where there
// is more than one and nothing to add.
func complete(verbs []passport.Verb, line string, pos int) (text string, at int, several []string) {
	before, after := line[:pos], line[pos:]
	start := strings.LastIndexAny(before, " \t") + 1
	word := before[start:]
	first := strings.Fields(before[:start])
	var candidates []string
	switch {
	case len(first) == 0:
		candidates = append(verbNames(verbs), commands...)
	case first[0] == "help" && len(first) == 1:
		candidates = verbNames(verbs)
	default:
		candidates = paramCandidates(verbs, first, word)
	}
	candidates = slices.DeleteFunc(candidates, func(c string) bool { return !strings.HasPrefix(c, word) })
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	if len(candidates) == 0 {
		return line, pos, nil
	}
	common := commonPrefix(candidates)
	if len(candidates) == 1 && !strings.HasSuffix(common, "=") && !strings.HasPrefix(after, " ") {
		common += " "
	}
	if common == word {
		return line, pos, candidates
	}
	return before[:start] + common + after, start + len(common), nil
}

func verbNames(verbs []passport.Verb) []string {
	var names []string
	for _, v := range verbs {
		names = append(names, v.Name)
	}
	return names
}

// paramCandidates are what may stand behind a verb: name= for each parameter that
// is free and not there yet, name=value for the values of the one being typed.
func paramCandidates(verbs []passport.Verb, first []string, word string) []string {
	var all []string
	name, _, valued := strings.Cut(word, "=")
	for _, v := range verbs {
		if v.Name != first[0] {
			continue
		}
		for _, p := range v.Params {
			given := slices.ContainsFunc(first[1:], func(w string) bool { return strings.HasPrefix(w, p.Name+"=") })
			switch {
			case valued && p.Name == name:
				for _, value := range p.Allowed.Set {
					all = append(all, p.Name+"="+quoteWord(value))
				}
			case !valued && !given && len(p.Allowed.Set) != 1:
				all = append(all, p.Name+"=")
			}
		}
	}
	return all
}

// quoteWord writes a value so that splitLine reads it back.
func quoteWord(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\"\\&") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func commonPrefix(words []string) string {
	common := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, common) {
			common = common[:len(common)-1]
		}
	}
	// Not into the middle of a character.
	return strings.ToValidUTF8(common, "")
}

// columns are words for a person to choose from.
func columns(words []string) string {
	const most = 40
	if len(words) > most {
		words = append(slices.Clone(words[:most]), "...")
	}
	return strings.Join(words, "  ")
}
