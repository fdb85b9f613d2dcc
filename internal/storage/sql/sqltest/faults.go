package sqltest

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/testserver"
)

// testKilled: a server that crashes and comes back has all that was acknowledged.
func testKilled(t *testing.T, p Product) {
	server := p.Start(t, testserver.WithSync())
	s := p.open(t, config(server.NewDatabase(t)))
	keys, stop := keysOf(4), make(chan struct{})
	results := writers(t.Context(), s, keys, stop)
	for _, key := range keys {
		eventually(t, "changes before the crash", func() bool { return version(t, s, key) > 5 })
	}
	server.Kill()
	server.Restart()
	for _, key := range keys {
		before := version(t, s, key)
		eventually(t, "changes after the crash", func() bool { return version(t, s, key) > before })
	}
	close(stop)
	counted(t, s, keys, results())
}

// testEndedConnections: connections that the server ends, in the middle of changes as well, lose nothing and double
// nothing, and a change that was not sent to be committed is made all the same.
func testEndedConnections(t *testing.T, p Product) {
	server := p.Shared(t)
	url := server.NewDatabase(t)
	s := p.open(t, config(url))
	keys, stop := keysOf(6), make(chan struct{})
	must(t, s, keys[0])
	results := writers(t.Context(), s, keys[1:], stop)
	for range 15 {
		if err := p.EndConnections(server, testserver.DatabaseOf(url)); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	tallies := results()
	for i, n := range tallies {
		if n.failed != nil {
			t.Errorf("%q: %v", keys[1+i], n.failed)
		}
	}
	counted(t, s, keys[1:], tallies)
}

// testOppositePairs: pairs of carts in either order, existing and new, never stand in each other's way for good.
func testOppositePairs(t *testing.T, p Product) {
	s := p.open(t, config(p.Shared(t).NewDatabase(t)))
	a, b := cart.Key{Identifier: "a", Instance: "z"}, cart.Key{Identifier: "b", Instance: "a"}
	const each = 25
	swap := func(x, y cart.Key) error {
		for made := 0; made < each; {
			cx, err := s.Load(t.Context(), x)
			if err != nil {
				return err
			}
			cy, err := s.Load(t.Context(), y)
			if err != nil {
				return err
			}
			outs, err := s.Commit(t.Context(), change(x, cx), change(y, cy))
			if err != nil {
				return err
			}
			if outs[0].Status == storage.Committed {
				made++
			}
		}
		return nil
	}
	done := make(chan error)
	for i := range 4 {
		go func() {
			if i%2 == 0 {
				done <- swap(a, b)
			} else {
				done <- swap(b, a)
			}
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if va, vb := version(t, s, a), version(t, s, b); va != 4*each || vb != 4*each {
		t.Errorf("versions %d and %d, want %d of both", va, vb, 4*each)
	}
}

// testFrozen: a server that does not answer is UNAVAILABLE as soon as the timeouts say, and the caller's deadline
// counts.
func testFrozen(t *testing.T, p Product) {
	server := p.Start(t)
	c := config(server.NewDatabase(t))
	c.Dial, c.Read, c.Write = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	s := p.open(t, c)
	key := keysOf(1)[0]
	eventually(t, "a change on a busy machine", func() bool { made, _ := raise(t.Context(), s, key); return made })
	base, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	server.Pause()
	const scheduling = time.Second
	for name, call := range map[string]func(ctx context.Context) error{
		"load":   func(ctx context.Context) error { _, err := s.Load(ctx, key); return err },
		"commit": func(ctx context.Context) error { _, err := s.Commit(ctx, change(key, base)); return err },
		"ping":   s.Ping,
		"beat":   s.Beat,
		"count":  func(ctx context.Context) error { _, _, err := s.Count(ctx, 10); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		err := call(ctx)
		cancel()
		if took := time.Since(began); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || took > 100*time.Millisecond+scheduling {
			t.Errorf("%s with a deadline of 100ms: %v after %v", name, err, took)
		}
		if name == "count" { // which is bounded by the caller only
			continue
		}
		began = time.Now()
		err = call(t.Context())
		if took := time.Since(began); !errors.Is(err, storage.ErrUnavailable) || took > c.Dial+c.Write+scheduling {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	other := p.open(t, c)
	_ = other.Ping(t.Context())
	began := time.Now()
	if err := other.Close(); err != nil || time.Since(began) > 3*time.Second+scheduling {
		t.Errorf("Close: %v after %v", err, time.Since(began))
	}
	server.Resume()
	eventually(t, "a change after the server goes on", func() bool { made, _ := raise(t.Context(), s, key); return made })
}

// Driver is a driver as its own package sees it.
type Driver interface {
	cell.Driver
	sql.Dialect
}

// SilentHolder tests that a sidecar which goes silent in the middle of a change does not keep the cart from others for
// long, and cannot go on later. The driver waits for a row as long as it takes.
func SilentHolder(t *testing.T, d Driver) {
	key := keysOf(1)[0]
	change := func(_ time.Time, records []*cell.Record) error {
		r := records[0]
		r.State.Cart.ID, r.State.Cart.Version, r.Save = "id", r.State.Cart.Version+1, true
		return nil
	}
	if err := d.Update(t.Context(), []cart.Key{key}, change); err != nil {
		t.Fatal(err)
	}
	silent, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Release()
	defer silent.Rollback(context.WithoutCancel(t.Context()))
	rows := make([]sql.Scan, 1)
	if _, err := d.Lock(t.Context(), silent, []cart.Key{key}, rows); err != nil {
		t.Fatal(err)
	}
	if err := d.Update(t.Context(), []cart.Key{key}, change); err != nil {
		t.Fatalf("another sidecar: %v", err)
	}
	r, err := rows[0].Record(false)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), silent, time.Now(), []sql.Change{{Key: key, Record: &r, Found: true}}, nil); err == nil {
		t.Error("the silent one commits what it read before")
	}
}

// testReadOnly: a server that takes no writes says so, on a probe as well.
func testReadOnly(t *testing.T, p Product) {
	server := p.Start(t)
	url := server.NewDatabase(t)
	s := p.open(t, config(url))
	key := keysOf(1)[0]
	must(t, s, key)
	query(t, server, "", p.ReadOnly(testserver.DatabaseOf(url)))
	if err := p.EndConnections(server, testserver.DatabaseOf(url)); err != nil { // which have the setting of before
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"commit":  func() error { _, err := raise(t.Context(), s, key); return err },
		"ping":    func() error { return s.Ping(t.Context()) },
		"beat":    func() error { return s.Beat(t.Context()) },
		"another": func() error { return p.open(t, config(url)).Ping(t.Context()) },
	} {
		err := call()
		words, refused := storage.RefusalOf(err)
		if !errors.Is(err, storage.ErrUnavailable) || !refused || !strings.Contains(words, "read-only") {
			t.Errorf("%s: %v, refused with %q", name, err, words)
		}
		if errors.Is(err, cell.ErrOutcomeUnknown) {
			t.Errorf("%s: the outcome is known: %v", name, err)
		}
	}
	if v := version(t, s, key); v != 1 {
		t.Errorf("version %d, want 1", v)
	}
}

// testNotThere: what cannot be reached is UNAVAILABLE at once, and tells no password.
func testNotThere(t *testing.T, p Product) {
	server := p.Shared(t)
	there := server.NewDatabase(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	_ = l.Close()
	for name, tc := range map[string]struct{ url, words string }{
		"no server":   {strings.Replace(there, server.Addr(), closed, 1), ""},
		"no host":     {strings.Replace(there, server.Addr(), "none.invalid", 1), ""},
		"no database": {there + "_none", "_none"},
	} {
		c := config(tc.url)
		if !strings.HasPrefix(tc.url, there) { // where it is not told to anybody
			c = config(strings.Replace(tc.url, "@", ":hush-hush@", 1))
		}
		s := p.open(t, c)
		began := time.Now()
		err := s.Ping(t.Context())
		words, refused := storage.RefusalOf(err)
		if !errors.Is(err, storage.ErrUnavailable) || refused != (tc.words != "") || !strings.Contains(words, tc.words) || time.Since(began) > patience {
			t.Errorf("%s: %v, refused with %q, after %v", name, err, words, time.Since(began))
		}
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the password is told: %v", name, err)
		}
	}
}

// testLostAnswers: the connection ends at each step of a change. Before the commit was sent, the change is made all the
// same; after that, nobody knows, and the error says so.
func testLostAnswers(t *testing.T, p Product) {
	url := p.Shared(t).NewDatabase(t)
	lostAnswers(t, p, url, sql.Audit{})
}

func lostAnswers(t *testing.T, p Product, url string, audit sql.Audit) {
	server := p.Shared(t)
	relay := newRelay(t, server.Addr())
	c := config(strings.Replace(url, server.Addr(), relay.addr, 1) + p.Plain)
	c.Audit = audit
	s := p.open(t, c)
	direct := p.open(t, config(url))
	key := keysOf(1)[0]
	must(t, s, key)
	eventually(t, "silence", relay.quiet) // whatever else a store does when it starts
	for name, tc := range map[string]struct {
		step      int  // of the change: 1 locks, 2 commits
		delivered bool // to the server
		unknown   bool
		rises     uint64
	}{
		"lock is not sent":          {1, false, false, 1},
		"lock is not answered":      {1, true, false, 1},
		"commit does not arrive":    {2, false, true, 0},
		"commit is not answered":    {2, true, true, 1},
		"everything is as it was":   {0, false, false, 1},
		"the next ones go as usual": {0, false, false, 1},
	} {
		for range 2 { // the connection is set up, and statements are prepared
			must(t, s, key)
		}
		base, err := direct.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		relay.cut(tc.step, tc.delivered)
		outs, err := s.Commit(t.Context(), change(key, base))
		relay.cut(0, false)
		switch {
		case tc.unknown:
			if !errors.Is(err, cell.ErrOutcomeUnknown) || !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("%s: %v, want that nobody knows", name, err)
			}
		case err != nil || outs[0].Status != storage.Committed:
			t.Errorf("%s: %+v, %v", name, outs, err)
		}
		want := base.Version + tc.rises
		delivered := tc.unknown && tc.delivered
		if delivered && !p.Abandons { // the server commits in its own time
			eventually(t, name, func() bool { return version(t, direct, key) == want })
		} else if v := version(t, direct, key); v != want && !(delivered && v == base.Version) {
			t.Errorf("%s: version %d, want %d", name, v, want)
		}
	}
}

// relay stands before a server and cuts connections.
type relay struct {
	addr string

	mu        sync.Mutex
	left      int       // what a client sends the left-th time from now is the last of its connection; 0 for never
	delivered bool      // and is delivered, and answered to nobody
	last      time.Time // when a client last sent something
}

func newRelay(t *testing.T, server string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := &relay{addr: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(client, server)
		}
	}()
	return r
}

func (r *relay) cut(left int, delivered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left, r.delivered = left, delivered
}

// sent is called with each piece that a client sends, which is one round trip here.
func (r *relay) sent() (cut, delivered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
	if r.left > 0 {
		r.left--
		return r.left == 0, r.delivered
	}
	return false, false
}

// quiet reports whether nobody has sent anything for a while.
func (r *relay) quiet() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.last) > 500*time.Millisecond
}

func (r *relay) serve(client net.Conn, addr string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	answers := make(chan struct{})
	var muted sync.Mutex
	silent := false
	go func() {
		defer close(answers)
		b := make([]byte, 64<<10)
		for {
			n, err := server.Read(b)
			muted.Lock()
			if silent || err != nil { // the answer that is lost has come, or the server has closed
				muted.Unlock()
				_ = client.Close()
				return
			}
			_, err = client.Write(b[:n])
			muted.Unlock()
			if err != nil {
				return
			}
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		cut, delivered := r.sent()
		if cut {
			muted.Lock()
			silent = true
			muted.Unlock()
		}
		if !cut || delivered {
			if _, err := server.Write(b[:n]); err != nil {
				return
			}
		}
		if cut {
			if delivered {
				<-answers
			}
			return
		}
	}
}
