package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// built is a release's relay for this machine, and the run that made it.
func built(t *testing.T) (*release, platform, string) {
	t.Helper()
	t.Chdir("../..")
	r := &release{version: "v1.2.3-4-gabcdef0", epoch: time.Unix(1_790_000_000, 0).UTC(), dist: t.TempDir(), work: t.TempDir()}
	on := platform{"linux", runtime.GOARCH}
	program, err := r.build(t.Context(), programs[1], on)
	if err != nil {
		t.Fatal(err)
	}
	return r, on, program
}

// contents are the files of a tar archive.
func contents(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for archive := tar.NewReader(bytes.NewReader(data)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
}

// The image is followed from its index down, as an engine does.
func TestTheContainerImageIsTheRelayAloneAndNotRoot(t *testing.T) {
	r, on, program := built(t)
	if err := r.image(programs[1], on, program); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(r.file(r.name(programs[1], on) + ".oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	files := contents(t, data)
	blob := func(d descriptor) []byte {
		sum := sha256.Sum256(files[blobPath(d)])
		if d.Digest != "sha256:"+hex.EncodeToString(sum[:]) || d.Size != len(files[blobPath(d)]) {
			t.Errorf("%s is not what its digest says", d.Digest)
		}
		return files[blobPath(d)]
	}
	var index struct{ Manifests []descriptor }
	decode(t, files["index.json"], &index)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, blob(index.Manifests[0]), &manifest)
	var config struct {
		OS, Architecture string
		Config           struct {
			User            string
			Entrypoint, Cmd []string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, blob(manifest.Config), &config)
	if config.OS != "linux" || config.Architecture != on.arch || config.Config.User != "65532:65532" {
		t.Errorf("the configuration is %+v", config)
	}
	if len(manifest.Layers) != 1 || config.Rootfs.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("layers %v, of which the configuration knows %v", manifest.Layers, config.Rootfs.DiffIDs)
	}
	layer := contents(t, blob(manifest.Layers[0]))
	if len(layer) != 7 || len(layer["openscope-relay"]) == 0 {
		t.Errorf("%d entries in the layer", len(layer))
	}
	t.Run("runs", func(t *testing.T) {
		runImage(t, blob(manifest.Layers[0]), append(config.Config.Entrypoint, config.Config.Cmd...))
	})
	t.Run("engine", func(t *testing.T) { loadImage(t, r.file(r.name(programs[1], on)+".oci.tar")) })
}

// runImage does with the layer what an engine would: its files as the root, its
// user, its command.
func runImage(t *testing.T, layer []byte, argv []string) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to change the root folder and the user")
	}
	root := t.TempDir()
	for archive := tar.NewReader(bytes.NewReader(layer)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.Mkdir(path, os.FileMode(header.Mode))
		} else if data, readErr := io.ReadAll(archive); readErr == nil {
			err = os.WriteFile(path, data, os.FileMode(header.Mode))
		}
		if err := errors.Join(err, os.Chown(path, header.Uid, header.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := free.Addr().String()
	free.Close()
	cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], "--listen", "127.0.0.1:0", "--admin", admin)...)
	cmd.Path, cmd.Err = argv[0], nil
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: imageUser, Gid: imageUser}}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("at SIGTERM: %v\n%s", err, out.Bytes())
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.Tick(50 * time.Millisecond); ; {
		if answer, err := http.Get("http://" + admin + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatal("the relay in the image does not get ready")
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "Uid:\t65532\t65532\t65532\t65532") || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		t.Errorf("it is not without rights: %v\n%s", err, status)
	}
}

func loadImage(t *testing.T, path string) {
	for _, engine := range []string{"podman", "docker"} {
		if exec.Command(engine, "info").Run() != nil {
			continue
		}
		if out, err := exec.Command(engine, "load", "-i", path).CombinedOutput(); err != nil {
			t.Fatalf("%s does not take the image: %v\n%s", engine, err, out)
		}
		out, err := exec.Command(engine, "run", "--rm", "openscope-relay:v1.2.3-4-gabcdef0", "version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "v1.2.3-4-gabcdef0") {
			t.Fatalf("%s: %v\n%s", engine, err, out)
		}
		return
	}
	t.Skip("no container engine answers here (podman, docker): the image is checked and run without one")
}

