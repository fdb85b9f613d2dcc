package storage

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// Store is a place where carts live. All methods are safe for concurrent use, honour the context's deadline, return
// errors that match a sentinel of this package (or the context's error, when the context ended), and return [ErrClosed]
// after Close.
type Store interface {
	// Load returns the cart, by one read. A cart that does not exist or has expired is the zero cart, never an error
	// and never nil. Load never creates a cart and does not touch the expiry. All parts are of one instant.
	Load(ctx context.Context, key cart.Key) (*cart.Cart, error)

	// Commit makes all commits in one atomic step, or none of them, and returns one Outcome for each. There is one
	// commit, or two on different keys for which Atomic holds. If the status of any is not Committed, no cart was
	// changed. Only the lock or the place in the queue that a Claim asked for may have been taken. Commits that would
	// have succeeded then have the status NotTried.
	Commit(ctx context.Context, commits ...Commit) ([]Outcome, error)

	// Atomic reports whether both keys can be changed in one Commit.
	Atomic(a, b cart.Key) bool

	// Instances lists the existing instances of an identifier, sorted, without a reserved one ([cart.Key.Reserved]).
	Instances(ctx context.Context, identifier string) ([]string, error)

	// Flush removes every cart under the store's prefix, reserved ones too, with its locks, and nothing else of what
	// the backend holds. It is not atomic.
	Flush(ctx context.Context) error

	// Ping proves that a change would work: it makes one of its own, apart from all carts, and takes it back. It fails
	// if the backend is gone or refuses changes for any reason. A store with a cheaper sign of life is a [Beater].
	Ping(ctx context.Context) error

	// Capabilities returns what this store can do. It never changes.
	Capabilities() Capabilities

	// Close frees what the store holds. Calls under way end with ErrClosed or their result.
	Close() error
}

// Capabilities say what a store can do.
type Capabilities struct {
	// Backend is the name as in the configuration: "Redis", "Memory", ….
	Backend string
	// Shared says that several sidecars on different machines can use the same carts. If false, locks cannot hold off
	// writers of other replicas.
	Shared bool
	// Locks says that the store is a [Locker].
	Locks bool
	// Durable says that an acknowledged change survives the end of the process.
	Durable bool
}

// Commit is one conditional change of one cart: if Expect holds and the locks of Locks.Parts are free or the commit's
// own, then Change is made, and Locks are given back and asked for as Locks says. The zero value of each group stands
// for nothing.
//
// A commit without a Change is a check: it changes nothing and tells whether Expect holds and the locks are free.
type Commit struct {
	Key cart.Key
	// Expect is what the change was computed from.
	Expect Expect
	// Change is what is written.
	Change Change
	// Locks are the locks that the commit needs, uses, gives back and asks for.
	Locks Locks
	// Anew computes the commit again from the present cart if Expect does not hold. A store that can call it within the
	// atomic step makes that commit instead of this one, and says so by [Outcome.Anew]. The fallback is the status
	// Conflict; so it is if Anew is nil, or if the cart has a pending transfer. Anew may be called several times, and
	// the last call counts. After an error, a call may still be running. It must not block, nor change the cart that it
	// is given. The commit that it returns may ask for a lock only if this one does, by the same token.
	Anew func(c *cart.Cart) Commit
}

// Expect is the state that a commit is conditional on. The zero value expects that there is no cart.
type Expect struct {
	// ID is the cart's UUID; "" expects that there is no cart.
	ID string
	// Version is the cart's version; 0 leaves it open.
	Version uint64
	// Parts are the versions of single parts; 0 expects that the part was never set. Keys are items, conditions or
	// metadata keys.
	Parts map[cart.Part]uint64
}

// Change is what a commit writes. The zero value writes nothing and leaves the expiry alone.
type Change struct {
	// Writes are the parts to store, in order. A metadata key that was removed and set again is there twice. Its place
	// in the cart and the tombstones are as if the writes were made one after the other.
	Writes []Write
	// Steps is by how many the cart's version rises.
	Steps uint64
	// Forget removes the cart; locks, queue and fences stay. Writes are not stored then, but a write of PartTransfer
	// among them still says that the commit knows of a pending transfer.
	Forget bool
	// Place, if not nil, is a cart that is stored whole and replaces the present one, as a swap needs. Id, creation
	// time, versions, order and internal parts are stored as they are; UpdatedAt and ExpiresAt are set anew. The change
	// then has no Writes, Steps or Forget. The store does not write to the cart that Place points to.
	Place *cart.Cart
	// Keep stores UpdatedAt and ExpiresAt of the placed cart as they are too, whatever TTL is. This is for a cart that
	// moves to another backend, since the move does not change it.
	Keep bool
	// NewID is the UUID of the cart if this change creates it.
	NewID string
	// TTL is the whole life that the cart is given when it is written or touched; 0 means that it does not expire.
	// While a client's lease is held on any part of it, or a checkout of it is open ([cart.Cart.LivesUntil]), the cart
	// lives until that has ended at least.
	TTL time.Duration
	// Touch renews the expiry although nothing is written.
	Touch bool
	// Trail says which call altered what, for a store that is an [Auditor], in the order of the steps. If it is nil,
	// the audit trail has no line of this change.
	Trail []Trace
}

