package render

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/internal/config"
)

// lockingVariable is the environment variable of --locking. It wins over the file.
const lockingVariable = "SIDECART_LOCKING"

// Locks reports whether a ConfigMap of [ConfigMap] turns locking on. A ConfigMap that is nil or cannot be read does
// not.
func Locks(current *corev1.ConfigMap) bool {
	if current == nil {
		return false
	}
	c, err := config.Load([]byte(current.Data[ConfigFile]))
	return err == nil && c.Locking.Mode == config.LockingEnabled
}

// StartLocked makes the sidecar of pod lock for as long as the pod lives, even if its file says otherwise. It is for a
// pod that is admitted beside another one before the file says so. The given pod is not changed.
func StartLocked(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if ours(*c) && !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == lockingVariable }) {
			c.Env = append(c.Env, corev1.EnvVar{Name: lockingVariable, Value: string(config.LockingEnabled)})
		}
	}
	return pod
}
