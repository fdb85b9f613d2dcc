package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CartStorageStatus is the observed state, as the operator last saw it.
type CartStorageStatus struct {
	// The generation of the spec that this status is about; -1 until the operator has seen the CartStorage.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready, BackendReachable, ConfigAccepted, LockingEffective and BackendDurable; Reconciling and Stalled while they
	// are true.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Whether distributed locking is on, and why.
	// +optional
	Locking *LockingStatus `json:"locking,omitempty"`

	// How far the carts of spec.moveFrom have moved; absent without it.
	// +optional
	Move *MoveStatus `json:"move,omitempty"`

	// How many pods use this CartStorage.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`

	// How many sidecars run the current configuration, and how many there are, as "updated/total".
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Sidecars string `json:"sidecars,omitempty"`

	// How many pods have a sidecar that differs from that of a new pod.
	// +optional
	// +kubebuilder:default=0
	Outdated int32 `json:"outdated"`

	// What uses this CartStorage, by kind and name.
	// +optional
	// +listType=map
	// +listMapKey=kind
	// +listMapKey=name
	Workloads []WorkloadStatus `json:"workloads,omitempty"`
}

// LockingStatus says whether distributed locking is on, and why.
type LockingStatus struct {
	// Whether sidecars are told to lock.
	// +required
	Enabled bool `json:"enabled"`
	// What decided, in one word, for example MultipleReplicas.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`
	// What decided, in a sentence, for example "Deployment web has 3 replicas".
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message"`
	// Since when it is on or off.
	// +required
	Since metav1.Time `json:"since"`
	// Since when one pod has been alone, while mode Auto still keeps locking on.
	// +optional
	AloneSince *metav1.Time `json:"aloneSince,omitempty"`
}

// MoveState is how far a move of carts is.
//
// +kubebuilder:validation:Enum=Waiting;Moving;Finished
type MoveState string

// The states of a move.
const (
	// MoveWaiting: pods must be created anew before it begins. Their sidecars use the former backend until then.
	MoveWaiting MoveState = "Waiting"
	// MoveMoving: sidecars use both backends, and carts move.
	MoveMoving MoveState = "Moving"
	// MoveFinished: no cart that counts is left in the former backend, and sidecars use the new one alone.
	MoveFinished MoveState = "Finished"
)

// MoveStatus is how far a move of carts is.
type MoveStatus struct {
	// Where the carts come from, for example "Redis redis:6379 under prefix cart".
	// +required
	// +kubebuilder:validation:MaxLength=1024
	From string `json:"from"`
	// Where they go.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	To string `json:"to"`
	// Waiting, Moving or Finished.
	// +required
	State MoveState `json:"state"`
	// Since when it is in this state.
	// +required
	Since metav1.Time `json:"since"`
	// How many carts the present sidecars have moved, as they report it.
	// +optional
	Carried int64 `json:"carried,omitempty"`
	// How many carts the last walk through the former backend could not move yet, for example since they are locked.
	// +optional
	Left int64 `json:"left,omitempty"`
	// What is under way, or what prevents it.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// Since when every sidecar has been told of the move. A walk that begins after that sees all carts.
	// +optional
	ToldSince *metav1.Time `json:"toldSince,omitempty"`
	// Which places the move is between, in a form to compare.
	// +required
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id"`
}

// WorkloadStatus is one workload whose pods use the CartStorage.
type WorkloadStatus struct {
	// Its kind, for example Deployment; Pod for one that nothing owns.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// Its name.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// How many of its pods live, those that are ending included.
	// +required
	Replicas int32 `json:"replicas"`
	// How many of them have a sidecar and are not ending.
	// +required
	Sidecars int32 `json:"sidecars"`
	// How many of these sidecars run the current configuration.
	// +required
	Updated int32 `json:"updated"`
	// How many sidecars differ from those that new pods would be given. Only a restart of the pod changes that.
	// +optional
	Outdated int32 `json:"outdated,omitempty"`
	// In what they differ, and what restarts them.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}
