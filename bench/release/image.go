package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
)

// imageUser is who the relay is inside its container: nobody of any machine's.
const imageUser = 65532

// image writes the relay's container image: the program, and the folder of its
// state. It is an OCI layout in a tar file (image-spec v1.1), with the index of
// docker save beside it for engines that read only that. No engine is needed.
func (r *release) image(p program, on platform, built string) error {
	program, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	if err := writeTar(&layer, rootfs(program), r.epoch); err != nil {
		return err
	}
	blobs := &blobs{}
	layerBlob := blobs.add("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	config, err := json.Marshal(r.imageConfig(on, layerBlob.Digest))
	if err != nil {
		return err
	}
	configBlob := blobs.add("application/vnd.oci.image.config.v1+json", config)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": configBlob, "layers": []descriptor{layerBlob},
	})
	if err != nil {
		return err
	}
	manifestBlob := blobs.add(manifestType, manifest)
	manifestBlob.Annotations = map[string]string{"org.opencontainers.image.ref.name": r.version}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []descriptor{manifestBlob},
	})
	if err != nil {
		return err
	}
	saved, err := json.Marshal([]any{map[string]any{
		"Config": blobPath(configBlob), "RepoTags": []string{p.name + ":" + r.version}, "Layers": []string{blobPath(layerBlob)},
	}})
	if err != nil {
		return err
	}
	entries := append([]entry{
		{name: "oci-layout", mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", mode: 0o644, data: index},
		{name: "manifest.json", mode: 0o644, data: saved},
		{name: "blobs/", mode: 0o755}, {name: "blobs/sha256/", mode: 0o755},
	}, blobs.entries...)
	return writeFile(r.file(r.name(p, on)+".oci.tar"), func(w io.Writer) error { return writeTar(w, entries, r.epoch) })
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// rootfs is all that the container has.
func rootfs(program []byte) []entry {
	return []entry{
		{name: "etc/", mode: 0o755},
		{name: "etc/passwd", mode: 0o644, data: []byte("openscope-relay:x:65532:65532::/var/lib/openscope-relay:/\n")},
		{name: "etc/group", mode: 0o644, data: []byte("openscope-relay:x:65532:\n")},
		{name: "openscope-relay", mode: 0o755, data: program},
		{name: "var/", mode: 0o755},
		{name: "var/lib/", mode: 0o755},
		{name: "var/lib/openscope-relay/", mode: 0o700, uid: imageUser},
	}
}

func (r *release) imageConfig(on platform, layer string) any {
	return map[string]any{
		"created": r.epoch, "os": on.os, "architecture": on.arch,
		"config": map[string]any{
			"User":         "65532:65532",
			"ExposedPorts": map[string]any{"4433/udp": struct{}{}},
			"Entrypoint":   []string{"/openscope-relay"},
			"Cmd":          []string{"serve", "--self-signed"},
			"WorkingDir":   "/",
			"Volumes":      map[string]any{"/var/lib/openscope-relay": struct{}{}},
			"StopSignal":   "SIGTERM",
			"Labels": map[string]string{
				"org.opencontainers.image.title":    "OpenScope relay",
				"org.opencontainers.image.version":  r.version,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{layer}},
		"history": []any{map[string]any{"created": r.epoch, "created_by": "make release"}},
	}
}

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type blobs struct{ entries []entry }

func (b *blobs) add(mediaType string, data []byte) descriptor {
	sum := sha256.Sum256(data)
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(data)}
	b.entries = append(b.entries, entry{name: blobPath(d), mode: 0o644, data: data})
	return d
}

func blobPath(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