// Any reports whether anything is to be stored.
func (c *Change) Any() bool {
	return c.Steps > 0 || len(c.Writes) > 0 || c.Touch || c.Forget || c.Place != nil
}

// Alters reports whether the change alters or removes the cart, as clients see it. A change without steps does not show
// to clients.
func (c *Change) Alters() bool { return c.Steps > 0 || c.Forget || c.Place != nil }

// Locks say what a commit has to do with locks. The zero value needs none, uses none and asks for none.
type Locks struct {
	// Parts are the parts whose locks must be free or held by Token; PartAll for the whole cart.
	Parts []cart.Part
	// Token is the lock under which the commit is made; "" for none.
	Token string
	// MustHold demands that Token still holds its lock, in this same step; otherwise the status is LockLost or
	// LockUnknown. Parts that the lock does not cover must be free. If false, locks that Token still holds are not in
	// the commit's way; that is all.
	MustHold bool
	// Release gives back what Token holds, and its place in the queue, if the commit succeeds, and hands the lock to
	// the next in the queue.
	Release bool

	// Claim counts if the commit fails on a conflict or a lock. It asks to take the lock in the same step, or to queue
	// for it if it is held. Its token may be Token: a claim of a token that holds the parts already renews them. nil
	// asks for nothing. Stores that are not a [Locker] ignore it.
	Claim *Claim

	// Again queues for the next turn in the same step. If the commit succeeds and its Release lets somebody else in,
	// this claim goes to the end of the queue, and Claimed is Queued. If nobody waits, it does nothing. Under
	// contention it saves the round trip in which the next change would find the lock held. nil asks for nothing.
	Again *Claim
}

// Write stores one part.
type Write struct {
	Part cart.Part
	// Value is compact JSON, or opaque bytes for the internal parts; nil removes a metadata key, leaving a tombstone,
	// or clears an internal part.
	Value []byte
	// Step says which of the commit's steps was the last to alter the part: its version becomes the cart's version
	// before the commit plus Step. 1 ≤ Step ≤ Steps. It is ignored for internal parts. The exception is PartLedger:
	// there it is the version to store, whatever Steps is.
	Step uint64
}

// Status is how a commit ended.
type Status int

const (
	// NotTried: another commit of the same step failed.
	NotTried Status = iota
	// Committed: everything was done.
	Committed
	// Conflict: Expect does not hold, or the cart has a pending transfer and the change does not write PartTransfer.
	Conflict
	// Locked: a lock of another holder covers one of Locks.Parts.
	Locked
	// LockLost: MustHold was demanded, and Token's lease has expired or was taken.
	LockLost
	// LockUnknown: MustHold was demanded, Token holds nothing, and no lease of it is remembered. It never was one, was
	// released, or belongs to another cart. A turn that has ended gets this status too, since ended turns are not
	// remembered.
	LockUnknown
)

// Outcome is the result of a commit.
type Outcome struct {
	Status Status
	// Cart is the current state: on Conflict always; on Locked when Granted or when the store has it at hand; on
	// Committed nil.
	Cart *cart.Cart
	// Committed only: the cart's id, its version before this commit, and its times now. With Place, the version is that
	// of the cart that was replaced.
	ID                              string
	Base                            uint64
	CreatedAt, UpdatedAt, ExpiresAt time.Time
	// Claimed says what became of the Claim, or of Again. It is the zero value if there was neither.
	Claimed Claimed
	// Anew says that all of this is about the commit that [Commit.Anew] returned last.
	Anew bool
}

// Claim asks for the lock over some parts of one cart.
type Claim struct {
	// Token identifies the holder. [NewToken] makes one.
	Token string
	// Holder is shown to people; it is stored behind the token.
	Holder string
	// Parts are what to lock, PartAll for everything.
	Parts []cart.Part
	// Duration is how long the lock lives once it is granted. If it had to wait in the queue, it lives for WaiterTTL at
	// most until [Locker.Acquire] returns.
	Duration time.Duration
	// Leased asks for a client's lease. It is given a fence. It is remembered for LeaseMemory after it expired, so that
	// its token can be told from one that never existed. The cart does not expire while it is held. A claim for a turn
	// leaves it false and costs nothing more.
	Leased bool
}

