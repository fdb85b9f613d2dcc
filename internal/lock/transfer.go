package lock

import (
	"context"
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Where two carts share one atomic step, a hand-over is one commit of two carts. Where they do not, it is three steps,
// each atomic, that anybody who meets them unfinished can finish:
//
//  1. The source is given an intent (PartTransfer), which closes it to every
//     other change.
//  2. The target receives the contents and the intent's id (PartReceived), on the
//     condition of the version it had before the intent was seen.
//  3. The source is forgotten.
//
// The order of reads makes step 2 happen once: first the target, then the source. If the intent still stands after the
// target was read, then either the target shows its id, or nobody has received it yet and the condition on the version
// keeps a second one from doing so. The id may be overwritten only after step 3 of its hand-over. See docs/design.

// intent is the value of PartTransfer, and in the target that of PartReceived.
type intent struct {
	ID       string        `json:"id"`
	From     cart.Key      `json:"from"`
	To       cart.Key      `json:"to"`
	Strategy cart.Strategy `json:"strategy"`
}

// errGone is returned inside of this file when an intent is not there any more.
var errGone = errors.New("intent is gone")

// transfer is one run through a hand-over, or through one that it met unfinished.
type transfer struct {
	c *Coordinator
	o *Options
	// tokens are the locks that it holds.
	tokens map[cart.Key]string
	// under is the change with the lease that the source is handed over under, if any; of that cart no turn is taken,
	// since it would wait for the lease.
	under  Change
	leased cart.Key
	// capped are the items that the last hand-over of this run, its own or one that it finished, has capped.
	capped []string
	// depth counts the unfinished hand-overs that stand in each other's way.
	depth int
}

// maxDepth bounds how many unfinished hand-overs are finished one for the other. Both turns are taken before an intent
// is declared, so they cannot form a ring; the bound keeps one that was made by hand from holding a request for ever.
const maxDepth = 16

func (t *transfer) abandon() {
	for key, token := range t.tokens {
		t.c.abandon(key, token)
	}
}

// takeTurns waits for the locks over whole carts. Everybody takes them in the same order, so that two never wait for
// each other.
func (t *transfer) takeTurns(ctx context.Context, deadline time.Time, keys ...cart.Key) error {
	if t.c.locker == nil {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for _, key := range keys {
		if t.under.Lease != "" && key == t.leased {
			continue
		}
		if !time.Now().Before(deadline) { // the wait for the first took it all: the backend is not to blame
			t.c.stats.timeouts.Add(1)
			return storage.ErrLockTimeout
		}
		claim := t.o.claim([]cart.Part{cart.PartAll}, t.tokens[key])
		claim.Duration = t.o.LeaseDuration // several steps, perhaps
		t.tokens[key] = claim.Token
		if _, err := t.c.locker.Acquire(ctx, key, *claim, false); err != nil {
			if errors.Is(err, storage.ErrLockTimeout) {
				t.c.stats.timeouts.Add(1)
			}
			return err
		}
		t.c.stats.acquired.Add(1)
	}
	return nil
}

// try makes one attempt: in one step where the store can, else in three.
func (t *transfer) try(ctx context.Context, from, to cart.Key, strategy cart.Strategy, ch Change) (Result, storage.Status, error) {
	c := t.c
	source, met, err := t.load(ctx, from)
	if err != nil {
		return Result{}, 0, err
	}
	capped := t.capped
	target, _, err := t.load(ctx, to)
	if err != nil {
		return Result{}, 0, err
	}
	if met.To == to && met.Strategy == strategy {
		return Result{Cart: target, Changed: true, Capped: capped}, storage.Committed, c.ifLeased(ctx, from, ch) // what was asked for now was asked for before
	}
	if err := ch.If.Check(source, cart.PartAll); err != nil {
		return Result{}, 0, err
	}
	if source.Empty() {
		return Result{Cart: target}, storage.Committed, c.ifLeased(ctx, from, ch)
	}
	in := intent{ID: storage.NewID(), From: from, To: to, Strategy: strategy}
	take, arrived, err := t.arrival(source, target, in, nil, t.o.Limits)
	if err != nil {
		return Result{}, 0, err
	}
	c.cache.begin(from)
	c.cache.begin(to)
	if err := c.settleReceived(ctx, source); err != nil { // the hand-over it received is finished first
		return Result{}, 0, err
	}
	if c.store.Atomic(from, to) {
		if strategy == cart.StrategySwap {
			if err := c.settleReceived(ctx, target); err != nil { // it ends too
				return Result{}, 0, err
			}
		}
		return t.atOnce(ctx, from, source, take, arrived)
	}
	status, err := t.declare(ctx, source, in)
	if err != nil || status != storage.Committed {
		return Result{}, status, err
	}
	if err := t.finish(ctx, in); err != nil {
		return Result{}, 0, err
	}
	if ch.Release {
		_ = c.locker.Release(ctx, from, ch.Lease) // if this fails, the lease ends by itself
	}
	target, err = c.store.Load(ctx, to)
	return Result{Cart: target, Changed: true, Capped: t.capped}, storage.Committed, err
}

// load loads a cart and first finishes the hand-over that it is the source of, if any, whose intent it returns.
func (t *transfer) load(ctx context.Context, key cart.Key) (*cart.Cart, intent, error) {
	var met intent
	for {
		k, err := t.c.store.Load(ctx, key)
		if err != nil || k.Transfer == nil {
			return k, met, err
		}
		if met, err = t.resume(ctx, key, k); err != nil {
			return nil, met, err
		}
	}
}

// arrival is the commit that brings the contents of source to target, and the cart that it leaves there, without its
// times. received is what the target remembers of the hand-over; nil where the hand-over is one step.
func (t *transfer) arrival(source, target *cart.Cart, in intent, received []byte, limits cart.Limits) (storage.Commit, *cart.Cart, error) {
	take := storage.Commit{
		Key: in.To, Expect: storage.Expect{ID: target.ID, Version: target.Version},
		Change: storage.Change{TTL: t.o.TTL, Touch: true},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartAll}, Token: t.tokens[in.To]},
	}
	t.capped = nil
	if in.Strategy == cart.StrategySwap {
		take.Change.Place = source.Moved()
		take.Change.Place.Received = received
		arrived := *take.Change.Place
		return take, &arrived, nil
	}
	d := cart.NewDraft(target, limits, storage.NewID())
	if _, err := d.Change(cart.Receive{From: source, Strategy: in.Strategy, ID: string(received)}); err != nil {
		return take, nil, err
	}
	t.capped = d.Capped()
	arrived := d.Cart()
	take.Change.Writes, take.Change.Steps, take.Change.NewID = writes(d, target.Version), arrived.Version-target.Version, arrived.ID
	return take, arrived, nil
}

