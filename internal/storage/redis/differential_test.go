package redis

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// describe returns everything in a cart but its times.
func describe(c *cart.Cart) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d items %s %d conditions %s %d", c.ID, c.Version,
		c.Items.Object.Bytes(), c.Items.Version, c.Conditions.Object.Bytes(), c.Conditions.Version)
	for _, e := range c.Metadata {
		fmt.Fprintf(&b, " %s=%s %d", e.Key, e.Value, e.Version)
	}
	fmt.Fprintf(&b, " removed %v floor %d", c.Removed, c.Floor)
	for _, v := range []struct {
		name  string
		value []byte
	}{{"transfer", c.Transfer}, {"received", c.Received}, {"ledger", c.Ledger.Value}} {
		if v.value == nil {
			fmt.Fprintf(&b, " %s -", v.name)
		} else {
			fmt.Fprintf(&b, " %s %q", v.name, v.value)
		}
	}
	fmt.Fprintf(&b, " at %d", c.Ledger.Version)
	return b.String()
}

// twins are a store and the reference, which must stay the same.
type twins struct {
	*testing.T
	store  *Store
	rand   *rand.Rand
	keys   []cart.Key
	states []*storage.State
	tokens []string
	step   int
	// quiet: nobody takes a lock, so that commits go the quick way.
	quiet bool
	// turns: most commits let the next in and queue again, so that they go the other quick way.
	turns bool
	// foreigners are the tokens of locks that another program took.
	foreigners []string
	// fences are those that the store gave, and twin those of the reference for the same leases: both must rise in the
	// same order.
	fences map[string]uint64
	twin   uint64
	// began is when both did.
	began time.Time
}

// slow is how many times longer everything lasts in the store than in the reference, since the store's heartbeat is an
// hour and not storage.Heartbeat. So nothing ends by itself while this runs, and the life of a waiter is the same for
// both.
const slow = 4 * 60 * 60

// now is the reference's clock.
func (w *twins) now() time.Time { return w.began.Add(time.Since(w.began) / slow) }

// slowed is a claim as the reference has it.
func slowed(c *storage.Claim) *storage.Claim {
	if c == nil {
		return nil
	}
	r := *c
	r.Duration /= slow
	return &r
}

// ends converts the end of something in the reference to the store's time.
func (w *twins) ends(t time.Time) time.Time { return w.began.Add(t.Sub(w.began) * slow) }

// TestDifferential makes random sequences of commits, claims and releases on the store and on the reference, and
// compares answers, carts, locks and queues after each.
func TestDifferential(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(differentialSeeds) {
				config.Prefix = fmt.Sprint("d", seed)
				s := open(t, config)
				s.heartbeat = time.Hour
				w := &twins{T: t, store: s, began: time.Now(), rand: rand.New(rand.NewPCG(seed, 1)), quiet: seed%3 == 0, turns: seed%3 == 1, fences: map[string]uint64{}}
				for _, instance := range []string{"default", "x.items"} {
					w.keys = append(w.keys, cart.Key{Identifier: "u{1}", Instance: instance})
					w.states = append(w.states, &storage.State{})
				}
				for range 5 {
					w.tokens = append(w.tokens, randomName())
				}
				for w.step = range 180 {
					w.act()
					w.compare()
					if t.Failed() {
						t.Fatalf("seed %d, step %d", seed, w.step)
					}
				}
			}
		})
	}
}

