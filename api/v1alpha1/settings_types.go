package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LockingMode says whether distributed locking is used.
//
// +kubebuilder:validation:Enum=Auto;Enabled;Disabled
type LockingMode string

// Whether distributed locking is used.
const (
	LockingAuto     LockingMode = "Auto"
	LockingEnabled  LockingMode = "Enabled"
	LockingDisabled LockingMode = "Disabled"
)

// Locking says how changes of several replicas are kept apart. No change is lost either way: without distributed
// locking a change that meets another one is computed again.
type Locking struct {
	// Whether distributed locking is used. Auto turns it on as soon as more than one pod could change carts, and off
	// when one pod has been alone for autoDisableAfter; status.locking says what decided. Enabled and Disabled fix it.
	// +optional
	// +kubebuilder:default=Auto
	Mode LockingMode `json:"mode,omitempty"`

	// The longest that a change waits for a lock, and how long a lock lives after its holder has died. waitTimeout and
	// leaseDuration override one of the two each.
	// +optional
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('24h')",message="must be a duration from 10ms to 24h such as 5s or 500ms"
	Timeout metav1.Duration `json:"timeout,omitzero"`

	// The longest that a change waits for a lock. Without it, timeout.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('1ms') && duration(self) <= duration('24h')",message="must be a duration from 1ms to 24h such as 5s or 500ms"
	WaitTimeout metav1.Duration `json:"waitTimeout,omitzero"`

	// How long a lock lives after its holder has died. Not shorter than timeouts.write. Without it, timeout.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('24h')",message="must be a duration from 10ms to 24h such as 5s or 500ms"
	LeaseDuration metav1.Duration `json:"leaseDuration,omitzero"`

	// How long one pod must have been alone before Auto turns locking off.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration over zero such as 5m or 30s"
	AutoDisableAfter metav1.Duration `json:"autoDisableAfter,omitzero"`
}

// Timeouts say how long to wait for the backend.
type Timeouts struct {
	// The longest that it may take to connect.
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('24h')",message="must be a duration from 10ms to 24h such as 1s or 500ms"
	Dial metav1.Duration `json:"dial,omitzero"`

	// The longest that one read of the backend may take.
	// +optional
	// +kubebuilder:default="500ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('24h')",message="must be a duration from 10ms to 24h such as 1s or 500ms"
	Read metav1.Duration `json:"read,omitzero"`

	// The longest that one write to the backend may take.
	// +optional
	// +kubebuilder:default="500ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('24h')",message="must be a duration from 10ms to 24h such as 1s or 500ms"
	Write metav1.Duration `json:"write,omitzero"`

	// The longest that a client's request may take in all, including the wait for a lock. Without it, that wait and one
	// second more.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('24h')",message="must be a duration from 10ms to 24h such as 6s or 500ms"
	Request metav1.Duration `json:"request,omitzero"`
}

// Audit is a trail, in the database of the carts, of who changed what.
type Audit struct {
	// How long the lines of the audit trail are kept, for example 720h. Without it, or with "0s", no trail is kept.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && (duration(self) == duration('0s') || duration(self) >= duration('1m'))",message="must be a duration of at least one minute such as 24h or 720h, or 0s for no audit trail"
	Retention metav1.Duration `json:"retention,omitzero"`
}

// Fronts are services for programs that exist already.
type Fronts struct {
	// How long after a user's GetCart an EmptyCart of a demo shop removes only what that GetCart saw, so that items
	// added during a checkout stay. With "0s", EmptyCart always removes all items.
	// +optional
	// +kubebuilder:default="0s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be a duration to 24h such as 10m, or 0s for never"
	CheckoutWindow metav1.Duration `json:"checkoutWindow,omitzero"`
}

