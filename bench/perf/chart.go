package main

import (
	"fmt"
	"slices"
	"strings"
)

// chart is two rows of bars: what gets through, and what it costs the relay.
func (r *results) chart() string {
	var b strings.Builder
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 470" font-family="system-ui, sans-serif" font-size="13">` + "\n" +
		`<style>text{fill:#222}.q{fill:#667}.t{font-size:15px;font-weight:600}@media (prefers-color-scheme:dark){text{fill:#eee}.q{fill:#aab}}</style>` + "\n")
	r.panel(&b, 20, "Throughput of one session, MB/s (more is better)", "MB/s 1")
	r.panel(&b, 245, "Relay CPU, seconds a GB (less is better)", "relay cpu s/GB 1")
	b.WriteString("</svg>\n")
	return b.String()
}

var colours = map[string]string{"hop": "#8a8f98", "tuned": "#b9bec6", "naive": "#d08770", "relay": "#2f7fd1", "records": "#1c5aa0", "packets": "#8a63d2", "ssh": "#6a9f58"}

// panel is one row of bars, from the least to the most of each way with a mark
// at its median.
func (r *results) panel(b *strings.Builder, top int, title, name string) {
	fmt.Fprintf(b, `<text x="20" y="%d" class="t">%s</text>`+"\n", top+6, title)
	most := 0.0
	for _, way := range r.ways() {
		if figures := r.of(way, name); len(figures) > 0 {
			most = max(most, slices.Max(figures))
		}
	}
	y := top + 22
	for _, way := range r.ways() {
		figures := r.of(way, name)
		if len(figures) == 0 || most == 0 {
			continue
		}
		x := func(v float64) float64 { return 100 + 540*v/most }
		m := median(figures)
		fmt.Fprintf(b, `<text x="90" y="%d" text-anchor="end">%s</text><rect x="100" y="%d" width="%.1f" height="18" rx="3" fill="%s"/>`, y+14, way, y, x(m)-100, colours[way])
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#222" stroke-opacity=".6" stroke-width="2"/>`, x(slices.Min(figures)), x(slices.Max(figures)), y+9, y+9)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" class="q">%.3g</text>`+"\n", x(slices.Max(figures))+8, y+14, m)
		y += 28
	}
}
