package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"runtime/debug"
)

// bill writes a program's bill of materials (CycloneDX 1.5), read back out of
// the program itself: it lists what was linked, not what was asked for.
func (r *release) bill(p program, on platform, built string) error {
	info, err := buildinfo.ReadFile(built)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	main := component{Type: "application", Name: p.name, Version: r.version, Ref: p.name,
		Licences: []any{map[string]any{"license": map[string]string{"id": "Apache-2.0"}}},
		Hashes:   []any{map[string]string{"alg": "SHA-256", "content": hex.EncodeToString(sum[:])}}}
	components := []component{{Type: "library", Name: "std", Version: info.GoVersion, Ref: "pkg:golang/std@" + info.GoVersion, PURL: "pkg:golang/std@" + info.GoVersion}}
	refs := []string{components[0].Ref}
	for _, dep := range info.Deps {
		c := moduleComponent(dep)
		components, refs = append(components, c), append(refs, c.Ref)
	}
	return writeFile(r.file(r.name(p, on)+".cdx.json"), func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{
			"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
			"metadata":     map[string]any{"timestamp": r.epoch, "component": main},
			"components":   components,
			"dependencies": []any{map[string]any{"ref": p.name, "dependsOn": refs}},
		})
	})
}

type component struct {
	Type       string `json:"type"`
	Ref        string `json:"bom-ref"`
	Name       string `json:"name"`
	Version    string `json:"version"`
	PURL       string `json:"purl,omitempty"`
	Licences   []any  `json:"licenses,omitempty"`
	Hashes     []any  `json:"hashes,omitempty"`
	Properties []any  `json:"properties,omitempty"`
}

// moduleComponent has the module's go.sum hash as a property: it is not a hash
// of a file that CycloneDX has a name for.
func moduleComponent(m *debug.Module) component {
	if m.Replace != nil {
		m = m.Replace
	}
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	return component{Type: "library", Name: m.Path, Version: m.Version, Ref: purl, PURL: purl,
		Properties: []any{map[string]string{"name": "go:sum", "value": m.Sum}}}
}
