package lock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// If the store can change both carts in one atomic step, a hand-over is one commit of two carts. Otherwise it is three
// atomic steps. Any call that finds them unfinished can finish them:
//
//  1. The source is given an intent (PartTransfer), which closes it to every
//     other change.
//  2. The target receives the contents and the intent's id (PartReceived), on the
//     condition of the version it had before the intent was seen.
//  3. The source is forgotten.
//
// The order of reads makes step 2 happen once: first the target, then the source. If the intent is still there after
// the target was read, there are two cases. Either the target shows its id, and step 2 is done. Or step 2 is not done,
// and the condition on the version keeps it from being done twice. The id may be overwritten only after step 3 of its
// hand-over. See docs/design.

// intent is the value of PartTransfer, and in the target that of PartReceived.
type intent struct {
	ID       string        `json:"id"`
	From     cart.Key      `json:"from"`
	To       cart.Key      `json:"to"`
	Strategy cart.Strategy `json:"strategy"`
	// Key and Sum are those of its [Request], which the target must remember.
	Key string `json:"key,omitempty"`
	Sum []byte `json:"sum,omitempty"`
}

func (in *intent) request() Request {
	r := Request{Key: in.Key}
	copy(r.Sum[:], in.Sum)
	return r
}

// errGone is returned inside this package when an intent is not there any more.
var errGone = errors.New("intent is gone")

// transfer is one run of a hand-over. It also finishes hand-overs that it finds unfinished.
type transfer struct {
	c *Coordinator
	o *Options
	// tokens are the locks that it holds.
	tokens map[cart.Key]string
	// under is the change whose lease covers the source, if any. No turn is taken on that cart, because the turn would
	// wait for the lease.
	under  Change
	leased cart.Key
	// seen are the carts that turns and conflicts of this run returned. They need not be read again. Each is used once.
	seen map[cart.Key]*cart.Cart
	// guesses says that carts may be taken from the cache, and guessed that one was. Then only a successful commit
	// proves that they were right.
	guesses, guessed bool
	// capped are the items that the last hand-over of this run capped, whether its own or one that it finished.
	capped []string
	// depth counts the unfinished hand-overs that block each other.
	depth int
}

// maxDepth bounds a chain of unfinished hand-overs, each of which must be finished before the previous one. They cannot
// form a ring, because both turns are taken before an intent is declared. The bound keeps a ring that was made by hand
// from blocking a request for ever.
const maxDepth = 16

func (c *Coordinator) newTransfer() *transfer {
	return &transfer{c: c, o: c.opts.Load(), tokens: map[cart.Key]string{}, seen: map[cart.Key]*cart.Cart{}}
}

// abandon gives back the locks that no commit gave back.
func (t *transfer) abandon() {
	for key, token := range t.tokens {
		t.c.abandon(key, token)
	}
}

// takeTurns waits for the locks over whole carts. Every hand-over takes them in the same order, so that two never wait
// for each other.
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
		if !time.Now().Before(deadline) { // the wait for the first took all the time: the backend is not to blame
			t.c.stats.timeouts.Add(1)
			return storage.ErrLockTimeout
		}
		claim := t.o.claim([]cart.Part{cart.PartAll}, t.tokens[key])
		claim.Duration = t.o.LeaseDuration // several steps, perhaps
		t.tokens[key] = claim.Token
		grant, err := t.c.locker.Acquire(ctx, key, *claim, false)
		if err != nil {
			if errors.Is(err, storage.ErrLockTimeout) {
				t.c.stats.timeouts.Add(1)
			}
			return err
		}
		t.seen[key] = grant.Cart
		t.c.stats.acquired.Add(1)
	}
	return nil
}

