package processes

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sidecart/sidecart/internal/cart"
)

// kind is what a client asked for.
type kind int

const (
	opAdd kind = iota
	opRemove
	opPut
	opPutIfMatch
	opClear
	opRead
	opSwap  // of this cart onto the other one of the pair
	opMerge // adding quantities
	opAcquire
	opRenew
	opRelease
	opFindEmpty // a swap or merge that had nothing to move
	opEnd       // after all others: what has not happened until now never did
	opCheckout
	opSettle // as ordered
)

var kindNames = [...]string{"add", "remove", "put", "put if match", "clear", "read", "swap", "merge", "acquire", "renew", "release", "find empty", "end", "checkout", "settle"}

// outcome is how an operation ended.
type outcome int

const (
	done outcome = iota
	// unknown: no answer, or one that leaves open whether the change was made. It may take effect at any later time, or
	// never.
	unknown
	conflict
	lost
	reused // the idempotency key is that of another request
	empty  // there is nothing to check out
)

// request and response are one operation, as the client saw it. A change that certainly was not made (a lock was waited
// for in vain) is in no history.
type request struct {
	kind  kind
	side  int // which cart of the pair
	item  string
	qty   int
	items string // put: the document
	match string // putIfMatch: the etag
	token string // the lease that it carries, or is about
	last  bool   // release the lease in the same step
	key   string // the idempotency key of an add; "" for none
	id    string // of the checkout
	lease time.Duration
	call  int64
	// seen is what the answers to all operations say. It bounds the search: an operation can only have made a state
	// that no answer contradicts.
	seen *sightings
}

// sightings are the states of carts that answers show, by their names.
type sightings struct {
	items map[sighting]string
	taken map[sighting]bool // made by an operation that was answered, so by no other
	last  map[string]uint64 // the highest version
}

type sighting struct {
	cart    string
	version uint64
}

type response struct {
	outcome outcome
	cart    string // its name in etags, which no cart after it has
	version uint64
	whole   bool   // the version is that of the cart, and not of its items
	etag    string // of the items; "" where the answer has none
	items   string
	moved   bool // swap, merge
	unseen  bool // swap, merge: the cart is not what it was right afterwards, and is left out here
	// first is the version that the first attempt of a repeated request made; 0 where this is the first.
	first uint64
	// settled says that this settlement was the first, and at in which cart of the pair.
	settled bool
	at      int
	token   string
	fence   uint64
	ret     int64
}

// cartState is what is known of one cart. It is comparable.
type cartState struct {
	cart    string // "" if not known
	version uint64 // 0: there is none
	part    uint64 // that of the items
	etag    string // of the items, "" if not known
	items   string // canonical
	fence   uint64 // the highest so far
	holder  string // token of the lease
	keys    string // the requests that it remembers, each as [keyed.String]
	open    string // the ids of the checkouts that it has the right to take by
	half    string // the ids of those by which an unanswered settlement took from it
	// ends is the earliest instant at which the lease may have ended by itself, on the clock of the test.
	ends int64
}

// pair are two carts that are swapped and merged with each other only: the unit of checking.
type pair struct {
	carts [2]cartState
	ended bool
	// snapshots are those of all checkouts, each as [snapshot.String], and settled the ids of those that were settled.
	// half are those of the latter of which only the cart may know, since the settlement that took was not answered.
	snapshots, settled, half string
}

// clockSlack is by how much a lease may seem to end early: Redis counts in whole milliseconds.
const clockSlack = int64(2 * time.Millisecond)

// model is the specification: what each operation may answer in each state.
var model = porcupine.Model{
	Init: func() any { return pair{} },
	Step: func(state, in, out any) (bool, any) {
		s := state.(pair)
		ok := s.step(in.(request), out.(response))
		return ok, s
	},
	DescribeOperation: func(in, out any) string {
		q, r := in.(request), out.(response)
		what := fmt.Sprintf("%s %d", kindNames[q.kind], q.side)
		switch q.kind {
		case opAdd:
			what += fmt.Sprintf(" %s+%d", q.item, q.qty)
		case opRemove:
			what += " " + q.item
		case opPut, opPutIfMatch:
			what += fmt.Sprintf(" {%s} %s", q.items, q.match)
		}
		if q.key != "" || q.id != "" {
			what += fmt.Sprintf(" %q %q", q.key, q.id)
		}
		if q.token != "" {
			what += fmt.Sprintf(" under %.4s (release %t)", q.token, q.last)
		}
		return what + fmt.Sprintf(" → %d v%d %s {%s} moved %t lease %.4s fence %d first %d settled %t in %d", r.outcome, r.version, cmp.Or(r.etag, r.cart), r.items, r.moved, r.token, r.fence, r.first, r.settled, r.at)
	},
	DescribeState: func(state any) string { return fmt.Sprintf("%+v", state.(pair)) },
}

