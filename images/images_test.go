package images

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Two builds in two places are the same to the byte, archives and bills of materials.
func TestReproducible(t *testing.T) {
	first := must(t, built)
	other, err := copySources("somewhere/else")
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(other, "dist")
	// Settings of the caller must not reach the programs.
	t.Setenv("GOFLAGS", "-buildvcs=false -tags=other")
	t.Setenv("GOAMD64", "v2")
	t.Setenv("TZ", "Asia/Tokyo")
	if _, err := run(other, "--out", second, "--version", version); err != nil {
		t.Fatal(err)
	}
	a, b := tree(t, first), tree(t, second)
	if len(a) != 2*len(programs) {
		t.Errorf("%d files, not an archive and a bill of materials for each of %d programs", len(a), len(programs))
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s differs: %s and %s", name, sum(a[name]), sum(b[name]))
		}
	}
}

func TestContents(t *testing.T) {
	dist := must(t, built)
	for name := range programs {
		t.Run(name, func(t *testing.T) {
			a := open(t, filepath.Join(dist, name+".oci.tar"))
			d := a.named()
			if got, want := d.Annotations["io.containerd.image.name"], "docker.io/sidecart/"+name+":dev"; got != want {
				t.Errorf("name %q, want %q", got, want)
			}
			m := decode[manifest](t, a.blob(d))
			c := decode[config](t, a.blob(m.Config))
			checkConfig(t, name, c)

			entries := a.entries(m, c)
			program := "usr/local/bin/" + name
			checkEntries(t, entries, map[string]int64{
				"etc/": 0o755, "etc/group": 0o644, "etc/passwd": 0o644, "etc/ssl/": 0o755, "etc/ssl/certs/": 0o755,
				"etc/ssl/certs/ca-certificates.crt": 0o644,
				"usr/":                              0o755, "usr/local/": 0o755, "usr/local/bin/": 0o755, program: 0o755,
			})
			if !strings.Contains(string(entries["etc/passwd"].data), ":65532:65532:") || !strings.Contains(string(entries["etc/group"].data), ":65532:") {
				t.Error("user or group 65532 has no entry")
			}
			checkAuthorities(t, entries["etc/ssl/certs/ca-certificates.crt"].data)
			checkProgram(t, name, entries[program].data)
			checkDockerManifest(t, a, "sidecart/"+name+":dev", m)
		})
	}
}

func checkConfig(t *testing.T, name string, c config) {
	t.Helper()
	if c.OS != "linux" || c.Architecture != "amd64" || !c.Created.Equal(epoch) {
		t.Errorf("made for %s/%s at %s", c.OS, c.Architecture, c.Created)
	}
	if c.Config.User != "65532:65532" {
		t.Errorf("user %q", c.Config.User)
	}
	if diff := cmp.Diff([]string{"/usr/local/bin/" + name}, c.Config.Entrypoint); diff != "" || c.Config.Cmd != nil {
		t.Errorf("entrypoint: %s command: %v", diff, c.Config.Cmd)
	}
	for label, want := range map[string]string{
		"version": version, "created": epoch.Format(time.RFC3339), "licenses": "Apache-2.0",
		"source": "https://github.com/sidecart/sidecart",
	} {
		if got := c.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
	for _, label := range []string{"title", "description"} {
		if c.Config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("no label %s", label)
		}
	}
}

func checkEntries(t *testing.T, entries map[string]entry, want map[string]int64) {
	t.Helper()
	got := map[string]int64{}
	for name, e := range entries {
		h := e.header
		got[name] = h.Mode
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			t.Errorf("%s is neither file nor folder", name)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: owner %d:%d %q, time %s", name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func checkAuthorities(t *testing.T, data []byte) {
	t.Helper()
	n := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !c.IsCA {
			t.Errorf("certificate %d: no authority: %v", n, err)
		}
		n++
	}
	if n < 100 || len(bytes.TrimSpace(data)) > 0 {
		t.Errorf("%d authorities, then %.40q", n, data)
	}
}

func checkProgram(t *testing.T, name string, data []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static: it wants a loader")
		}
	}
	if libraries, _ := f.ImportedLibraries(); len(libraries) > 0 {
		t.Errorf("the program is not static: it wants %v", libraries)
	}
	folders, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(strings.Fields(string(folders)), scratch) {
		if bytes.Contains(data, []byte(path)) {
			t.Errorf("the program holds the path %s", path)
		}
	}
	if name != "sidecar" || runtime.GOARCH != "amd64" {
		return // the others do not print a version
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(file, "version").CombinedOutput(); err != nil || !strings.Contains(string(out), version) {
		t.Errorf("version: %v %s", err, out)
	}
}

// checkDockerManifest checks what `docker load` reads.
func checkDockerManifest(t *testing.T, a *archive, ref string, m manifest) {
	t.Helper()
	type image struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	blob := func(d descriptor) string { return "blobs/" + strings.ReplaceAll(d.Digest, ":", "/") }
	want := []image{{blob(m.Config), []string{ref}, nil}}
	for _, l := range m.Layers {
		want[0].Layers = append(want[0].Layers, blob(l))
	}
	if diff := cmp.Diff(want, decode[[]image](t, a.files["manifest.json"])); diff != "" {
		t.Error(diff)
	}
}

