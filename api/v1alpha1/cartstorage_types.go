package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CartStorage says where the carts of a shop live, how they are locked and how long to wait. Pods of the same namespace
// use it by the label sidecart.dev/inject: NAME in their template. Each of them gets a sidecar that serves the carts on
// localhost.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name must be at most 63 characters long, since pods name it in a label: choose a shorter one"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.spec.moveFrom) || self.spec.orphanedCarts in ['Accept', 'Allow'] || has(self.spec.moveFrom) && self.spec.moveFrom == oldSelf.spec.moveFrom || has(self.spec.moveFrom) && dyn(self.spec.moveFrom.backend) == dyn(oldSelf.spec.backend) && (has(self.spec.moveFrom.keyPrefix) ? self.spec.moveFrom.keyPrefix : self.spec.keyPrefix) == oldSelf.spec.keyPrefix && dyn(self.spec.backend) == dyn(oldSelf.spec.moveFrom.backend) && self.spec.keyPrefix == (has(oldSelf.spec.moveFrom.keyPrefix) ? oldSelf.spec.moveFrom.keyPrefix : oldSelf.spec.keyPrefix) || has(oldSelf.status) && has(oldSelf.status.move) && oldSelf.status.move.state == 'Finished'",fieldPath=".spec.moveFrom",message="carts still move here from moveFrom: leave it until status.move.state is Finished, or move them back by exchanging what stands under backend and moveFrom.backend, or write orphanedCarts: Accept to leave those behind that have not moved"
// +kubebuilder:resource:path=cartstorages,singular=cartstorage,shortName=cst,categories=sidecart
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.spec.backend.type`,description="Where carts live"
// +kubebuilder:printcolumn:name="Locking",type=boolean,JSONPath=`.status.locking.enabled`,description="Whether distributed locking is on"
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.replicas`,description="Pods that use this CartStorage"
// +kubebuilder:printcolumn:name="Sidecars",type=string,JSONPath=`.status.sidecars`,description="Sidecars that run the current configuration / all sidecars"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether all is as the spec says"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Outdated",type=integer,priority=1,JSONPath=`.status.outdated`,description="Pods whose sidecar differs from what a new pod would be given"
// +kubebuilder:printcolumn:name="Move",type=string,priority=1,JSONPath=`.status.move.state`,description="How far a move of carts from another backend is"
// +kubebuilder:printcolumn:name="Why locking",type=string,priority=1,JSONPath=`.status.locking.message`,description="What decided whether locking is on"
// +kubebuilder:printcolumn:name="Status",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,description="What is missing, if it is not ready"
type CartStorage struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The desired state.
	// +required
	Spec CartStorageSpec `json:"spec"`
	// The observed state, as the operator last saw it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status CartStorageStatus `json:"status,omitzero"`
}

// CartStorageList is a list of CartStorages.
//
// +kubebuilder:object:root=true
type CartStorageList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CartStorage `json:"items"`
}

