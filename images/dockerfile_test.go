package images

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stage is what the Dockerfile says between two FROMs, by instruction.
type stage map[string][]string

// The Dockerfile makes the images that the archives hold: its commands are run here, outside of Docker, and give the
// same files, and its settings are the same.
func TestDockerfile(t *testing.T) {
	root, dist := must(t, sources), must(t, built)
	stages := readDockerfile(t, filepath.Join(root, "Dockerfile"))
	for name, s := range stages {
		pinned(t, name, s["FROM"], stages)
	}
	if diff := cmp.Diff([]string{". ."}, stages["build"]["COPY"]); diff != "" {
		t.Error(diff)
	}
	for name := range programs {
		t.Run(name, func(t *testing.T) {
			a := open(t, filepath.Join(dist, name+".oci.tar"))
			m := decode[manifest](t, a.blob(a.named()))
			c := decode[config](t, a.blob(m.Config))

			want := stage{
				"FROM":       {"scratch"},
				"COPY":       {"--from=build-" + name + " /rootfs /"},
				"ENV":        c.Config.Env,
				"USER":       {c.Config.User},
				"ENTRYPOINT": {`["` + c.Config.Entrypoint[0] + `"]`},
			}
			if diff := cmp.Diff(want, stages[name]); diff != "" {
				t.Error(diff)
			}

			commands := stages["build-"+name]["RUN"]
			if len(commands) != 1 {
				t.Fatalf("%d commands", len(commands))
			}
			out := filepath.Join(t.TempDir(), "rootfs")
			cmd := exec.Command("sh", "-ec", strings.NewReplacer("/src", root, "/rootfs", out).Replace(commands[0]))
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "VERSION="+version)
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", commands[0], err, b)
			}
			got := tree(t, out)
			for path, e := range a.entries(m, c) {
				if strings.HasSuffix(path, "/") {
					continue
				}
				if !bytes.Equal(got[path], e.data) {
					t.Errorf("%s has %d bytes, and %d in the archive", path, len(got[path]), len(e.data))
				}
				if info, err := os.Stat(filepath.Join(out, path)); err == nil && info.Mode().Perm() != os.FileMode(e.header.Mode) {
					t.Errorf("%s has mode %o", path, info.Mode().Perm())
				}
				delete(got, path)
			}
			for path := range got {
				t.Errorf("%s is not in the archive", path)
			}
		})
	}
}

// pinned refuses a base image that may be another one tomorrow: it must be scratch, a stage, or named by its digest.
func pinned(t *testing.T, name string, from []string, stages map[string]stage) {
	t.Helper()
	if len(from) != 1 {
		t.Errorf("stage %s has %d bases", name, len(from))
		return
	}
	fields := strings.Fields(from[0])
	base := fields[len(fields)-1]
	if i := slices.IndexFunc(fields, func(f string) bool { return !strings.HasPrefix(f, "--") }); i >= 0 {
		base = strings.Join(fields[i:], " ")
	}
	if _, isStage := stages[base]; isStage || base == "scratch" {
		return
	}
	if !digest.MatchString(base) {
		t.Errorf("stage %s is made from %s: name it by its digest", name, base)
	}
}

// digest matches a name with a digest, or with one that the person who builds must give, without a default.
var digest = regexp.MustCompile(`^[^@$]+@(sha256:[0-9a-f]{64}|\$\{GO_DIGEST\})$`)

func TestPinned(t *testing.T) {
	for base, want := range map[string]bool{
		"golang@sha256:" + strings.Repeat("a", 64): true,
		"golang@${GO_DIGEST}":                      true,
		"golang:1.26":                              false,
		"golang":                                   false,
		"golang@sha256:abc":                        false,
		"golang@${GO_DIGEST:-sha256:abc}":          false,
		"${IMAGE}":                                 false,
	} {
		if got := digest.MatchString(base); got != want {
			t.Errorf("%s: pinned is %t, want %t", base, got, want)
		}
	}
}

// The files that .dockerignore leaves out are not sources.
func TestDockerignore(t *testing.T) {
	root := must(t, sources)
	b, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		pattern := strings.TrimSpace(line)
		if pattern == "" || strings.HasPrefix(pattern, "#") || pattern == "dist" {
			continue // the tests have written dist
		}
		if found, err := filepath.Glob(filepath.Join(root, pattern)); err != nil || len(found) > 0 {
			t.Errorf("%s leaves out %v %v", pattern, found, err)
		}
	}
}

func readDockerfile(t *testing.T, name string) map[string]stage {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]stage{}
	var current stage
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		instruction, rest, _ := strings.Cut(line, " ")
		if current == nil && instruction == "ARG" {
			if strings.Contains(rest, "=") {
				t.Errorf("ARG %s has a default, which stands for a base", rest)
			}
			continue
		}
		if instruction == "FROM" {
			from, as, _ := strings.Cut(rest, " AS ")
			current = stage{}
			stages[as], rest = current, from
		}
		current[instruction] = append(current[instruction], rest)
	}
	return stages
}
