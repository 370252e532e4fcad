package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

// entry is a file, or with nil data a folder, in an archive.
type entry struct {
	name string
	mode int64
	data []byte
	uid  int
}

// archive packs a program with what must go with it.
func (r *release) archive(p program, on platform, built string) error {
	data, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	name := r.name(p, on)
	entries := []entry{{name: name + "/" + filepath.Base(built), mode: 0o755, data: data}}
	for _, with := range []string{"LICENSE", "README.md", "SECURITY.md", r.file(licencesFile)} {
		text, err := os.ReadFile(with)
		if err != nil {
			return err
		}
		entries = append(entries, entry{name: name + "/" + filepath.Base(with), mode: 0o644, data: text})
	}
	if on.os == "windows" {
		return writeFile(r.file(name+".zip"), func(w io.Writer) error { return writeZip(w, entries, r.epoch) })
	}
	return writeFile(r.file(name+".tar.gz"), func(w io.Writer) error {
		zipped, _ := gzip.NewWriterLevel(w, gzip.BestCompression) // the level is a good one
		return errors.Join(writeTar(zipped, entries, r.epoch), zipped.Close())
	})
}

// writeTar writes an archive with nothing in it that is not in its entries and
// the time.
func writeTar(w io.Writer, entries []entry, at time.Time) error {
	archive := tar.NewWriter(w)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), ModTime: at, Uid: e.uid, Gid: e.uid, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		if e.data == nil {
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(e.data); err != nil {
			return err
		}
	}
	return archive.Close()
}

func writeZip(w io.Writer, entries []entry, at time.Time) error {
	archive := zip.NewWriter(w)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: at}
		header.SetMode(os.FileMode(e.mode))
		file, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := file.Write(e.data); err != nil {
			return err
		}
	}
	return archive.Close()
}

// writeFile writes a file whole, or says why not.
func writeFile(path string, write func(io.Writer) error) error {
	var whole bytes.Buffer
	if err := write(&whole); err != nil {
		return err
	}
	return os.WriteFile(path, whole.Bytes(), 0o644)
}
