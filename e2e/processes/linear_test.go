package processes

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sidecart/sidecart/internal/testserver"
)

var (
	linearRuns = flag.Int("linear.runs", defaultRuns, "how many histories TestLinearizable makes and checks")
	linearOps  = flag.Int("linear.ops", defaultOps, "how many operations a history has")
	linearSeed = flag.Uint64("linear.seed", 0, "the `seed` of the first history, the next ones count on; 0 for a random one")
)

const (
	// So many pairs of carts are in use at a time, and each for so many operations. An operation without an answer may
	// have happened at any later time, so each of them doubles the number of possible states.
	livePairs      = 6
	opsPerPair     = 60
	clientsPerSide = 3 // per sidecar
	leaseTime      = 400 * time.Millisecond
	clientPatience = 3 * time.Second
	checkTime      = 20 * time.Second
)

// TestLinearizable makes histories: clients of five sidecars change, read, lease, swap and merge the same carts while
// processes are killed and stopped, connections are cut, slow or half-open, the server restarts, clocks are wrong and
// locking is switched. To each pair of carts there must be an order of the operations that explains all answers.
func TestLinearizable(t *testing.T) { linearizables(t, fleet{}, *linearRuns, allFaults) }

// TestLinearizableFile is the same on a file that five sidecars of one machine share.
func TestLinearizableFile(t *testing.T) {
	linearizables(t, fleet{sqlite: true}, max(1, *linearRuns/2), allFaults)
}

// TestLinearizableMemcached is the same on a Memcached that does not restart, since it would forget all carts.
func TestLinearizableMemcached(t *testing.T) {
	linearizables(t, fleet{memcached: true}, max(1, *linearRuns/2), allFaults)
}

// TestLinearizablePostgres is the same on a PostgreSQL server.
func TestLinearizablePostgres(t *testing.T) {
	linearizables(t, fleet{database: testserver.StartPostgres}, max(1, *linearRuns/2), allFaults)
}

// TestLinearizableHybrid is the same on a Redis, with checkouts in a PostgreSQL server.
func TestLinearizableHybrid(t *testing.T) {
	linearizables(t, fleet{critical: testserver.StartPostgres}, max(1, *linearRuns/2), allFaults)
}

func linearizables(t *testing.T, f fleet, runs int, with []fault) {
	t.Helper()
	seed := cmp.Or(*linearSeed, uint64(time.Now().UnixNano())%1_000_000)
	for run := range uint64(runs) {
		t.Run(fmt.Sprintf("seed=%d", seed+run), func(t *testing.T) {
			h := makeHistory(t, seed+run, *linearOps, f, with)
			h.report(t)
			if bad := h.check(t); bad != "" {
				t.Errorf("no order of the operations explains the answers; run it again with -linear.seed=%d\n%s", seed+run, bad)
			}
		})
	}
}

// TestLinearizableCatches shows that the check works: wrong programs fail it.
func TestLinearizableCatches(t *testing.T) {
	const tries = 5
	for _, name := range caught() {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(tries) {
				h := makeHistory(t, seed, 3000, fleet{mutation: name}, gentleFaults)
				h.report(t)
				if bad := h.check(t); bad != "" {
					first, _, _ := strings.Cut(bad, "\npair")
					t.Log(first)
					return
				}
			}
			t.Errorf("%d histories of a program in which %s are linearizable", tries, name)
		})
	}
}

// history is what the clients of one run did and saw.
type history struct {
	seed    uint64
	mu      sync.Mutex
	pairs   [][]porcupine.Operation
	live    [livePairs]int // indices of pairs
	total   atomic.Int64
	unknown atomic.Int64
	refused atomic.Int64 // certainly not made: lock timeouts
	lost    atomic.Int64
	leases  atomic.Int64
	// inSteps says that a swap or merge is made in steps, since the backend has no commit over two carts.
	inSteps bool
	faults  map[string]int
	took    time.Duration
}

