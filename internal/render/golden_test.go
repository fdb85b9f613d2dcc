package render

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/envtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { os.Exit(envtest.Main(m)) }

// input is the input of a golden file.
type input struct {
	Generation  int64                  `json:"generation"`
	Locking     v1alpha1.LockingStatus `json:"locking"`
	CartStorage v1alpha1.CartStorage   `json:"cartStorage"`
	Pod         corev1.Pod             `json:"pod"`
}

func inputs(t *testing.T, kind string) map[string]*input {
	t.Helper()
	files, err := filepath.Glob("testdata/" + kind + "-*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	all := map[string]*input{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in := &input{}
		if err := yaml.UnmarshalStrict(data, in); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".in.yaml")] = in
	}
	return all
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".out.yaml")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, diff)
	}
}

func TestConfigGolden(t *testing.T) {
	for name, in := range inputs(t, "config") {
		t.Run(name, func(t *testing.T) {
			c := Config(&in.CartStorage, in.Locking, in.Generation)
			got, err := config.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, string(got))
			loaded, err := config.Load(got)
			if err != nil {
				t.Fatalf("the sidecar refuses it: %v", err)
			}
			if diff := cmp.Diff(c, loaded); diff != "" {
				t.Errorf("the sidecar reads something else (-rendered +loaded):\n%s", diff)
			}
			again, err := config.Marshal(Config(in.CartStorage.DeepCopy(), in.Locking, in.Generation))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(got), string(again)); diff != "" {
				t.Errorf("rendered twice:\n%s", diff)
			}
			// Every secret file that is named must be mounted, and no other.
			mounted := map[string]bool{}
			for _, path := range secretPaths(secrets(&in.CartStorage)) {
				mounted[configDirectory+"/"+path] = true
			}
			for _, path := range strings.Fields(strings.NewReplacer("&", " ", "=", " ", "%2F", "/", "\n", " ").Replace(string(got))) {
				if strings.HasPrefix(path, configDirectory+"/"+secretDirectory) {
					if !mounted[path] {
						t.Errorf("%s is named and not mounted", path)
					}
					mounted[path] = false
				}
			}
			for path, unnamed := range mounted {
				// One key may be named twice, as by a URL's and a login's secret.
				if unnamed && !strings.Contains(string(got), path) {
					t.Errorf("%s is mounted and not named", path)
				}
			}
		})
	}
}

func TestPodGolden(t *testing.T) {
	for name, in := range inputs(t, "pod") {
		t.Run(name, func(t *testing.T) {
			before := in.Pod.DeepCopy()
			o := PodOptions{Image: "sidecart:1", Generation: in.Generation}
			pod, err := Pod(&in.Pod, &in.CartStorage, o)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, marshalPod(t, pod))
			if diff := cmp.Diff(before, &in.Pod); diff != "" {
				t.Errorf("the pod that was given has changed:\n%s", diff)
			}
			o.Image, o.Generation = "sidecart:2", in.Generation+1
			again, err := Pod(pod, &in.CartStorage, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(pod, again); diff != "" {
				t.Errorf("a second invocation changes it:\n%s", diff)
			}
			if missing := Missing(pod, &in.CartStorage); len(missing) > 0 {
				t.Errorf("files are missing: %s", missing)
			}
		})
	}
}

// A real API server must accept the pods, in a namespace that enforces the restricted Pod Security Standard.
func TestPodsAreAccepted(t *testing.T) {
	cluster := envtest.Start(t)
	namespace := cluster.Namespace(t)
	var ns corev1.Namespace
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: namespace}, &ns); err != nil {
		t.Fatal(err)
	}
	ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if err := cluster.Client.Update(t.Context(), &ns); err != nil {
		t.Fatal(err)
	}
	for name, in := range inputs(t, "pod") {
		t.Run(name, func(t *testing.T) {
			in.Pod.Namespace, in.Pod.Name = namespace, name
			pod, err := Pod(&in.Pod, &in.CartStorage, PodOptions{Image: "sidecart:1", Generation: in.Generation})
			if err != nil {
				t.Fatal(err)
			}
			if err := cluster.Client.Create(t.Context(), pod.DeepCopy()); err != nil {
				t.Error(err)
			}
			// The standard must be enforced, or the test proves nothing.
			pod.Name += "-privileged"
			pod.Spec.InitContainers[0].SecurityContext.Capabilities = nil
			if err := cluster.Client.Create(t.Context(), pod); err == nil {
				t.Error("a pod that breaks the standard was accepted")
			}
		})
	}
}

func marshalPod(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	pod = pod.DeepCopy()
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	got, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}
