package charts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sidecart/sidecart/internal/envtest"
)

const (
	chart     = "sidecart" // the folder, and the name of the release
	namespace = "sidecart-system"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sidecart-charts-")
	if err != nil {
		panic(err)
	}
	programs = dir
	code := envtest.Main(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// helm is the real Helm, as e2e/cluster/build.sh builds it. A missing one is a failure, never a skip.
func helm(t testing.TB, kubeconfig string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	out, err := exec.Command("../hack/envtest-dir.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(strings.TrimSpace(string(out)), "helm")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("no helm: build it with e2e/cluster/build.sh helm: %v", err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var b, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &e
	err = cmd.Run()
	return b.String(), e.String(), err
}

// template is what the chart renders, and fails the test if it does not.
func template(t testing.TB, args ...string) string {
	t.Helper()
	args = append([]string{"template", chart, chart, "--namespace", namespace}, args...)
	out, message, err := helm(t, os.DevNull, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, message)
	}
	return out
}

// objects are the documents of a manifest.
func objects(t testing.TB, manifest string) (all []*unstructured.Unstructured) {
	t.Helper()
	d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := d.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%v in\n%s", err, manifest)
		case len(o.Object) > 0:
			all = append(all, o)
		}
	}
}

// name is kind and name of an object.
func name(o *unstructured.Unstructured) string { return fmt.Sprintf("%s/%s", o.GetKind(), o.GetName()) }

// read is a file, as text.
func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
