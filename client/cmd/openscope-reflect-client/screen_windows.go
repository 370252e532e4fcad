package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// speakEscapes has the console obey the escape sequences that the prompt is drawn
// with; it does so by itself on every other system.
func speakEscapes(screen *os.File) error {
	console := windows.Handle(screen.Fd())
	var mode uint32
	if err := windows.GetConsoleMode(console, &mode); err != nil {
		return fmt.Errorf("asking the console: %w", err)
	}
	if err := windows.SetConsoleMode(console, mode|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING); err != nil {
		return fmt.Errorf("a console of Windows 10 or later is needed: %w", err)
	}
	return nil
}
