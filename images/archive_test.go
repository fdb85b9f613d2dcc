package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// archive is one OCI archive: its files by name.
type archive struct {
	t     *testing.T
	files map[string][]byte
}

type descriptor struct {
	MediaType    string
	Digest       string
	Size         int64
	ArtifactType string
	Annotations  map[string]string
	Platform     *struct{ OS, Architecture string }
}

type index struct {
	MediaType string
	Manifests []descriptor
}

type manifest struct {
	MediaType    string
	ArtifactType string
	Config       descriptor
	Layers       []descriptor
	Subject      *descriptor
}

type config struct {
	Created      time.Time
	OS           string
	Architecture string
	Config       struct {
		User       string
		Env        []string
		Entrypoint []string
		Cmd        []string
		WorkingDir string
		Labels     map[string]string
	}
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	}
}

// entry is one file or folder of an image.
type entry struct {
	header *tar.Header
	data   []byte
}

func open(t *testing.T, name string) *archive {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := &archive{t, map[string][]byte{}}
	for _, e := range untar(t, f) {
		if e.header.Typeflag == tar.TypeReg {
			a.files[e.header.Name] = e.data
		}
	}
	if got := string(a.files["oci-layout"]); !strings.Contains(got, `"imageLayoutVersion": "1.0.0"`) {
		t.Fatalf("%s: oci-layout is %q", name, got)
	}
	for blob, data := range a.files {
		if digest, ok := strings.CutPrefix(blob, "blobs/sha256/"); ok && sum(data) != digest {
			t.Errorf("%s: the content of %s is %s", name, blob, sum(data))
		}
	}
	return a
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// blob is the content of a descriptor, which must say its size.
func (a *archive) blob(d descriptor) []byte {
	a.t.Helper()
	data, ok := a.files["blobs/"+strings.ReplaceAll(d.Digest, ":", "/")]
	if !ok || int64(len(data)) != d.Size {
		a.t.Fatalf("blob %s has %d bytes, not %d", d.Digest, len(data), d.Size)
	}
	return data
}

func decode[T any](t *testing.T, data []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %.200s", err, data)
	}
	return v
}

// named is the one descriptor of index.json with a name: the image that is imported.
func (a *archive) named() descriptor {
	a.t.Helper()
	var found []descriptor
	for _, d := range decode[index](a.t, a.files["index.json"]).Manifests {
		if d.Annotations["io.containerd.image.name"] != "" {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		a.t.Fatalf("%d descriptors have a name, not 1", len(found))
	}
	return found[0]
}

// entries are the files and folders of an image, from its layers.
func (a *archive) entries(m manifest, c config) map[string]entry {
	a.t.Helper()
	all := map[string]entry{}
	for i, l := range m.Layers {
		if want := "application/vnd.oci.image.layer.v1.tar+gzip"; l.MediaType != want {
			a.t.Errorf("layer %d is %s, not %s", i, l.MediaType, want)
		}
		z, err := gzip.NewReader(bytes.NewReader(a.blob(l)))
		if err != nil {
			a.t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			a.t.Fatal(err)
		}
		if got := "sha256:" + sum(plain); got != c.RootFS.DiffIDs[i] {
			a.t.Errorf("layer %d is %s, and the configuration says %s", i, got, c.RootFS.DiffIDs[i])
		}
		for _, e := range untar(a.t, bytes.NewReader(plain)) {
			all[e.header.Name] = e
		}
	}
	return all
}

func untar(t *testing.T, r io.Reader) []entry {
	t.Helper()
	var all []entry
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{h, data})
	}
}
