package moving_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/moving"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
	"github.com/sidecart/sidecart/internal/testserver"
)

// Orders for a process of this test binary, instead of running the tests.
const (
	walkerRedis  = "MOVING_TEST_REDIS"
	walkerSQLite = "MOVING_TEST_SQLITE"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(walkerRedis) != "":
		os.Exit(walkAndExit())
	case os.Getenv(payerPlaces) != "":
		os.Exit(payAndExit())
	}
	testserver.Main(m)
}

func openForProcesses(ctx context.Context, addr, file string) (*moving.Store, error) {
	rc := redis.Config{Addresses: []string{addr}, Prefix: "cart"}
	rc.DialTimeout, rc.ReadTimeout, rc.WriteTimeout = patient, patient, patient
	from, err := redis.New(ctx, rc)
	if err != nil {
		return nil, err
	}
	to, err := sqlite.Open(ctx, sqlite.Config{URL: "sqlite:" + file, Prefix: "cart"})
	if err != nil {
		return nil, err
	}
	return moving.New(from, to, "a process")
}

// walkAndExit is a process that moves all carts. Its code is 3 where another walks.
func walkAndExit() int {
	s, err := openForProcesses(context.Background(), os.Getenv(walkerRedis), os.Getenv(walkerSQLite))
	if err == nil {
		var did bool
		if did, err = s.Finish(context.Background()); err == nil && !did {
			return 3
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// TestProcessesKilled: processes that move carts are killed again and again, wherever they are, while shops sell. At
// the end each thing that was sold is there once, in the new backend.
func TestProcessesKilled(t *testing.T) {
	server, file := testserver.StartRedis(t), filepath.Join(t.TempDir(), "carts.db")
	addr := server.Addr
	s, err := openForProcesses(t.Context(), addr, file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	rc := redis.Config{Addresses: []string{addr}, Prefix: "cart"}
	rc.DialTimeout, rc.ReadTimeout, rc.WriteTimeout = patient, patient, patient
	old, err := redis.New(t.Context(), rc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = old.Close() })

	const carts, most = 1000, 25
	keyOf := func(i int) cart.Key { return cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"} }
	var sold [carts]atomic.Int64
	sell := func(store storage.Store, i int) error {
		for {
			k, err := store.Load(t.Context(), keyOf(i))
			if err != nil {
				return err
			}
			var n int64
			if k.Exists() {
				if _, err := fmt.Sscanf(itemsOf(k), `{"a":%d}`, &n); err != nil {
					return err
				}
			}
			outs, err := store.Commit(t.Context(), change(keyOf(i), k, fmt.Sprintf(`{"a":%d}`, n+1)))
			if err != nil {
				return err
			}
			if outs[0].Status == storage.Committed {
				sold[i].Add(1)
				return nil
			}
			time.Sleep(time.Millisecond) // another writer, or the turn of a process that was killed
		}
	}
	for i := range carts {
		if err := sell(old, i); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var shop sync.WaitGroup
	defer shop.Wait()
	defer stop()
	shop.Go(func() {
		for ctx.Err() == nil {
			if err := sell(s, rand.N(carts)); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	kills := 0
	for done := false; !done; {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), walkerRedis+"="+addr, walkerSQLite+"="+file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		after := 100*time.Millisecond + rand.N(400*time.Millisecond)
		if kills >= most {
			after = patient
		}
		select {
		case <-ended:
		case <-time.After(after):
			_ = cmd.Process.Kill()
			<-ended
			kills++
			if _, err := server.Do("DEL", "lock.cart.%chore.move"); err != nil { // the next walks at once
				t.Fatal(err)
			}
			continue
		}
		switch code := cmd.ProcessState.ExitCode(); code {
		case 0:
			done = true
		case 3: // the chore is still that of a process which was killed
		default:
			t.Fatalf("a process that moves carts ended with code %d", code)
		}
	}
	stop()
	shop.Wait()
	for i := range carts {
		k := mustLoad(t, s, keyOf(i))
		if want := fmt.Sprintf(`{"a":%d}`, sold[i].Load()); itemsOf(k) != want || k.Version != uint64(sold[i].Load()) {
			t.Errorf("%s has %s at version %d, sold were %s", keyOf(i), itemsOf(k), k.Version, want)
		}
		if !mustLoad(t, old, keyOf(i)).Empty() || markerOf(t, old, keyOf(i)) != "done" {
			t.Errorf("%s is left in the old backend", keyOf(i))
		}
	}
	t.Logf("%d processes were killed", kills)
	if kills == 0 {
		t.Error("no process was killed: the test shows nothing")
	}
}