// CartStorageSpec is the desired state.
//
// The rule of its own field refuses a text that is not a duration, so rules that compare durations let it pass. The
// rules that compare with oldSelf keep a change from leaving carts behind unnoticed. Each field that says where carts
// are has such a rule. A list of addresses may change as long as one address stays, since the servers of one store come
// and go.
//
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || self.backend.type == oldSelf.backend.type",fieldPath=".backend.type",messageExpression="'backend.type cannot change from ' + oldSelf.backend.type + ' to ' + self.backend.type + ', the carts of the old backend would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom'"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || self.keyPrefix == oldSelf.keyPrefix",fieldPath=".keyPrefix",messageExpression="'keyPrefix cannot change from ' + oldSelf.keyPrefix + ' to ' + self.keyPrefix + ', the carts under the old prefix would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom'"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || !has(self.backend.redis) || !has(oldSelf.backend.redis) || self.backend.redis.addresses.exists(a, a in oldSelf.backend.redis.addresses)",fieldPath=".backend.redis.addresses",message="no address of redis.addresses stays, so this is another Redis and the carts of the old one would be orphaned: keep an address, or write orphanedCarts: Accept to leave the carts behind, or because it is the same Redis by another name; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || !has(self.backend.redis) || !has(oldSelf.backend.redis) || !has(self.backend.redis.masterName) || !has(oldSelf.backend.redis.masterName) || self.backend.redis.masterName == oldSelf.backend.redis.masterName",fieldPath=".backend.redis.masterName",message="redis.masterName cannot change, the carts of the old master would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || !has(self.backend.redis) || !has(oldSelf.backend.redis) || (self.backend.redis.database == oldSelf.backend.redis.database && self.backend.redis.__namespace__ == oldSelf.backend.redis.__namespace__ && (self.backend.redis.mode == 'Cluster') == (oldSelf.backend.redis.mode == 'Cluster'))",fieldPath=".backend.redis",message="redis.database, redis.namespace, and redis.mode to or from Cluster, cannot change, the carts there would be orphaned: keep them, or write orphanedCarts: Accept to leave the carts behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || !has(self.backend.memcached) || !has(oldSelf.backend.memcached) || self.backend.memcached.addresses.exists(a, a in oldSelf.backend.memcached.addresses)",fieldPath=".backend.memcached.addresses",message="no address of memcached.addresses stays, so these are other servers and the carts of the old ones would be orphaned: keep an address, or write orphanedCarts: Accept to leave the carts behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || !has(self.backend.dynamodb) || !has(oldSelf.backend.dynamodb) || (self.backend.dynamodb.tableName == oldSelf.backend.dynamodb.tableName && self.backend.dynamodb.region == oldSelf.backend.dynamodb.region && (has(self.backend.dynamodb.endpoint) ? self.backend.dynamodb.endpoint : \"\") == (has(oldSelf.backend.dynamodb.endpoint) ? oldSelf.backend.dynamodb.endpoint : \"\"))",fieldPath=".backend.dynamodb",message="dynamodb.tableName, dynamodb.region and dynamodb.endpoint cannot change, the carts of the old table would be orphaned: keep them, or write orphanedCarts: Accept to leave the carts behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || !has(self.backend.database) || !has(oldSelf.backend.database) || (self.backend.database.dialect == oldSelf.backend.database.dialect && (has(self.backend.database.host) ? self.backend.database.host : \"\") == (has(oldSelf.backend.database.host) ? oldSelf.backend.database.host : \"\") && (has(self.backend.database.port) ? self.backend.database.port : 0) == (has(oldSelf.backend.database.port) ? oldSelf.backend.database.port : 0) && (has(self.backend.database.name) ? self.backend.database.name : \"\") == (has(oldSelf.backend.database.name) ? oldSelf.backend.database.name : \"\") && (has(self.backend.database.urlSecretRef) && has(self.backend.database.urlSecretRef.name) ? self.backend.database.urlSecretRef.name : \"\") == (has(oldSelf.backend.database.urlSecretRef) && has(oldSelf.backend.database.urlSecretRef.name) ? oldSelf.backend.database.urlSecretRef.name : \"\") && (has(self.backend.database.urlSecretRef) && has(self.backend.database.urlSecretRef.key) ? self.backend.database.urlSecretRef.key : \"\") == (has(oldSelf.backend.database.urlSecretRef) && has(oldSelf.backend.database.urlSecretRef.key) ? oldSelf.backend.database.urlSecretRef.key : \"\"))",fieldPath=".backend.database",message="database.dialect, database.host, database.port, database.name and database.urlSecretRef cannot change, the carts of the old database would be orphaned: keep them, or write orphanedCarts: Accept to leave the carts behind, or because it is the same database by another name; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || !has(self.backend.database) || !has(oldSelf.backend.database) || (has(self.backend.database.volume) && has(self.backend.database.volume.claimName) ? self.backend.database.volume.claimName : \"\") == (has(oldSelf.backend.database.volume) && has(oldSelf.backend.database.volume.claimName) ? oldSelf.backend.database.volume.claimName : \"\")",fieldPath=".backend.database.volume",message="database.volume.claimName cannot change, the carts on the old volume would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || has(self.moveFrom) && dyn(self.moveFrom.backend) == dyn(oldSelf.backend) && (has(self.moveFrom.keyPrefix) ? self.moveFrom.keyPrefix : self.keyPrefix) == oldSelf.keyPrefix || self.backend.type != 'File' || oldSelf.backend.type != 'File' || (has(self.backend.file) && has(self.backend.file.volume) && has(self.backend.file.volume.claimName) ? self.backend.file.volume.claimName : \"\") == (has(oldSelf.backend.file) && has(oldSelf.backend.file.volume) && has(oldSelf.backend.file.volume.claimName) ? oldSelf.backend.file.volume.claimName : \"\")",fieldPath=".backend.file.volume",message="file.volume.claimName cannot change, the carts on the old volume would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || !has(oldSelf.criticalBackend) || !has(oldSelf.criticalBackend.type) || (has(self.criticalBackend) && has(self.criticalBackend.type) && self.criticalBackend.type == oldSelf.criticalBackend.type)",message="criticalBackend cannot be removed or change its type, the checkouts in it would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind"
// +kubebuilder:validation:XValidation:rule="self.orphanedCarts in ['Accept', 'Allow'] || !has(self.criticalBackend) || !has(oldSelf.criticalBackend) || !has(self.criticalBackend.type) || !has(oldSelf.criticalBackend.type) || self.criticalBackend.type != oldSelf.criticalBackend.type || ((!has(self.criticalBackend.dynamodb) || !has(oldSelf.criticalBackend.dynamodb) || (self.criticalBackend.dynamodb.tableName == oldSelf.criticalBackend.dynamodb.tableName && self.criticalBackend.dynamodb.region == oldSelf.criticalBackend.dynamodb.region && (has(self.criticalBackend.dynamodb.endpoint) ? self.criticalBackend.dynamodb.endpoint : \"\") == (has(oldSelf.criticalBackend.dynamodb.endpoint) ? oldSelf.criticalBackend.dynamodb.endpoint : \"\"))) && (!has(self.criticalBackend.database) || !has(oldSelf.criticalBackend.database) || (self.criticalBackend.database.dialect == oldSelf.criticalBackend.database.dialect && (has(self.criticalBackend.database.host) ? self.criticalBackend.database.host : \"\") == (has(oldSelf.criticalBackend.database.host) ? oldSelf.criticalBackend.database.host : \"\") && (has(self.criticalBackend.database.port) ? self.criticalBackend.database.port : 0) == (has(oldSelf.criticalBackend.database.port) ? oldSelf.criticalBackend.database.port : 0) && (has(self.criticalBackend.database.name) ? self.criticalBackend.database.name : \"\") == (has(oldSelf.criticalBackend.database.name) ? oldSelf.criticalBackend.database.name : \"\") && (has(self.criticalBackend.database.urlSecretRef) && has(self.criticalBackend.database.urlSecretRef.name) ? self.criticalBackend.database.urlSecretRef.name : \"\") == (has(oldSelf.criticalBackend.database.urlSecretRef) && has(oldSelf.criticalBackend.database.urlSecretRef.name) ? oldSelf.criticalBackend.database.urlSecretRef.name : \"\") && (has(self.criticalBackend.database.urlSecretRef) && has(self.criticalBackend.database.urlSecretRef.key) ? self.criticalBackend.database.urlSecretRef.key : \"\") == (has(oldSelf.criticalBackend.database.urlSecretRef) && has(oldSelf.criticalBackend.database.urlSecretRef.key) ? oldSelf.criticalBackend.database.urlSecretRef.key : \"\"))))",fieldPath=".criticalBackend",message="the place of criticalBackend (its dialect, host, port, name, urlSecretRef, tableName, region or endpoint) cannot change, the checkouts in it would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind"
// +kubebuilder:validation:XValidation:rule="!has(self.timeouts.request) || [self.timeouts.request, has(self.locking.waitTimeout) ? self.locking.waitTimeout : self.locking.timeout].exists(d, !d.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$')) || duration(self.timeouts.request) >= duration(has(self.locking.waitTimeout) ? self.locking.waitTimeout : self.locking.timeout)",fieldPath=".timeouts.request",messageExpression="'timeouts.request must not be shorter than the wait for a lock, or requests end before their lock can come: write ' + (has(self.locking.waitTimeout) ? self.locking.waitTimeout : self.locking.timeout) + ' or more, or leave it out for one second more than the wait'"
// +kubebuilder:validation:XValidation:rule="[self.timeouts.write, has(self.locking.leaseDuration) ? self.locking.leaseDuration : self.locking.timeout].exists(d, !d.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$')) || duration(has(self.locking.leaseDuration) ? self.locking.leaseDuration : self.locking.timeout) >= duration(self.timeouts.write)",fieldPath=".locking",messageExpression="'a lock must not end before the write that it covers: write locking.' + (has(self.locking.leaseDuration) ? 'leaseDuration' : 'timeout') + ': ' + self.timeouts.write + ' or more, or a shorter timeouts.write'"
// +kubebuilder:validation:XValidation:rule="!has(self.audit) || !has(self.audit.retention) || !self.audit.retention.matches('[1-9]') || (self.backend.type == 'Database' && has(self.backend.database) && self.backend.database.dialect != 'SQLite')",fieldPath=".audit",message="an audit trail needs a database that can be asked in SQL: write backend: {type: Database, database: {dialect: PostgreSQL}} or MySQL, or remove audit"
// +kubebuilder:validation:XValidation:rule="!has(self.moveFrom) || !([self.backend.type, self.moveFrom.backend.type].exists(t, t in ['Memory', 'File']))",fieldPath=".moveFrom",message="carts do not move from or to backend Memory or File, which belong to one pod or one node: remove moveFrom, and write orphanedCarts: Accept to leave the carts behind"
// +kubebuilder:validation:XValidation:rule="!has(self.moveFrom) || ![dyn(self.backend), dyn(self.moveFrom.backend)].exists(b, has(b.database) && b.database.dialect == 'SQLite' && !(has(b.database.volume) && has(b.database.volume.claimName)))",fieldPath=".moveFrom",message="carts do not move from or to a SQLite file without a claim, since each pod has another one: write database.volume.claimName, or remove moveFrom and write orphanedCarts: Accept"
// +kubebuilder:validation:XValidation:rule="!has(self.moveFrom) || !has(self.backend.database) || !has(self.moveFrom.backend.database) || self.backend.database.dialect != 'SQLite' || self.moveFrom.backend.database.dialect != 'SQLite'",fieldPath=".moveFrom",message="carts do not move from one SQLite file to another, since a pod mounts one: move them to another backend first"
type CartStorageSpec struct {
	// Where carts live.
	// +required
	Backend Backend `json:"backend"`

	// The former backend, whose carts move to backend while they are used. The operator writes it if orphanedCarts is
	// Move and backend or keyPrefix changes. To write it yourself, copy the former values. When status.move.state is
	// Finished, remove it, and switch the former backend off after that.
	// +optional
	MoveFrom *MoveFrom `json:"moveFrom,omitempty"`

	// A second, durable backend for checkouts: carts live in the (fast) backend, and what must survive its loss goes
	// here. Without it, or empty, everything goes to backend.
	// +optional
	CriticalBackend *CriticalBackend `json:"criticalBackend,omitempty"`

	// The first part of every name that Sidecart uses in the backend. Two CartStorages on the same backend with the
	// same prefix share their carts. One to 64 letters, digits and "_", ":", ".", "-"; the part before the first dot
	// must not be lock, queue, index or fence.
	// +optional
	// +kubebuilder:default=cart
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_:.-]+$')",message="keyPrefix must be 1 to 64 letters, digits and _ : . -, for example cart or shop:cart"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^(lock|queue|index|fence)([.]|$)')",message="keyPrefix must not begin with lock, queue, index or fence as its first part, these names are Sidecart's own: write cart or another name"
	KeyPrefix string `json:"keyPrefix,omitempty"`

	// How long a cart lives from its last change, for example 24h. "0s" keeps carts for ever.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && (duration(self) == duration('0s') || duration(self) >= duration('1s'))",message="must be a duration of at least one second such as 30m, 24h or 720h, or 0s for ever"
	TTL *metav1.Duration `json:"ttl,omitempty"`

	// How long a cart remembers the idempotency keys of its last 64 changes, if it lives as long.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('1s') && duration(self) <= duration('720h')",message="must be a duration from 1s to 720h such as 24h"
	IdempotencyWindow metav1.Duration `json:"idempotencyWindow,omitzero"`

	// How long a checkout is kept after it was settled or has expired, whichever came last.
	// +optional
	// +kubebuilder:default="720h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) >= duration('1s') && duration(self) <= duration('8760h')",message="must be a duration from 1s to 8760h such as 720h"
	CheckoutRetention metav1.Duration `json:"checkoutRetention,omitzero"`

	// How changes of several replicas are kept apart.
	// +optional
	// +kubebuilder:default={}
	Locking Locking `json:"locking,omitzero"`

	// How long to wait for the backend.
	// +optional
	// +kubebuilder:default={}
	Timeouts Timeouts `json:"timeouts,omitzero"`

	// How much a cart may hold.
	// +optional
	// +kubebuilder:default={}
	Limits Limits `json:"limits,omitzero"`

	// A trail, in the database of the carts, of who changed which part of which cart, when, and by which call. For
	// backend.type Database with dialect PostgreSQL or MySQL.
	// +optional
	Audit Audit `json:"audit,omitzero"`

	// Whether a client may remove all carts of this prefix at once, for tests: Forbid or Allow.
	// +optional
	// +kubebuilder:default=Forbid
	Flush Permission `json:"flush,omitempty"`

	// Whether a client may list all carts of this prefix, for mails about abandoned carts and for clean-up: Forbid or
	// Allow.
	// +optional
	// +kubebuilder:default=Forbid
	List Permission `json:"list,omitempty"`

	// The cart services of the demo shops, which a sidecar serves beside its own.
	// +optional
	// +kubebuilder:default={}
	Fronts Fronts `json:"fronts,omitzero"`

	// What happens on a change of this spec that would leave existing carts behind, where no sidecar finds them any
	// more: Forbid refuses the change, Move lets the carts move while the shop sells, and Accept leaves them behind.
	// Such a change is one of keyPrefix or of a field of backend or criticalBackend that says where carts are: its
	// type, all addresses at once, host, port, name, table, region, endpoint, claim, or redis.database,
	// redis.namespace, redis.masterName and redis.mode to or from Cluster. Checkouts in criticalBackend do not move.
	// Allow is an older spelling of Accept.
	// +optional
	// +kubebuilder:default=Forbid
	OrphanedCarts OrphanedCarts `json:"orphanedCarts,omitempty"`

	// The sidecar container that pods get.
	// +optional
	// +kubebuilder:default={}
	Sidecar Sidecar `json:"sidecar,omitzero"`

	// How pods get their sidecar.
	// +optional
	// +kubebuilder:default={}
	Injection Injection `json:"injection,omitzero"`
}

