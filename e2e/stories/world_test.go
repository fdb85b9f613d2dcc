package stories

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/e2e/cluster"
)

const (
	// system is where the operator is installed.
	system = "sidecart-system"
	// soon bounds, for a busy machine, the wait for something that should happen at once.
	soon = 90 * time.Second
)

// versions of the images: two that differ only in their name and in the version that they report.
const (
	thisVersion = "e2e-1"
	nextVersion = "e2e-2"
)

// world is what all stories share: the cluster with the images.
var world struct {
	*cluster.Cluster
	missing error  // why there is no cluster
	root    string // the checkout
	chart   string // path
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if world.missing = cluster.Possible(); world.missing != nil {
		if os.Getenv("SIDECART_E2E") == "required" {
			fmt.Fprintln(os.Stderr, world.missing)
			return 1
		}
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sidecart-stories-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := create(dir); err != nil {
		fmt.Fprintln(os.Stderr, "stories:", err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		tell()
	}
	if err := world.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stories:", err)
		return 1
	}
	return code
}

// create builds the images of this version and starts the cluster with them.
func create(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return err
	}
	world.root, world.chart = root, filepath.Join(root, "charts", "sidecart")
	archives, err := images(ctx, dir, thisVersion)
	if err != nil {
		return err
	}
	postgres, err := cluster.Postgres("postgres:e2e")
	if err != nil {
		return err
	}
	for _, server := range []cluster.Image{cluster.Redis("redis:e2e"), cluster.Memcached("memcached:e2e"), postgres} {
		archive := filepath.Join(dir, strings.ReplaceAll(server.Name, ":", "-")+".tar")
		if err := server.Build(ctx, archive); err != nil {
			return err
		}
		archives = append(archives, archive)
	}
	world.Cluster, err = cluster.New(ctx, cluster.Options{Images: archives})
	return err
}

// images builds the images of a version from the checkout, as archives in dir.
func images(ctx context.Context, dir, version string) (archives []string, err error) {
	out := filepath.Join(dir, version)
	build := exec.CommandContext(ctx, "go", "-C", filepath.Join(world.root, "tools", "images"), "run", ".",
		"--root", world.root, "--out", out, "--version", version, "--tag", version)
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the images: %w\n%s", err, text)
	}
	for _, program := range []string{"sidecar", "operator", "shop"} {
		archives = append(archives, filepath.Join(out, program+".oci.tar"))
	}
	return archives, nil
}

// tell prints the state of the cluster after a failure.
func tell() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	world.Diagnose(ctx, os.Stderr)
}

// story is one test in a namespace of its own.
type story struct {
	*testing.T
	namespace string
}

// tellStory makes a namespace for a test. It goes after its end, while the next story begins. The operator is
// installed.
func tellStory(t *testing.T, labels ...string) *story {
	t.Helper()
	if world.missing != nil {
		t.Skip(world.missing)
	}
	install(t)
	s := &story{t, strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))}
	world.MustKubectl(t, "delete", "namespace", s.namespace, "--ignore-not-found") // with -count=2
	s.kubectl("create", "namespace", s.namespace)
	t.Cleanup(func() {
		if t.Failed() {
			s.logs()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), soon)
		defer cancel()
		if _, err := world.Kubectl(ctx, "delete", "namespace", s.namespace, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	if len(labels) > 0 {
		s.kubectl(append([]string{"label", "namespace", s.namespace}, labels...)...)
	}
	return s
}

// logs shows the logs of the namespace and of the operator.
func (s *story) logs() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"-n", s.namespace, "get", "cartstorages,pods,events", "-o", "wide"},
		{"-n", s.namespace, "get", "cartstorages", "-o", "yaml"},
		{"-n", system, "get", "pods", "-o", "wide"},
		{"-n", system, "logs", "-l", "app.kubernetes.io/name=sidecart-operator", "--tail=40", "--prefix"},
	} {
		text, err := world.Kubectl(ctx, args...)
		s.Logf("kubectl %s\n%s%v", strings.Join(args, " "), text, err)
	}
}

// kubectl runs in the story's namespace and must succeed.
func (s *story) kubectl(args ...string) string {
	s.Helper()
	return world.MustKubectl(s.T, append([]string{"-n", s.namespace}, args...)...)
}

// apply is kubectl apply in the story's namespace.
func (s *story) apply(manifest string) {
	s.Helper()
	cmd := world.Command(s.Context(), "kubectl", "-n", s.namespace, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// eventually waits until f gives no error.
func (s *story) eventually(what string, f func(ctx context.Context) error) {
	s.Helper()
	s.within(soon, what, f)
}

func (s *story) within(limit time.Duration, what string, f func(ctx context.Context) error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	defer cancel()
	if err := cluster.Poll(ctx, f, nil); err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// get decodes an object into what is asked for.
func (s *story) get(ctx context.Context, into any, args ...string) error {
	text, err := world.Kubectl(ctx, append([]string{"-n", s.namespace, "get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

// sample is a file of config/samples.
func (s *story) sample(name string) string {
	s.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "config", "samples", name))
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}
