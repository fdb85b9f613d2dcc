package processes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

// What the model of linear_model_test.go knows of idempotency keys and checkouts. States must be comparable, so that
// sets are texts: their members in order, with blanks between them.

func union(a, b string) string {
	all := strings.Fields(a + " " + b)
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

func has(set, member string) bool { return slices.Contains(strings.Fields(set), member) }

func without(set, member string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(set), func(m string) bool { return m == member }), " ")
}

// keyed is a request that a cart remembers.
type keyed struct {
	key, what string
	version   uint64
}

func (k keyed) String() string { return fmt.Sprintf("%s/%s/%d", k.key, k.what, k.version) }

// what tells requests with the same key apart.
func (q request) what() string { return fmt.Sprintf("%s+%d", q.item, q.qty) }

// remembers is what the cart remembers of a key; nil for nothing.
func (c *cartState) remembers(key string) *keyed {
	for _, text := range strings.Fields(c.keys) {
		if parts := strings.Split(text, "/"); key != "" && parts[0] == key {
			k := &keyed{key: key, what: parts[1]}
			_, _ = fmt.Sscan(parts[2], &k.version)
			return k
		}
	}
	return nil
}

// remember notes that the request was made.
func (c *cartState) remember(q request) {
	if q.key != "" {
		c.keys = union(c.keys, keyed{q.key, q.what(), c.version}.String())
	}
}

// repeats reports whether r fits as the answer to a request whose key the cart knows. It waits for no lock and changes
// nothing.
func (c *cartState) repeats(first *keyed, q request, r response) bool {
	if first.what != q.what() {
		return r.outcome == reused
	}
	return r.outcome == done && r.first == first.version && c.shows(r)
}

// snapshot is what a checkout has.
type snapshot struct {
	id, items string
	version   uint64
}

func (k snapshot) String() string {
	return fmt.Sprintf("%s/%s/%d", k.id, strings.ReplaceAll(k.items, " ", ","), k.version)
}

// snapshot returns that of a checkout; nil where it was not made.
func (s *pair) snapshot(id string) *snapshot {
	for _, text := range strings.Fields(s.snapshots) {
		if parts := strings.Split(text, "/"); parts[0] == id {
			k := &snapshot{id: id, items: strings.ReplaceAll(parts[1], ",", " ")}
			_, _ = fmt.Sscan(parts[2], &k.version)
			return k
		}
	}
	return nil
}

// checkOut is a checkout: it takes a snapshot of the cart, which gets the right to take by it and goes on. The same id
// again has the same snapshot.
func (s *pair) checkOut(q request, r response) bool {
	c := &s.carts[q.side]
	known := s.snapshot(q.id)
	switch {
	case r.outcome == empty:
		return known == nil && c.items == ""
	case known == nil && c.items == "":
		return false
	case known == nil:
		known = &snapshot{q.id, c.items, c.version}
		s.snapshots, c.open = union(s.snapshots, known.String()), union(c.open, q.id)
	case r.outcome == unknown:
		return false // it changes nothing
	}
	return r.outcome == unknown || r.items == known.items && r.version == known.version
}

// settle takes what was ordered, once, from the cart that has the right to it, if any has. A settlement without an
// answer may have taken without noting it in the snapshot. If that cart goes, the next settlement finds nothing that
// was taken, and is the first to say that it settled the checkout.
func (s *pair) settle(q request, r response) bool {
	known := s.snapshot(q.id)
	if known == nil {
		return false
	}
	if has(s.settled, q.id) {
		inCart := slices.ContainsFunc(s.carts[:], func(c cartState) bool { return has(c.half, q.id) })
		fits := r.outcome == done && (!r.settled || has(s.half, q.id) && !inCart)
		s.half = without(s.half, q.id)
		return fits
	}
	if r.outcome == done && !r.settled {
		return false
	}
	s.settled = union(s.settled, q.id)
	at := slices.IndexFunc(s.carts[:], func(c cartState) bool { return has(c.open, q.id) })
	if at < 0 {
		return true // its cart has gone, and nothing is taken
	}
	c := &s.carts[at]
	before := *c
	c.take(known)
	if r.outcome == unknown {
		c.holder = ""
		c.half, s.half = union(c.half, q.id), union(s.half, q.id)
		return c.version == before.version || c.fits(q.seen)
	}
	if !c.free("", r.ret) || r.at != at || !c.shows(r) {
		return false
	}
	if c.version == before.version {
		c.etag = before.etag
	}
	return true
}

// take subtracts the items of a snapshot, and uses up the right to do so.
func (c *cartState) take(k *snapshot) {
	c.open = without(c.open, k.id)
	items := parseItems(c.items)
	for id, n := range parseItems(k.items) {
		if items[id] -= n; items[id] <= 0 {
			delete(items, id)
		}
	}
	if left := formatItems(items); left != c.items {
		c.version++
		c.part, c.items, c.etag = c.version, left, ""
	}
}

// attempts is how often a client sends what was not answered.
const attempts = 3

// untilAnswered makes an operation that may be repeated until it is answered, and gives up after some attempts.
func (c *linearClient) untilAnswered(p int, q request) (r response, ok bool) {
	for range attempts {
		if r, ok = c.at(p, q); ok && r.outcome != unknown {
			return r, true
		}
	}
	return r, false
}

// addOnce adds with an idempotency key until that is answered. Some clients use the key for something else then.
func (c *linearClient) addOnce(p int, q request) {
	c.made++
	q.key = fmt.Sprintf("k%d-%d", c.id, c.made)
	if _, ok := c.untilAnswered(p, q); !ok {
		return
	}
	switch c.rnd.IntN(4) {
	case 0:
		c.at(p, q)
	case 1:
		q.qty++
		c.at(p, q)
	}
}