// step changes s as the operation does and reports whether the answer fits.
func (s *pair) step(q request, r response) bool {
	c := &s.carts[q.side]
	switch q.kind {
	case opRead:
		return c.shows(r)
	case opFindEmpty:
		return c.items == ""
	case opEnd:
		s.ended = true
		return true
	case opAcquire:
		if !c.free("", r.ret) || r.fence <= c.fence || !c.shows(r) {
			return false
		}
		c.fence, c.holder, c.ends = r.fence, r.token, q.call+int64(q.lease)-clockSlack
		return true
	case opRenew, opRelease:
		return c.leaseOp(q, r)
	case opCheckout, opSettle:
		if r.outcome == unknown && s.ended {
			return true
		}
		if q.kind == opCheckout {
			return s.checkOut(q, r)
		}
		return s.settle(q, r)
	}
	if r.outcome == unknown {
		return s.ended || s.perhaps(q)
	}
	if r.outcome == lost {
		return c.gone(q.token, r.ret)
	}
	if known := c.remembers(q.key); known != nil {
		return c.repeats(known, q, r)
	}
	if r.outcome == reused || r.first != 0 {
		return false // the cart does not remember it
	}
	if q.token != "" && c.holder != q.token {
		return false // a stale holder wrote
	}
	if !c.free(q.token, r.ret) {
		return false // somebody else's lease was passed over
	}
	if r.outcome == conflict {
		return !c.matches(q.match, false)
	}
	if q.kind == opPutIfMatch && !c.matches(q.match, true) {
		return false
	}
	if q.kind == opSwap || q.kind == opMerge {
		if !s.carts[1-q.side].free("", r.ret) {
			return false
		}
		return s.hand(q, r)
	}
	before := *c
	c.change(q)
	if !c.shows(r) {
		return false
	}
	c.remember(q)
	if before.version > 0 && c.version == before.version {
		c.etag = before.etag
	}
	if r.etag != "" {
		c.etag = r.etag
	}
	if q.last {
		c.holder = ""
	}
	return true
}

// absentETag is the etag of the items while there is no cart. Here it holds only for that, since in every cart of these
// histories the items were set.
var absentETag = (&cart.Cart{}).PartETag(cart.PartItems)

// matches reports whether etag is that of the items; unknown where that is not known.
func (c *cartState) matches(etag string, unknown bool) bool {
	switch {
	case c.version == 0 || etag == absentETag:
		return c.version == 0 && etag == absentETag
	case c.etag == "":
		return unknown
	}
	return etag == c.etag
}

// shows reports whether an answer shows this cart, and takes its names over.
func (c *cartState) shows(r response) bool {
	version := c.part
	if r.whole {
		version = c.version
	}
	if r.version != version || r.items != c.items || r.etag != "" && c.etag != "" && r.etag != c.etag ||
		c.version > 0 && c.cart != "" && r.cart != c.cart {
		return false
	}
	c.cart = r.cart
	if r.etag != "" {
		c.etag = r.etag
	}
	return true
}

// free reports whether a change that carries token ("" for none) can pass at ret, and drops a lease that it proves to
// have ended.
func (c *cartState) free(token string, ret int64) bool {
	if c.holder == "" || c.holder == token {
		return true
	}
	if ret < c.ends {
		return false
	}
	c.holder = ""
	return true
}

// gone reports whether the lease can have ended by ret.
func (c *cartState) gone(token string, ret int64) bool { return c.holder != token || c.free("", ret) }

func (c *cartState) leaseOp(q request, r response) bool {
	switch r.outcome {
	case lost:
		return c.gone(q.token, r.ret)
	case unknown:
		// An unknown renewal leaves the earliest end as it was, which allows more.
		if q.kind == opRelease && c.holder == q.token {
			c.holder = ""
		}
		return true
	}
	if c.holder != q.token {
		return false
	}
	if q.kind == opRelease {
		c.holder = ""
	} else {
		c.ends = q.call + int64(q.lease) - clockSlack
	}
	return true
}

