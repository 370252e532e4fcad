package executor

import "strings"

// Quote writes argv so that a POSIX shell reads exactly these words from it.
// The words must be free of NUL bytes, which no shell can carry. Single quotes
// keep every other byte as it is, invalid UTF-8 and newlines included; a word
// of harmless bytes stays bare, so that people can read the line.
//
// Shells that are not POSIX (csh, fish) read quotes differently: an account
// whose login shell is one of them is not fit for the ssh executor.
func Quote(argv []string) string {
	var line strings.Builder
	for i, word := range argv {
		if i > 0 {
			line.WriteByte(' ')
		}
		// A bare first word could be an alias or a reserved word of the shell.
		if isPlain(word) && (i > 0 || strings.Contains(word, "/")) {
			line.WriteString(word)
			continue
		}
		line.WriteByte('\'')
		line.WriteString(strings.ReplaceAll(word, "'", `'\''`))
		line.WriteByte('\'')
	}
	return line.String()
}

func isPlain(word string) bool {
	for i := range len(word) {
		c := word[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && strings.IndexByte("_./:@%+,-", c) < 0 {
			return false
		}
	}
	return word != ""
}
