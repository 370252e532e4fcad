// Counts prints how often the tests try what they try: in make test (P) and in
// make test-long (N), for every count that differs between the two. It reads
// the constants of the files that are built with and without the tag long. What
// make test has less of than is meant for it says what part it is.
package main

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// count is a constant's two values, and what its comment says of the first.
type count struct{ p, n, what string }

func main() {
	counts := make(map[string]*count)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		return read(path, counts)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "counts:", err)
		os.Exit(1)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "COUNT\tmake test\tmake test-long\t")
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		c := counts[name]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, c.p, c.n, c.what)
	}
	often, long := fuzzRuns(".ci/run"), fuzzRuns("Makefile")
	fmt.Fprintf(w, "inputs for each fuzz target\t%s\t%s\tin CI, at every change: a tenth of what make fuzz takes\n", often, long)
	_ = w.Flush()
}

// fuzzRuns is the first count with which a file calls the fuzzers.
func fuzzRuns(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	m := regexp.MustCompile(`(?m)^\s*@?\.ci/fuzz (\d+)x$`).FindStringSubmatch(string(text))
	if m == nil {
		return "-"
	}
	return m[1]
}

// read takes the constants of a file that is built only with, or only without,
// the tag.
func read(path string, counts map[string]*count) error {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	long, short := tagged(file)
	if long == short {
		return nil
	}
	pkg, err := (&types.Config{Error: func(error) {}}).Check(path, fset, []*ast.File{file}, nil)
	if pkg == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range pkg.Scope().Names() {
		value, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok || value.Val().Kind() != constant.Int {
			continue
		}
		key := filepath.Dir(path) + " " + name
		if counts[key] == nil {
			counts[key] = &count{p: "-", n: "-"}
		}
		if long {
			counts[key].n = value.Val().ExactString()
			continue
		}
		counts[key].p, counts[key].what = value.Val().ExactString(), comment(file, name)
	}
	return nil
}

// tagged reports whether the file is built with the tag long, and without.
func tagged(file *ast.File) (long, short bool) {
	for _, group := range file.Comments {
		for _, c := range group.List {
			if expr, err := constraint.Parse(c.Text); err == nil {
				return expr.Eval(func(tag string) bool { return tag != "race" }), expr.Eval(func(tag string) bool { return tag != "race" && tag != "long" })
			}
		}
	}
	return true, true
}

// comment is what stands beside a constant, or above it.
func comment(file *ast.File, name string) string {
	text := ""
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			if len(n.Specs) == 1 && n.Doc != nil && n.Specs[0].(*ast.ValueSpec).Names[0].Name == name {
				text = n.Doc.Text()
			}
		case *ast.ValueSpec:
			if n.Names[0].Name == name {
				text += n.Comment.Text() + n.Doc.Text()
			}
		}
		return true
	})
	return strings.Join(strings.Fields(text), " ")
}