// atOnce changes both carts in one step.
func (t *transfer) atOnce(ctx context.Context, from cart.Key, source *cart.Cart, take storage.Commit, target *cart.Cart) (Result, storage.Status, error) {
	give := storage.Commit{
		Key: from, Expect: storage.Expect{ID: source.ID, Version: source.Version},
		Change: storage.Change{Forget: true},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartAll}, Token: t.tokens[from], Release: t.tokens[from] != ""},
	}
	if t.under.Lease != "" {
		give.Locks.Token, give.Locks.MustHold, give.Locks.Release = t.under.Lease, true, t.under.Release
	}
	take.Locks.Release = take.Locks.Token != ""
	outs, err := t.c.store.Commit(ctx, give, take)
	if err != nil {
		return Result{}, 0, err
	}
	for _, out := range outs {
		if out.Status != storage.Committed && out.Status != storage.NotTried {
			return Result{}, out.Status, nil
		}
	}
	clear(t.tokens) // given back in the same step
	target.CreatedAt, target.UpdatedAt, target.ExpiresAt = outs[1].CreatedAt, outs[1].UpdatedAt, outs[1].ExpiresAt
	t.c.cache.set(from, &cart.Cart{})
	t.c.cache.set(take.Key, target)
	return Result{Cart: target, Changed: true, Capped: t.capped}, storage.Committed, nil
}
