package render

import (
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// user is the user and the group of the sidecar, that of "nonroot" in distroless images.
const user = int64(65532)

// adminPort is the name of the port that probes ask.
const adminPort = "sidecart-admin"

// container is the sidecar: an init container that keeps running, so that it is
// there before and after all others. It meets the restricted Pod Security Standard.
//
// It has no readiness probe: without its backend a shop cannot sell, but it can show
// what it has. The start-up probe is one of readiness, so that nothing starts
// before carts can be served.
func container(cs *v1alpha1.CartStorage, image string, data bool) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	c := corev1.Container{
		Name:            ContainerName,
		Image:           image,
		ImagePullPolicy: cs.Spec.Sidecar.ImagePullPolicy,
		Args:            []string{"--config", configDirectory + "/" + ConfigFile},
		RestartPolicy:   &always,
		Ports:           []corev1.ContainerPort{{Name: adminPort, ContainerPort: ports(cs).Admin, Protocol: corev1.ProtocolTCP}},
		Resources:       resources(cs),
		StartupProbe:    probe("/readyz", 1, 120),
		LivenessProbe:   probe("/livez", 10, 3),
		SecurityContext: securityContext(),
		VolumeMounts: []corev1.VolumeMount{
			{Name: configVolume, MountPath: configDirectory, ReadOnly: true},
			// What is mounted there already keeps Kubernetes from mounting the token.
			{Name: noTokenVolume, MountPath: tokenDirectory, ReadOnly: true},
		},
	}
	if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok && limit.Value() > 0 {
		// A tenth is left for what the Go runtime does not count.
		c.Env = []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: strconv.FormatInt(limit.Value()/10*9, 10)}}
	}
	if data {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: dataVolume, MountPath: dataDirectory})
	}
	return c
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
		r.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
	}
	if r.Limits == nil {
		r.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")}
	}
	return corev1.ResourceRequirements{Requests: maps.Clone(r.Requests), Limits: maps.Clone(r.Limits)}
}