func (w *twins) act() {
	i := w.rand.IntN(len(w.keys))
	now := w.now()
	switch n := w.rand.IntN(24); {
	case n >= 20 && !w.quiet:
		w.lease(i, now)
	case n < 12 || w.quiet:
		w.commit(i)
	case n < 16:
		claim := w.claim()
		got, err := w.store.claim(w.Context(), w.keys[i], claim)
		if err != nil && !errors.Is(err, storage.ErrTooLate) {
			w.Fatalf("claim: %v", err)
		}
		w.states[i].Settle(now)
		want := w.states[i].Acquire(*slowed(claim), now)
		if (err != nil) != (want == storage.Claimed{}) {
			w.Errorf("claim %v: %v, want %+v", claim, err, want)
		}
		if got.yes != want.Granted {
			w.Errorf("claim %v: granted %v, want %v", claim, got.yes, want.Granted)
		}
		w.number(i)
		if lease, err := w.states[i].Lease(claim.Token); got.yes && (err == nil) != (got.fence != 0 && !got.expires.IsZero()) {
			w.Errorf("claim %v: fence %d until %v, want %+v, %v", claim, got.fence, got.expires, lease, err)
		} else if got.yes && err == nil && got.expires.Sub(w.ends(lease.Expires)).Abs() > time.Minute {
			w.Errorf("claim %v: until %v, want %v", claim, got.expires, w.ends(lease.Expires))
		}
		if got.yes {
			c, err := decodeCart(got.flat)
			if err != nil || describe(c) != describe(&w.states[i].Cart) || !w.expire(c, &w.states[i].Cart) {
				w.Errorf("cart of a claim: %v, %v, want it to expire at %v", c, err, w.states[i].Cart.ExpiresAt)
			}
		}
	case n < 19:
		token := w.anyToken()
		if err := w.store.Abandon(w.Context(), w.keys[i], token); err != nil {
			w.Fatalf("Abandon: %v", err)
		}
		w.states[i].Settle(now)
		w.states[i].Abandon(token, now)
	default:
		w.foreign(i, now)
	}
}

// foreign takes a lock as another program does, if it is free.
func (w *twins) foreign(i int, now time.Time) {
	part := []cart.Part{cart.PartItems, cart.PartConditions, cart.PartAll}[w.rand.IntN(3)]
	claim := storage.Claim{Token: randomName(), Holder: "foreign", Parts: []cart.Part{part}, Duration: time.Hour}
	for _, h := range w.states[i].Held {
		if h.Holder != claim.Holder && slices.Contains(h.Parts, cart.PartAll) {
			return // no rule says what becomes of a lock that was taken beneath another
		}
	}
	lock := w.store.space.names(w.keys[i]).lockKey(part)
	set, err := w.store.client.SetNX(w.Context(), lock, claim.Token+claim.Holder, time.Hour).Result()
	if err != nil {
		w.Fatalf("SETNX: %v", err)
	}
	if !set {
		return
	}
	w.foreigners = append(w.foreigners, claim.Token)
	s := w.states[i]
	s.Held = append(s.Held, storage.Hold{Token: claim.Token, Holder: claim.Holder, Parts: claim.Parts, Expires: now.Add(claim.Duration)})
}

func (w *twins) token() string { return w.tokens[w.rand.IntN(len(w.tokens))] }

// anyToken may be one of another program's.
func (w *twins) anyToken() string {
	if n := len(w.foreigners); n > 0 && w.yes(3) {
		return w.foreigners[n-1]
	}
	return w.token()
}

func (w *twins) part() cart.Part {
	all := []cart.Part{cart.PartItems, cart.PartConditions, cart.PartMetadata("a"), cart.PartMetadata("items"), cart.PartMetadata("c.{d}%")}
	return all[w.rand.IntN(len(all))]
}

