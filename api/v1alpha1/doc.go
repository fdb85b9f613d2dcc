// Package v1alpha1 is the Kubernetes API of Sidecart: the resource CartStorage, which says where the carts of a shop
// live, how they are locked and how long to wait. It owns the types, their defaults and validation (as markers, from
// which the CRD is generated), and the names of conditions and reasons.
//
// It imports the API machinery of Kubernetes only, and holds no behaviour.
//
// +groupName=sidecart.dev
// +kubebuilder:object:generate=true
package v1alpha1

//go:generate go tool -modfile=../../tools/controller-gen/go.mod controller-gen object:headerFile=/dev/null paths=. crd output:crd:artifacts:config=../../config/crd/bases