// MoveFrom is a backend that carts leave.
type MoveFrom struct {
	// The value of backend before the move.
	// +required
	Backend Backend `json:"backend"`

	// The value of keyPrefix before the move. Without it, the same as now.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_:.-]+$') && !self.matches('^(lock|queue|index|fence)([.]|$)')",message="moveFrom.keyPrefix must be what stood under keyPrefix before, for example cart"
	KeyPrefix string `json:"keyPrefix,omitempty"`
}

// Critical is the backend for checkouts; nil if there is none.
func (s *CartStorageSpec) Critical() *CriticalBackend {
	if s.CriticalBackend == nil || s.CriticalBackend.Type == "" {
		return nil
	}
	return s.CriticalBackend
}

// Permission is the answer to "may it?".
//
// +kubebuilder:validation:Enum=Forbid;Allow
type Permission string

const (
	// Forbid is no.
	Forbid Permission = "Forbid"
	// Allow is yes.
	Allow Permission = "Allow"
)

// OrphanedCarts says what happens to carts that a change would leave behind.
//
// +kubebuilder:validation:Enum=Forbid;Move;Accept;Allow
type OrphanedCarts string

const (
	// OrphanedForbid refuses a change that leaves carts behind.
	OrphanedForbid OrphanedCarts = "Forbid"
	// OrphanedMove lets them move to the new place.
	OrphanedMove OrphanedCarts = "Move"
	// OrphanedAccept lets it pass.
	OrphanedAccept OrphanedCarts = "Accept"
	// OrphanedAllow is an older spelling of OrphanedAccept.
	OrphanedAllow OrphanedCarts = "Allow"
)
