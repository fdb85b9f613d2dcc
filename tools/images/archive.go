package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const bomType = "application/vnd.cyclonedx+json"

func archiveName(p program) string { return p.name + ".oci.tar" }

// bomName is the name of a bill of materials beside the archive.
func bomName(p program, platform string) string {
	return p.name + "." + strings.ReplaceAll(platform, "/", "-") + ".cdx.json"
}

// built is the image for one platform with its bill of materials.
type built struct {
	platform string
	image    v1.Image
	bom      []byte
}

// writeArchive builds the program's image for all platforms and writes the archive. It returns the name and the digest
// under which the image is imported.
func writeArchive(ctx context.Context, o *options, p program, created time.Time) (string, string, error) {
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		return "", "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var all []built
	for _, platform := range o.platforms {
		binary, err := build(ctx, o, p, platform, dir)
		if err != nil {
			return "", "", err
		}
		info, err := readBuildInfo(binary)
		if err != nil {
			return "", "", err
		}
		b := built{platform: platform}
		if b.image, err = image(o, p, platform, binary, info, created); err != nil {
			return "", "", err
		}
		if b.bom, err = billOfMaterials(p, o.version, platform, info, created); err != nil {
			return "", "", err
		}
		if err := os.WriteFile(filepath.Join(o.out, bomName(p, platform)), b.bom, 0o644); err != nil {
			return "", "", err
		}
		all = append(all, b)
	}
	ref := o.repository + "/" + p.name + ":" + o.tag
	folder := filepath.Join(dir, "layout")
	digest, err := writeLayout(folder, ref, all)
	if err != nil {
		return "", "", err
	}
	return ref, digest.String(), packFolder(filepath.Join(o.out, archiveName(p)), folder, created)
}

// writeLayout writes an OCI image layout: the image, or an index of it where there are several platforms, the bills of
// materials as referrers of their images, and a manifest.json for Docker.
func writeLayout(folder, ref string, all []built) (v1.Hash, error) {
	path, err := layout.Write(folder, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return v1.Hash{}, err
	}
	var manifests []v1.Descriptor
	for _, b := range all {
		d, err := partial.Descriptor(b.image)
		if err != nil {
			return v1.Hash{}, err
		}
		if err := path.WriteImage(b.image); err != nil {
			return v1.Hash{}, err
		}
		goos, goarch, _ := strings.Cut(b.platform, "/")
		manifests = append(manifests, v1.Descriptor{
			MediaType: d.MediaType, Size: d.Size, Digest: d.Digest, Platform: &v1.Platform{OS: goos, Architecture: goarch},
		})
	}
	named := manifests[0]
	if len(all) > 1 {
		named, err = writeJSON(path, types.OCIImageIndex, v1.IndexManifest{
			SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: manifests,
		})
		if err != nil {
			return v1.Hash{}, err
		}
	}
	named.Annotations = map[string]string{
		"io.containerd.image.name":          normalized(ref),
		"org.opencontainers.image.ref.name": ref[strings.LastIndex(ref, ":")+1:],
	}
	if err := path.AppendDescriptor(named); err != nil {
		return v1.Hash{}, err
	}
	for i, b := range all {
		if err := appendReferrer(path, manifests[i], b.bom); err != nil {
			return v1.Hash{}, err
		}
	}
	return named.Digest, writeDockerManifest(path, ref, all[0].image)
}

// normalized is the name as containerd and the kubelet know it: a name without a host is on Docker's.
func normalized(ref string) string {
	if host, _, _ := strings.Cut(ref, "/"); strings.ContainsAny(host, ".:") || host == "localhost" {
		return ref
	}
	return "docker.io/" + ref
}

// appendReferrer adds the bill of materials as an artifact whose subject is the image.
func appendReferrer(path layout.Path, subject v1.Descriptor, bom []byte) error {
	config, err := writeBlob(path, types.OCIEmptyJSON, []byte("{}"))
	if err != nil {
		return err
	}
	content, err := writeBlob(path, bomType, bom)
	if err != nil {
		return err
	}
	artifact, err := writeJSON(path, types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  bomType,
		Config:        config,
		Layers:        []v1.Descriptor{content},
		Subject:       &v1.Descriptor{MediaType: subject.MediaType, Size: subject.Size, Digest: subject.Digest},
	})
	if err != nil {
		return err
	}
	artifact.ArtifactType = bomType
	return path.AppendDescriptor(artifact)
}

func writeJSON(path layout.Path, mediaType types.MediaType, value any) (v1.Descriptor, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return writeBlob(path, mediaType, b)
}

func writeBlob(path layout.Path, mediaType types.MediaType, data []byte) (v1.Descriptor, error) {
	hash, size, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: mediaType, Size: size, Digest: hash},
		path.WriteBlob(hash, io.NopCloser(bytes.NewReader(data)))
}

// writeDockerManifest adds the file that `docker load` looks for if the engine does not read OCI layouts. It can name
// the image of one platform only. Programs that read layouts ignore it.
func writeDockerManifest(path layout.Path, ref string, img v1.Image) error {
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	blob := func(d v1.Descriptor) string { return "blobs/" + d.Digest.Algorithm + "/" + d.Digest.Hex }
	var layers []string
	for _, l := range manifest.Layers {
		layers = append(layers, blob(l))
	}
	b, err := json.Marshal([]struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{{blob(manifest.Config), []string{ref}, layers}})
	if err != nil {
		return err
	}
	return path.WriteFile("manifest.json", b, 0o644)
}

// packFolder writes the files of a folder to a tar file, which appears complete or not at all.
func packFolder(target, folder string, created time.Time) error {
	out, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }() // gone already where all went well
	defer out.Close()
	tw := tar.NewWriter(out)
	root := os.DirFS(folder)
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error { // in lexical order
		if err != nil || name == "." {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: created}
		if entry.IsDir() {
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
			return tw.WriteHeader(h)
		}
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		h.Size = int64(len(data))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = tw.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if err := out.Chmod(0o644); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), target)
}