func (h *history) report(t *testing.T) {
	t.Helper()
	t.Logf("seed %d: %d operations in %s, %d leases of which %d were lost, %d without an answer, %d lock timeouts; faults: %v",
		h.seed, h.total.Load(), h.took.Round(time.Millisecond), h.leases.Load(), h.lost.Load(), h.unknown.Load(), h.refused.Load(), h.faults)
}

// check says what is wrong, "" if nothing is. A drawing of a bad history is kept with -artifacts.
func (h *history) check(t *testing.T) string {
	t.Helper()
	var wrong []string
	for i, ops := range h.pairs {
		look(ops)
		switch explain(ops) {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("pair %d: not decided within %s, %d operations", i, checkTime, len(ops)))
		case porcupine.Illegal:
			_, info := porcupine.CheckOperationsVerbose(model, ops, checkTime)
			path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("linear-%d-%d.html", h.seed, i))
			if err := porcupine.VisualizePath(model, info, path); err != nil {
				t.Log(err)
			}
			wrong = append(wrong, fmt.Sprintf("pair %d: not linearizable, %d operations, drawn in %s\n%s", i, len(ops), path, tell(ops, info)))
		}
	}
	return strings.Join(wrong, "\n")
}

// explain looks for an order of the operations. An operation without an answer need not have happened, so an order
// without it is as good. Trying first none of them, then one, two and three finds an order in milliseconds, where the
// search among all of them takes minutes.
func explain(ops []porcupine.Operation) porcupine.CheckResult {
	var known, open []porcupine.Operation
	for _, o := range ops {
		if o.Return == never {
			open = append(open, o)
		} else {
			known = append(known, o)
		}
	}
	var try func(chosen, rest []porcupine.Operation, more int) bool
	try = func(chosen, rest []porcupine.Operation, more int) bool {
		if more == 0 {
			return porcupine.CheckOperationsTimeout(model, slices.Concat(known, chosen), time.Second) == porcupine.Ok
		}
		for i, o := range rest {
			if try(append(slices.Clip(chosen), o), rest[i+1:], more-1) {
				return true
			}
		}
		return false
	}
	for more := range min(4, len(open)) {
		if try(nil, open, more) {
			return porcupine.Ok
		}
	}
	return porcupine.CheckOperationsTimeout(model, ops, checkTime)
}

// look tells the operations what the answers to all of them say.
func look(ops []porcupine.Operation) {
	seen := &sightings{map[sighting]string{}, map[sighting]bool{}, map[string]uint64{}}
	for _, o := range ops {
		if r := o.Output.(response); r.cart != "" && r.outcome == done {
			seen.items[sighting{r.cart, r.version}] = r.items
			kind := o.Input.(request).kind
			seen.taken[sighting{r.cart, r.version}] = seen.taken[sighting{r.cart, r.version}] || kind == opAdd && r.first == 0 || kind == opSwap
			seen.last[r.cart] = max(seen.last[r.cart], r.version)
		}
	}
	for i := range ops {
		q := ops[i].Input.(request)
		q.seen = seen
		ops[i].Input = q
	}
}

// tell lists the operations of a pair, and says which stand in the longest beginning that can be explained.
func tell(ops []porcupine.Operation, info porcupine.LinearizationInfo) string {
	explained := map[int]bool{}
	for _, partition := range info.PartialLinearizations() {
		for _, l := range partition {
			if len(l) > len(explained) {
				clear(explained)
				for _, i := range l {
					explained[i] = true
				}
			}
		}
	}
	order := make([]int, len(ops))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ops[a].Call, ops[b].Call) })
	var b strings.Builder
	for _, i := range order {
		o, mark := ops[i], "?"
		if explained[i] {
			mark = " "
		}
		fmt.Fprintf(&b, "%s client %d, %d to %d: %s\n", mark, o.ClientId, o.Call, o.Return, model.DescribeOperation(o.Input, o.Output))
	}
	return b.String()
}

