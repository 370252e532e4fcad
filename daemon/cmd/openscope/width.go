package main

import (
	"strings"
	"unicode"
)

// wide are the characters that take two columns of a terminal, as far as they
// are common: East Asian scripts and pictures.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, {Lo: 0x2e80, Hi: 0x303e, Stride: 1}, {Lo: 0x3041, Hi: 0x33ff, Stride: 1},
		{Lo: 0x3400, Hi: 0x4dbf, Stride: 1}, {Lo: 0x4e00, Hi: 0x9fff, Stride: 1}, {Lo: 0xa000, Hi: 0xa4cf, Stride: 1},
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}, {Lo: 0xfe30, Hi: 0xfe4f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff60, Stride: 1}, {Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0x1f300, Hi: 0x1faff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1}},
}

// columns is how many columns a character takes.
func columns(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// width is how many columns a text takes.
func width(text string) int {
	n := 0
	for _, r := range text {
		n += columns(r)
	}
	return n
}

// cut is the beginning of a text that takes at most so many columns, and what
// is left of it.
func cut(text string, most int) (head, rest string) {
	n := 0
	for i, r := range text {
		if n += columns(r); n > most {
			return text[:i], text[i:]
		}
	}
	return text, ""
}

// fit is the text in exactly so many columns; what does not fit ends in dots.
func fit(text string, n int) string {
	if n <= 0 {
		return ""
	}
	text = strings.ReplaceAll(text, "\t", " ")
	if width(text) > n {
		head, _ := cut(text, max(0, n-2))
		text = head + strings.Repeat(".", min(n, 2))
	}
	return text + strings.Repeat(" ", n-width(text))
}

// wrapped is the text in pieces of at most so many columns; those after the
// first are indented.
func wrapped(text string, n, indent int) []string {
	text = strings.ReplaceAll(text, "\t", "        ")
	head, rest := cut(text, max(1, n))
	lines := []string{head}
	for rest != "" {
		room := max(2, n-indent) // a wide character must fit
		head, rest = cut(rest, room)
		lines = append(lines, strings.Repeat(" ", max(0, n-room))+head)
	}
	return lines
}
