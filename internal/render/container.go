package render

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// user is the user and the group of the sidecar, that of "nonroot" in distroless images.
const user = int64(65532)

// adminPort is the name of the port that probes ask.
const adminPort = "sidecart-admin"

// startedPath is what the start-up probe asks for. The answer is 200 once the sidecar serves and has asked its backend,
// even if the backend did not answer. A sidecar of the release before, which a CartStorage may name, takes it for
// /livez and starts as well.
const startedPath = "/livez?started"

// container is the sidecar: an init container that keeps running, so that it is there before and after all others. It
// meets the restricted Pod Security Standard.
//
// The start-up probe does not wait for the backend, which may be behind a proxy that starts later in the same pod. A
// readiness probe on the backend is there only if the CartStorage asks for it: without its backend a shop cannot sell,
// but it can show what it has.
//
// The pod learns where its sidecar listens once, when it is made. So the sidecar has the same in its arguments, which
// win over the file: the file follows the CartStorage, the pod does not. Settings that a sidecar of the release before
// does not know are variables, which it ignores; it would not start with unknown arguments.
func container(cs *v1alpha1.CartStorage, image string, data bool) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	c := corev1.Container{
		Name:            ContainerName,
		Image:           image,
		ImagePullPolicy: cs.Spec.Sidecar.ImagePullPolicy,
		Args:            append([]string{"--config", configDirectory + "/" + ConfigFile}, addressArguments(ports(cs))...),
		Env: []corev1.EnvVar{
			{Name: config.LastGoodVariable, Value: configDirectory + "/" + LastGoodFile},
			// The limit at the start of the container, whoever has set it.
			{Name: config.MemoryLimitVariable, ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
		},
		RestartPolicy:   &always,
		Ports:           []corev1.ContainerPort{{Name: adminPort, ContainerPort: ports(cs).Admin, Protocol: corev1.ProtocolTCP}},
		Resources:       resources(cs),
		StartupProbe:    probe(startedPath, 1, 120),
		LivenessProbe:   probe("/livez", 10, 3),
		SecurityContext: securityContext(),
		// Why it does not start is the last line that it writes.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		VolumeMounts: []corev1.VolumeMount{
			{Name: configVolume, MountPath: configDirectory, ReadOnly: true},
			// What is mounted there already keeps Kubernetes from mounting the token.
			{Name: noTokenVolume, MountPath: tokenDirectory, ReadOnly: true},
		},
	}
	if cs.Spec.Sidecar.Readiness == v1alpha1.ReadyBackend {
		// The sidecar itself waits until several pings have failed; the second failure here is for an answer that got
		// lost.
		c.ReadinessProbe = probe("/readyz", 2, 2)
	}
	c.Env = append(c.Env, identity(cs)...)
	if data {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: dataVolume, MountPath: dataDirectory})
	}
	return c
}

// identity is what the sidecar's status page says that it belongs to.
func identity(cs *v1alpha1.CartStorage) []corev1.EnvVar {
	from := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
	}
	return []corev1.EnvVar{
		{Name: config.PodNameVariable, ValueFrom: from("metadata.name")},
		{Name: config.PodNamespaceVariable, ValueFrom: from("metadata.namespace")},
		{Name: config.CartStorageVariable, Value: cs.Name},
	}
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString(adminPort)}},
		PeriodSeconds:    period,
		TimeoutSeconds:   2,
		FailureThreshold: failures,
	}
}

func securityContext() *corev1.SecurityContext {
	yes, no, id := true, false, user
	return &corev1.SecurityContext{
		RunAsNonRoot:             &yes,
		RunAsUser:                &id,
		RunAsGroup:               &id,
		ReadOnlyRootFilesystem:   &yes,
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// resources are as the CRD has them where the resource says nothing.
func resources(cs *v1alpha1.CartStorage) corev1.ResourceRequirements {
	r := cs.Spec.Sidecar.Resources
	if r.Requests == nil {
		r.Requests = defaultRequests()
	}
	if r.Limits == nil {
		r.Limits = defaultLimits()
	}
	return corev1.ResourceRequirements{Requests: maps.Clone(r.Requests), Limits: maps.Clone(r.Limits)}
}