// try makes one attempt: in one step if the store can, otherwise in three.
func (t *transfer) try(ctx context.Context, from, to cart.Key, strategy cart.Strategy, ch Change) (Result, storage.Status, error) {
	c := t.c
	t.guessed = false
	if t.guesses {
		if strategy != cart.StrategySwap { // a swap stores the whole source as the backend has it, with its tombstones
			t.guess(from)
		}
		t.guess(to)
		t.guesses = false
	}
	source, met, err := t.load(ctx, from)
	if err != nil {
		return Result{}, 0, err
	}
	capped := t.capped
	target, _, err := t.load(ctx, to)
	if err != nil {
		return Result{}, 0, err
	}
	switch again, ok, err := t.o.repeated(target, ch.Request); {
	case err != nil:
		return t.unless(err)
	case ok && t.guessed: // then it may not be the current state
		return Result{}, storage.Conflict, nil
	case ok:
		return again, storage.Committed, nil
	}
	if met.To == to && met.Strategy == strategy { // this same hand-over was begun before
		err := c.ifLeased(ctx, from, ch)
		if err == nil {
			target, err = c.remember(ctx, to, target, ch.Request, true)
		}
		return Result{Cart: target, Changed: true, Capped: capped}, storage.Committed, err
	}
	if err := ch.If.Check(source, cart.PartAll); err != nil {
		return t.unless(err)
	}
	if source.Empty() {
		if t.guessed {
			return Result{}, storage.Conflict, nil
		}
		err := c.ifLeased(ctx, from, ch)
		if err == nil {
			target, err = c.remember(ctx, to, target, ch.Request, false)
		}
		return Result{Cart: target}, storage.Committed, err
	}
	in := intent{ID: storage.NewID(), From: from, To: to, Strategy: strategy, Key: ch.Request.Key}
	if in.Key != "" {
		in.Sum = ch.Request.Sum[:]
	}
	take, arrived, err := t.arrival(ctx, source, target, in, nil, t.o.Limits)
	if err != nil {
		return t.unless(err)
	}
	if err := c.announce(ctx, from, to, source); err != nil {
		return t.unless(err)
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
		return t.atOnce(ctx, in, source, target, take, arrived)
	}
	return t.inSteps(ctx, in, source, target)
}

// load returns a cart as it was last seen, or loads it. If the cart is the source of a hand-over, it first finishes
// that and returns its intent.
func (t *transfer) load(ctx context.Context, key cart.Key) (*cart.Cart, intent, error) {
	var met intent
	for {
		k, err := t.seen[key], error(nil)
		delete(t.seen, key)
		if k == nil {
			k, err = t.c.store.Load(ctx, key)
		}
		if err != nil || k.Transfer == nil {
			return k, met, err
		}
		if met, err = t.resume(ctx, key, k); err != nil {
			return nil, met, err
		}
	}
}

// arrival returns the commit that brings the contents of source to target, and the resulting cart without its times.
// received is the target's record of the hand-over; nil if the hand-over is one step.
func (t *transfer) arrival(ctx context.Context, source, target *cart.Cart, in intent, received []byte, limits cart.Limits) (storage.Commit, *cart.Cart, error) {
	take := storage.Commit{
		Key: in.To, Expect: expectLedger(target),
		Change: storage.Change{TTL: t.o.TTL, Touch: true},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartAll}, Token: t.tokens[in.To]},
	}
	t.capped = nil
	known, err := t.requests(source, target, in)
	if err != nil {
		return take, nil, err
	}
	if in.Strategy == cart.StrategySwap {
		take.Change.Place = source.Moved()
		take.Change.Place.Received = received
		take.Change.Trail = t.c.trail(ctx, storage.ChangeSwapped, 0, cart.PartAll)
		if r := in.request(); r.Key != "" {
			if err := take.Change.Place.Remember(append(known, r.made(take.Change.Place.Version, true))); err != nil {
				return take, nil, err
			}
		}
		arrived := *take.Change.Place
		return take, &arrived, nil
	}
	d := cart.NewDraft(target, limits, storage.NewID())
	changed, err := d.Change(cart.Receive{From: source, Strategy: in.Strategy, ID: string(received)})
	if err != nil {
		return take, nil, err
	}
	t.capped = d.Capped()
	if r := in.request(); r.Key != "" {
		known = append(known, r.made(d.Cart().Version, true))
	}
	if len(known) > 0 {
		if err := d.Remember(known); err != nil {
			return take, nil, err
		}
	}
	if err := bring(d, source); err != nil {
		return take, nil, err
	}
	arrived := d.Cart()
	take.Change.Writes, take.Change.Steps, take.Change.NewID = writes(d, target.Version), arrived.Version-target.Version, arrived.ID
	if changed {
		take.Change.Trail = t.c.trail(ctx, storage.ChangeMerged, take.Change.Steps, d.Altered()...)
	}
	return take, arrived, nil
}

