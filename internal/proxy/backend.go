package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// Coordinator makes and reads changes; *[lock.Coordinator] is one.
type Coordinator interface {
	Read(ctx context.Context, key cart.Key) (*cart.Cart, error)
	Change(ctx context.Context, key cart.Key, ch lock.Change) (lock.Result, error)
	Forget(ctx context.Context, key cart.Key, ch lock.Change) (lock.Result, error)
	ForgetAll(ctx context.Context, identifier string) (int, error)
	Instances(ctx context.Context, identifier string) ([]string, error)
	List(ctx context.Context, r lock.ListRequest) ([]lock.Listed, *lock.ListPlace, error)
	HandOver(ctx context.Context, from, to cart.Key, strategy cart.Strategy, ch lock.Change) (lock.Result, error)
	AcquireLease(ctx context.Context, key cart.Key, r lock.LeaseRequest) (lock.Lease, error)
	Lease(ctx context.Context, key cart.Key, token string) (lock.Lease, error)
	RenewLease(ctx context.Context, key cart.Key, token string, d time.Duration) (lock.Lease, error)
	ReleaseLease(ctx context.Context, key cart.Key, token string) error
	HoldLease(ctx context.Context, key cart.Key, r lock.LeaseRequest, send func(lock.Lease) error) error
	Flush(ctx context.Context) error
	Watch(ctx context.Context, key cart.Key, r lock.WatchRequest) error
	Status() lock.Status
	Checkout(ctx context.Context, key cart.Key, r lock.CheckoutRequest) (lock.CheckoutResult, error)
	Settle(ctx context.Context, key cart.Key, id string, outcome cart.Outcome, ch lock.Change) (lock.CheckoutResult, error)
	GetCheckout(ctx context.Context, key cart.Key, id string) (*lock.Checkout, error)
	ListCheckouts(ctx context.Context, key cart.Key, visit func(*lock.Checkout) error) error
}

// Backend is everything that calls need to be served. All fields but Generation, Place, Prefix, TTL, MemoryBytes,
// AllowFlush, AllowList, CheckoutWindow, Beat, Advice, Count and Critical are required.
type Backend struct {
	Coordinator Coordinator
	// Ping makes the store do everything that a change needs.
	Ping func(context.Context) error
	// Beat asks it for a cheaper sign of life; nil if it has none.
	Beat func(context.Context) error
	// Advice says how safe carts are in it; nil if the store cannot say.
	Advice func(context.Context) ([]storage.Advice, error)
	// Count counts the carts, up to most; nil if they cannot be counted. See [storage.Counter].
	Count func(ctx context.Context, most int) (n int, more bool, err error)
	// Move returns the progress of a move of carts to this backend, and MovesFrom says from where: "Redis redis:6379".
	// Move is nil if there is no move. See [storage.Mover].
	Move      func() storage.Progress
	MovesFrom string
	// Critical is the backend for checkouts; nil if they are beside the carts.
	Critical *CriticalBackend
	// Name is the backend's type as in the configuration: "Redis".
	Name string
	// Place says where the carts are, without user and password. Prefix begins their names. TTL is how long they live,
	// 0 for ever. All three are only for the status page.
	Place, Prefix string
	TTL           time.Duration
	// Mode is the locking mode as in the configuration: "auto".
	Mode string
	// Generation is that of the configuration which describes this backend.
	Generation int64
	// Limits bound the carts.
	Limits cart.Limits
	// RequestTimeout bounds one call, the wait for a lock included.
	RequestTimeout time.Duration
	// MemoryBytes is how much memory the process may use, without what the backend uses outside Go's heap; 0 or
	// math.MaxInt64 means no limit.
	MemoryBytes int64
	// AllowFlush permits the call that removes all carts of the prefix.
	AllowFlush bool
	// AllowList permits the call that lists all carts of the prefix.
	AllowList bool
	// CheckoutWindow is for demo shops. If EmptyCart follows GetCart within this time, it takes only what the GetCart
	// saw; 0 turns this off.
	CheckoutWindow time.Duration
}

// CriticalBackend is the backend for checkouts. While it is down, checkouts are refused, and the sidecar stays ready.
type CriticalBackend struct {
	// Name and Place are as in [Backend], and so are Ping and Beat.
	Name, Place string
	Ping, Beat  func(context.Context) error
}

// maxBodyBytes bounds the body of one HTTP request: two documents with generous white space, and the envelope.
func (b *Backend) maxBodyBytes() int64 {
	return 2*int64(min(b.Limits.MaxDocumentBytes, b.Limits.MaxCartBytes)) + 64<<10
}

// served is a [Backend] with a count of the calls that use it.
type served struct {
	Backend // whose Coordinator keeps to the budget
	budget  *budget
	// calls counts the calls under way, and one more until the backend is retired. At 0 the backend takes no more
	// calls.
	calls atomic.Int64
	empty chan struct{} // closed at 0
	// opened is when it began to serve.
	opened time.Time
}

func newServed(b Backend) *served {
	l := &served{Backend: b, budget: newBudget(b.MemoryBytes, b.Limits), empty: make(chan struct{}), opened: time.Now()}
	l.Coordinator = weighed{b.Coordinator, l.budget}
	l.calls.Store(1)
	return l
}

// enter counts a call as under way. It returns false if the backend was retired and its last call has ended.
func (l *served) enter() bool {
	for {
		n := l.calls.Load()
		if n == 0 {
			return false
		}
		if l.calls.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (l *served) leave() {
	if l.calls.Add(-1) == 0 {
		close(l.empty)
	}
}

// backends hands each call the current Backend.
type backends struct{ current atomic.Pointer[served] }

// enter returns the current backend, which the caller must leave.
func (s *backends) enter() *served {
	for {
		if l := s.current.Load(); l.enter() {
			return l
		}
	}
}

// peek returns the current backend without counting a call. A request is received by its settings. Another backend may
// serve the request: that is decided when it enters.
func (s *backends) peek() *served { return s.current.Load() }

// Retired is a Backend that gets no new calls.
type Retired struct{ backend *served }

// Wait returns when no call uses the Backend any more and it can be closed, or when ctx ends.
func (r *Retired) Wait(ctx context.Context) error {
	select {
	case <-r.backend.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// swap makes b the current Backend and returns what it replaces, nil at first.
func (s *backends) swap(b Backend) *Retired {
	old := s.current.Swap(newServed(b))
	if old == nil {
		return nil
	}
	old.leave()
	return &Retired{old}
}

var _ Coordinator = (*lock.Coordinator)(nil)
