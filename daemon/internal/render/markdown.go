package render

import (
	"fmt"
	"strings"
)

// Markdown is the session for a ticket: what comes before the signed block, and
// what comes after it.
func Markdown(s *Session) (before, after string) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Session %s\n\n", md(s.ID))
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", name, value)
		}
	}
	b.WriteString("| | |\n|---|---|\n")
	row("Issuer", md(s.Issuer+" as "+s.Agent))
	row("Recipient", md(s.Recipient))
	row("Opened", date(s.Opened))
	if s.Ended.IsZero() {
		row("Ended", "not yet, at "+date(s.Made))
	} else {
		row("Ended", date(s.Ended)+", after "+took(s.Ended.Sub(s.Opened))+": "+md(s.End))
	}
	row("Note", md(s.Note))
	row("Calls", fmt.Sprintf("%d: %d done, %d failed, %d refused, %d without an end; %s of output",
		len(s.Calls), s.count(Done), s.count(Failed), s.count(Refused), s.count(Open), size(s.Bytes())))
	b.WriteString("\n## Shared\n\n")
	for _, v := range s.Shared {
		fmt.Fprintf(&b, "* %s\n", md(v))
	}
	b.WriteString("\n## Calls\n\n| entry | time (UTC) | call | ended | took | output | |\n|---|---|---|---|---|---|---|\n")
	for _, c := range s.Calls {
		duration := ""
		if c.Outcome == Done || c.Outcome == Failed {
			duration = took(c.Took())
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s | %s |\n", c.Seq, clock(c.Start),
			md(strings.TrimSpace(c.Verb+" "+c.Params)), md(c.ending()), duration, size(c.Bytes), md(c.remarks()))
	}
	b.WriteString("\n## What else happened\n\n| entry | time (UTC) | | |\n|---|---|---|---|\n")
	for _, e := range s.Events {
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", e.Seq, clock(e.Time), md(e.Kind), md(e.Text))
	}
	fmt.Fprintf(&b, "\n## Signed\n\n%s, of a log of %d; made %s by the daemon with the fingerprint\n`%s`.\n"+
		"The block is the same record for programs. `openscope-reflect-client receipts FILE` holds it, and this text, to what the recipient's client kept.\n\n```\n",
		entries(s.Entries), s.Size, date(s.Made), s.Daemon)
	return b.String(), "```\n"
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// md is text from anybody as Markdown text: nothing of it is markup, a link, a
// mention or the end of a cell.
func md(text string) string {
	var b strings.Builder
	text = visible(text)
	for i, r := range text {
		inside := i > 0 && i+1 < len(text) && isWord(text[i-1]) && isWord(text[i+1])
		switch {
		case strings.ContainsRune("`*[]<>|~#&@\\!$", r), r == '_' && !inside, r == ':' && !inside, r == '.' && strings.HasSuffix(strings.ToLower(text[:i]), "www"):
			fmt.Fprintf(&b, "&#%d;", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isWord: between two of these an underscore or a colon is only itself.
func isWord(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
}
