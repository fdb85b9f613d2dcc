package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Commit runs one script.
func (s *Store) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	if s.isClosed() {
		return nil, s.translate(ctx, goredis.ErrClosed, "commit", keysOf(commits)...)
	}
	if len(commits) == 2 && !s.Atomic(commits[0].Key, commits[1].Key) {
		return nil, fmt.Errorf("redis: commit %v: two slots in one step: %w", keysOf(commits), storage.ErrUnsupported)
	}
	for i := range commits {
		for _, claim := range claims(&commits[i].Locks) {
			s.waiters.join(claim.Token) // before the claim is sent, so that no wake-up is missed
		}
	}
	outs, err := s.commit(ctx, commits)
	for i := range commits {
		for _, claim := range claims(&commits[i].Locks) {
			if err == nil && outs[i].Claimed.Queued && claim.Token == queued(&commits[i], &outs[i]).Token {
				continue
			}
			s.waiters.leave(claim.Token)
			if err != nil && claim.Token != commits[i].Locks.Token {
				// The caller does not learn what was claimed, so it is given back here. What Token held before is for
				// the caller to give back.
				s.abandonLater(ctx, commits[i].Key, claim.Token)
			}
		}
	}
	if err != nil {
		return nil, s.translate(ctx, err, "commit", keysOf(commits)...)
	}
	for i := range commits {
		if outs[i].Status == storage.Committed && commits[i].Change.Alters() {
			s.watching.changedHere(commits[i].Key)
		}
	}
	return outs, nil
}

func (s *Store) commit(ctx context.Context, commits []storage.Commit) ([]storage.Outcome, error) {
	reply, err := s.run(ctx, commitScript, s.commitArgs(commits))
	if err != nil {
		return nil, err
	}
	outs := make([]storage.Outcome, len(commits))
	if numbers, ok := strings.CutPrefix(reply, "+"); ok {
		var g granted
		if outs[0], g, err = decodeQuick(numbers, commits[0].Expect.ID); outs[0].Claimed.Queued {
			s.waiters.queued(commits[0].Locks.Again.Token, g)
		}
		return outs, err
	}
	u := &unpacker{rest: reply}
	u.next()
	for i := range commits {
		var g granted
		if outs[i], g, err = decodeOutcome(u); err != nil {
			return nil, err
		}
		if outs[i].Claimed.Queued {
			s.waiters.queued(queued(&commits[i], &outs[i]).Token, g)
		}
	}
	return outs, nil
}

// claims are those of a commit.
func claims(l *storage.Locks) (list []*storage.Claim) {
	if l.Claim != nil {
		list = append(list, l.Claim)
	}
	if l.Again != nil {
		list = append(list, l.Again)
	}
	return list
}

// queued is the claim that an outcome is about.
func queued(c *storage.Commit, out *storage.Outcome) *storage.Claim {
	if out.Status == storage.Committed {
		return c.Locks.Again
	}
	return c.Locks.Claim
}

func keysOf(commits []storage.Commit) []cart.Key {
	keys := make([]cart.Key, len(commits))
	for i := range commits {
		keys[i] = commits[i].Key
	}
	return keys
}

// commitArgs must match read_commit in commit.lua. Arguments are known by their places. One packed table with names
// would be copied once more on each side: a commit then takes 1.05 times as long, and 1.7 times for a cart of 25 KB.
func (s *Store) commitArgs(commits []storage.Commit) []any {
	var ns [2]names
	room, nkeys := 1, 4*len(commits)
	locks := s.space.cluster || len(commits) == 1
	for i := range commits {
		c := &commits[i]
		ns[i] = s.space.names(c.Key)
		room += 20 + 2*len(c.Locks.Parts) + 2*len(c.Expect.Parts) + 3*len(c.Change.Writes)
		if locks {
			nkeys += len(c.Locks.Parts)
		}
		if s.declaresFence(c) {
			nkeys++
		}
		nkeys++ // its watch key
	}
	args := append(make([]any, 0, 3+nkeys+room), "evalsha", commitScript.sha, nkeys)
	for i := range commits {
		args = append(args, ns[i].cart, ns[i].index, ns[i].queue, ns[i].lock)
	}
	for i := range commits {
		for _, p := range commits[i].Locks.Parts {
			if locks {
				args = append(args, ns[i].lockKey(p))
			}
		}
		if s.declaresFence(&commits[i]) {
			args = append(args, ns[i].fence)
		}
	}
	for i := range commits {
		args = append(args, ns[i].watch)
	}
	switch {
	case len(commits) > 1 || !isOrdinary(&commits[0]):
		args = append(args, len(commits))
	case commits[0].Locks.Token == "":
		args = append(args, "q")
	case isTurn(&commits[0]):
		args = append(args, "t")
	default:
		args = append(args, 1)
	}
	for i := range commits {
		args = s.appendCommit(args, &commits[i], ns[i].instance)
	}
	return args
}

