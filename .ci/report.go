// Report runs go test -json with its own arguments and says what came of it: a
// line for each package, the whole output of what failed, and at the end the
// tests that were skipped, each with its reason, and a plain line with how many
// passed, failed and were skipped. It exits with 1 if anything failed.
//
// Subtests count like tests. A package that fails without a failing test (it
// does not compile, or its TestMain gave up) counts as one failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		os.Exit(1)
	}
}

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64 // seconds
}

// name is a test, or with an empty test a package.
type name struct{ pkg, test string }

func (n name) String() string { return strings.TrimSuffix(n.pkg+" "+n.test, " ") }

// report is what has been seen so far.
type report struct {
	out     io.Writer
	running map[name]*strings.Builder // what has not ended, with its output
	passed  int
	failed  []name
	skipped []string
	broken  strings.Builder // output of builds
}

// run prints the report. Its error means only that something failed: what it
// was has been printed.
func run(out io.Writer, args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(out, err)
		return err
	}
	r := &report{out: out, running: make(map[name]*strings.Builder)}
	if err := r.read(stdout); err != nil {
		fmt.Fprintln(out, "reading the output of go test:", err)
	}
	err = cmd.Wait()
	if err != nil && len(r.failed) == 0 {
		r.failed = append(r.failed, name{pkg: fmt.Sprintf("go test (%v)", err)})
	}
	r.close()
	if len(r.failed) > 0 {
		return fmt.Errorf("%d failed", len(r.failed))
	}
	return nil
}

func (r *report) read(from io.Reader) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line) // not from a test: shown as it is
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		r.broken.WriteString(e.Output)
	case "start", "run":
		r.running[n] = new(strings.Builder)
	case "output":
		if r.running[n] == nil {
			r.running[n] = new(strings.Builder)
		}
		r.running[n].WriteString(e.Output)
	case "pass", "fail", "skip":
		output := r.running[n]
		if output == nil {
			output = new(strings.Builder)
		}
		delete(r.running, n)
		if e.Test == "" {
			r.endPackage(e, output.String())
		} else {
			r.endTest(n, e.Action, output.String())
		}
	}
}

func (r *report) endTest(n name, action, output string) {
	switch action {
	case "pass":
		r.passed++
	case "fail":
		r.failed = append(r.failed, n)
		fmt.Fprint(r.out, output)
	case "skip":
		r.skipped = append(r.skipped, fmt.Sprintf("%s: %s", n, reason(output)))
	}
}

func (r *report) endPackage(e event, output string) {
	if e.Action != "fail" {
		if !strings.Contains(output, "[no test files]") {
			fmt.Fprintf(r.out, "ok    %s  %.1f s\n", e.Package, e.Elapsed)
		}
		return
	}
	// What was running when the package ended (a panic, a timeout) failed.
	for n, left := range r.running {
		if n.pkg == e.Package {
			r.endTest(n, "fail", left.String())
			delete(r.running, n)
		}
	}
	if !slices.ContainsFunc(r.failed, func(n name) bool { return n.pkg == e.Package }) {
		r.failed = append(r.failed, name{pkg: e.Package})
	}
	fmt.Fprint(r.out, r.broken.String(), output)
	r.broken.Reset()
}

// reason is what a test printed before it was skipped.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "NO REASON GIVEN"
	}
	return strings.Join(said, " ")
}

// close prints what is left to say.
func (r *report) close() {
	fmt.Fprint(r.out, r.broken.String())
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(r.out, "\n%s\n", title)
		for _, line := range slices.Sorted(slices.Values(lines)) {
			fmt.Fprintf(r.out, "  %s\n", line)
		}
	}
	var failed []string
	for _, n := range r.failed {
		failed = append(failed, n.String())
	}
	section("skipped:", r.skipped)
	section("failed:", failed)
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, len(r.failed), len(r.skipped))
}
