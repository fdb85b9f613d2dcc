package v1alpha1

// Conditions of a CartStorage.
const (
	// ConditionReady is true when the other conditions are true and every pod has a sidecar that runs the current
	// configuration. Once it is true for a spec, pods that start, that end or that are told of a decision about locking
	// leave it true for as long as that takes in an ordinary cluster; ConditionReconciling says meanwhile that they do.
	ConditionReady = "Ready"
	// ConditionBackendReachable is true when every sidecar reaches the backend.
	ConditionBackendReachable = "BackendReachable"
	// ConditionConfigAccepted is true when no sidecar refuses the current configuration.
	ConditionConfigAccepted = "ConfigAccepted"
	// ConditionLockingEffective is true when locks hold off every writer that they should: locking is off and there is
	// one writer, or it is on, the backend can do it across replicas, and every sidecar has been told.
	ConditionLockingEffective = "LockingEffective"
	// ConditionBackendDurable is true when no sidecar warns about how safe carts are in the backend: it evicts nothing,
	// a restart of it forgets nothing, and every pod sees the same carts. It is advice, and does not affect
	// ConditionReady.
	ConditionBackendDurable = "BackendDurable"
	// ConditionReconciling is true while sidecars are being brought to what the spec and the cluster ask for, and is
	// absent otherwise. Tools that follow the kstatus convention take it for "in progress".
	ConditionReconciling = "Reconciling"
	// ConditionStalled is true when nothing progresses until somebody changes something, and is absent otherwise. Tools
	// that follow the kstatus convention take it for "failed".
	ConditionStalled = "Stalled"
)

// Conditions lists every condition type that a CartStorage always has, in the order of the status.
// [ConditionReconciling] and [ConditionStalled] are there only while they are true.
var Conditions = []string{ConditionReady, ConditionBackendReachable, ConditionConfigAccepted, ConditionLockingEffective, ConditionBackendDurable}

// Reasons of ConditionReady.
const (
	// ReasonAllUpdated: every sidecar runs the current configuration.
	ReasonAllUpdated = "AllUpdated"
	// ReasonNoWorkloads: nothing uses the CartStorage yet; it is ready to be used.
	ReasonNoWorkloads = "NoWorkloads"
	// ReasonRollingOut: some sidecars have not started, or do not run the current configuration yet. The condition is
	// true while there is still time for them, and false when that is over or if the spec has changed.
	ReasonRollingOut = "RollingOut"
	// ReasonSidecarNotStarted: the sidecar of a pod has not started and something is in its way, or it has ended.
	ReasonSidecarNotStarted = "SidecarNotStarted"
	// ReasonSidecarMissing: a pod asks for a sidecar and has none.
	ReasonSidecarMissing = "SidecarMissing"
	// ReasonSidecarUnreachable: a sidecar does not answer the operator.
	ReasonSidecarUnreachable = "SidecarUnreachable"
	// ReasonEndlessOwners: the owner references of a workload form a circle or a chain that is too long, so its topmost
	// owner is unknown.
	ReasonEndlessOwners = "EndlessOwners"
	// ReasonDegraded: another condition is false; the message says which.
	ReasonDegraded = "Degraded"
	// ReasonRenderFailed: no configuration could be made of the spec.
	ReasonRenderFailed = "RenderFailed"
)

// Reasons of ConditionBackendReachable, with ReasonNoWorkloads.
const (
	// ReasonReachable: every sidecar reaches the backend.
	ReasonReachable = "Reachable"
	// ReasonUnreachable: no sidecar reaches the backend, or not all do.
	ReasonUnreachable = "Unreachable"
	// ReasonUnknown: no sidecar has answered yet.
	ReasonUnknown = "Unknown"
)

// Reasons of ConditionBackendDurable, with ReasonNoWorkloads and ReasonUnknown. Where it is not true, the reason is the
// code by which a sidecar warns: CartsEvicted, EvictionPolicy, NotPersistent, NotDurable, OneMachine, ClockDiffers;
// where that could not be found out, UnknownEviction or UnknownPersistence.
const (
	// ReasonDurable: no sidecar warns.
	ReasonDurable = "Durable"
)

// Reasons of ConditionConfigAccepted, with ReasonNoWorkloads and ReasonUnknown.
const (
	// ReasonAccepted: no sidecar refuses the configuration.
	ReasonAccepted = "Accepted"
	// ReasonRejected: a sidecar refuses the configuration and keeps the last good one.
	ReasonRejected = "ConfigRejected"
	// ReasonImageNotAllowed: the operator's list of sidecar images does not have the one that the spec names.
	ReasonImageNotAllowed = "ImageNotAllowed"
)

// Reasons of ConditionLockingEffective, with ReasonRollingOut.
const (
	// ReasonEffective: locking is on wherever it should be.
	ReasonEffective = "Effective"
	// ReasonNotNeeded: there is one writer at most.
	ReasonNotNeeded = "NotNeeded"
	// ReasonBackendCannotLock: locking is wanted, and the backend cannot lock across replicas.
	ReasonBackendCannotLock = "BackendCannotLock"
	// ReasonDisabledBySpec: the spec turns locking off although several pods can write. No change is lost, but they
	// meet and are computed again.
	ReasonDisabledBySpec = "DisabledBySpec"
)

// Reasons of status.locking: what decided whether distributed locking is on.
const (
	// LockingReasonConfigured: the spec says so.
	LockingReasonConfigured = "Configured"
	// LockingReasonMultipleReplicas: a workload wants more than one replica.
	LockingReasonMultipleReplicas = "MultipleReplicas"
	// LockingReasonMultiplePods: more than one pod lives, ending ones included.
	LockingReasonMultiplePods = "MultiplePods"
	// LockingReasonRolloutSurge: a rollout of one replica may run two.
	LockingReasonRolloutSurge = "RolloutSurge"
	// LockingReasonAutoscaler: an autoscaler may make more than one replica.
	LockingReasonAutoscaler = "Autoscaler"
	// LockingReasonMultipleWorkloads: several workloads use the CartStorage.
	LockingReasonMultipleWorkloads = "MultipleWorkloads"
	// LockingReasonSharedBackend: another CartStorage uses the same backend and prefix.
	LockingReasonSharedBackend = "SharedBackend"
	// LockingReasonUnboundedWorkload: a workload of a kind whose number of pods the spec does not bound, such as a
	// DaemonSet.
	LockingReasonUnboundedWorkload = "UnboundedWorkload"
	// LockingReasonCoolingDown: one writer is alone, but not for long enough yet.
	LockingReasonCoolingDown = "CoolingDown"
	// LockingReasonSingleWriter: there is one writer and can be no other.
	LockingReasonSingleWriter = "SingleWriter"
	// LockingReasonNoWorkloads: nothing uses the CartStorage.
	LockingReasonNoWorkloads = "NoWorkloads"
)