// bring moves the checkouts of a source into the cart that receives its contents.
func bring(d *cart.Draft, source *cart.Cart) error {
	coming, err := checkoutsOf(source)
	if err != nil || len(coming) == 0 {
		return err
	}
	there, err := checkoutsOf(d.Cart())
	if err != nil {
		return err
	}
	for _, e := range coming {
		if !slices.ContainsFunc(there, func(t cart.CheckoutEntry) bool { return t.Nonce == e.Nonce }) {
			there = append(there, e)
		}
	}
	return d.SetCheckouts(there)
}

// requests returns the requests that the target must remember beside the hand-over itself: those of the source, and
// after a merge also those of the target.
func (t *transfer) requests(source, target *cart.Cart, in intent) ([]cart.Request, error) {
	known, err := t.o.recall(source)
	if err != nil || in.Strategy == cart.StrategySwap {
		return known, err
	}
	here, err := t.o.recall(target)
	return cart.Joined(here, known), err
}

// atOnce changes both carts in one step.
func (t *transfer) atOnce(ctx context.Context, in intent, source, target *cart.Cart, take storage.Commit, arrived *cart.Cart) (Result, storage.Status, error) {
	token := t.tokens[in.From]
	give := storage.Commit{
		Key: in.From, Expect: expectLedger(source),
		Change: storage.Change{Forget: true, Trail: t.c.trail(ctx, kindOf(in.Strategy), 0, cart.PartAll)},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartAll}, Token: token, Release: token != ""},
	}
	if t.under.Lease != "" {
		give.Locks.Token, give.Locks.MustHold, give.Locks.Release = t.under.Lease, true, t.under.Release
	}
	take.Locks.Release = take.Locks.Token != ""
	outs, err := t.c.store.Commit(ctx, give, take)
	if err != nil {
		return Result{}, 0, err
	}
	t.sees(in.From, source, outs[0])
	t.sees(take.Key, target, outs[1])
	for _, out := range outs {
		if out.Status != storage.Committed && out.Status != storage.NotTried {
			return Result{}, out.Status, nil
		}
	}
	clear(t.tokens) // given back in the same step
	stamp(arrived, outs[1])
	t.c.cache.set(in.From, &cart.Cart{})
	t.c.cache.set(take.Key, arrived)
	return Result{Cart: arrived, Changed: true, Capped: t.capped}, storage.Committed, nil
}

// guess lets the next load use the cache.
func (t *transfer) guess(key cart.Key) {
	if k, _ := t.c.cache.get(key); k != nil && t.seen[key] == nil {
		t.seen[key], t.guessed = k, true
	}
}

// unless ends an attempt that needs no commit. It returns err, or asks for another attempt if err is based on a guess.
func (t *transfer) unless(err error) (Result, storage.Status, error) {
	if t.guessed {
		return Result{}, storage.Conflict, nil
	}
	return Result{}, 0, err
}

// sees uses the outcome of a commit that was not made. It shows the current state, or confirms that k is right.
func (t *transfer) sees(key cart.Key, k *cart.Cart, out storage.Outcome) {
	switch {
	case out.Cart != nil:
		t.seen[key] = out.Cart
	case out.Status == storage.NotTried:
		t.seen[key] = k
	}
}

// stamp sets the times of a cart from the commit that wrote it.
func stamp(k *cart.Cart, out storage.Outcome) {
	k.CreatedAt, k.UpdatedAt, k.ExpiresAt = out.CreatedAt, out.UpdatedAt, out.ExpiresAt
}
