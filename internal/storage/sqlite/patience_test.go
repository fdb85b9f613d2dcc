package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// steadyStore is on a disk in memory if there is one, since the real disk may be arbitrarily slow.
func steadyStore(t *testing.T, c Config) (*cell.Store, *driver) {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "sidecart-")
	if err != nil {
		folder = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return newStoreIn(t, folder, c)
}

// TestQueueIsNoFailure: many large changes at once on a slow disk take longer together than one may take, and all are
// made.
func TestQueueIsNoFailure(t *testing.T) { // alone, since each change has its time
	const (
		limit   = 8 * time.Second
		slow    = 1200 * time.Millisecond
		changes = 16 // of which two share a commit at most, so that all take longer than limit
	)
	s, d := steadyStore(t, Config{Read: limit, Write: limit})
	err := d.writer(t.Context(), func(w *writer) error {
		w.CommitHook(func() bool {
			time.Sleep(slow) // the disk
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	large := `{"x":"` + strings.Repeat("x", maxBatchBytes/2) + `"}`
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range changes {
		wg.Go(func() {
			if err := create(t.Context(), s, fmt.Sprint(i), large); err != nil {
				t.Errorf("change %d, after %v: %v", i, time.Since(begun), err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begun); took <= limit {
		t.Errorf("all took %v: nobody had to wait for longer than %v", took, limit)
	}
}

// TestLongReadsAreNoFailure: likewise for reads that wait for a connection.
func TestLongReadsAreNoFailure(t *testing.T) {
	const limit = 2 * time.Second
	s, d := steadyStore(t, Config{Read: limit})
	if err := create(t.Context(), s, "x", `{"a":1}`); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 * cap(d.readers) { // each connection reads eight times, for a fifth of the limit
		wg.Go(func() {
			err := d.reader(t.Context(), func(c *connection) error {
				time.Sleep(limit / 5)
				_, err := c.load(cart.Key{Identifier: "u1", Instance: "x"}, true)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestStandingQueueFails: if SQLite makes no progress, all waiting callers are told so when the limit has passed, and
// not one after the other.
func TestStandingQueueFails(t *testing.T) {
	const limit = 200 * time.Millisecond
	s, d := steadyStore(t, Config{Write: limit})
	other, err := sqlite3.OpenFlags(d.path, sqlite3.OPEN_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	const changes = 100 // one after the other they would wait for 20 s
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range changes {
		wg.Go(func() {
			err := create(t.Context(), s, fmt.Sprint(i), `{"a":1}`)
			if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, context.Canceled) {
				t.Errorf("change %d: %v, want ErrUnavailable", i, err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begun); took > changes*limit/2 {
		t.Errorf("they waited for %v", took)
	}
	if err := other.Exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if instances, err := s.Instances(t.Context(), "u1"); err != nil || len(instances) != 0 {
		t.Errorf("%q were made although their callers were told otherwise: %v", instances, err)
	}
	if err := create(t.Context(), s, "0", `{"a":1}`); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestOwnDeadlineBounds: a request's own deadline ends its wait in the queue, and the request is not done.
func TestOwnDeadlineBounds(t *testing.T) {
	s, d := steadyStore(t, Config{Write: time.Hour})
	busy, free := make(chan struct{}), make(chan struct{})
	holder := make(chan error, 1)
	go func() {
		holder <- d.writer(context.Background(), func(*writer) error {
			close(busy)
			<-free
			return nil
		})
	}()
	<-busy
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := create(ctx, s, "late", `{"a":1}`); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
	close(free)
	if err := <-holder; err != nil {
		t.Fatal(err)
	}
	if instances, err := s.Instances(t.Context(), "u1"); err != nil || len(instances) != 0 {
		t.Errorf("%q, %v", instances, err)
	}
}
