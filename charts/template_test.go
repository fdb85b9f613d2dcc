package charts

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestLint(t *testing.T) {
	for _, values := range cases(t) {
		out, message, err := helm(t, os.DevNull, "lint", "--strict", chart, "--values", values, "--namespace", namespace)
		if err != nil || strings.Contains(out, "[WARNING]") {
			t.Errorf("%s: %v\n%s%s", values, err, out, message)
		}
	}
}

// cases are values, each of which turns one switch.
func cases(t testing.TB) []string {
	t.Helper()
	all, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(all) < 10 {
		t.Fatalf("there are %d cases: %v", len(all), err)
	}
	return all
}

// The golden file of the default values has everything that the chart renders. That of a switch has only the objects
// that change or go.
func TestGolden(t *testing.T) {
	base := documents(template(t))
	for _, values := range cases(t) {
		t.Run(strings.TrimSuffix(filepath.Base(values), ".values.yaml"), func(t *testing.T) {
			golden(t, values, base)
		})
	}
	// Before 1.30 the API server knows no sleep.
	t.Run("kubernetes-1.29", func(t *testing.T) {
		compare(t, "testdata/kubernetes-1.29.golden.yaml", difference(base, documents(template(t, "--kube-version", "1.29.4-gke.1"))))
	})
}

func golden(t *testing.T, values string, base []string) {
	t.Helper()
	got := documents(template(t, "--values", values))
	file := strings.Replace(values, ".values.", ".golden.", 1)
	if strings.HasPrefix(filepath.Base(values), "default.") {
		compare(t, file, strings.Join(got, "---\n"))
		return
	}
	compare(t, file, difference(base, got))
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(read(t, file), got); diff != "" {
		t.Errorf("%s (-want +got, go test ./charts -update writes it anew):\n%s", file, diff)
	}
}

// documents are those of a manifest, in an order of their own. The CRD is left out: TestShared compares it.
func documents(manifest string) (all []string) {
	for d := range strings.SplitSeq("\n"+manifest, "\n---\n") {
		if d = strings.Trim(d, "\n"); d != "" && !strings.Contains(d, "kind: CustomResourceDefinition") {
			all = append(all, d+"\n")
		}
	}
	slices.Sort(all)
	return all
}

// difference is what is in got and not in base, and the names of the objects that are gone.
func difference(base, got []string) string {
	var out []string
	for _, d := range got {
		if !slices.Contains(base, d) {
			out = append(out, d)
		}
	}
	for _, d := range base {
		if !slices.ContainsFunc(got, func(g string) bool { return head(g) == head(d) }) {
			out = append(out, "# gone: "+head(d)+"\n")
		}
	}
	return strings.Join(out, "---\n")
}

// head is kind and name of a document.
func head(document string) string {
	var kind, name string
	for line := range strings.SplitSeq(document, "\n") {
		if k, ok := strings.CutPrefix(line, "kind: "); ok && kind == "" {
			kind = k
		}
		if n, ok := strings.CutPrefix(line, "  name: "); ok && name == "" {
			name = n
		}
	}
	return kind + "/" + name
}
