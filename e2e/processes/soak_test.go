//go:build long

package processes

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

var soakTime = flag.Duration("soak", 3*time.Minute, "how long TestSoak runs, over all backends together")

const (
	soakCarts   = 40
	soakClients = 4 // of each sidecar
	// soakCalm is the longest time between two faults.
	soakCalm = 3 * time.Second
	// soakPieces is up to how many pieces a client adds of one item, below what an item may have.
	soakPieces = 9000
	// soakFlat is the time on a backend after which memory must not grow any more. Before that it has not settled.
	soakFlat = 10 * time.Minute
)

// soaked are the backends that are soaked, in turn.
var soaked = map[string]fleet{
	"Redis": {}, "SQLite": {sqlite: true}, "File": {folder: true}, "Memcached": {memcached: true}, "DynamoDB": {dynamodb: true},
	"PostgreSQL": {database: testserver.StartPostgres}, "MariaDB": {database: testserver.StartMariaDB},
}

// TestSoak makes calls of all kinds on every backend in turn, for as long as it is told, while things break. It counts
// each change that was acknowledged: at the end all are in the carts, each once. One without an answer was made once or
// not at all; with an idempotency key it is sent again until it is answered, and was made once. A client that has the
// answer to its change finds it in the cart from then on.
func TestSoak(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
	var acknowledged int64
	names := slices.Sorted(maps.Keys(soaked))
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			s := &soak{workshop: newWorkshop(t, soaked[name]), faults: map[string]int{}}
			s.run(*soakTime / time.Duration(len(names)))
			acknowledged += s.check()
		})
	}
	t.Logf("%d changes were acknowledged on all backends together", acknowledged)
}

// soak is one backend under calls and faults.
type soak struct {
	*workshop
	clients []*soakClient
	faults  map[string]int
	calls   atomic.Int64
	began   time.Time
	// early and late are the memory of the sidecar that is never killed, after a tenth of the time and at the end.
	early, late int64
}

// ledger is what a client knows of its counts in one cart, by the name of an item or of a metadata key.
type ledger map[string]*count

// soakClient makes one call after the other, on one sidecar at a time.
type soakClient struct {
	s     *soak
	n     int
	rnd   *rand.Rand
	carts [soakCarts]ledger
	keys  int // idempotency keys that it used
}

func (s *soak) run(d time.Duration) {
	s.began = time.Now()
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	for n := range sidecars * soakClients {
		c := &soakClient{s: s, n: n, rnd: rand.New(rand.NewPCG(uint64(n), uint64(s.began.UnixNano())))}
		for i := range c.carts {
			c.carts[i] = ledger{}
		}
		s.clients = append(s.clients, c)
		wg.Go(func() {
			for ctx.Err() == nil && !s.t.Failed() {
				c.call()
				s.calls.Add(1)
			}
		})
	}
	wg.Go(func() {
		pause(ctx, d/10)
		s.early = s.resident()
		pause(ctx, d)
		s.late = s.resident()
	})
	s.calm, s.spared = soakCalm, true
	s.breakThings(ctx, rand.New(rand.NewPCG(1, uint64(s.began.UnixNano()))), allFaults, s.faults)
	wg.Wait()
}

// resident is the memory of the sidecar that is never killed.
func (s *soak) resident() int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.sidecars[0].cmd.Process.Pid))
	if err != nil {
		s.t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
	if err != nil {
		s.t.Error(err)
	}
	return kib << 10
}

