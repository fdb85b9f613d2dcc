package processes

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// movable are the backends that carts move between. start starts one and returns its section of a configuration.
var movable = map[string]func(t *testing.T) string{
	"Redis": func(t *testing.T) string {
		return fmt.Sprintf("{type: Redis, redis: {addresses: [%q]}}", testserver.StartRedis(t).Addr)
	},
	"PostgreSQL": func(t *testing.T) string {
		return fmt.Sprintf("{type: Database, database: {url: %q}}", testserver.SharedPostgres(t).NewDatabase(t))
	},
	"DynamoDB": func(t *testing.T) string {
		return fmt.Sprintf("{type: DynamoDB, dynamodb: {tableName: carts, region: local, endpoint: %q, createTable: true}}", testserver.StartDynalite(t).Endpoint)
	},
	"MySQL": func(t *testing.T) string {
		return fmt.Sprintf("{type: Database, database: {url: %q}}", testserver.SharedMariaDB(t).NewDatabase(t))
	},
	"SQLite": func(t *testing.T) string {
		return fmt.Sprintf("{type: Database, database: {url: %q}}", "sqlite:"+filepath.Join(t.TempDir(), "carts.db"))
	},
}

// TestMoving lets shops sell while their carts move. Two of three sidecars are told of the move at once and the third
// later, and one or another is killed. At the end each thing that was sold is there once, in the new backend alone.
func TestMoving(t *testing.T) {
	for _, pair := range movedPairs {
		t.Run(pair[0]+" to "+pair[1], func(t *testing.T) {
			t.Parallel() // most of the time passes until another sidecar takes over the walk of one that was killed
			m := newMove(t, movable[pair[0]](t), movable[pair[1]](t))
			m.run()
			m.check()
			m.report(pair)
		})
	}
}

const (
	moveSidecars = 3
	moveClients  = 6
	moveCarts    = 300
	moveKills    = 8
	killPause    = 300 * time.Millisecond
	clientPause  = 5 * time.Millisecond // more load would measure the queue for the processor
)

// move is one move under load.
type move struct {
	t        *testing.T
	old, new string // sections of a configuration
	fleet    []*shop
	began    time.Time

	mu      sync.Mutex
	adds    [moveCarts]map[string]bool // of each cart the ids of what was added: whether it was acknowledged
	touched [moveCarts]bool            // by a sidecar that has been told
	first   []time.Duration            // how long the first change of a cart took by one that has been told
	later   []time.Duration
	refused int // by the one that had not been told
	lost    int // without an answer
	took    time.Duration
}

// shop is a sidecar with a configuration file and a status page. told is for the clients, before it is killed or told.
type shop struct {
	*sidecar
	file, admin string
	use         sync.RWMutex // calls read-lock it, and a restart locks it
	told        bool
}

func newMove(t *testing.T, old, now string) *move {
	t.Helper()
	m := &move{t: t, old: old, new: now}
	for range moveSidecars {
		m.fleet = append(m.fleet, m.shop("backend: "+old))
	}
	for i := range moveCarts {
		m.adds[i] = map[string]bool{"first": true}
		m.fleet[0].must(http.MethodPost, cartPath(i)+"/items", `{"item":{"id":"first","quantity":1}}`)
	}
	return m
}

func cartPath(i int) string { return fmt.Sprintf("/v1/carts/u%d/default", i) }

// shop starts a sidecar.
func (m *move) shop(backends string) *shop {
	m.t.Helper()
	s := &shop{file: filepath.Join(m.t.TempDir(), "sidecar.yaml"), admin: freeAddress(m.t)}
	m.configure(s, backends)
	// This measures how long a touch takes, so it runs without the race detector. The tests of the store run with it.
	s.sidecar = prepare(m.t, "--config", s.file, "--admin-address", s.admin, "--read-timeout", "5s", "--write-timeout", "5s", "--lock-timeout", "10s")
	s.env = []string{"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI"}
	s.run()
	return s
}

// configure replaces the file as a whole, so that a sidecar sees the old one or the new one.
func (m *move) configure(s *shop, backends string) {
	m.t.Helper()
	text := "apiVersion: sidecar.sidecart.dev/v1alpha1\nkind: SidecarConfig\nlocking: {mode: enabled}\n" + backends + "\n"
	if err := os.WriteFile(s.file+".next", []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(s.file+".next", s.file); err != nil {
		m.t.Fatal(err)
	}
}

// progress is what a sidecar says of the move; nil where it knows of none.
func (s *shop) progress(ctx context.Context) (p *struct {
	State        string   `json:"state"`
	Carried      int      `json:"carried"`
	CleanSeconds *float64 `json:"cleanSeconds"`
}) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/statusz", nil)
	if err != nil {
		return nil
	}
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer func() { _ = res.Body.Close() }()
	var status struct {
		Move json.RawMessage `json:"move"`
	}
	if json.NewDecoder(res.Body).Decode(&status) != nil || len(status.Move) == 0 || json.Unmarshal(status.Move, &p) != nil {
		return nil
	}
	return p
}

// tell tells a sidecar to move carts, and waits until it does.
func (m *move) tell(s *shop) {
	m.t.Helper()
	m.configure(s, m.both())
	m.until(func() bool { return s.progress(m.t.Context()) != nil }, "a sidecar does not take over the move")
	s.use.Lock()
	s.told = true
	s.use.Unlock()
}

