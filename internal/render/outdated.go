package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// facts are the named properties that a sidecar was injected with and keeps until its pod is made anew. They are
// compared in place of the container, which other webhooks and limit ranges change after us. Short values are kept as
// they are and others as a hash, so that a message can name what differs.
type facts map[string]string

// Names of facts, as messages say them.
const (
	factImage     = "image"
	factPull      = "imagePullPolicy"
	factResources = "resources"
	factPorts     = "ports"
	factSecrets   = "secrets"
	factVolumes   = "volumes"
	factOrder     = "order"
	factReadiness = "readiness"
	factContainer = "container" // the rest of the container, which a newer operator may write differently
)

// OlderOperator is reported for a pod whose sidecar was injected by an operator that did not note facts.
const OlderOperator = "an older operator injected it"

// factsOf returns the facts of a sidecar and the volumes that came with it.
func factsOf(c corev1.Container, volumes []corev1.Volume, cs *v1alpha1.CartStorage) facts {
	p := ports(cs)
	f := facts{
		factImage:     short(c.Image),
		factPull:      string(c.ImagePullPolicy),
		factResources: hash(c.Resources),
		factPorts:     fmt.Sprintf("%d/%d/%d", p.GRPC, p.HTTP, p.Admin),
		factOrder:     string(cmp.Or(cs.Spec.Injection.Order, v1alpha1.InjectFirst)),
		factReadiness: hash([]any{c.StartupProbe, c.ReadinessProbe}),
	}
	var others []corev1.Volume
	for _, v := range volumes {
		if v.Name == configVolume {
			f[factSecrets] = hash(v)
		} else {
			others = append(others, v)
		}
	}
	f[factVolumes] = hash(others)
	c.Image, c.ImagePullPolicy, c.Resources, c.StartupProbe, c.ReadinessProbe, c.Ports, c.Args = "", "", corev1.ResourceRequirements{}, nil, nil, nil, nil
	f[factContainer] = hash(c)
	return f
}

// note returns f as an annotation.
func (f facts) note() string {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // a map of strings
	}
	return string(text)
}

// hash returns a short hash of v.
func hash(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // the API server sent it as JSON
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:5])
}

// short returns s, or its hash if s is long, since the operator's cache keeps no long annotations.
func short(s string) string {
	if len(s) <= 128 {
		return s
	}
	return hash(s)
}

// Wanted is what new pods would be injected with now: see [Wanted.Outdated]. It is computed once for all pods of a
// CartStorage.
type Wanted struct{ facts facts }

// WantedOf returns what new pods of cs would be injected with.
func WantedOf(cs *v1alpha1.CartStorage, o PodOptions) Wanted {
	pod := &corev1.Pod{}
	inject(pod, cs, cmp.Or(cs.Spec.Sidecar.Image, o.Image), o.Generation)
	return Wanted{noted(pod)}
}

// Key is equal for equal facts of the same generation of the spec.
func (w Wanted) Key(cs *v1alpha1.CartStorage) string {
	return hash([]any{w.facts, cs.Generation})
}

// Outdated names the facts in which the sidecar of the pod differs from that of a new pod, or returns nil. Only making
// the pod anew changes them.
func (w Wanted) Outdated(pod *corev1.Pod) (names []string) {
	have := noted(pod)
	if have == nil {
		return []string{OlderOperator}
	}
	return w.facts.differences(have)
}

// differences names the facts that have a different value in have.
func (f facts) differences(have facts) (names []string) {
	for name, want := range f {
		if have[name] != want {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// noted returns the facts that the pod was injected with, or nil if they are not known.
func noted(pod *corev1.Pod) (f facts) {
	if json.Unmarshal([]byte(pod.Annotations[v1alpha1.InjectedAsAnnotation]), &f) != nil {
		return nil
	}
	return f
}