// makeHistory runs five sidecars until so many operations are made.
func makeHistory(t *testing.T, seed uint64, ops int, f fleet, with []fault) *history {
	t.Helper()
	w := newWorkshop(t, f)
	h := &history{seed: seed, faults: map[string]int{}, pairs: make([][]porcupine.Operation, livePairs), inSteps: f.memcached || f.dynamodb || f.folder}
	for i := range h.live {
		h.live[i] = i
	}
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var clients, breaker sync.WaitGroup
	breaker.Go(func() { w.breakThings(ctx, rand.New(rand.NewPCG(seed, 0)), with, h.faults) })
	for n := range sidecars * clientsPerSide {
		c := &linearClient{h: h, s: w.sidecars[n%sidecars], id: n, rnd: rand.New(rand.NewPCG(seed, uint64(n)+1)), began: began, etags: map[cartName]string{}, plain: f.mixed}
		clients.Go(func() {
			for h.total.Load() < int64(ops) && t.Context().Err() == nil {
				c.step()
			}
		})
	}
	clients.Wait()
	cancel()
	breaker.Wait()
	h.took = time.Since(began)
	// The state of the carts at the end, seen through a sidecar that was never stopped in between.
	final := &linearClient{h: h, s: w.sidecars[0], id: sidecars * clientsPerSide, began: began, etags: map[cartName]string{}}
	for i := range h.pairs {
		for side := range 2 {
			final.at(i, request{kind: opRead, side: side})
		}
		end := final.now()
		h.pairs[i] = append(h.pairs[i], porcupine.Operation{ClientId: final.id, Input: request{kind: opEnd}, Call: end, Output: response{}, Return: end})
	}
	return h
}

// linearClient is one client of one sidecar.
type linearClient struct {
	h     *history
	s     *sidecar
	id    int
	rnd   *rand.Rand
	began time.Time
	etags map[cartName]string
	// plain leaves out keys and checkouts, which the release before this one does not know.
	plain bool
	// made counts the keys and checkouts of this client.
	made int
	// headers are those of the last answer.
	headers http.Header
}

type cartName struct{ pair, side int }

// step makes one operation, or a critical section of some.
func (c *linearClient) step() {
	p, side := c.h.pair(c.rnd), c.rnd.IntN(2)
	item := fmt.Sprintf("i%d", c.rnd.IntN(4))
	q := request{side: side}
	switch n := c.rnd.IntN(100); {
	case n < 50:
		q.kind, q.item, q.qty = opAdd, item, 1+c.rnd.IntN(3)
		if n < 15 && !c.plain {
			c.addOnce(p, q)
			return
		}
	case n < 65:
		q.kind = opRead
	case n < 72:
		q.kind, q.items, q.match = opPutIfMatch, fmt.Sprintf("%s=%d", item, 1+c.rnd.IntN(9)), c.etags[cartName{p, side}]
		if q.match == "" {
			q.kind = opRead
		}
	case n < 75:
		q.kind, q.items = opPut, fmt.Sprintf("%s=%d", item, 1+c.rnd.IntN(9))
	case n < 80:
		q.kind, q.item = opRemove, item
	case n < 83:
		q.kind = opClear
	case n < 86:
		q.kind = opSwap
	case n < 89:
		q.kind = opMerge
	case n < 93 && !c.plain:
		c.buy(p, side)
		return
	default:
		c.critical(p, side)
		return
	}
	c.at(p, q)
}

