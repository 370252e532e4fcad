package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const licencesFile = "openscope_LICENCES.txt"

// module is a module that a program is made of.
type module struct{ Path, Version, Dir string }

// modules are all that the programs link, on any system they are built for.
func modules(ctx context.Context) ([]module, error) {
	var all []module
	for _, on := range slices.Concat(linux, laptops) {
		paths := make([]string, 0, len(programs))
		for _, p := range programs {
			if on.os == "linux" || p.everywhere {
				paths = append(paths, p.path)
			}
		}
		cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-deps", "-f", `{{with .Module}}{{if not .Main}}{"Path":{{printf "%q" .Path}},"Version":{{printf "%q" .Version}},"Dir":{{printf "%q" .Dir}}}{{end}}{{end}}`}, paths...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+on.os, "GOARCH="+on.arch)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, err
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var m module
			if err := dec.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			if !slices.Contains(all, m) {
				all = append(all, m)
			}
		}
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// licenceNames are how modules name the files that must go with them.
var licenceNames = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([-.].*)?$`)

// licence is the text that must go with the module, and its SPDX name.
func (m module) licence() (text []byte, spdx string, err error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return nil, "", err
	}
	for _, entry := range entries {
		if entry.IsDir() || !licenceNames.MatchString(entry.Name()) {
			continue
		}
		one, err := os.ReadFile(filepath.Join(m.Dir, entry.Name()))
		if err != nil {
			return nil, "", err
		}
		text = append(text, one...)
	}
	if spdx = classify(string(text)); spdx == "" {
		return nil, "", fmt.Errorf("%s@%s: no licence that is known here", m.Path, m.Version)
	}
	return text, spdx, nil
}

// classify names the licences that a text contains. None of another kind is
// taken without somebody looking at it.
func classify(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	var found []string
	for _, known := range []struct{ spdx, words string }{
		{"Apache-2.0", "Apache License Version 2.0"},
		{"MPL-2.0", "Mozilla Public License, version 2.0"},
		{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy"},
		{"BSD-3-Clause", "may be used to endorse or promote products derived from this software"},
		{"BSD-2-Clause", "Redistribution and use in source and binary forms"},
	} {
		if strings.Contains(text, known.words) && !(known.spdx == "BSD-2-Clause" && slices.Contains(found, "BSD-3-Clause")) {
			found = append(found, known.spdx)
		}
	}
	return strings.Join(found, " AND ")
}

// licences writes the texts that the licences of what is linked demand, and the
// Go runtime's.
func (r *release) licences(ctx context.Context) error {
	all, err := modules(ctx)
	if err != nil {
		return err
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	all = append([]module{{Path: "Go's standard library", Dir: strings.TrimSpace(string(root))}}, all...)
	var b bytes.Buffer
	b.WriteString("OpenScope remote ops is made with what follows, under these licences.\n")
	for _, m := range all {
		text, spdx, err := m.licence()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n%s\n%s (%s)\n\n%s\n", strings.Repeat("=", 72), strings.TrimSpace(m.Path+" "+m.Version), spdx, bytes.TrimSpace(text))
	}
	return os.WriteFile(r.file(licencesFile), b.Bytes(), 0o644)
}
