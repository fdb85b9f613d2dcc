package render

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

func TestLocks(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, `{metadata: {name: shop, namespace: shop}, spec: {backend: {type: Redis, redis: {addresses: ["redis:6379"]}}}}`)
	for _, enabled := range []bool{true, false} {
		cm, err := ConfigMap(shop, v1alpha1.LockingStatus{Enabled: enabled, Reason: "Test"}, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := Locks(cm); got != enabled {
			t.Errorf("Locks of a configuration with locking %v: %v", enabled, got)
		}
		cm.Data[ConfigFile] = "no: configuration"
		if Locks(cm) {
			t.Error("what cannot be read locks")
		}
	}
	if Locks(nil) {
		t.Error("a ConfigMap that is not there locks")
	}
}

func TestStartLocked(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "migrate"}, {Name: ContainerName}},
		Containers:     []corev1.Container{{Name: "app"}},
	}}
	locked := StartLocked(StartLocked(pod)) // the second time changes nothing
	want := []corev1.EnvVar{{Name: "SIDECART_LOCKING", Value: "enabled"}}
	if env := locked.Spec.InitContainers[1].Env; len(env) != 1 || env[0] != want[0] {
		t.Errorf("environment of the sidecar is %v, want %v", env, want)
	}
	if locked.Spec.InitContainers[0].Env != nil || locked.Spec.Containers[0].Env != nil {
		t.Error("another container was told as well")
	}
	if pod.Spec.InitContainers[1].Env != nil {
		t.Error("the pod that was given was changed")
	}
}
