package storage_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// Calls that come while a check is made end with it, and the next ones make it again until it has passed.
func TestOnceIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o storage.Once
		checks, broken := 0, errors.New("broken")
		var result error
		check := func(context.Context) error {
			checks++
			time.Sleep(time.Second)
			return result
		}
		round := func(want error, made int) {
			t.Helper()
			begun := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if err := o.Do(t.Context(), check); !errors.Is(err, want) {
						t.Errorf("%v, want %v", err, want)
					}
				})
			}
			wg.Wait()
			if took := time.Since(begun); checks != made || took > time.Second {
				t.Errorf("%d checks, want %d; 20 calls took %s", checks, made, took)
			}
		}
		result = broken
		round(broken, 1)
		round(broken, 2)
		result = nil
		round(nil, 3)
		round(nil, 3)
		o.Again()
		round(nil, 4)
	})
}

// If the caller that makes the check gives up, others that wait for the check do not suffer.
func TestOnceOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o storage.Once
		first, cancel := context.WithCancel(t.Context())
		check := func(ctx context.Context) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := o.Do(first, check); !errors.Is(err, context.Canceled) {
				t.Errorf("who waits no longer: %v", err)
			}
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				if err := o.Do(t.Context(), check); err != nil {
					t.Errorf("who waits: %v", err)
				}
			})
		}
		short, end := context.WithTimeout(t.Context(), time.Millisecond)
		defer end()
		wg.Go(func() {
			if err := o.Do(short, check); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who waits for a millisecond: %v", err)
			}
		})
		time.Sleep(2 * time.Millisecond)
		cancel()
		wg.Wait()
	})
}