// call makes one call of any kind.
func (c *soakClient) call() {
	n := c.rnd.IntN(soakCarts)
	cart := fmt.Sprintf("/v1/carts/soak%d/default", n)
	switch k := c.rnd.IntN(20); {
	case k < 5:
		c.change(n, c.item(n), http.MethodPost, cart+"/items", func(id string) string { return `{"item":{"id":"` + id + `"}}` })
	case k < 8:
		c.change(n, "counter-"+strconv.Itoa(c.n), http.MethodPost, cart+":batch", func(key string) string {
			return `{"operations":[{"incrementMetadata":{"key":"` + key + `"}},{"putCondition":{"name":"last","condition":{"value":` + strconv.Itoa(c.n) + `}}}]}`
		})
	case k < 10:
		c.keyed(n, c.item(n), cart+"/items", func(id string) string { return `{"item":{"id":"` + id + `"}}` })
	case k < 11:
		c.merge(n)
	case k < 12:
		c.lease(n, cart)
	case k < 16:
		c.see(n, cart)
	case k < 17:
		c.other(http.MethodDelete, cart+"/items/nobody", "")
	case k < 18:
		c.other(http.MethodGet, fmt.Sprintf("/v1/carts/soak%d", n), "")
	case k < 19: // a cart of its own, which comes and goes
		own := fmt.Sprintf("/v1/carts/own%d/default", c.n)
		c.other(http.MethodPut, own+"/items", `{"items":{"a":{"id":"a","name":"`+strings.Repeat("x", c.rnd.IntN(2000))+`"}}}`)
		c.other(http.MethodDelete, own, "")
	default:
		c.other(http.MethodPut, fmt.Sprintf("%s/metadata/note-%d", cart, c.n), `{"value":"`+strings.Repeat("n", c.rnd.IntN(200))+`"}`)
	}
}

// item is the item that the client adds to a cart, another one once it has had its pieces.
func (c *soakClient) item(n int) string {
	for i := 0; ; i++ {
		id := fmt.Sprintf("item-%d-%d", c.n, i)
		if k := c.carts[n][id]; k == nil || k.acknowledged+k.unknown < soakPieces {
			return id
		}
	}
}

func (c *soakClient) counted(n int, name string) *count {
	k := c.carts[n][name]
	if k == nil {
		k = &count{}
		c.carts[n][name] = k
	}
	return k
}

// send makes a call through some sidecar, and reports whether it was made. If it is refused because of a fault, the
// client waits a moment, like one that is told to try later.
func (c *soakClient) send(method, path, body string, header ...string) (status int, answer []byte, made bool) {
	ctx, cancel := context.WithTimeout(c.s.t.Context(), clientPatience)
	defer cancel()
	status, answer, err := c.s.sidecars[(c.n+c.rnd.IntN(2))%sidecars].call(ctx, method, path, body, header...)
	switch {
	case err == nil && status == http.StatusOK:
		return status, answer, true
	case err == nil && status != http.StatusServiceUnavailable && status != http.StatusLocked && status != http.StatusTooManyRequests:
		return status, answer, false
	}
	pause(c.s.t.Context(), time.Duration(20+c.rnd.IntN(80))*time.Millisecond)
	return 0, answer, false
}

// change makes a change that counts name in a cart up by one.
func (c *soakClient) change(n int, name, method, path string, body func(name string) string, header ...string) {
	status, answer, made := c.send(method, path, body(name), header...)
	switch {
	case made:
		c.counted(n, name).acknowledged++
	case status == 0:
		c.counted(n, name).unknown++
	case status != http.StatusConflict || len(header) == 0: // a lease may have been lost
		c.s.t.Errorf("%s %s: %d %s", method, path, status, answer)
	}
}

// keyed makes a change with an idempotency key, again and again until it is answered.
func (c *soakClient) keyed(n int, name, path string, body func(name string) string) {
	c.keys++
	key := fmt.Sprintf("soak-%d-%d", c.n, c.keys)
	for {
		status, answer, made := c.send(http.MethodPost, path, body(name), "Idempotency-Key", key)
		if made {
			c.counted(n, name).acknowledged++
			return
		}
		if status != 0 {
			c.s.t.Errorf("POST %s: %d %s", path, status, answer)
			return
		}
		if c.s.t.Context().Err() != nil {
			return
		}
	}
}

