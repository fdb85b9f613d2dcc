package moving_test

import (
	"fmt"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// TestPageWhileCartsMove: a walk over both stores meets every cart, including those that move meanwhile.
func TestPageWhileCartsMove(t *testing.T) {
	for name, open := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			openOld, openNew := open(t)
			o, n := openOld(), openNew()
			want := map[cart.Key]bool{}
			put := func(s movable, format string, count int) {
				for i := range count {
					key := cart.Key{Identifier: fmt.Sprintf(format, i), Instance: "default"}
					mustCommit(t, s, storage.Committed, change(key, &cart.Cart{}, `{"a":1}`))
					want[key] = true
				}
			}
			put(o, "new:%d", 20) // as places in the new store begin
			put(n, "u%d", 10)
			s := movingStore(t, o, n)
			met := map[cart.Key]bool{}
			for after, page := "", 0; ; page++ {
				keys, next, err := s.Page(t.Context(), after, 4)
				if err != nil {
					t.Fatal(err)
				}
				for _, key := range keys {
					met[key] = true
				}
				if page == 1 {
					if err := walkAll(t, s); err != nil {
						t.Fatalf("Finish: %v", err)
					}
				}
				if after = next; next == "" {
					break
				}
			}
			for key := range want {
				if !met[key] {
					t.Errorf("the walk did not meet %s", key)
				}
			}
		})
	}
}
