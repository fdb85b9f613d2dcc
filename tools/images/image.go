package main

import (
	"bytes"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// image lays the program into an image for one platform: a layer of what all images share, and one of the program.
func image(o *options, p program, platform, binary string, info *debug.BuildInfo, created time.Time) (v1.Image, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	base, err := layer(created, baseFiles())
	if err != nil {
		return nil, err
	}
	own, err := layer(created, []file{{programPath(p), 0o755, data}})
	if err != nil {
		return nil, err
	}
	at := v1.Time{Time: created}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img,
		mutate.Addendum{Layer: base, History: v1.History{Created: at, CreatedBy: "images: accounts and certificate authorities"}},
		mutate.Addendum{Layer: own, History: v1.History{Created: at, CreatedBy: "images: go build " + p.pkg}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, _ = strings.Cut(platform, "/")
	config.Created = at
	config.Config = v1.Config{
		User:       user,
		Env:        []string{"PATH=/usr/local/bin"},
		Entrypoint: []string{"/" + programPath(p)},
		WorkingDir: "/",
		Labels:     labels(o, p, info, created),
	}
	return mutate.ConfigFile(img, config)
}

// labels are those that the OCI image specification names.
func labels(o *options, p program, info *debug.BuildInfo, created time.Time) map[string]string {
	l := map[string]string{
		"org.opencontainers.image.title":       p.title,
		"org.opencontainers.image.description": p.description,
		"org.opencontainers.image.version":     o.version,
		"org.opencontainers.image.created":     created.Format(time.RFC3339),
		"org.opencontainers.image.source":      "https://" + info.Main.Path,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			l["org.opencontainers.image.revision"] = s.Value
		}
	}
	return l
}

func layer(created time.Time, files []file) (v1.Layer, error) {
	var b bytes.Buffer
	if err := writeTar(&b, created, files); err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
