package main

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// splitLine cuts a line at spaces; double quotes keep them, and a backslash
// takes what follows it as it is.
func splitLine(line string) ([]string, error) {
	if !utf8.ValidString(line) { // what is read below would be something else
		return nil, errors.New("the line is not text")
	}
	var words []string
	var word strings.Builder
	begun, quoted, escaped := false, false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			begun, escaped = true, true
		case r == '"':
			begun, quoted = true, !quoted
		case (r == ' ' || r == '\t') && !quoted:
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quoted || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// splitCall is splitLine for a call; behind says that an & ends it, as a word of
// its own.
func splitCall(line string) (words []string, behind bool, err error) {
	line = strings.TrimSpace(line)
	if rest, ok := strings.CutSuffix(line, " &"); ok {
		line, behind = rest, true
	}
	words, err = splitLine(line)
	return words, behind, err
}
