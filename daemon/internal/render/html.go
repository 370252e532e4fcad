package render

import (
	_ "embed"
	"fmt"
	"html/template"
	"strings"
)

//go:embed session.html
var sessionPage string

// pageData is what the template is filled with.
type pageData struct {
	*Session
	Timeline                        timeline
	NDone, NFailed, NRefused, NOpen int
}

// HTML is the session as a page of its own: what comes before the signed block,
// and what comes after it.
func HTML(s *Session) (before, after string, err error) {
	page, err := template.New("session").Funcs(template.FuncMap{
		"clock": clock, "date": date, "took": took, "size": size, "show": visible, "entries": entries,
		"lead": func(d pageData) string { return visible(d.lead()) }, "ending": Call.ending, "remarks": Call.remarks,
		"short": func(text string) string {
			letters := []rune(visible(text))
			return string(letters[:min(16, len(letters))])
		},
	}).Parse(sessionPage)
	if err != nil {
		return "", "", fmt.Errorf("drawing the session: %w", err)
	}
	data := pageData{s, newTimeline(s), s.count(Done), s.count(Failed), s.count(Refused), s.count(Open)}
	var head, tail strings.Builder
	if err := page.ExecuteTemplate(&head, "before", data); err != nil {
		return "", "", fmt.Errorf("drawing the session: %w", err)
	}
	if err := page.ExecuteTemplate(&tail, "after", data); err != nil {
		return "", "", fmt.Errorf("drawing the session: %w", err)
	}
	return head.String(), tail.String(), nil
}