// A bill of materials lists the modules that go list says the program is made of, and refers to its image.
func TestBillOfMaterials(t *testing.T) {
	dist, root := must(t, built), must(t, sources)
	for name, pkg := range programs {
		t.Run(name, func(t *testing.T) {
			beside, err := os.ReadFile(filepath.Join(dist, name+".linux-amd64.cdx.json"))
			if err != nil {
				t.Fatal(err)
			}
			bom := decode[struct {
				BOMFormat, SpecVersion string
				Metadata               struct {
					Timestamp time.Time
					Component struct{ Name, Version string }
				}
				Components []struct{ Type, Name, Version, PURL string }
			}](t, beside)
			if bom.BOMFormat != "CycloneDX" || bom.Metadata.Component.Version != version || !bom.Metadata.Timestamp.Equal(epoch) {
				t.Errorf("%s of %+v", bom.BOMFormat, bom.Metadata)
			}
			got := map[string]string{}
			for _, c := range bom.Components {
				got[c.Name] = c.Version
				if want := "pkg:golang/" + strings.ToLower(c.Name) + "@"; !strings.HasPrefix(c.PURL, want) {
					t.Errorf("%s is at %s", c.Name, c.PURL)
				}
			}
			if got["golang.org/x/crypto/x509roots/fallback"] == "" {
				t.Error("where the certificate authorities come from is missing")
			}
			delete(got, "golang.org/x/crypto/x509roots/fallback")
			if diff := cmp.Diff(modules(t, root, pkg), got); diff != "" {
				t.Error(diff)
			}

			a := open(t, filepath.Join(dist, name+".oci.tar"))
			for _, d := range decode[index](t, a.files["index.json"]).Manifests {
				if d.ArtifactType != "application/vnd.cyclonedx+json" {
					continue
				}
				m := decode[manifest](t, a.blob(d))
				if m.Subject == nil || m.Subject.Digest != a.named().Digest || m.ArtifactType != d.ArtifactType {
					t.Errorf("the referrer is about %+v", m.Subject)
				}
				if !bytes.Equal(a.blob(m.Layers[0]), beside) {
					t.Error("the referrer is another than the file beside the archive")
				}
				return
			}
			t.Error("no referrer in the archive")
		})
	}
}

// modules are those that the program is made of, and Go itself.
func modules(t *testing.T, root, pkg string) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=Module", pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"std": strings.TrimPrefix(runtime.Version(), "go")}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p struct {
			Module *struct {
				Path, Version string
				Main          bool
			}
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && !p.Module.Main {
			all[p.Module.Path] = p.Module.Version
		}
	}
	return all
}

// With two platforms the name is that of an index of two images.
func TestPlatforms(t *testing.T) {
	root := must(t, sources)
	out := t.TempDir()
	if _, err := run(root, "--out", out, "--version", version, "--platform", "linux/arm64,linux/amd64", "--tag", "two", "--repository", "example.com/s", "shop"); err != nil {
		t.Fatal(err)
	}
	a := open(t, filepath.Join(out, "shop.oci.tar"))
	d := a.named()
	if got := d.Annotations["io.containerd.image.name"]; got != "example.com/s/shop:two" {
		t.Errorf("name %q", got)
	}
	machines := map[string]elf.Machine{}
	for _, d := range decode[index](t, a.blob(d)).Manifests {
		m := decode[manifest](t, a.blob(d))
		c := decode[config](t, a.blob(m.Config))
		if c.Architecture != d.Platform.Architecture || d.Platform.OS != "linux" {
			t.Errorf("an image for %s is listed for %+v", c.Architecture, d.Platform)
		}
		f, err := elf.NewFile(bytes.NewReader(a.entries(m, c)["usr/local/bin/shop"].data))
		if err != nil {
			t.Fatal(err)
		}
		machines[c.Architecture] = f.Machine
	}
	if diff := cmp.Diff(map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}, machines); diff != "" {
		t.Error(diff)
	}
	files := tree(t, out)
	for _, platform := range []string{"amd64", "arm64"} {
		if files["shop.linux-"+platform+".cdx.json"] == nil {
			t.Errorf("no bill of materials for %s", platform)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	root := must(t, sources)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"web"}, `no program is called "web": there are sidecar, operator, shop`},
		{[]string{"--platform", "linux/386"}, `--platform: "linux/386" is none of linux/amd64, linux/arm64`},
		{[]string{"--root", "/"}, "--root: no go.mod in /"},
		{[]string{"--version", "v1", "--rootfs", "x"}, "--rootfs: name one program and one platform"},
		{[]string{"--no-such"}, "unknown flag: --no-such"},
	} {
		out, err := run(root, slices.Concat([]string{"--version", "v1"}, tc.args)...)
		if err == nil || !strings.Contains(out, tc.want) {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
	}
}