// change is what the verb does to an existing or new cart.
func (c *cartState) change(q request) {
	items := parseItems(c.items)
	switch q.kind {
	case opAdd:
		items[q.item] += q.qty
	case opRemove:
		if _, ok := items[q.item]; !ok {
			return
		}
		delete(items, q.item)
	case opPut, opPutIfMatch:
		if q.items == c.items && c.version > 0 {
			return // it has one item at most, so the order is the same too
		}
		items = parseItems(q.items)
	case opClear:
		if len(items) == 0 {
			return
		}
		clear(items)
	}
	if c.version == 0 {
		c.cart = ""
	}
	c.version++
	c.part, c.items, c.etag = c.version, formatItems(items), ""
}

// hand is an answered swap or merge.
func (s *pair) hand(q request, r response) bool {
	from, to := &s.carts[q.side], &s.carts[1-q.side]
	if !s.moveOver(q) {
		return false
	}
	if !r.unseen {
		if r.items != to.items || r.version != to.version || to.cart != "" && to.cart != r.cart {
			return false
		}
		to.cart = r.cart
	}
	if q.last {
		from.holder = ""
	}
	return true
}

// moveOver is what a swap or merge does; false says that it cannot have happened.
func (s *pair) moveOver(q request) bool {
	from, to := &s.carts[q.side], &s.carts[1-q.side]
	if from.version == 0 {
		return false // there is nothing
	}
	gone := cartState{fence: from.fence, holder: from.holder, ends: from.ends} // locks are of names
	if q.kind == opSwap {
		moved := *from
		moved.version++
		moved.fence, moved.holder, moved.ends = to.fence, to.holder, to.ends // what it remembers goes with it
		*from, *to = gone, moved
		return true
	}
	if from.version < q.seen.last[from.cart] {
		return false // it was seen later, and a merge ends it
	}
	items := parseItems(to.items)
	for id, n := range parseItems(from.items) {
		items[id] += n
	}
	if to.version == 0 {
		to.cart = ""
	}
	if merged := formatItems(items); to.version == 0 || merged != to.items {
		to.items, to.etag = merged, ""
		to.version++
		to.part = to.version
	}
	to.keys, to.open, to.half = union(to.keys, from.keys), union(to.open, from.open), union(to.half, from.half)
	*from = gone
	return true
}

// perhaps lets a change without an answer take effect now, if it can, and reports whether that fits with what was seen.
// A lease of somebody else must have ended by then. Otherwise the next step of its holder would no longer fit.
func (s *pair) perhaps(q request) bool {
	c, other := &s.carts[q.side], &s.carts[1-q.side]
	before := *s
	if c.remembers(q.key) != nil {
		return false // a repeat changes nothing
	}
	if q.token != "" && c.holder != q.token || q.kind == opPutIfMatch && !c.matches(q.match, true) {
		return false
	}
	if q.token == "" {
		c.holder = ""
	}
	if q.kind == opSwap || q.kind == opMerge {
		other.holder = ""
		if !s.moveOver(q) {
			return false
		}
	} else {
		c.change(q)
		c.remember(q)
	}
	if q.last {
		c.holder = ""
	}
	return (*c != before.carts[q.side] || *other != before.carts[1-q.side]) &&
		(c.version == before.carts[q.side].version || c.version == 0 || c.fits(q.seen)) &&
		(other.version == before.carts[1-q.side].version || other.fits(q.seen))
}

// fits reports whether the cart can have come to this state by an operation that was not answered.
func (c *cartState) fits(seen *sightings) bool {
	at := sighting{c.cart, c.version}
	items, ok := seen.items[at]
	return !seen.taken[at] && (!ok || items == c.items)
}

// parseItems and formatItems convert between quantities by item and their canonical text, such as "a=1 b=20".
func parseItems(text string) map[string]int {
	items := map[string]int{}
	for _, f := range strings.Fields(text) {
		id, n, _ := strings.Cut(f, "=")
		items[id], _ = strconv.Atoi(n)
	}
	return items
}

func formatItems(items map[string]int) string {
	var b strings.Builder
	for i, id := range slices.Sorted(maps.Keys(items)) {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%d", id, items[id])
	}
	return b.String()
}

// never is when an operation without an answer has returned.
const never = math.MaxInt64