// critical takes a lease, works under it and gives it back, unless the client dies or is too slow.
func (c *linearClient) critical(p, side int) {
	r, ok := c.at(p, request{kind: opAcquire, side: side, lease: leaseTime})
	if !ok || r.outcome != done {
		return
	}
	c.h.leases.Add(1)
	fate := c.rnd.IntN(20)
	if fate == 0 {
		return // it died
	}
	if fate == 1 { // it is late
		select {
		case <-time.After(leaseTime + time.Duration(c.rnd.IntN(100))*time.Millisecond):
		case <-c.s.t.Context().Done():
		}
	}
	for range c.rnd.IntN(3) {
		q := request{kind: opAdd, side: side, item: "leased", qty: 1, token: r.token}
		if c.rnd.IntN(4) == 0 {
			q = request{kind: opRenew, side: side, token: r.token, lease: leaseTime}
		}
		if got, ok := c.at(p, q); !ok || got.outcome != done {
			return
		}
	}
	if c.rnd.IntN(2) == 0 {
		c.at(p, request{kind: opRelease, side: side, token: r.token})
	} else {
		c.at(p, request{kind: opPut, side: side, items: fmt.Sprintf("last=%d", 1+c.rnd.IntN(9)), token: r.token, last: true})
	}
}

func (c *linearClient) now() int64 { return int64(time.Since(c.began)) }

// at makes the operation on a pair and notes it; false says that it is in no history.
func (c *linearClient) at(p int, q request) (response, bool) {
	q.call = c.now()
	status, body, err := c.send(p, q)
	ret := c.now()
	c.h.total.Add(1)
	r, keep := c.understand(q, status, body, err)
	r.ret = ret
	if !keep {
		return r, false
	}
	if r.outcome == unknown {
		ret = never
		pause(c.s.t.Context(), time.Duration(200+q.call%400)*time.Millisecond) // as a client that is told to try later
	}
	if r.etag != "" {
		c.etags[cartName{p, q.side}] = r.etag
	}
	ops := []porcupine.Operation{{ClientId: c.id, Input: q, Call: q.call, Output: r, Return: ret}}
	if (q.kind == opSwap || q.kind == opMerge) && r.outcome == done && !r.moved {
		// There was nothing to move. The state that the answer shows of the other cart may be of another instant.
		found := q
		found.kind, q.kind, q.side = opFindEmpty, opRead, 1-q.side
		ops = []porcupine.Operation{
			{ClientId: c.id, Input: found, Call: q.call, Output: r, Return: ret},
			{ClientId: c.id, Input: q, Call: q.call, Output: r, Return: ret},
		}
	}
	if (q.kind == opSwap || q.kind == opMerge) && r.outcome == done && r.moved && c.h.inSteps {
		// Somebody else may have finished it, and then the answer shows the other cart at a later instant.
		ops[0].Output = response{outcome: done, moved: true, unseen: true, ret: ret}
		q.kind, q.side = opRead, 1-q.side
		ops = append(ops, porcupine.Operation{ClientId: c.id, Input: q, Call: q.call, Output: r, Return: ret})
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.pairs[p] = append(c.h.pairs[p], ops...)
	return r, true
}

// pair returns one of the pairs in use. A pair that has had its share of operations is replaced by a new one.
func (h *history) pair(rnd *rand.Rand) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := rnd.IntN(livePairs)
	if len(h.pairs[h.live[i]]) >= opsPerPair {
		h.live[i] = len(h.pairs)
		h.pairs = append(h.pairs, nil)
	}
	return h.live[i]
}

