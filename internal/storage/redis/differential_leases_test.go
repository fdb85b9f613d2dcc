package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// number gives fences to the reference, which only rise.
func (w *twins) number(i int) {
	w.states[i].GiveFences(func() uint64 {
		w.twin++
		return w.twin
	})
}

// lease asks for a lease by its token, or breaks it as another program can.
func (w *twins) lease(i int, now time.Time) {
	key, s, token := w.keys[i], w.states[i], w.anyToken()
	s.Settle(now)
	w.number(i)
	var (
		got, want storage.Lease
		err, is   error
	)
	switch w.rand.IntN(5) {
	case 0:
		lease := 2 * time.Hour * time.Duration(w.rand.IntN(2)) // 0: its own
		got, err = w.store.Renew(w.Context(), key, token, lease)
		want, is = s.Renew(token, lease/slow, now)
	case 1:
		err = w.store.Release(w.Context(), key, token)
		_, is = s.Release(token, now)
	case 2:
		w.breakLease(i, token, now)
		return
	default:
		got, err = w.store.Lease(w.Context(), key, token)
		want, is = s.Lease(token)
	}
	w.number(i)
	if errors.Is(err, storage.ErrLockLost) != (is == storage.ErrLockLost) || errors.Is(err, storage.ErrLockUnknown) != (is == storage.ErrLockUnknown) ||
		(err == nil) != (is == nil) {
		w.Errorf("lease of %s: %v, want %v", token, err, is)
	}
	if !slices.Equal(got.Parts, want.Parts) || got.Holder != want.Holder || got.Duration != slow*want.Duration ||
		!want.Expires.IsZero() && got.Expires.Sub(w.ends(want.Expires)).Abs() > time.Minute {
		w.Errorf("lease of %s: %+v, want %+v", token, got, want)
	}
	if want.Fence == 0 {
		return
	}
	// The same lease has the same fence each time, and a later one a greater one.
	id := fmt.Sprint(i, " ", want.Fence)
	if old, ok := w.fences[id]; ok && old != got.Fence {
		w.Errorf("lease of %s: fence %d, was %d", token, got.Fence, old)
	}
	w.fences[id] = got.Fence
	for other, fence := range w.fences {
		var j int
		var n uint64
		if _, err := fmt.Sscan(other, &j, &n); err != nil {
			w.Fatal(err)
		}
		if i == j && n != want.Fence && (n < want.Fence) != (fence < got.Fence) {
			w.Errorf("fences %d and %d are not in the order of their leases", got.Fence, fence)
		}
	}
}

// breakLease deletes the lock keys of a lease.
func (w *twins) breakLease(i int, token string, now time.Time) {
	s := w.states[i]
	// Redis has the locks that Settle has just granted only after somebody looks.
	_, err := w.store.Lease(w.Context(), w.keys[i], token)
	at := slices.IndexFunc(s.Held, func(h storage.Hold) bool { return h.Token == token && h.Leased })
	if at < 0 {
		return
	}
	known := !s.Held[at].Unconfirmed
	if err != nil {
		w.Fatalf("Lease: %v", err)
	}
	for p := range heldKeys(w.store.space.names(w.keys[i]), s) {
		if v, err := w.store.client.Get(w.Context(), p).Result(); err == nil && strings.HasPrefix(v, token) {
			if err := w.store.client.Del(w.Context(), p).Err(); err != nil {
				w.Fatalf("DEL: %v", err)
			}
		}
	}
	s.Held = slices.DeleteFunc(s.Held, func(h storage.Hold) bool { return h.Token == token })
	if known {
		s.Lost = append(s.Lost, storage.Lost{Token: token, Expired: now})
	}
}

// heldKeys are the lock keys of all holds, and their values.
func heldKeys(n names, s *storage.State) map[string]string {
	locks := map[string]string{}
	for _, h := range s.Held {
		parts := h.Parts
		if h.Leased && parts[0] == cart.PartAll {
			parts = []cart.Part{cart.PartAll, cart.PartItems, cart.PartConditions}
		}
		for _, p := range parts {
			locks[n.lockKey(p)] = h.Token + h.Holder
		}
	}
	return locks
}