// Limits bound what a cart may hold. A change that goes beyond is refused.
type Limits struct {
	// The most items of one cart.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	MaxItems int32 `json:"maxItems,omitempty"`

	// The largest size of one document (items, conditions, or one metadata value) as compact JSON, in bytes. A backend
	// may have a lower limit of its own.
	// +optional
	// +kubebuilder:default=1048576
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=67108864
	MaxDocumentBytes int32 `json:"maxDocumentBytes,omitempty"`

	// The largest size of a whole cart, with all of its documents, in bytes. A cart that is already over it, because
	// the limit was lowered, may shrink and move, but not grow.
	// +optional
	// +kubebuilder:default=2097152
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:XValidation:rule="self <= 3145728",message="must be at most 3145728 (3 MiB), so that every answer fits the 4 MiB that gRPC clients take by default"
	MaxCartBytes int32 `json:"maxCartBytes,omitempty"`

	// The most metadata keys of one cart.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxMetadataKeys int32 `json:"maxMetadataKeys,omitempty"`

	// The largest quantity of one item.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000000
	MaxQuantity int64 `json:"maxQuantity,omitempty"`
}

// LogLevel says what the sidecar writes to its log.
//
// +kubebuilder:validation:Enum=debug;info;warn;error
type LogLevel string

// LogFormat says how log lines look.
//
// +kubebuilder:validation:Enum=json;text
type LogFormat string

// Readiness says what a sidecar must be able to do for its pod to be ready.
//
// +kubebuilder:validation:Enum=Serving;Backend
type Readiness string

const (
	// ReadyServing asks for a sidecar that serves.
	ReadyServing Readiness = "Serving"
	// ReadyBackend asks for one whose backend takes changes.
	ReadyBackend Readiness = "Backend"
)

// Sidecar is the container that pods get.
type Sidecar struct {
	// The image; by default the one that came with the operator. A change affects pods that start after it.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^(([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|[[][0-9A-Fa-f:]+[]])(:[0-9]+)?/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64}|@sha512:[0-9a-f]{128})?$')",message="must be the name of an image, for example registry.example.com/sidecart/sidecar:1.0, or with @sha256:… and 64 digits"
	Image string `json:"image,omitempty"`

	// When to pull the image. Without it, the default of Kubernetes for the image's tag.
	// +optional
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// What the container requests and may use. A change is for pods that start from then on.
	// +optional
	// +kubebuilder:default={}
	Resources Resources `json:"resources,omitzero"`

	// What the sidecar logs: debug, info, warn or error.
	// +optional
	// +kubebuilder:default=info
	LogLevel LogLevel `json:"logLevel,omitempty"`

	// How log lines look: json or text.
	// +optional
	// +kubebuilder:default=json
	LogFormat LogFormat `json:"logFormat,omitempty"`

	// When the sidecar lets its pod be ready. Serving: as soon as the sidecar serves, also while it does not reach its
	// backend. Backend: only while a change of a cart would work, so that Services leave the pod out while it would
	// not. A change is for pods that start from then on.
	// +optional
	// +kubebuilder:default=Serving
	Readiness Readiness `json:"readiness,omitempty"`

	// Where the sidecar listens. A change is for pods that start from then on; a pod keeps its ports for as long as it
	// lives, also when its sidecar restarts.
	// +optional
	// +kubebuilder:default={grpc: 7420, http: 7421, admin: 7422}
	Ports Ports `json:"ports,omitzero"`

	// What happens to pods whose sidecar differs from that of a new pod: with OnRestart they keep it until something
	// restarts them, and the status counts them; with Restart the operator restarts their Deployments, StatefulSets and
	// DaemonSets, one at a time and only while all is well.
	// +optional
	// +kubebuilder:default=OnRestart
	Rollout RolloutPolicy `json:"rollout,omitempty"`
}

// RolloutPolicy says when pods get a new sidecar.
//
// +kubebuilder:validation:Enum=OnRestart;Restart
type RolloutPolicy string

const (
	// RolloutOnRestart leaves pods as they are until something else restarts them.
	RolloutOnRestart RolloutPolicy = "OnRestart"
	// RolloutRestart makes the operator restart workloads.
	RolloutRestart RolloutPolicy = "Restart"
)

