package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// outrun is a store in which somebody else is quicker: what comes before the next commit of a key is done just before
// it.
type outrun struct {
	storage.Locker
	mu     sync.Mutex
	before map[cart.Key]func()
}

func (s *outrun) Unwrap() storage.Store { return s.Locker }

func (s *outrun) by(key cart.Key, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before[key] = f
}

func (s *outrun) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	s.mu.Lock()
	f := s.before[commits[0].Key]
	delete(s.before, commits[0].Key)
	s.mu.Unlock()
	if f != nil {
		f()
	}
	return s.Locker.Commit(ctx, commits...)
}

// race is a cart with two mugs, which a sidecar knows, and another sidecar that changes it before the first does.
type race struct {
	*testing.T
	store *outrun
	key   cart.Key
	// first is outrun by other.
	first, other *lock.Coordinator
}

// meanwhile lets the other be quicker than the next commit of the first, by changes or whatever f does.
func (r *race) meanwhile(f func(), verbs ...cart.Verb) {
	r.store.by(r.key, func() {
		changed(r.T, r.other, r.key, verbs...)
		if f != nil {
			f()
		}
	})
}

func (r *race) change(ch lock.Change) (lock.Result, error) {
	if ch.Scope == "" {
		ch.Scope = cart.PartAll
	}
	return r.first.Change(r.Context(), r.key, ch)
}

// want compares the cart with what should be in it: items with their quantities, and metadata, in order.
func (r *race) want(want string) {
	r.Helper()
	if d := cmp.Diff(want, contents(r.T, read(r.T, r.other, r.key))); d != "" {
		r.Errorf("the cart (-want +got):\n%s", d)
	}
}

func (r *race) fails(err, want error) {
	r.Helper()
	if !errors.Is(err, want) {
		r.Errorf("error %v, want %v", err, want)
	}
}

func contents(t *testing.T, k *cart.Cart) string {
	t.Helper()
	var all []string
	for _, m := range k.Items.Object.Members() {
		all = append(all, fmt.Sprint(m.Key, ":", quantity(t, k, m.Key)))
	}
	for _, e := range k.Metadata {
		all = append(all, e.Key+"="+string(e.Value))
	}
	return strings.Join(all, " ")
}

func metadataVerb(key, value string) cart.PatchMetadata {
	return cart.PatchMetadata{Values: []cart.Member{{Key: key, Value: []byte(value)}}}
}

