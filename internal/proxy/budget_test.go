package proxy

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// leastBudgetOf is the budget of the smallest machine.
func leastBudgetOf() *budget { return newBudget(1, cart.DefaultLimits()) }

// taken is how much of a pool is taken.
func taken(t *testing.T, p *pool) int64 {
	t.Helper()
	n := int64(0)
	for step := p.size; step > 0; step /= 2 { // what can still be had
		for p.TryAcquire(step) {
			n += step
		}
	}
	p.Release(n)
	return p.size - n
}

func (b *budget) all() map[string]*pool {
	return map[string]*pool{"small": &b.small, "bodies": &b.bodies, "work": &b.work, "leased": &b.leased, "unseen": &b.unseen}
}

// A request that finds no memory waits its turn, and is told BUSY when that takes too long.
func TestBudgetWaitsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leastBudgetOf()
		ctx := t.Context()
		var first admission
		if err := b.admit(ctx, &first, b.bodies.size); err != nil { // as much as there is, since it costs more
			t.Fatal(err)
		}
		order := make(chan int, 2)
		for i := range 2 {
			go func() {
				var a admission
				if err := b.admit(ctx, &a, b.bodies.size); err != nil { // all of it, so that one goes after the other
					t.Error(err)
				}
				order <- i
				a.release()
			}()
			synctest.Wait()
		}
		time.Sleep(busyWait - time.Millisecond)
		first.release()
		first.release() // a second time is nothing
		if a, b := <-order, <-order; a != 0 || b != 1 {
			t.Errorf("order %d %d", a, b)
		}
		if err := b.admit(ctx, &first, b.bodies.size); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var late admission
		if err := b.admit(ctx, &late, 1<<20); !errors.Is(err, errBusy) || time.Since(began) != busyWait {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		// Our own timeout is no fault of the backend, and a client that gave up is told so.
		own, cancel := context.WithTimeoutCause(ctx, time.Second, errRequestTimeout)
		defer cancel()
		if err := b.admit(own, &late, 1<<20); !errors.Is(err, errBusy) {
			t.Errorf("the request timeout: %v", err)
		}
		gone, leave := context.WithCancel(ctx)
		leave()
		if err := b.admit(gone, &late, 1<<20); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that is gone: %v", err)
		}
		// A little one does not wait for large ones.
		var little admission
		if err := b.admit(ctx, &little, 100); err != nil {
			t.Error(err)
		}
		little.release()
		// Who waits is bounded too.
		var wg sync.WaitGroup
		busy := make(chan error, maxWaiting+1)
		for range maxWaiting + 1 {
			wg.Go(func() {
				var a admission
				busy <- b.admit(ctx, &a, 1<<20)
			})
		}
		synctest.Wait()
		if len(busy) != 1 || !errors.Is(<-busy, errBusy) {
			t.Error("one more than may wait")
		}
		wg.Wait()
		first.release()
		for name, p := range b.all() {
			if n := taken(t, p); n != 0 {
				t.Errorf("%s: %d bytes are left taken", name, n)
			}
		}
	})
}

// A limit divides into pools that one request of the default limits fits.
func TestBudgetOfLimits(t *testing.T) {
	for _, limit := range []int64{0, 1, 32 << 20, 120 << 20, 1 << 30, math.MaxInt64} {
		b := newBudget(limit, cart.DefaultLimits())
		sum := int64(0)
		for _, p := range b.all() {
			sum += p.size
		}
		if limit > baseMemory+leastBudget && limit < math.MaxInt64 && sum > limit-baseMemory {
			t.Errorf("%d: pools of %d", limit, sum)
		}
		var a admission
		if err := b.admit(t.Context(), &a, 2<<20); err != nil {
			t.Error(err)
		}
		if err := a.begin(t.Context(), 64<<20, true, false); err != nil { // a cart of before there was a limit
			t.Error(err)
		}
		a.release()
	}
}

