package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// The manifests hold no field that Kubernetes does not know, meet the restricted Pod Security Standard, and ask for a
// sidecar of the CartStorage that they make.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	storages, asked := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		for _, document := range documents(t, file) {
			var kind metav1.TypeMeta
			strict(t, file, document, &kind, yaml.Unmarshal)
			var pod *corev1.PodTemplateSpec
			switch kind.Kind {
			case "CartStorage":
				var v v1alpha1.CartStorage
				strict(t, file, document, &v, yaml.UnmarshalStrict)
				storages[v.Name] = true
			case "Deployment":
				var v appsv1.Deployment
				strict(t, file, document, &v, yaml.UnmarshalStrict)
				pod = &v.Spec.Template
			case "Job":
				var v batchv1.Job
				strict(t, file, document, &v, yaml.UnmarshalStrict)
				pod = &v.Spec.Template
			case "Service":
				var v corev1.Service
				strict(t, file, document, &v, yaml.UnmarshalStrict)
			default:
				t.Errorf("%s: kind %q", file, kind.Kind)
			}
			if pod == nil {
				continue
			}
			checkRestricted(t, file, pod)
			if name, ok := pod.Labels[v1alpha1.InjectLabel]; ok {
				asked[name] = true
			}
		}
	}
	if len(storages) != 1 || len(asked) != 1 || !asked["shop"] || !storages["shop"] {
		t.Errorf("CartStorages %v, asked for %v", storages, asked)
	}
}

func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	reader := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(b)))
	for {
		document := make([]byte, len(b))
		n, err := reader.Read(document)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document[:n])
	}
}

func strict(t *testing.T, file string, document []byte, into any, unmarshal func([]byte, any, ...yaml.JSONOpt) error) {
	t.Helper()
	if err := unmarshal(document, into); err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

func checkRestricted(t *testing.T, file string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	s := pod.Spec.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: the pod's security context is %v", file, s)
	}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.Capabilities == nil || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: the security context of %s is %v", file, c.Name, s)
		}
		if c.Resources.Requests == nil || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: %s has no requests or no memory limit", file, c.Name)
		}
	}
}