func TestTheBillOfMaterialsNamesWhatIsLinked(t *testing.T) {
	r, on, program := built(t)
	if err := r.bill(programs[1], on, program); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(r.file(r.name(programs[1], on) + ".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bill struct{ Components []component }
	decode(t, data, &bill)
	named := make(map[string]bool)
	for _, c := range bill.Components {
		named[c.Name] = true
		if c.Version == "" || !strings.HasPrefix(c.PURL, "pkg:golang/") {
			t.Errorf("%+v", c)
		}
	}
	if !named["std"] || !named["github.com/quic-go/quic-go"] {
		t.Errorf("it lacks what the relay has: %v", named)
	}
	if named["github.com/cloudflare/circl"] {
		t.Error("it names what the relay has not")
	}
}

// An unknown licence fails the release: this reads them all.
func TestEveryModuleThatIsLinkedHasALicenceThatIsKnown(t *testing.T) {
	t.Chdir("../..")
	r := &release{dist: t.TempDir()}
	if err := r.licences(t.Context()); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"All rights reserved.": "",
		"Permission is hereby granted, free of charge, to any person obtaining a copy": "MIT",
		"GNU AFFERO GENERAL PUBLIC LICENSE Version 3":                                  "",
	} {
		if got := classify(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestEveryModuleThatIsLinkedHasItsReason(t *testing.T) {
	t.Chdir("../..")
	linked, err := modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("THIRD_PARTY.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]bool)
	for _, row := range regexp.MustCompile(`(?m)^\| ([^| ]+\.[^| ]+) \| ([^|]+) \| ([^|]{20,}) \|$`).FindAllStringSubmatch(string(page), -1) {
		rows[row[1]+" "+row[2]] = true
	}
	for _, m := range linked {
		_, spdx, err := m.licence()
		if err != nil {
			t.Fatal(err)
		}
		if !rows[m.Path+" "+spdx] {
			t.Errorf("THIRD_PARTY.md has no line for %s under %s that says why it is linked", m.Path, spdx)
		}
		delete(rows, m.Path+" "+spdx)
	}
	for row := range rows {
		t.Errorf("THIRD_PARTY.md has %s, which no program links", row)
	}
	t.Logf("%d modules, each with its licence and its reason", len(linked))
}

func TestPackageVersionsGrow(t *testing.T) {
	epoch := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	last := ""
	for _, c := range []struct{ version, want string }{
		{"470b3f7-dirty", "0~20261125100000.470b3f7.dirty"},
		{"v0.9.0", "0.9.0"},
		{"v0.9.0-12-gabcdef0", "0.9.0+12.gabcdef0"},
		{"v1.0.0", "1.0.0"},
	} {
		got := (&release{version: c.version, epoch: epoch}).packageVersion()
		if got != c.want {
			t.Errorf("%s becomes %s, want %s", c.version, got, c.want)
		}
		if last != "" {
			if _, err := exec.LookPath("dpkg"); err != nil {
				t.Skip("there is no dpkg to ask for the order")
			}
			if err := exec.Command("dpkg", "--compare-versions", last, "lt", got).Run(); err != nil {
				t.Errorf("dpkg does not take %s for newer than %s", got, last)
			}
		}
		last = got
	}
}

func TestAFolderThatIsNotAReleasesIsLeftAlone(t *testing.T) {
	dist := t.TempDir()
	precious := filepath.Join(dist, "thesis.txt")
	if err := errors.Join(os.WriteFile(precious, nil, 0o600), os.WriteFile(filepath.Join(dist, sumsFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := (&release{dist: dist}).empty(); err == nil {
		t.Error("it is emptied")
	}
	if _, err := os.Stat(filepath.Join(dist, sumsFile)); err != nil {
		t.Errorf("a part of it is gone: %v", err)
	}
}
