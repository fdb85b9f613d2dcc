package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

const benchItems = `{"sku-1":{"id":"sku-1","name":"Mug","price":1999,"quantity":2,"attributes":{"color":"red"},"conditions":{},"associated_model":null}}`

// BenchmarkCommit compares a commit with what a client without locks does: GET, then SET.
func BenchmarkCommit(b *testing.B) {
	r := testserver.StartRedis(b)
	s := open(b, Config{Addresses: []string{r.Addr}})
	b.Run("Unlocked GET and SET", func(b *testing.B) {
		for b.Loop() {
			if err := s.client.Get(b.Context(), "plain").Err(); err != nil && err != goredis.Nil {
				b.Fatal(err)
			}
			if err := s.client.Set(b.Context(), "plain", benchItems, time.Hour).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Commit", func(b *testing.B) {
		key := cart.Key{Identifier: "u1", Instance: "default"}
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		c := put(s, b, key, 0, "")
		if _, err := r.Do("CONFIG", "RESETSTAT"); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			put(s, b, key, c.Base+1, c.ID)
			c.Base++
		}
		b.ReportMetric(scriptTime(b, r), "server-µs/op")
	})
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Load(b.Context(), cart.Key{Identifier: "u1", Instance: "default"}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// scriptTime is how long the server takes for a script, in microseconds. It hardly depends on what else the machine
// does.
func scriptTime(b *testing.B, r *testserver.Redis) float64 {
	text, err := r.Do("INFO", "commandstats")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, "cmdstat_evalsha:")
	_, rest, _ = strings.Cut(rest, "usec_per_call=")
	number, _, _ := strings.Cut(rest, ",")
	took, err := strconv.ParseFloat(number, 64)
	if err != nil {
		b.Fatal(err)
	}
	return took
}

func put(s *Store, b testing.TB, key cart.Key, version uint64, id string) storage.Outcome {
	outs, err := s.Commit(b.Context(), storage.Commit{
		Key: key, Expect: storage.Expect{ID: id, Version: version},
		Change: storage.Change{NewID: "4f0c", Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(benchItems), Step: 1}}},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
	})
	if err != nil || outs[0].Status != storage.Committed {
		b.Fatalf("%+v, %v", outs, err)
	}
	return outs[0]
}

// BenchmarkHandOver is one contended change: take over the lock, commit and hand it on.
func BenchmarkHandOver(b *testing.B) {
	r := testserver.StartRedis(b)
	stores := [2]*Store{open(b, Config{Addresses: []string{r.Addr}}), open(b, Config{Addresses: []string{r.Addr}})}
	key := cart.Key{Identifier: "u1", Instance: "default"}
	first := put(stores[0], b, key, 0, "")
	errs := make(chan error, len(stores))
	n := max(b.N/len(stores), 1)
	b.ResetTimer()
	for i, s := range stores {
		go func() { errs <- contend(b.Context(), s, key, first.ID, n, fmt.Sprint(i)) }()
	}
	for range stores {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
}

func contend(ctx context.Context, s *Store, key cart.Key, id string, n int, name string) error {
	parts := []cart.Part{cart.PartItems}
	for range n {
		claim := storage.Claim{Token: randomName(), Holder: name, Parts: parts, Duration: 5 * time.Second}
		now, err := s.Acquire(ctx, key, claim, false)
		if err != nil {
			return err
		}
		outs, err := s.Commit(ctx, storage.Commit{
			Key: key, Expect: storage.Expect{ID: id, Version: now.Cart.Version},
			Change: storage.Change{Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(benchItems), Step: 1}}},
			Locks:  storage.Locks{Parts: parts, Token: claim.Token, MustHold: true, Release: true},
		})
		if err != nil || outs[0].Status != storage.Committed {
			return fmt.Errorf("%+v, %w", outs, err)
		}
	}
	return nil
}