func (w *twins) parts() []cart.Part {
	if w.turns && !w.yes(5) {
		return []cart.Part{cart.PartItems}
	}
	if w.rand.IntN(5) == 0 {
		return []cart.Part{cart.PartAll}
	}
	parts := []cart.Part{w.part()}
	for w.rand.IntN(2) == 0 {
		if p := w.part(); !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	return parts
}

func (w *twins) claim() *storage.Claim {
	lease := time.Hour
	if w.yes(2) {
		lease = 10 * time.Hour // longer than a waiter lives
	}
	return &storage.Claim{Token: w.token(), Holder: "h", Parts: w.parts(), Duration: lease, Leased: w.yes(3)}
}

func (w *twins) yes(oneIn int) bool { return w.rand.IntN(oneIn) == 0 }

// commit tries one commit, or one on both carts.
func (w *twins) commit(i int) {
	which := []int{i}
	if w.yes(5) {
		which = append(which, 1-i)
	}
	var commits []storage.Commit
	var states []*storage.State
	now := w.now()
	var twin []storage.Commit // as the reference has them
	for _, i := range which {
		c := w.randomCommit(i)
		commits = append(commits, c)
		c.Locks.Claim, c.Locks.Again, c.Change.TTL = slowed(c.Locks.Claim), slowed(c.Locks.Again), c.Change.TTL/slow
		twin = append(twin, c)
		s := *w.states[i]
		s.Held, s.Queue, s.Lost = slices.Clone(s.Held), slices.Clone(s.Queue), slices.Clone(s.Lost)
		s.Settle(now)
		states = append(states, &s)
	}
	got, err := w.store.Commit(w.Context(), commits...)
	if err != nil {
		w.Fatalf("Commit %+v: %v", commits, err)
	}
	want, _ := storage.Apply(states, twin, now)
	for j, i := range which {
		g, x := got[j], want[j]
		if x.Status == storage.Committed || x.Claimed != (storage.Claimed{}) {
			w.states[i] = states[j]
			w.number(i)
		}
		if g.Status != x.Status || g.Claimed != x.Claimed || g.ID != x.ID || g.Base != x.Base {
			w.Errorf("commit %+v:\n got %+v\nwant %+v", commits[j], g, x)
		}
		if x.Status == storage.Locked && x.Claimed.Queued {
			x.Cart = nil // it comes with the lock
		}
		if (g.Cart == nil) != (x.Cart == nil) || g.Cart != nil && (describe(g.Cart) != describe(x.Cart) || !w.expire(g.Cart, x.Cart)) {
			w.Errorf("commit %+v: cart %+v, want %+v", commits[j], g.Cart, x.Cart)
		}
		if near := func(a, b time.Time) bool {
			return a.IsZero() == b.IsZero() && a.Sub(b).Abs() < time.Minute
		}; !near(g.CreatedAt, x.CreatedAt) || !near(g.UpdatedAt, x.UpdatedAt) ||
			!w.expire(&cart.Cart{ExpiresAt: g.ExpiresAt}, &cart.Cart{ExpiresAt: x.ExpiresAt}) {
			w.Errorf("commit %+v: times %+v, want %+v", commits[j], g, x)
		}
	}
}

// turn is a commit of a sidecar that has the turn over the items, or seems to, with something wrong now and then.
func (w *twins) turn(i int) storage.Commit {
	now := &w.states[i].Cart
	items := []cart.Part{cart.PartItems}
	claim := func() *storage.Claim {
		c := w.claim()
		c.Token, c.Parts, c.Leased = randomName(), items, false
		return c
	}
	c := storage.Commit{
		Key: w.keys[i], Expect: storage.Expect{ID: now.ID, Parts: map[cart.Part]uint64{cart.PartItems: now.Items.Version}},
		Change: storage.Change{NewID: randomName(), Steps: 1 + w.rand.Uint64N(2), TTL: time.Hour},
		Locks:  storage.Locks{Parts: items, Release: true, Again: claim()},
	}
	c.Change.Writes = []storage.Write{{Part: cart.PartItems, Value: fmt.Appendf(nil, `{"n":%d}`, w.rand.IntN(1000)), Step: c.Change.Steps}}
	c.Locks.Token = w.token()
	if held := w.states[i].Held; len(held) > 0 && !slices.Contains(w.foreigners, held[0].Token) && !w.yes(8) {
		c.Locks.Token = held[0].Token
	}
	if w.yes(2) {
		c.Locks.Claim = claim()
		c.Locks.Claim.Token = c.Locks.Token
	}
	switch w.rand.IntN(20) {
	case 0:
		c.Expect.Parts[cart.PartItems]++
	case 1:
		c.Locks.Again.Token = c.Locks.Token
	case 2:
		if q := w.states[i].Queue; len(q) > 0 {
			c.Locks.Again.Token = q[w.rand.IntN(len(q))].Token
		}
	case 3:
		c.Locks.Again.Parts = w.parts()
	case 4:
		c.Locks.Parts = []cart.Part{cart.PartConditions}
	case 5:
		c.Locks.MustHold = true
	case 6:
		c.Locks.Again = nil
	case 7:
		c.Change.TTL = 0
	}
	return c
}

func (w *twins) randomCommit(i int) storage.Commit {
	if w.turns && !w.yes(8) {
		return w.turn(i)
	}
	now := &w.states[i].Cart
	c := storage.Commit{
		Key: w.keys[i], Expect: storage.Expect{ID: now.ID},
		Change: storage.Change{NewID: randomName(), TTL: time.Duration(w.rand.IntN(3)) * time.Hour, Touch: w.yes(4)},
		Locks:  storage.Locks{Parts: w.parts(), Release: w.yes(3)},
	}
	if w.yes(2) && !w.quiet {
		c.Locks.Token, c.Locks.MustHold = w.anyToken(), w.yes(2)
	}
	if w.yes(2) && !w.quiet {
		c.Locks.Claim = w.claim()
		if slices.Contains(w.tokens, c.Locks.Token) && w.yes(2) {
			c.Locks.Claim.Token = c.Locks.Token
		}
	}
	if c.Locks.Release && w.yes(2) && !w.quiet {
		c.Locks.Again = w.claim()
	}
	if w.yes(2) {
		c.Expect.Version = now.Version
	}
	c.Expect.Parts = map[cart.Part]uint64{}
	for w.yes(2) {
		p := w.part()
		c.Expect.Parts[p] = now.PartVersion(p)
	}
	switch w.rand.IntN(12) { // sometimes it does not hold
	case 0:
		c.Expect.ID = randomName()
	case 1:
		c.Expect.Version = now.Version + 1
	case 2:
		c.Expect.Parts[w.part()] = now.Version + 1
	case 3:
		c.Expect.Parts[cart.PartAll] = now.Version
	}
	if w.yes(60) {
		c.Change.Forget = true
		return c
	}
	if w.yes(12) {
		c.Change.Place = w.place()
		return c
	}
	if !now.Exists() && w.yes(4) {
		return c // a check
	}
	c.Change.Steps = w.rand.Uint64N(3)
	if !now.Exists() {
		c.Change.Steps++
	}
	if c.Change.Steps > 0 {
		w.fill(&c)
	}
	if (c.Change.Steps > 0 || now.Exists()) && w.yes(10) {
		c.Change.Writes = append(c.Change.Writes, storage.Write{Part: cart.PartTransfer, Value: []byte("\x00\xffopen")})
	} else if now.Transfer != nil && !w.yes(3) {
		c.Change.Writes = append(c.Change.Writes, storage.Write{Part: cart.PartTransfer})
	}
	if c.Change.Steps > 0 && w.yes(6) {
		c.Change.Writes = append(c.Change.Writes, storage.Write{Part: cart.PartReceived, Value: []byte(randomName())})
	}
	if (c.Change.Steps > 0 || now.Exists()) && w.yes(6) {
		ledger := storage.Write{Part: cart.PartLedger, Value: []byte("\x00\xff" + randomName()), Step: 1 + w.rand.Uint64N(50)}
		if w.yes(4) {
			ledger.Value = nil
		}
		c.Change.Writes = append(c.Change.Writes, ledger)
	}
	return c
}

// fill adds writes: of documents one each, of metadata keys several.
func (w *twins) fill(c *storage.Commit) {
	step := func() uint64 { return 1 + w.rand.Uint64N(c.Change.Steps) }
	value := func() []byte { return fmt.Appendf(nil, `{"n":%d.50,"é":[]}`, w.rand.IntN(1000)) }
	for _, p := range []cart.Part{cart.PartItems, cart.PartConditions} {
		if w.yes(2) {
			c.Change.Writes = append(c.Change.Writes, storage.Write{Part: p, Value: value(), Step: step()})
		}
	}
	if w.yes(2) {
		return // what quick.lua can do
	}
	keys := []string{"a", "items", "c.{d}%", "z"}
	if w.yes(2) { // enough to leave more tombstones than are kept
		for i := range 50 {
			keys = append(keys, fmt.Sprintf("key%02d\xc3%c", w.rand.IntN(2)*50+i, 0x80+w.rand.IntN(8)))
		}
	}
	w.rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, k := range keys {
		// A key may be there several times: set, removed, set again.
		for range w.rand.IntN(4) {
			write := storage.Write{Part: cart.PartMetadata(k), Step: step()}
			if w.rand.IntN(2) == 0 {
				write.Value = value()
			}
			c.Change.Writes = append(c.Change.Writes, write)
		}
	}
}

// compare checks carts, locks and queues.
func (w *twins) compare() {
	for i, key := range w.keys {
		want := w.states[i]
		got, err := w.store.Load(w.Context(), key)
		if err != nil || describe(got) != describe(&want.Cart) {
			w.Errorf("cart %v, %v\n got %s\nwant %s", key, err, describe(got), describe(&want.Cart))
		}
		if !w.expire(got, &want.Cart) {
			w.Errorf("cart %v expires at %v, want %v", key, got.ExpiresAt, w.ends(want.Cart.ExpiresAt))
		}
		w.compareLife(key, got)
		w.compareLocks(key, want)
	}
}

func (w *twins) compareLocks(key cart.Key, want *storage.State) {
	n := w.store.space.names(key)
	locks := heldKeys(n, want)
	found := map[string]string{}
	for _, p := range []cart.Part{
		cart.PartAll, cart.PartItems, cart.PartConditions, cart.PartMetadata("a"), cart.PartMetadata("items"), cart.PartMetadata("c.{d}%"),
	} {
		if v, err := w.store.client.Get(w.Context(), n.lockKey(p)).Result(); err == nil {
			found[n.lockKey(p)] = v
		}
	}
	if fmt.Sprint(found) != fmt.Sprint(locks) {
		w.Errorf("lock keys of %v:\n got %v\nwant %v", key, found, locks)
	}
	type hold struct {
		Token   string
		Expires int64
	}
	var registry struct {
		Held    []hold                   `json:"held"`
		Waiting []struct{ Token string } `json:"waiting"`
	}
	raw, err := w.store.client.Get(w.Context(), n.queue).Result()
	if err == nil {
		err = json.Unmarshal([]byte(strings.ReplaceAll(raw, `":{}`, `":[]`)), &registry) // an empty list of Lua
	}
	for _, h := range want.Held {
		ends := w.ends(h.Expires)
		if !slices.Contains(w.foreigners, h.Token) && !slices.ContainsFunc(registry.Held, func(r hold) bool {
			return r.Token == h.Token && time.UnixMilli(r.Expires).Sub(ends).Abs() < time.Minute
		}) {
			w.Errorf("holds of %v: %+v, want one of %s until %v", key, registry.Held, h.Token, ends)
		}
	}
	var waiting, expected []string
	for _, x := range registry.Waiting {
		waiting = append(waiting, x.Token)
	}
	for _, x := range want.Queue {
		expected = append(expected, x.Token)
	}
	if !slices.Equal(waiting, expected) {
		w.Errorf("queue of %v, %v:\n got %v\nwant %v", key, err, waiting, expected)
	}
}