func (c *linearClient) send(p int, q request) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(c.s.t.Context(), clientPatience)
	defer cancel()
	cart := fmt.Sprintf("/v1/carts/p%d-%d/default", p, q.side)
	other := fmt.Sprintf("p%d-%d", p, 1-q.side)
	var header []string
	if q.token != "" && q.kind != opRenew && q.kind != opRelease {
		header = append(header, "Sidecart-Lease", q.token)
	}
	if q.last {
		header = append(header, "Sidecart-Release", "true")
	}
	if q.key != "" {
		header = append(header, "Idempotency-Key", q.key)
	}
	switch q.kind {
	case opAdd:
		return c.call(ctx, http.MethodPost, cart+"/items", fmt.Sprintf(`{"item":{"id":%q,"quantity":%d}}`, q.item, q.qty), header...)
	case opRemove:
		return c.call(ctx, http.MethodDelete, cart+"/items/"+q.item, "", header...)
	case opPutIfMatch:
		header = append(header, "If-Match", `"`+q.match+`"`)
		fallthrough
	case opPut:
		return c.call(ctx, http.MethodPut, cart+"/items", documentOf(q.items), header...)
	case opCheckout:
		return c.call(ctx, http.MethodPost, cart+":checkout", fmt.Sprintf(`{"checkoutId":%q,"expiresIn":"24h"}`, q.id))
	case opSettle:
		return c.call(ctx, http.MethodPost, cart+":settle", fmt.Sprintf(`{"checkoutId":%q,"outcome":"ORDERED"}`, q.id))
	case opClear:
		return c.call(ctx, http.MethodPost, cart+":clear", "{}", header...)
	case opSwap:
		return c.call(ctx, http.MethodPost, cart+":swap", fmt.Sprintf(`{"toIdentifier":%q}`, other), header...)
	case opMerge:
		return c.call(ctx, http.MethodPost, cart+":merge", fmt.Sprintf(`{"toIdentifier":%q,"strategy":"add_quantities"}`, other), header...)
	case opAcquire:
		return c.call(ctx, http.MethodPost, cart+"/locks", fmt.Sprintf(`{"leaseDuration":"%dms","waitTimeout":"1s"}`, q.lease.Milliseconds()))
	case opRenew:
		return c.call(ctx, http.MethodPut, cart+"/locks/"+q.token, fmt.Sprintf(`{"leaseDuration":"%dms"}`, q.lease.Milliseconds()))
	case opRelease:
		return c.call(ctx, http.MethodDelete, cart+"/locks/"+q.token, "")
	default:
		return c.call(ctx, http.MethodGet, cart+"/items", "")
	}
}

// call sends a request and keeps the headers of the answer.
func (c *linearClient) call(ctx context.Context, method, path, body string, header ...string) (int, []byte, error) {
	status, headers, answer, err := c.s.ask(ctx, method, path, body, header...)
	c.headers = headers
	return status, answer, err
}

func documentOf(items string) string {
	parts := []string{}
	for id, n := range parseItems(items) {
		parts = append(parts, fmt.Sprintf(`%q:{"id":%q,"quantity":%d}`, id, id, n))
	}
	return `{"items":{` + strings.Join(parts, ",") + "}}"
}

// answer has the fields of all answers that matter here.
type answer struct {
	Reason  string
	Version uint64
	ETag    string
	Items   map[string]struct{ Quantity int }
	Swapped bool
	Merged  bool
	Cart    *answer
	// Checkout is that of a checkout or settlement, and Settled says that the latter was the first.
	Checkout   *answer
	Settled    bool
	Identifier string
	Token      string
	Fence      uint64
}

