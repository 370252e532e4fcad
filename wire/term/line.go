package term

// OneLine is text from anywhere as one line that is safe to show: cleaned, and
// with no secret in its text form in it.
func OneLine(s string) string { return oneLine(s) }