// TestJudgedAnew: a change that meets another state than the one that it was computed from is judged by that state in
// all respects, on backends that compute it anew in the same step as on the others.
func TestJudgedAnew(t *testing.T) {
	cases := map[string]func(r *race){
		"an etag": func(r *race) {
			etag := read(r.T, r.first, r.key).ETag()
			r.meanwhile(nil, item(r.T, "cup", 1))
			_, err := r.change(lock.Change{Verb: item(r.T, "mug", 1), If: cart.Precondition{IfMatch: []string{etag}}})
			r.fails(err, cart.ErrConflict)
			r.want("mug:2 cup:1")
		},
		"the absence of a cart": func(r *race) {
			must(r.T)(r.first.Forget(r.Context(), r.key, lock.Change{}))
			r.meanwhile(nil, item(r.T, "cup", 1))
			_, err := r.change(lock.Change{Verb: item(r.T, "mug", 1), If: cart.Precondition{IfNoneMatch: true}})
			r.fails(err, cart.ErrConflict)
			r.want("cup:1")
		},
		"an idempotency key": func(r *race) {
			ch := keyed(item(r.T, "mug", 1), "key", 1)
			var made lock.Result
			r.meanwhile(func() { made = must(r.T)(r.other.Change(r.Context(), r.key, ch)) })
			again := must(r.T)(r.change(ch))
			if again.Repeat.Version != made.Cart.Version || !again.Changed {
				r.Errorf("a repeat: %+v, of version %d", again, made.Cart.Version)
			}
			r.want("mug:3")
		},
		"an idempotency key of another request": func(r *race) {
			r.meanwhile(func() {
				must(r.T)(r.other.Change(r.Context(), r.key, keyed(item(r.T, "cup", 1), "key", 2)))
			})
			_, err := r.change(keyed(item(r.T, "mug", 1), "key", 1))
			r.fails(err, lock.ErrKeyReused)
			r.want("mug:2 cup:1")
		},
		"a lease that was given back": func(r *race) {
			l := r.lease(r.first, cart.PartItems)
			r.meanwhile(func() {
				if err := r.other.ReleaseLease(r.Context(), r.key, l.Token); err != nil {
					r.Error(err)
				}
				changed(r.T, r.other, r.key, item(r.T, "cup", 1))
			})
			_, err := r.change(lock.Change{Verb: item(r.T, "mug", 1), Lease: l.Token})
			r.fails(err, storage.ErrLockUnknown)
			r.want("mug:2 cup:1")
		},
		"a lease that is held": func(r *race) {
			l := r.lease(r.first, cart.PartItems)
			r.meanwhile(nil, metadataVerb("note", `1`))
			exists := cart.Precondition{IfMatch: []string{"*"}}
			must(r.T)(r.change(lock.Change{Verb: item(r.T, "mug", 1), Lease: l.Token, Release: true, If: exists}))
			r.want("mug:3 note=1")
			_, err := r.change(lock.Change{Verb: item(r.T, "mug", 1), Lease: l.Token})
			r.fails(err, storage.ErrLockUnknown) // it was given back in the same step
			r.want("mug:3 note=1")
		},
		"a lease of what was not there": func(r *race) {
			o := retaining()
			o.WaitTimeout = 300 * time.Millisecond
			r.first.Update(o)
			changed(r.T, r.first, r.key, metadataVerb("old", `1`))
			r.meanwhile(func() { r.lease(r.other, cart.PartMetadata("new")) }, metadataVerb("new", `1`))
			_, err := r.change(lock.Change{Verb: cart.Batch{Verbs: []cart.Verb{cart.ClearMetadata{}, item(r.T, "mug", 1)}}})
			r.fails(err, storage.ErrLockTimeout)
			r.want("mug:2 old=1 new=1")
		},
		"limits": func(r *race) {
			o := retaining()
			o.Limits.MaxItems = 2
			r.first.Update(o)
			r.meanwhile(nil, item(r.T, "cup", 1))
			_, err := r.change(lock.Change{Verb: item(r.T, "jug", 1)})
			r.fails(err, cart.ErrTooLarge)
			r.want("mug:2 cup:1")
		},
		"an item that has gone": func(r *race) {
			r.meanwhile(nil, cart.RemoveItem{ID: "mug"})
			_, err := r.change(lock.Change{Verb: cart.UpdateItem{ID: "mug", Delta: new(int64)}})
			r.fails(err, cart.ErrNotFound)
			r.want("")
		},
		"a change that somebody else has made": func(r *race) {
			r.meanwhile(nil, metadataVerb("note", `1`))
			got := must(r.T)(r.change(lock.Change{Verb: metadataVerb("note", `1`)}))
			if now := read(r.T, r.other, r.key); got.Changed || got.Cart.ETag() != now.ETag() {
				r.Errorf("answered %v, at %s; the cart is at %s", got.Changed, got.Cart.ETag(), now.ETag())
			}
			r.want("mug:2 note=1")
		},
		"a successor of the cart": func(r *race) {
			r.meanwhile(func() {
				must(r.T)(r.other.Forget(r.Context(), r.key, lock.Change{}))
				changed(r.T, r.other, r.key, item(r.T, "cup", 1))
			})
			got := must(r.T)(r.change(lock.Change{Verb: item(r.T, "mug", 1)}))
			if now := read(r.T, r.other, r.key); got.Cart.ETag() != now.ETag() || !got.Cart.ExpiresAt.Equal(now.ExpiresAt) {
				r.Errorf("answered %s until %v; the cart is at %s until %v", got.Cart.ETag(), got.Cart.ExpiresAt, now.ETag(), now.ExpiresAt)
			}
			r.want("cup:1 mug:1")
		},
		"a checkout that was settled": func(r *race) {
			checkOut(r.T, r.first, r.key, "order")
			changed(r.T, r.first, r.key, item(r.T, "mug", 3))
			r.meanwhile(func() { settle(r.T, r.other, r.key, "order", cart.Ordered) })
			if s := settle(r.T, r.first, r.key, "order", cart.Ordered); s.Settled {
				r.Error("it was settled twice")
			}
			r.want("mug:3")
		},
		"each change of a group": func(r *race) {
			etag := read(r.T, r.first, r.key).ETag()
			var (
				group sync.WaitGroup
				stale error
			)
			r.meanwhile(func() { // the group gathers while a commit is under way
				group.Go(func() {
					_, stale = r.change(lock.Change{Verb: item(r.T, "jug", 1), If: cart.Precondition{IfMatch: []string{etag}}})
				})
				group.Go(func() { must(r.T)(r.change(lock.Change{Verb: item(r.T, "mug", 1)})) })
				group.Go(func() { must(r.T)(r.change(keyed(item(r.T, "cup", 1), "key", 1))) })
				until(r.T, "the group waits", func() bool { return r.first.Status().Stats.Waiting == 3 })
				r.meanwhile(func() { must(r.T)(r.other.Change(r.Context(), r.key, keyed(item(r.T, "cup", 1), "key", 1))) })
			})
			must(r.T)(r.change(lock.Change{Verb: metadataVerb("note", `1`)}))
			group.Wait()
			r.fails(stale, cart.ErrConflict)
			r.want("mug:3 cup:1 note=1")
		},
	}
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			again := open(t)
			store, other := &outrun{Locker: again().(storage.Locker), before: map[cart.Key]func(){}}, again()
			for what, test := range cases {
				t.Run(what, func(t *testing.T) {
					r := &race{T: t, store: store, key: cart.Key{Identifier: what, Instance: "default"}}
					r.first, r.other = lock.New(store, retaining()), lock.New(other, retaining())
					changed(t, r.first, r.key, item(t, "mug", 2))
					test(r)
				})
			}
		})
	}
}

func (r *race) lease(c *lock.Coordinator, parts ...cart.Part) lock.Lease {
	r.Helper()
	l, err := c.AcquireLease(r.Context(), r.key, lock.LeaseRequest{Parts: parts, Wait: -1})
	if err != nil {
		r.Fatal(err)
	}
	return l
}