// declaresFence reports whether a commit must name the key of the fence: it has to do with leases, and the server must
// know all keys. An ordinary commit does without that key.
func (s *Store) declaresFence(c *storage.Commit) bool {
	return s.space.cluster && (c.Locks.MustHold || fences(c.Locks.Claim) || fences(c.Locks.Again))
}

func fences(c *storage.Claim) bool { return c != nil && c.Leased }

func (s *Store) appendCommit(args []any, c *storage.Commit, instance string) []any {
	args = append(args, instance, c.Expect.ID, c.Expect.Version, c.Change.NewID, c.Change.Steps, millis(c.Change.TTL), s.flags(c), c.Locks.Token)
	args = appendParts(args, c.Locks.Parts)
	args = append(args, len(c.Expect.Parts))
	first := len(args)
	for p := range c.Expect.Parts {
		args = append(args, versionField(p))
	}
	for _, field := range args[first:] {
		args = append(args, c.Expect.Parts[partOf(field.(string))])
	}
	at := len(args)
	args = append(args, len(c.Change.Writes))
	for _, w := range c.Change.Writes {
		if w.Part == cart.PartLedger {
			args[at] = len(c.Change.Writes) + 1
			args = append(args, livesUntil, 0, expiry(ledgerOf(c, w.Value).LivesUntil()))
		}
		step, value := int64(w.Step), w.Value
		if value == nil {
			step, value = -max(step, 1), []byte{}
		}
		args = append(args, string(w.Part), step, value)
	}
	for _, claim := range []*storage.Claim{c.Locks.Claim, c.Locks.Again} {
		if claim == nil {
			args = append(args, "")
		} else {
			args = s.appendClaim(args, claim)
		}
	}
	if c.Change.Place != nil {
		at := len(args)
		args = appendCart(append(args, 0), c.Change.Place, c.Change.Keep)
		args[at] = len(args) - at - 1
	}
	return args
}

// livesUntil is the field that says until when a cart lives at least, since a checkout of it is open: in milliseconds
// since 1970, 0 for none. It is written together with the ledger, which no script can read.
const livesUntil = "until"

// ledgerOf is a cart that has only the ledger that a commit stores.
func ledgerOf(c *storage.Commit, value []byte) *cart.Cart {
	id := c.Expect.ID
	if id == "" {
		id = c.Change.NewID
	}
	return &cart.Cart{ID: id, Ledger: cart.Opaque{Value: value, Version: 1}}
}

// isTurn reports whether quick.lua can make an ordinary commit that has a token.
func isTurn(c *storage.Commit) bool {
	l := &c.Locks
	return l.Release && len(l.Parts) == 1 && l.Again != nil && slices.Equal(l.Again.Parts, l.Parts) &&
		(l.Claim == nil || len(l.Claim.Parts) == 1)
}

// isOrdinary reports whether quick.lua can make a commit, if the locks that it meets allow that.
func isOrdinary(c *storage.Commit) bool {
	change, locks := &c.Change, &c.Locks
	if locks.MustHold || fences(locks.Claim) || fences(locks.Again) ||
		c.Expect.ID == "" || change.Steps == 0 || change.TTL <= 0 || change.Forget ||
		change.Place != nil || slices.Contains(locks.Parts, cart.PartAll) {
		return false
	}
	for p := range c.Expect.Parts {
		if p != cart.PartItems && p != cart.PartConditions {
			return false
		}
	}
	for _, w := range c.Change.Writes {
		if w.Part != cart.PartItems && w.Part != cart.PartConditions {
			return false
		}
	}
	return true
}

// versionField returns the field of a part's version. partOf is its inverse.
func versionField(p cart.Part) string {
	if p == cart.PartAll {
		return string(p)
	}
	return "v:" + string(p)
}

func partOf(field string) cart.Part { return cart.Part(strings.TrimPrefix(field, "v:")) }

func (s *Store) appendClaim(args []any, c *storage.Claim) []any {
	args = append(args, c.Token, c.Holder, millis(c.Duration), s.waiters.channel, millis(s.life()))
	return appendParts(args, c.Parts)
}

// life returns the TTL of a waiter's place: storage.WaiterTTL in proportion to this store's heartbeat.
func (s *Store) life() time.Duration {
	return s.heartbeat * time.Duration(int64(storage.WaiterTTL/storage.Heartbeat))
}

func appendParts(args []any, parts []cart.Part) []any {
	args = append(args, len(parts))
	for _, p := range parts {
		args = append(args, string(p))
	}
	return args
}

func (s *Store) flags(c *storage.Commit) string {
	f := ""
	if s.eviction.seen.Load() {
		f = "i"
	}
	if c.Change.Forget {
		f += "f"
	}
	if c.Change.Place != nil {
		f += "p"
	}
	if c.Change.Touch {
		f += "t"
	}
	if c.Locks.MustHold {
		f += "l"
	}
	if c.Locks.Release {
		f += "r"
	}
	if fences(c.Locks.Claim) {
		f += "c"
	}
	if fences(c.Locks.Again) {
		f += "a"
	}
	return f
}

// millis rounds down to whole milliseconds, and is 1 at least.
func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(d.Milliseconds(), 1)
}