// merge puts one piece of an item into a cart of the client's own, and merges that cart into another, both with keys.
func (c *soakClient) merge(n int) {
	guest, item := fmt.Sprintf("guest%d", c.n), c.item(n)
	filled := ledger{}
	fill := &soakClient{s: c.s, n: c.n, rnd: c.rnd, keys: c.keys}
	fill.carts[0] = filled
	fill.keyed(0, item, "/v1/carts/"+guest+"/default/items", func(id string) string { return `{"item":{"id":"` + id + `"}}` })
	c.keys = fill.keys
	if filled[item] == nil {
		return
	}
	c.keyed(n, item, "/v1/carts/"+guest+"/default:merge", func(string) string {
		return fmt.Sprintf(`{"toIdentifier":"soak%d","strategy":"add_quantities"}`, n)
	})
}

// lease takes a lease, adds under it and gives it back.
func (c *soakClient) lease(n int, cart string) {
	_, answer, made := c.send(http.MethodPost, cart+"/locks", `{"parts":["items"],"leaseDuration":"1s","waitTimeout":"1s"}`)
	if !made {
		return
	}
	_, rest, _ := strings.Cut(string(answer), `"token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	c.change(n, c.item(n), http.MethodPost, cart+"/items", func(id string) string { return `{"item":{"id":"` + id + `"}}` },
		"Sidecart-Lease", token, "Sidecart-Release", "true")
}

// see reads a cart, which must have every change that this client was told of.
func (c *soakClient) see(n int, cart string) {
	if _, answer, made := c.send(http.MethodGet, cart, ""); made {
		c.compare(n, answer)
	}
}

// other makes a call that counts nothing. Not every backend can list carts.
func (c *soakClient) other(method, path, body string) {
	if status, answer, made := c.send(method, path, body); !made && status != 0 && status != http.StatusNotImplemented {
		c.s.t.Errorf("%s %s: %d %s", method, path, status, answer)
	}
}

// compare compares a cart with what the client knows of it.
func (c *soakClient) compare(n int, answer []byte) {
	for name, k := range c.carts[n] {
		var got int
		if _, rest, found := strings.Cut(string(answer), fmt.Sprintf(`"id":%q,"quantity":`, name)); found {
			got, _ = strconv.Atoi(rest[:strings.IndexAny(rest, ",}")])
		} else if _, rest, found := strings.Cut(string(answer), fmt.Sprintf(`%q:`, name)); found {
			got, _ = strconv.Atoi(rest[:max(0, strings.IndexAny(rest, ",}"))])
		}
		if got < k.acknowledged || got > k.acknowledged+k.unknown {
			c.s.t.Errorf("cart %d, %s: %d are in the cart; %d were acknowledged, %d had no answer", n, name, got, k.acknowledged, k.unknown)
		}
	}
}

// check compares all carts with what all clients know, and returns how many changes were acknowledged.
func (s *soak) check() int64 {
	s.t.Helper()
	var total count
	for n := range soakCarts {
		status, answer, err := s.sidecars[0].call(s.t.Context(), http.MethodGet, fmt.Sprintf("/v1/carts/soak%d/default", n), "")
		if err != nil || status != http.StatusOK {
			s.t.Fatalf("cart %d: %d %s %v", n, status, answer, err)
		}
		for _, c := range s.clients {
			c.compare(n, answer)
			for _, k := range c.carts[n] {
				total.acknowledged += k.acknowledged
				total.unknown += k.unknown
			}
		}
	}
	took := time.Since(s.began)
	s.t.Logf("%d calls in %s; %d changes acknowledged, %d without an answer; faults: %v; memory of a sidecar: %d MiB after a tenth, %d MiB at the end",
		s.calls.Load(), took.Round(time.Second), total.acknowledged, total.unknown, s.faults, s.early>>20, s.late>>20)
	if total.acknowledged == 0 {
		s.t.Error("nothing was acknowledged")
	}
	if took >= soakFlat && s.late > s.early/10*11 {
		s.t.Errorf("the memory grew from %d to %d bytes", s.early, s.late)
	}
	return int64(total.acknowledged)
}
