// Command release makes everything that a release is, in one folder: programs,
// packages, the relay's container image, bills of materials, licences, sums.
// The same commit gives the same bytes, whoever makes it, where and when.
//
// It knows nothing of the product but where its programs and its packaging
// are. It is for make release, and imports no package of the module.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Everything is for these; the client runs on more.
var (
	linux   = []platform{{"linux", "amd64"}, {"linux", "arm64"}}
	laptops = []platform{{"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}, {"windows", "arm64"}}
)

type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// program is one of the three, and what ships it.
type program struct {
	name, path string
	pkg        string // its packaging's folder
	everywhere bool   // for laptops too
}

var programs = []program{
	{"openscope", "./daemon/cmd/openscope", "daemon/packaging", false},
	{"openscope-relay", "./relay/cmd/openscope-relay", "relay/packaging", false},
	{"openscope-reflect-client", "./client/cmd/openscope-reflect-client", "client/packaging", true},
}

// release is one run.
type release struct {
	version string // as the programs print it
	epoch   time.Time
	dist    string
	work    string // what is not shipped
	only    []platform
}

func main() {
	r := &release{}
	only, epoch := "", int64(0)
	flag.StringVar(&r.version, "version", "", "the `VERSION` that the programs print")
	flag.Int64Var(&epoch, "epoch", 0, "the `SECONDS` of the release's time, the commit's")
	flag.StringVar(&r.dist, "o", "dist", "the `DIR` to fill; what is in it is removed")
	flag.StringVar(&only, "only", "", "the `PLATFORMS` (os/arch, by commas) to build for, instead of all")
	flag.Parse()
	r.epoch = time.Unix(epoch, 0).UTC()
	for word := range strings.FieldsFuncSeq(only, func(c rune) bool { return c == ',' }) {
		system, arch, _ := strings.Cut(word, "/")
		r.only = append(r.only, platform{system, arch})
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := r.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func (r *release) run(ctx context.Context) (err error) {
	if r.version == "" {
		return fmt.Errorf("-version is needed")
	}
	if r.work, err = os.MkdirTemp("", "openscope-release-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.work)
	if err := r.empty(); err != nil {
		return err
	}
	if err := r.licences(ctx); err != nil {
		return fmt.Errorf("licences: %w", err)
	}
	nfpm, err := r.packager(ctx)
	if err != nil {
		return fmt.Errorf("building nfpm: %w", err)
	}
	for _, p := range programs {
		on := linux
		if p.everywhere {
			on = slices.Concat(linux, laptops)
		}
		for _, platform := range on {
			if len(r.only) > 0 && !slices.Contains(r.only, platform) {
				continue
			}
			if err := r.ship(ctx, p, platform, nfpm); err != nil {
				return fmt.Errorf("%s for %s: %w", p.name, platform, err)
			}
		}
	}
	return r.sums()
}

// ship makes all there is of one program for one platform.
func (r *release) ship(ctx context.Context, p program, on platform, nfpm string) error {
	built, err := r.build(ctx, p, on)
	if err != nil {
		return fmt.Errorf("building: %w", err)
	}
	if err := r.archive(p, on, built); err != nil {
		return fmt.Errorf("archiving: %w", err)
	}
	if err := r.bill(p, on, built); err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	if on.os != "linux" {
		return nil
	}
	if err := r.packages(ctx, nfpm, p, on, built); err != nil {
		return fmt.Errorf("packaging: %w", err)
	}
	if p.name != "openscope-relay" {
		return nil
	}
	if err := r.image(p, on, built); err != nil {
		return fmt.Errorf("container image: %w", err)
	}
	return nil
}

// empty makes the folder, without what a release before left in it.
func (r *release) empty() error {
	if err := os.MkdirAll(r.dist, 0o755); err != nil {
		return err
	}
	old, err := os.ReadDir(r.dist)
	if err != nil {
		return err
	}
	for _, entry := range old {
		// Only what a release writes: a folder given by mistake stays whole.
		if entry.IsDir() || !ours(entry.Name()) {
			return fmt.Errorf("%s: %s is not of a release; empty the folder yourself", r.dist, entry.Name())
		}
	}
	for _, entry := range old {
		if err := os.Remove(filepath.Join(r.dist, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func ours(name string) bool {
	return name == sumsFile || name == licencesFile || strings.HasPrefix(name, "openscope")
}

// file is the path of something to ship.
func (r *release) file(name string) string { return filepath.Join(r.dist, name) }

// name is NAME_VERSION_OS_ARCH.
func (r *release) name(p program, on platform) string {
	return strings.Join([]string{p.name, r.version, on.os, on.arch}, "_")
}