// understand turns an answer into an outcome; keep says that the operation belongs in the history.
func (c *linearClient) understand(q request, status int, body []byte, err error) (r response, keep bool) {
	var a answer
	if err == nil {
		err = json.Unmarshal(body, &a)
	}
	switch {
	case err != nil || status == http.StatusServiceUnavailable || status == http.StatusInternalServerError && a.Reason == "":
		c.h.unknown.Add(1)
		r.outcome = unknown
		// A read that was not answered says nothing, and a lease whose token nobody knows ends by itself.
		return r, q.kind != opRead && q.kind != opAcquire
	case a.Reason == "LOCK_TIMEOUT":
		c.h.refused.Add(1)
		return r, false
	case a.Reason == "LOCK_LOST":
		c.h.lost.Add(1)
		r.outcome = lost
		return r, true
	case a.Reason == "CONFLICT" && q.kind == opPutIfMatch:
		r.outcome = conflict
		return r, true
	case a.Reason == "IDEMPOTENCY_KEY_REUSED" && q.key != "":
		r.outcome = reused
		return r, true
	case a.Reason == "EMPTY_CART" && q.kind == opCheckout:
		r.outcome = empty
		return r, true
	case a.Reason == "TOO_LARGE" && q.kind == opCheckout: // clients that died have left too many open
		c.h.refused.Add(1)
		return r, false
	case a.Reason == "NOT_FOUND" && q.token != "":
		// A token that was given is unknown only after a release without an answer.
		r.outcome = lost
		return r, true
	case status != http.StatusOK:
		c.s.t.Errorf("%s: %d %s", model.DescribeOperation(q, r), status, body)
		return r, false
	}
	shown := &a
	switch {
	case q.kind == opCheckout: // the cart may be that of a later instant
		shown = a.Checkout
	case a.Cart != nil:
		shown = a.Cart
	}
	items := map[string]int{}
	for id, item := range shown.Items {
		items[id] = item.Quantity
	}
	r.version, r.items = shown.Version, formatItems(items)
	if shown.Version > 0 && q.kind != opCheckout {
		r.cart = shown.ETag[2:12] // behind the kind of etag stands what tells carts apart
	}
	r.moved, r.token, r.fence = a.Swapped || a.Merged, a.Token, a.Fence
	r.settled = a.Settled
	if strings.HasSuffix(shown.Identifier, "-1") {
		r.at = 1
	}
	if c.headers.Get("Idempotency-Replayed") == "true" {
		if _, err := fmt.Sscan(c.headers.Get("Sidecart-Change-Version"), &r.first); err != nil {
			c.s.t.Errorf("the version of the change that is repeated: %v", err)
		}
	}
	r.whole = q.kind == opSettle || q.kind == opAcquire || q.kind == opClear || q.kind == opSwap || q.kind == opMerge
	if !r.whole {
		r.etag = a.ETag // the others answer with the etag of the whole cart
	}
	return r, true
}

// TestSwapMovesACart: a swap takes the cart along with its id, its etags and its version, which rises, and its locks
// stay with the name. Nothing else explains an answer.
func TestSwapMovesACart(t *testing.T) {
	moved := response{cart: "guest", version: 3, items: "a=1 b=1", moved: true, whole: true}
	for what, c := range map[string]struct {
		swap, read response
		want       porcupine.CheckResult
	}{
		"the cart of the guest":    {moved, response{cart: "guest", version: 2, items: "a=1 b=1", etag: "ab"}, porcupine.Ok},
		"that of the user":         {response{cart: "user", version: 2, items: "a=1 b=1", moved: true}, response{}, porcupine.Illegal},
		"a new one":                {response{cart: "new", version: 1, items: "a=1 b=1", moved: true}, response{}, porcupine.Illegal},
		"without a rise":           {response{cart: "guest", version: 2, items: "a=1 b=1", moved: true}, response{}, porcupine.Illegal},
		"the whole of it":          {moved, response{cart: "guest", version: 3, items: "a=1 b=1", whole: true}, porcupine.Ok},
		"a rise of the part":       {moved, response{cart: "guest", version: 3, items: "a=1 b=1", etag: "ab"}, porcupine.Illegal},
		"another etag of the part": {moved, response{cart: "guest", version: 2, items: "a=1 b=1", etag: "other"}, porcupine.Illegal},
	} {
		var ops []porcupine.Operation
		does := func(q request, r response) {
			at := int64(len(ops))
			ops = append(ops, porcupine.Operation{Input: q, Call: at, Output: r, Return: at})
		}
		does(request{kind: opAdd, item: "a", qty: 1}, response{cart: "guest", version: 1, items: "a=1", etag: "a"})
		does(request{kind: opAdd, item: "b", qty: 1}, response{cart: "guest", version: 2, items: "a=1 b=1", etag: "ab"})
		does(request{kind: opAdd, side: 1, item: "c", qty: 1}, response{cart: "user", version: 1, items: "c=1", etag: "c"})
		does(request{kind: opSwap}, c.swap)
		if c.read.version > 0 {
			does(request{kind: opRead, side: 1}, c.read)
		}
		does(request{kind: opRead}, response{})
		look(ops)
		if got := explain(ops); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
}
