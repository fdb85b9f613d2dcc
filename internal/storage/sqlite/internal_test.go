package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

func newStore(t testing.TB) (*cell.Store, *driver) {
	t.Helper()
	return newStoreIn(t, t.TempDir(), Config{})
}

func newStoreIn(t testing.TB, folder string, c Config) (*cell.Store, *driver) {
	t.Helper()
	c.URL = "sqlite:" + filepath.Join(folder, "carts.db")
	d, err := openDriver(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s := cell.New(d)
	t.Cleanup(func() { _ = s.Close() })
	return s, d
}

func create(ctx context.Context, s *cell.Store, instance, text string) error {
	outs, err := s.Commit(ctx, storage.Commit{
		Key:    cart.Key{Identifier: "u1", Instance: instance},
		Change: storage.Change{NewID: "id", Steps: 1, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(text), Step: 1}}},
	})
	if err == nil && outs[0].Status != storage.Committed {
		return errors.New("not committed")
	}
	return err
}

// TestCommitsShareTransactions: commits that many goroutines make at once take far fewer syncs of the disk.
func TestCommitsShareTransactions(t *testing.T) {
	t.Parallel()
	s, e := newStore(t)
	var transactions atomic.Int32
	err := e.writer(t.Context(), func(w *writer) error {
		w.CommitHook(func() bool {
			transactions.Add(1)
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const goroutines, each = 32, 20
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for n := range each {
				if err := create(t.Context(), s, fmt.Sprint(i, "/", n), `{"a":1}`); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := transactions.Load(); n == 0 || n > goroutines*each/3 {
		t.Errorf("%d commits took %d transactions", goroutines*each, n)
	}
	instances, err := s.Instances(t.Context(), "u1")
	if err != nil || len(instances) != goroutines*each {
		t.Errorf("%d of %d carts are there: %v", len(instances), goroutines*each, err)
	}
}

// TestLogIsMoved: the log does not grow without end, although no commit waits until it is moved into the database.
func TestLogIsMoved(t *testing.T) {
	t.Parallel()
	s, d := newStore(t)
	large := `{"x":"` + strings.Repeat("x", 1<<20) + `"}`
	for i := range 40 {
		if err := create(t.Context(), s, fmt.Sprint(i), large); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Stat(d.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if log.Size() > 16<<20 {
		t.Errorf("after 40 MiB in carts the log has %d MiB", log.Size()>>20)
	}
	file, err := os.Stat(d.path)
	if err != nil || file.Size() < 32<<20 {
		t.Errorf("the database has %d bytes, %v", file.Size(), err)
	}
}

// TestFullDatabase: a commit that finds no room fails as a whole, and the next works once there is room.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	s, e := newStore(t)
	pages := func(limit int) {
		t.Helper()
		err := e.writer(t.Context(), func(w *writer) error {
			return w.Exec(fmt.Sprint("PRAGMA max_page_count = ", limit))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages(50)
	large := `{"x":"` + strings.Repeat("x", 1<<20) + `"}`
	if err := create(t.Context(), s, "large", large); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, sqlite3.FULL) {
		t.Errorf("Commit to a full database: %v", err)
	}
	if err := create(t.Context(), s, "small", `{"a":1}`); err != nil {
		t.Errorf("Commit after the one that found no room: %v", err)
	}
	pages(100_000)
	if err := create(t.Context(), s, "large", large); err != nil {
		t.Errorf("Commit with room: %v", err)
	}
}

// TestFailureAnswersAll: changes that wait while another one fails are all answered.
func TestFailureAnswersAll(t *testing.T) {
	t.Parallel()
	_, d := newStore(t)
	busy, fail := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := d.writer(t.Context(), func(*writer) error {
			close(busy)
			<-fail
			return sqlite3.FULL
		})
		if !errors.Is(err, sqlite3.FULL) {
			t.Errorf("the change that fails: %v", err)
		}
	})
	<-busy
	const waiters = 8
	var answered atomic.Int32
	for range waiters {
		wg.Go(func() {
			if err := d.writer(t.Context(), func(*writer) error { return nil }); err != nil {
				t.Errorf("a change behind it: %v", err)
			}
			answered.Add(1)
		})
	}
	for range 1000 { // lets them come to the queue
		runtime.Gosched()
	}
	close(fail)
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%d of %d were answered", answered.Load(), waiters)
	}
}

// TestAbandonedRequest: a request that its caller gave up before the writer came to it is not done.
func TestAbandonedRequest(t *testing.T) {
	t.Parallel()
	s, e := newStore(t)
	done := false
	r := &request{ctx: t.Context(), done: make(chan struct{}), work: func(*writer) error {
		done = true
		return nil
	}}
	r.state.Store(abandoned)
	e.requests <- r
	if err := s.Ping(t.Context()); err != nil { // the writer is past it
		t.Fatal(err)
	}
	if done {
		t.Error("the writer did what its caller was told is not done")
	}
}

// TestTimedOutWaiterLeaves: it does not stay in the queue until it is found dead.
func TestTimedOutWaiterLeaves(t *testing.T) { // alone, so that giving up has the time that it is given
	s, d := newStore(t)
	key := cart.Key{Identifier: "u1", Instance: "default"}
	claim := storage.Claim{Token: "holder", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute}
	if _, err := s.Acquire(t.Context(), key, claim, false); err != nil {
		t.Fatal(err)
	}
	claim.Token = "late"
	outs, err := s.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Parts: claim.Parts, Claim: &claim}})
	if err != nil || !outs[0].Claimed.Queued {
		t.Fatalf("Commit: %+v, %v", outs, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Acquire(ctx, key, claim, true); !errors.Is(err, storage.ErrLockTimeout) {
		t.Fatalf("Acquire: %v", err)
	}
	r, _, err := d.Load(t.Context(), key, false)
	if err != nil || len(r.State.Held) != 1 || len(r.State.Queue) != 0 {
		t.Errorf("%d hold and %d wait: %v", len(r.State.Held), len(r.State.Queue), err)
	}
}

func TestTranslate(t *testing.T) {
	t.Parallel()
	for code := sqlite3.ERROR; code <= sqlite3.NOTADB; code++ {
		want := storage.ErrUnavailable
		switch code {
		case sqlite3.TOOBIG:
			want = storage.ErrTooLarge
		case sqlite3.CORRUPT, sqlite3.NOTADB:
			want = storage.ErrCorrupt
		}
		if err := translate(t.Context(), code); !errors.Is(err, want) || !errors.Is(err, code) {
			t.Errorf("%v becomes %v", code, err)
		}
	}
	for _, code := range []sqlite3.ErrorCode{sqlite3.FULL, sqlite3.READONLY, sqlite3.IOERR, sqlite3.CANTOPEN, sqlite3.PERM} {
		if words, ok := storage.RefusalOf(translate(t.Context(), code)); !ok || words != code.Error() {
			t.Errorf("%v is told as %q", code, words)
		}
	}
	for _, code := range []sqlite3.ErrorCode{sqlite3.BUSY, sqlite3.LOCKED} {
		if words, ok := storage.RefusalOf(translate(t.Context(), code)); ok {
			t.Errorf("%v is told as a refusal: %q", code, words)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := translate(ctx, sqlite3.INTERRUPT); !errors.Is(err, context.Canceled) || errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("an interrupted call of a caller that went away becomes %v", err)
	}
	if err := translate(t.Context(), nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, goroutines := range []int{1, 16} {
		b.Run(fmt.Sprint(goroutines), func(b *testing.B) {
			s, _ := newStore(b)
			var n atomic.Int64
			b.SetParallelism(goroutines)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := create(b.Context(), s, fmt.Sprint(n.Add(1)), `{"a":1}`); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	s, _ := newStore(b)
	if err := create(b.Context(), s, "x", `{"a":1}`); err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Load(b.Context(), cart.Key{Identifier: "u1", Instance: "x"}); err != nil {
				b.Error(err)
			}
		}
	})
}
