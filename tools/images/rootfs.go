package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The user of every image. Kubernetes can check runAsNonRoot only against a number.
const user = "65532:65532"

const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
	group  = "root:x:0:\nnonroot:x:65532:\n"
)

// file is one regular file of an image.
type file struct {
	path string // without a slash at its start
	mode int64
	data []byte
}

// baseFiles are those that every image has, sorted by path. There is no /tmp: nothing here writes to one.
func baseFiles() []file {
	return []file{
		{"etc/group", 0o644, []byte(group)},
		{"etc/passwd", 0o644, []byte(passwd)},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, authorities()},
	}
}

// authorities are the certificates that Mozilla trusts, as PEM. An authority that is trusted only with a constraint
// ("nothing issued after this day") is left out, since PEM cannot carry the constraint.
func authorities() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes all
		}
	}
	return b.Bytes()
}

// programPath is where the program lies in its image.
func programPath(p program) string { return "usr/local/bin/" + p.name }

// writeTar writes the files, which are sorted by path, and the folders above them.
func writeTar(w io.Writer, created time.Time, files []file) error {
	tw := tar.NewWriter(w)
	seen := map[string]bool{".": true}
	var folder func(string) error
	folder = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		if err := folder(path.Dir(name)); err != nil {
			return err
		}
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: created})
	}
	for _, f := range files {
		if err := folder(path.Dir(f.path)); err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.data)), ModTime: created}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(f.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

// writeRootfs writes the files of one image to a folder, from which the Dockerfile makes the same image.
func writeRootfs(ctx context.Context, o *options, p program) error {
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := build(ctx, o, p, o.platforms[0], dir)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	for _, f := range append(baseFiles(), file{programPath(p), 0o755, data}) {
		name := filepath.Join(o.rootfs, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, f.data, os.FileMode(f.mode)); err != nil {
			return fmt.Errorf("--rootfs: %w", err)
		}
	}
	return nil
}