// Resources are what a container requests and may use.
//
// +kubebuilder:validation:XValidation:rule="[self.?limits.orValue({}), self.?requests.orValue({})].all(m, m.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.contains('/')))",message="a container has cpu, memory and ephemeral-storage, and what a device plugin offers under a name with a /: write one of these"
// +kubebuilder:validation:XValidation:rule="[self.?limits.orValue({}), self.?requests.orValue({})].all(m, m.all(k, quantity(string(m[k])).compareTo(quantity('0')) >= 0))",message="a quantity must not be negative: write for example cpu: 20m or memory: 64Mi"
// +kubebuilder:validation:XValidation:rule="!('memory' in self.?limits.orValue({})) || quantity(string(self.limits['memory'])).compareTo(quantity('16Mi')) >= 0",fieldPath=".limits",message="with less than 16Mi the container does not start: write for example memory: 128Mi, and mind the unit"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",message="a container cannot request more than its limit: lower requests (cpu: 20m and memory: 32Mi where not set) or raise limits (memory: 128Mi where not set)"
type Resources struct {
	// What the container may use at most.
	// +optional
	// +kubebuilder:default={memory: "128Mi"}
	// +kubebuilder:validation:MaxProperties=4
	Limits corev1.ResourceList `json:"limits,omitempty"`
	// What the container is guaranteed.
	// +optional
	// +kubebuilder:default={cpu: "20m", memory: "32Mi"}
	// +kubebuilder:validation:MaxProperties=4
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// Ports are where the sidecar listens.
//
// +kubebuilder:validation:XValidation:rule="self.grpc != self.http && self.grpc != self.admin && self.http != self.admin",message="the ports grpc, http and admin must differ: write for example grpc: 7420, http: 7421, admin: 7422"
type Ports struct {
	// gRPC, on localhost. Apps find it in SIDECART_GRPC_TARGET.
	// +optional
	// +kubebuilder:default=7420
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	GRPC int32 `json:"grpc,omitempty"`
	// HTTP/JSON, on localhost. Apps find it in SIDECART_HTTP_URL.
	// +optional
	// +kubebuilder:default=7421
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	HTTP int32 `json:"http,omitempty"`
	// Health, metrics and status, on all addresses of the pod.
	// +optional
	// +kubebuilder:default=7422
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	Admin int32 `json:"admin,omitempty"`
}

// MissingSidecarPolicy says what to do about a pod that has no sidecar although its label asks for one.
//
// +kubebuilder:validation:Enum=Report;Recreate
type MissingSidecarPolicy string

const (
	// ReportMissing says it in the status, and leaves the pod alone.
	ReportMissing MissingSidecarPolicy = "Report"
	// RecreateMissing evicts the pod, so that its owner makes a new one with a sidecar.
	RecreateMissing MissingSidecarPolicy = "Recreate"
)

// InjectionOrder says where the sidecar stands among a pod's init containers, which start one after another.
//
// +kubebuilder:validation:Enum=First;Last
type InjectionOrder string

const (
	// InjectFirst is before all others, which find carts.
	InjectFirst InjectionOrder = "First"
	// InjectLast is after all others, one of which may be the proxy to the backend.
	InjectLast InjectionOrder = "Last"
)

// Injection says how pods get their sidecar.
type Injection struct {
	// Where the sidecar stands among the init containers of a pod, which start one after another. First: before all
	// others, so that they find carts. Last: after all others, so that a proxy among them, through which the backend is
	// reached, runs when the sidecar starts; ordinary init containers find no carts then. A change is for pods that
	// start from then on.
	// +optional
	// +kubebuilder:default=First
	Order InjectionOrder `json:"order,omitempty"`

	// What to do about a pod that started without a sidecar although its label asks for one, as when the webhook was
	// away: Report says it in the status; Recreate also evicts such pods, one at a time, if their owner creates
	// another.
	// +optional
	// +kubebuilder:default=Report
	OnMissing MissingSidecarPolicy `json:"onMissing,omitempty"`
}
