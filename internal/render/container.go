package render

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// user is the sidecar's user and group id, which is "nonroot" in distroless images.
const user = int64(65532)

// adminPort is the name of the port that probes ask.
const adminPort = "sidecart-admin"

// startedPath is the path of the start-up probe. The answer is 200 once the sidecar serves and has asked its backend,
// even if the backend did not answer. A CartStorage may name an older sidecar, which answers it like /livez and so
// starts too.
const startedPath = "/livez?started"

// container returns the sidecar: an init container that keeps running, so that it starts before and ends after all
// others. It meets the restricted Pod Security Standard.
//
// The start-up probe does not wait for the backend, which may be behind a proxy that starts later in the same pod. A
// readiness probe on the backend is there only if the CartStorage asks for it: without its backend a shop cannot sell,
// but it can show what it has.
//
// The pod's containers learn where the sidecar listens when the pod is made, and never again. So the sidecar has the
// same addresses in its arguments, which win over the file: the file follows later changes of the CartStorage, the pod
// does not. Settings that an older sidecar does not know are variables, which it ignores; with unknown arguments it
// would not start.
func container(cs *v1alpha1.CartStorage, image string, data bool) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	c := corev1.Container{
		Name:            ContainerName,
		Image:           image,
		ImagePullPolicy: cs.Spec.Sidecar.ImagePullPolicy,
		Args:            append([]string{"--config", configDirectory + "/" + ConfigFile}, addressArguments(ports(cs))...),
		Env: []corev1.EnvVar{
			{Name: config.LastGoodVariable, Value: configDirectory + "/" + LastGoodFile},
			// The limit at the start of the container, also if a LimitRange or a webhook has set it.
			{Name: config.MemoryLimitVariable, ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
		},
		RestartPolicy:   &always,
		Ports:           []corev1.ContainerPort{{Name: adminPort, ContainerPort: ports(cs).Admin, Protocol: corev1.ProtocolTCP}},
		Resources:       resources(cs),
		StartupProbe:    probe(startedPath, 1, 120),
		LivenessProbe:   probe("/livez", 10, 3),
		SecurityContext: securityContext(),
		// The last line that it writes says why it does not start.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		VolumeMounts: []corev1.VolumeMount{
			{Name: configVolume, MountPath: configDirectory, ReadOnly: true},
			// Kubernetes mounts no token where something is mounted already.
			{Name: noTokenVolume, MountPath: tokenDirectory, ReadOnly: true},
		},
	}
	if cs.Spec.Sidecar.Readiness == v1alpha1.ReadyBackend {
		// One failure may be a lost answer, so two are needed. The sidecar itself answers "not ready" only after
		// several pings have failed.
		c.ReadinessProbe = probe("/readyz", 2, 2)
	}
	c.Env = append(c.Env, identity(cs)...)
	if data {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: dataVolume, MountPath: dataDirectory})
	}
	return c
}

// identity are the variables by which the sidecar's status page says what it belongs to.
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

// resources returns those of the resource, or the CRD's defaults.
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