// buy checks out and settles, and adds to the cart meanwhile, unless the client dies.
func (c *linearClient) buy(p, side int) {
	c.made++
	q := request{kind: opCheckout, side: side, id: fmt.Sprintf("o%d-%d", c.id, c.made)}
	if r, ok := c.untilAnswered(p, q); !ok || r.outcome == empty || c.rnd.IntN(10) == 0 {
		return
	}
	if c.rnd.IntN(2) == 0 {
		c.at(p, request{kind: opAdd, side: side, item: fmt.Sprintf("i%d", c.rnd.IntN(4)), qty: 1 + c.rnd.IntN(3)})
	}
	q.kind = opSettle
	if _, ok := c.untilAnswered(p, q); ok && c.rnd.IntN(2) == 0 {
		c.at(p, q) // the answer of the payment came twice
	}
}

// TestModelOfCheckouts: keys, checkouts and settlements have one explanation, and a wrong answer has none.
func TestModelOfCheckouts(t *testing.T) {
	type step struct {
		q request
		r response
	}
	add := request{kind: opAdd, item: "a", qty: 2, key: "k"}
	more := request{kind: opAdd, item: "a", qty: 3, key: "k"}
	shows := func(version uint64, items string) response {
		return response{cart: "c", version: version, items: items, whole: true, outcome: done}
	}
	with := func(r response, alter func(r *response)) response { alter(&r); return r }
	first := step{add, shows(1, "a=2")}
	repeated := with(shows(1, "a=2"), func(r *response) { r.first = 1 })
	checkout := step{request{kind: opCheckout, id: "o"}, response{version: 1, items: "a=2"}}
	meanwhile := step{request{kind: opAdd, item: "a", qty: 1}, shows(2, "a=3")}
	settle := request{kind: opSettle, id: "o"}
	settled := with(shows(3, "a=1"), func(r *response) { r.settled = true })
	unanswered := step{settle, response{outcome: unknown}}
	takes := step{request{kind: opAdd, item: "a", qty: 1}, shows(4, "a=2")}
	successor := step{request{kind: opAdd, side: 1, item: "b", qty: 1}, response{cart: "d", version: 1, items: "b=1", whole: true, outcome: done}}
	replaced := step{request{kind: opSwap, side: 1}, response{cart: "d", version: 2, items: "b=1", whole: true, outcome: done, moved: true}}
	after := step{settle, with(replaced.r, func(r *response) { r.moved, r.settled = false, true })}
	for what, tc := range map[string]struct {
		steps []step
		want  porcupine.CheckResult
	}{
		"a repeat":                           {[]step{first, {add, repeated}}, porcupine.Ok},
		"a key that is ignored":              {[]step{first, {add, shows(2, "a=4")}}, porcupine.Illegal},
		"a repeat of nothing":                {[]step{{add, repeated}}, porcupine.Illegal},
		"another request":                    {[]step{first, {more, response{outcome: reused}}}, porcupine.Ok},
		"another request, accepted":          {[]step{first, {more, repeated}}, porcupine.Illegal},
		"a new key, refused":                 {[]step{{more, response{outcome: reused}}}, porcupine.Illegal},
		"a settlement":                       {[]step{first, checkout, meanwhile, {settle, settled}}, porcupine.Ok},
		"the same twice":                     {[]step{first, checkout, meanwhile, {settle, settled}, {settle, shows(3, "a=1")}}, porcupine.Ok},
		"settled twice":                      {[]step{first, checkout, meanwhile, {settle, settled}, {settle, settled}}, porcupine.Illegal},
		"taken twice":                        {[]step{first, checkout, meanwhile, {settle, settled}, {request{kind: opRead}, shows(4, "")}}, porcupine.Illegal},
		"what came meanwhile, dropped":       {[]step{first, checkout, meanwhile, {settle, with(shows(3, ""), func(r *response) { r.settled = true })}}, porcupine.Illegal},
		"nothing taken":                      {[]step{first, checkout, meanwhile, {settle, with(shows(2, "a=3"), func(r *response) { r.settled = true })}}, porcupine.Illegal},
		"another snapshot":                   {[]step{first, checkout, meanwhile, {checkout.q, response{version: 2, items: "a=3"}}}, porcupine.Illegal},
		"a snapshot of nothing":              {[]step{{checkout.q, response{}}}, porcupine.Illegal},
		"taken, and then the cart went":      {[]step{first, checkout, meanwhile, unanswered, takes, successor, replaced, after}, porcupine.Ok},
		"the same, and settled once more":    {[]step{first, checkout, meanwhile, unanswered, takes, successor, replaced, after, after}, porcupine.Illegal},
		"taken, and the cart is still there": {[]step{first, checkout, meanwhile, unanswered, takes, {settle, with(shows(4, "a=2"), func(r *response) { r.settled = true })}}, porcupine.Illegal},
		"an empty cart":                      {[]step{{checkout.q, response{outcome: empty}}}, porcupine.Ok},
		"empty, which it is not":             {[]step{first, {checkout.q, response{outcome: empty}}}, porcupine.Illegal},
	} {
		var ops []porcupine.Operation
		for i, s := range tc.steps {
			ops = append(ops, porcupine.Operation{Input: s.q, Call: int64(i), Output: s.r, Return: int64(i)})
		}
		look(ops)
		if got := explain(ops); got != tc.want {
			t.Errorf("%s: %s, want %s", what, got, tc.want)
		}
	}
}