// The size of a cart is known once it was seen; before that it is as large as those seen lately.
func TestSizes(t *testing.T) {
	b := leastBudgetOf()
	key := func(i int) cart.Key { return cart.Key{Identifier: "u" + strconv.Itoa(i), Instance: "default"} }
	if n, known := b.sizes.of(key(0)); n < 2<<20 || known {
		t.Errorf("at first %d %t", n, known)
	}
	for i := range 60 {
		b.sizes.saw(key(i), 100)
	}
	if n, known := b.sizes.of(key(59)); n != 100 || !known {
		t.Errorf("seen: %d %t", n, known)
	}
	if n, known := b.sizes.of(key(1000)); n > smallBytes || known {
		t.Errorf("among small ones: %d %t", n, known)
	}
	b.sizes.saw(key(60), 1<<20)
	if n, _ := b.sizes.of(key(1000)); n != 1<<20 {
		t.Errorf("after a large one: %d", n)
	}
	if n, known := b.sizes.of(cart.Key{Identifier: "u60default"}); known {
		t.Errorf("another cart is taken for it: %d", n)
	}
}

// A large cart that was not known to be one is answered where there is memory for it, and else known from then on. The
// place of the unseen is free again in any case.
func TestUnseenLargeCart(t *testing.T) {
	l := &largeCarts{bytes: 1 << 20, wait: make(chan struct{})}
	close(l.wait)
	b := realBackend(t)
	b.Coordinator = l
	w := start(t, b)
	budget := w.service.backends.current.Load().budget
	all, err := budget.take(t.Context(), &budget.work, budget.work.size)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.http(ask{rpc: "GetCart"}); r.reason != "BUSY" {
		t.Errorf("without memory: %d %s", r.http, r.message)
	}
	until(t, "the place of the unseen to be free", func() bool { return taken(t, &budget.unseen) == 0 })
	all.release()
	if n, known := budget.sizes.of(cart.Key{Identifier: "u1", Instance: "default"}); n < 1<<20 || !known {
		t.Errorf("%d %t", n, known)
	}
	for _, params := range []p{{}, {"identifier": "unseen"}} {
		if r := w.grpc(ask{rpc: "GetCart", params: params}); r.code != 0 {
			t.Errorf("%v: %s", params, r.message)
		}
	}
	until(t, "all to be free", func() bool { return taken(t, &budget.unseen)+taken(t, &budget.work) == 0 })
}

// largeCarts is a coordinator with one large cart, whose reads it counts while they are under way.
type largeCarts struct {
	failing
	mu        sync.Mutex
	now, most int
	bytes     int
	wait      chan struct{}
}

func (l *largeCarts) enter() {
	l.mu.Lock()
	l.now++
	l.most = max(l.most, l.now)
	l.mu.Unlock()
	<-l.wait
	l.mu.Lock()
	l.now--
	l.mu.Unlock()
}

func (l *largeCarts) cart() *cart.Cart {
	return &cart.Cart{ID: "id", Version: 1, Metadata: []cart.Entry{{Key: "k", Value: []byte(`"` + strings.Repeat("x", l.bytes) + `"`), Version: 1}}}
}

func (l *largeCarts) Read(context.Context, cart.Key) (*cart.Cart, error) {
	l.enter()
	return l.cart(), nil
}
func (l *largeCarts) Change(context.Context, cart.Key, lock.Change) (lock.Result, error) {
	l.enter()
	return lock.Result{Cart: l.cart()}, nil
}

// Large carts are worked on by few at once, by either front; small ones by all. When all is done, nothing is taken.
func TestFewLargeCartsAtOnce(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		for _, size := range []int{100, 1 << 20} {
			t.Run(front+" "+strconv.Itoa(size), func(t *testing.T) {
				l := &largeCarts{bytes: size, wait: make(chan struct{})}
				b := realBackend(t)
				b.Coordinator, b.MemoryBytes = l, 100<<20
				w := start(t, b)
				budget := w.service.backends.current.Load().budget
				for i := range 60 {
					budget.sizes.saw(cart.Key{Identifier: "u" + strconv.Itoa(i), Instance: "default"}, int64(size))
				}
				call := w.http
				if front == "grpc" {
					call = w.grpc
				}
				var wg sync.WaitGroup
				for i := range 40 {
					wg.Go(func() {
						a := ask{rpc: "GetCart", params: p{"identifier": "u" + strconv.Itoa(i)}}
						if i%2 == 1 {
							a = ask{rpc: "AddItem", params: a.params, body: `{"item":{"id":"a"}}`}
						}
						if r := call(a); r.code != 0 {
							t.Errorf("%s: %s", a.rpc, r.message)
						}
					})
				}
				under := func() int { l.mu.Lock(); defer l.mu.Unlock(); return l.now }
				want := 40
				if size > smallBytes {
					want = int(budget.work.size / (workTimes * int64(size)))
				}
				until(t, "the first of them", func() bool { return under() == min(want, 40) })
				close(l.wait)
				wg.Wait()
				if size > smallBytes && l.most > want {
					t.Errorf("%d at once, %d fit", l.most, want)
				}
				for name, p := range budget.all() {
					until(t, name+" to be free", func() bool { return taken(t, p) == 0 })
				}
			})
		}
	}
}