func (m *move) both() string { return "backend: " + m.new + "\nmoveFrom: {backend: " + m.old + "}" }

// until waits for something.
func (m *move) until(done func() bool, complaint string) {
	m.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !done(); <-tick.C {
		if time.Now().After(deadline) {
			m.t.Fatal(complaint)
		}
	}
}

// run makes the move.
func (m *move) run() {
	m.t.Helper()
	ctx, stop := context.WithCancel(m.t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	m.began = time.Now()
	for n := range moveClients {
		clients.Go(func() { m.client(ctx, n) })
	}
	m.tell(m.fleet[0])
	m.tell(m.fleet[1])
	for kill := range moveKills {
		if kill == moveKills/2 {
			m.tell(m.fleet[2])
		}
		m.kill(ctx, m.fleet[rand.N(len(m.fleet))])
	}
	told := time.Now()
	// A whole walk that began after the last sidecar was told sees all.
	m.until(func() bool {
		return slices.ContainsFunc(m.fleet, func(s *shop) bool {
			asked := time.Now()
			p := s.progress(ctx)
			return p != nil && p.CleanSeconds != nil && asked.Add(-time.Duration(*p.CleanSeconds*float64(time.Second))).After(told)
		})
	}, "the walk does not end")
	m.took = time.Since(m.began)
}

// kill kills a sidecar in the middle of its calls, and starts it again after some time.
func (m *move) kill(ctx context.Context, s *shop) {
	m.t.Helper()
	timer := time.NewTimer(killPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	s.kill()
	s.use.Lock()
	defer s.use.Unlock()
	s.run()
}

// client adds to any cart by any sidecar until ctx ends. What it adds has an id of its own, so that it can be counted.
func (m *move) client(ctx context.Context, n int) {
	for i := 0; ctx.Err() == nil; i++ {
		s, c, id := m.fleet[rand.N(len(m.fleet))], rand.N(moveCarts), fmt.Sprintf("c%d-%d", n, i)
		m.mu.Lock()
		m.adds[c][id] = false
		m.mu.Unlock()
		s.use.RLock()
		told := s.told
		began := time.Now()
		status, answer, err := s.call(context.WithoutCancel(ctx), http.MethodPost, cartPath(c)+"/items", fmt.Sprintf(`{"item":{"id":%q,"quantity":1}}`, id))
		took := time.Since(began)
		s.use.RUnlock()
		m.mu.Lock()
		switch {
		case err != nil:
			m.lost++
		case status == http.StatusOK:
			m.adds[c][id] = true
			switch {
			case told && !m.touched[c]:
				m.first, m.touched[c] = append(m.first, took), true
			case told:
				m.later = append(m.later, took)
			}
		case status == http.StatusServiceUnavailable && !told && strings.Contains(string(answer), "moved"):
			delete(m.adds[c], id) // it says that it has changed nothing
			m.refused++
		case status == http.StatusServiceUnavailable, status == http.StatusLocked:
			m.lost++
		default:
			m.t.Errorf("add: %d %s", status, answer)
		}
		m.mu.Unlock()
		pause(ctx, clientPause)
	}
}

// check looks at all carts by a sidecar that knows the new backend alone, and by one that knows the old one alone.
func (m *move) check() {
	m.t.Helper()
	for _, s := range m.fleet {
		if code := s.stop(); code != 0 {
			m.t.Errorf("exit code %d after SIGTERM\n%s", code, tail(s.log.String(), 2000))
		}
	}
	now, before := m.shop("backend: "+m.new), m.shop("backend: "+m.old)
	for i := range moveCarts {
		q := now.quantities(fmt.Sprintf("u%d/default", i))
		for id, acknowledged := range m.adds[i] {
			if n := q[id]; n > 1 || n == 0 && acknowledged {
				m.t.Errorf("cart %d has %d of %s, which was acknowledged: %t", i, n, id, acknowledged)
			}
			delete(q, id)
		}
		if len(q) > 0 {
			m.t.Errorf("cart %d has what nobody added, or what was refused: %v", i, q)
		}
		if status, answer, err := before.call(m.t.Context(), http.MethodGet, cartPath(i), ""); err != nil || status != http.StatusServiceUnavailable {
			m.t.Errorf("cart %d counts in the old backend, too: %d %s %v", i, status, answer, err)
		}
	}
}

// report is a line of the table in docs/backends.md, which is made with -parallel 1.
func (m *move) report(pair [2]string) {
	acknowledged := 0
	for _, adds := range m.adds {
		for _, ok := range adds {
			if ok {
				acknowledged++
			}
		}
	}
	if len(m.first) < 20 || len(m.later) < 20 {
		m.t.Fatalf("%d first touches and %d later ones: the test shows nothing", len(m.first), len(m.later))
	}
	part := func(all []time.Duration, p float64) time.Duration {
		slices.Sort(all)
		return all[int(p*float64(len(all)-1))].Round(100 * time.Microsecond)
	}
	m.t.Logf("| %s | %s | %d | %d | %d | %v | %v | %v | %v | %.0f s |", pair[0], pair[1], acknowledged, m.lost, m.refused,
		part(m.first, 0.5), part(m.first, 0.99), part(m.later, 0.5), part(m.later, 0.99), m.took.Seconds())
}
