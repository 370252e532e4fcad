package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// build builds one program: static, without the paths of the machine, and with
// a build id that is a hash of what went in.
func (r *release) build(ctx context.Context, p program, on platform) (string, error) {
	out := filepath.Join(r.work, on.os+"-"+on.arch, p.name)
	if on.os == "windows" {
		out += ".exe"
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version="+r.version, "-o", out, p.path)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+on.os, "GOARCH="+on.arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=")
	return out, quietly(cmd)
}

// packager builds nfpm from a module file of its own.
func (r *release) packager(ctx context.Context) (string, error) {
	out := filepath.Join(r.work, "nfpm")
	return out, quietly(exec.CommandContext(ctx, "go", "build", "-modfile=.ci/nfpm.mod", "-o", out, "github.com/goreleaser/nfpm/v2/cmd/nfpm"))
}

// packages writes the .deb and the .rpm that a program's packaging describes.
func (r *release) packages(ctx context.Context, nfpm string, p program, on platform, built string) error {
	for _, kind := range []string{"deb", "rpm"} {
		cmd := exec.CommandContext(ctx, nfpm, "package", "--packager", kind, "--config", filepath.Join(p.pkg, "nfpm.yaml"),
			"--target", r.file(fmt.Sprintf("%s_%s_%s.%s", p.name, r.packageVersion(), on.arch, kind)))
		cmd.Env = append(os.Environ(), "ARCH="+on.arch, "VERSION="+r.packageVersion(), "PROGRAM="+built,
			"LICENCES="+r.file(licencesFile), fmt.Sprint("SOURCE_DATE_EPOCH=", r.epoch.Unix()))
		if err := quietly(cmd); err != nil {
			return err
		}
	}
	return nil
}

// released is a version that packages can be ordered by.
var released = regexp.MustCompile(`^v([0-9]+\.[0-9]+\.[0-9]+)(-.*)?$`)

// packageVersion is the version as dpkg and rpm order it: a release's own
// number, with what git says beyond it after a plus; before the first release,
// 0 and the commit's day.
func (r *release) packageVersion() string {
	if m := released.FindStringSubmatch(r.version); m != nil {
		return m[1] + strings.ReplaceAll(strings.Replace(m[2], "-", "+", 1), "-", ".")
	}
	return "0~" + r.epoch.Format("20060102150405") + "." + strings.ReplaceAll(r.version, "-", ".")
}

// quietly runs a command whose output is of interest only when it fails.
func quietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

const sumsFile = "SHA256SUMS"

// sums writes what sha256sum -c reads.
func (r *release) sums() error {
	entries, err := os.ReadDir(r.dist)
	if err != nil {
		return err
	}
	var lines []string
	for _, entry := range entries {
		data, err := os.ReadFile(r.file(entry.Name()))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		lines = append(lines, hex.EncodeToString(sum[:])+"  "+entry.Name()+"\n")
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	return os.WriteFile(r.file(sumsFile), []byte(strings.Join(lines, "")), 0o644)
}