// A change under a lease does not wait for those who wait for the lease.
func TestLeaseHolderIsNotHeldOff(t *testing.T) {
	b := realBackend(t)
	b.MemoryBytes = 1
	w := start(t, b)
	budget := w.service.backends.current.Load().budget
	all, err := budget.take(t.Context(), &budget.work, budget.work.size)
	if err != nil {
		t.Fatal(err)
	}
	defer all.release()
	big := `{"value":"` + strings.Repeat("x", 300_000) + `"}`
	lease := tokenIn(w.http(ask{rpc: "AcquireLease"}))
	if r := w.http(ask{rpc: "PutMetadataValue", params: p{"key": "k"}, body: big, lease: lease}); r.code != 0 {
		t.Errorf("the holder: %s", r.message)
	}
	if r := w.grpc(ask{rpc: "AddItem", body: `{"item":{"id":"a"}}`, lease: lease}); r.code != 0 {
		t.Errorf("the holder: %s", r.message)
	}
	// A cart that nobody has seen is served too.
	if r := w.http(ask{rpc: "AddItem", params: p{"identifier": "new"}, body: `{"item":{"id":"a"}}`}); r.code != 0 {
		t.Errorf("a new cart: %s", r.message)
	}
}

// BUSY is told by both fronts as what it is, and changes nothing.
func TestBusy(t *testing.T) {
	b := realBackend(t)
	b.RequestTimeout = 200 * time.Millisecond
	w := start(t, b)
	budget := w.service.backends.current.Load().budget
	big := `{"value":"` + strings.Repeat("x", 300_000) + `"}`
	put := ask{rpc: "PutMetadataValue", params: p{"key": "k"}, body: big}
	all, err := budget.take(t.Context(), &budget.work, budget.work.size)
	if err != nil {
		t.Fatal(err)
	}
	for front, call := range map[string]func(ask) reply{"http": w.http, "grpc": w.grpc} {
		r := call(put)
		if r.code != codes.ResourceExhausted || r.reason != "BUSY" || !r.retry || front == "http" && (r.http != 429 || r.header.Get("Retry-After") != "1") {
			t.Errorf("%s: %d %d %s %v: %s", front, r.http, r.code, r.reason, r.header, r.message)
		}
	}
	all.release()
	if r := w.http(ask{rpc: "GetCart"}); !strings.Contains(r.body, `"version":0`) {
		t.Errorf("a refused change was made: %.200s", r.body)
	}
	if r := w.grpc(put); r.code != 0 {
		t.Errorf("afterwards: %s", r.message)
	}
}

// The memory of an answer is given back when it was written, or when nobody holds it any more.
func TestAnswerKeepsItsMemory(t *testing.T) {
	b := leastBudgetOf()
	answer := func() mem.BufferSlice {
		t.Helper()
		a := &admission{}
		if err := errors.Join(b.admit(t.Context(), a, 10), a.begin(t.Context(), 1<<20, true, false)); err != nil {
			t.Fatal(err)
		}
		o, ok := heavy(&pb.Cart{Items: make([]byte, 1<<20)}, a).(*outgoing)
		if !ok {
			t.Fatal("no heavy answer")
		}
		buf, err := o.marshal()
		if err != nil || buf.Len() < 1<<20 {
			t.Fatal(err)
		}
		return buf
	}
	buf := answer()
	if n := taken(t, &b.work); n < 1<<20 || n > 3<<20 {
		t.Errorf("%d bytes are taken while it is written", n)
	}
	if n := taken(t, &b.small); n != 0 {
		t.Errorf("the request still has %d", n)
	}
	buf.Free()
	if n := taken(t, &b.work); n != 0 {
		t.Errorf("%d bytes are taken after it was", n)
	}
	answer() // and never freed
	until(t, "the collector", func() bool { runtime.GC(); return taken(t, &b.work) == 0 })
}
