package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Generated files agree with their sources.
func TestFresh(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"config", "charts/sidecart"} {
		if err := os.CopyFS(filepath.Join(root, dir), os.DirFS(filepath.Join("../..", dir))); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(root); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"templates/crd.yaml", "templates/rbac.yaml", "templates/admissionpolicy.yaml", "README.md"} {
		file = filepath.Join("charts/sidecart", file)
		want, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is stale, run make generate (-want +got):\n%s", file, diff)
		}
	}
}

func TestTable(t *testing.T) {
	got, err := table([]byte(`# Not of a value.

# How many.
count: 2

# An object
# in two lines.
image:
  # This | that.
  tag: ""
  # As a whole.
  labels: {a: "1"}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := "| value | default | what it is |\n|---|---|---|\n" +
		"| `count` | `2` | How many. |\n" +
		"| **`image`** | | **An object in two lines.** |\n" +
		"| `image.tag` | `\"\"` | This \\| that. |\n" +
		"| `image.labels` | `{\"a\":\"1\"}` | As a whole. |\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"a: 1\n", "# A.\na:\n  # B.\n  b: 1\n  c: 2\n"} {
		if _, err := table([]byte(bad)); err == nil || !strings.Contains(err.Error(), "has no comment") {
			t.Errorf("%q: error is %v, want one that names the value without a comment", bad, err)
		}
	}
}

// Text that looks like a template stays text, and an object without metadata is not passed over.
func TestTemplate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("kind: Role\nmetadata:\n  name: a\n  namespace: sidecart-system\n---\nkind: Role\nmetadata:\n  name: \"{{ b }}\"\n  labels:\n    x: y\n")
	got, err := roles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"metadata:\n" + labels + "  name: a\n  namespace: {{ .Release.Namespace }}\n",
		"  name: \"{{ `{{` }} b }}\"\n" + labels + "    x: y\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	write("kind: Role\n")
	if _, err := roles(dir); err == nil {
		t.Error("an object without metadata is passed over")
	}
	if _, err := definition(t.TempDir()); err == nil {
		t.Error("a folder without a definition is passed over")
	}
}