// Confirms reports whether the claim must be claimed again when the queue has granted it. That is so if it asks for
// longer than the queue grants. It is so for every lease, since a client must not be given a token that has ended
// already.
func (c *Claim) Confirms() bool { return c.Leased || c.Duration > WaiterTTL }

// Claimed says what became of a claim. A claim whose lease has expired is neither granted nor queued.
type Claimed struct {
	// Granted: the lock is held; Expires in this time.
	Granted bool
	// Queued: the claim waits in the queue. It must be followed by [Locker.Acquire] or [Locker.Abandon].
	Queued bool
}

// Locker is a store whose locks hold off every sidecar that uses it. Locks of one cart are granted in the order of the
// claims as far as their parts overlap.
type Locker interface {
	Store

	// Acquire waits until the claim is granted, and returns the state of the cart as of then or later. If queued is
	// true, a Commit has put the claim in the queue already, as its outcome said. A release wakes the next at once if
	// the backend can notify; polling is jittered. It returns ErrLockTimeout when ctx's deadline has passed, and ctx's
	// error when ctx was cancelled, and has then left the queue or leaves it within a heartbeat.
	//
	// A lock that comes from the queue is granted for min(Claim.Duration, WaiterTTL), since its waiter may have died.
	// If the claim [Claim.Confirms], Acquire claims the lock again before it returns. The whole of Claim.Duration
	// begins then, with the fence of the grant, and the cart is as of then. If that comes too late, the claim goes to
	// the end of the queue and waits on. A lease that ended in this way is not remembered, since no client was given
	// its token.
	//
	// A claim's parts are granted all together or not at all, so two claims never wait for each other. A token that
	// holds the parts already is granted them again. Their lock, or the whole lease if it is one, then lives for
	// Claim.Duration from now, with the fence that it has. A claim whose lease has expired was under way for too long
	// and ends with ErrTooLate, an ErrUnavailable.
	Acquire(ctx context.Context, key cart.Key, claim Claim, queued bool) (Grant, error)

	// Abandon gives back the locks of token on key and its place in the queue, and wakes the next. If the token holds
	// nothing, that is no error.
	Abandon(ctx context.Context, key cart.Key, token string) error

	// Lease returns the lease that token has on key. It changes nothing. It returns ErrLockLost if the lease has
	// expired or was taken, and ErrLockUnknown if there never was one, or it was released or is forgotten. A turn is
	// not a lease.
	Lease(ctx context.Context, key cart.Key, token string) (Lease, error)

	// Renew lets the lease that token has on key end after duration from now, if it still stands, in one atomic step,
	// and returns it. That becomes the lease's own duration; 0 stands for the duration that it has already. If an older
	// release of Sidecart wrote the lease, its own duration may not be known. Then 0 leaves the lease as it is, and
	// Lease.Duration is 0. The cart lives until the lease has ended. The errors are those of Lease.
	Renew(ctx context.Context, key cart.Key, token string, duration time.Duration) (Lease, error)

	// Release gives back the lease that token has on key, and wakes the next. The token is unknown from then on. The
	// errors are those of Lease.
	Release(ctx context.Context, key cart.Key, token string) error
}

// Grant is what a granted claim brings.
type Grant struct {
	// Cart is the state of the cart under the lock; never nil.
	Cart *cart.Cart
	// Fence and Expires are those of the lease; zero for a turn.
	Fence   uint64
	Expires time.Time
}

// Lease is a client's lock over some parts of a cart.
type Lease struct {
	// Parts are what it covers, as they were claimed; PartAll for everything.
	Parts []cart.Part
	// Holder is shown to people.
	Holder string
	// Fence is greater than that of every earlier lease of the same cart name, also when lease and cart have expired or
	// were flushed and the backend was restarted. It is less than 2^53.
	Fence uint64
	// Expires is when it ends unless it is renewed, by the backend's clock.
	Expires time.Time
	// Duration is for how long the lease was granted or last renewed, to the millisecond. It is 0 if an older release
	// wrote the lease.
	Duration time.Duration
}

const (
	// LeaseMemory is how long an expired lease is remembered.
	LeaseMemory = time.Hour
	// MaxLost is how many expired leases of one cart are remembered; the oldest go first.
	MaxLost = 1000
)
