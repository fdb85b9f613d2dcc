package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of this package.
var GroupVersion = schema.GroupVersion{Group: "sidecart.dev", Version: "v1alpha1"}

// Kind of the resource, and its plural name in URLs.
const (
	Kind     = "CartStorage"
	Resource = "cartstorages"
)

// Labels and annotations on pods.
const (
	// InjectLabel on a pod template asks for a sidecar; its value is the name of the CartStorage in the pod's
	// namespace. That label alone says which pods use a CartStorage.
	InjectLabel = "sidecart.dev/inject"
	// InjectedAnnotation on a pod says that it was given a sidecar; its value is the name of the CartStorage.
	InjectedAnnotation = "sidecart.dev/injected"
	// GenerationAnnotation on a pod is the generation of the configuration that its sidecar should run. A change of it
	// makes the kubelet refresh the pod's volumes at once. On a ConfigMap it is the generation that it holds.
	GenerationAnnotation = "sidecart.dev/generation"
	// InjectedAsAnnotation on a pod is what its sidecar was injected with. It shows whether a new pod would be given
	// another sidecar.
	InjectedAsAnnotation = "sidecart.dev/injected-as"
	// RestartedForAnnotation on the template of a workload says for which change of the sidecar the operator has
	// restarted it.
	RestartedForAnnotation = "sidecart.dev/restarted-for"
	// NudgedAnnotation on a workload says when the operator had its controller try again to make pods that had been
	// refused.
	NudgedAnnotation = "sidecart.dev/nudged"
)

// AddToScheme registers the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &CartStorage{}, &CartStorageList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
