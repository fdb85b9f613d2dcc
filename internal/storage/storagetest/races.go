package storagetest

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

func testRacingCreators(s *subject) {
	stores := []storage.Store{s.store, s.second().store}
	for round := range 10 {
		key := cart.Key{Identifier: "race", Instance: fmt.Sprint(round)}
		const racers = 8
		var won atomic.Int32
		var winner atomic.Value
		s.together(racers, func(i int) error {
			c := change(key, &cart.Cart{}, items(fmt.Sprintf(`{"racer":%d}`, i)))
			outs, err := stores[i%2].Commit(s.ctx, c)
			switch {
			case err != nil:
				return err
			case outs[0].Status == storage.Committed:
				won.Add(1)
				winner.Store(c.Change.NewID)
			case outs[0].Status != storage.Conflict:
				return fmt.Errorf("racer %d: %s", i, name(outs[0].Status))
			case !outs[0].Cart.Exists() || outs[0].Cart.Version != 1:
				return fmt.Errorf("racer %d: the conflict's cart is %+v", i, contentOf(outs[0].Cart))
			}
			return nil
		})
		if won.Load() != 1 {
			s.Fatalf("%d creators won", won.Load())
		}
		if got := s.load(key); got.ID != winner.Load() || got.Version != 1 {
			s.Fatalf("cart %s at %d, the winner was %s", got.ID, got.Version, winner.Load())
		}
	}
}

const (
	writers    = 8
	increments = 15
)

func testLostUpdates(s *subject) { s.count(s.store, s.store) }

func testLostUpdatesTwoStores(s *subject) { s.count(s.store, s.second().store) }

// count lets writers count in one cart over two stores, by read, add and conditional write.
func (s *subject) count(a, b storage.Store) {
	stores := []storage.Store{a, b}
	s.together(writers, func(i int) error {
		store := stores[i%2]
		at, err := store.Load(s.ctx, key)
		if err != nil {
			return err
		}
		for done := 0; done < increments; {
			n, err := number(at)
			if err != nil {
				return err
			}
			c := change(key, at, items(fmt.Sprintf(`{"n":%d}`, n+1)))
			outs, err := store.Commit(s.ctx, c)
			switch {
			case err != nil:
				return err
			case outs[0].Status == storage.Conflict:
				at = outs[0].Cart
				continue
			case outs[0].Status != storage.Committed:
				return fmt.Errorf("writer %d: %s", i, name(outs[0].Status))
			}
			done++
			// Perhaps nobody has written since: the next step may start from our own result.
			next := cart.Cart{ID: outs[0].ID, Version: outs[0].Base + 1}
			if at, err = store.Load(s.ctx, key); err != nil {
				return err
			}
			if at.ID != next.ID || at.Version < next.Version {
				return fmt.Errorf("writer %d: acknowledged version %d, then read %d", i, next.Version, at.Version)
			}
		}
		return nil
	})
	const total = writers * increments
	s.is("counted", s.load(key), content{Version: total, Items: fmt.Sprintf(`{"n":%d}`, total), ItemsVersion: total})
}

// number is the n of the items, 0 where there is no cart.
func number(c *cart.Cart) (n int, err error) {
	if c.Exists() {
		_, err = fmt.Sscanf(string(c.Items.Object.Bytes()), `{"n":%d`, &n)
	}
	return n, err
}

func testTornReads(s *subject) { s.torn(s.store) }

func testTornReadsTwoStores(s *subject) { s.torn(s.second().store) }

// torn reads from store while a writer changes all parts together.
func (s *subject) torn(store storage.Store) {
	const rounds = 60
	pad := strings.Repeat("x", 3000)
	all := func(n int) []storage.Write {
		text := fmt.Sprintf(`{"n":%d,"pad":%q}`, n, pad)
		return []storage.Write{items(text), conditions(text), metadata("m", text)}
	}
	s.put(key, all(1)...)
	var acknowledged atomic.Uint64
	acknowledged.Store(1)
	var stop atomic.Bool
	s.together(4, func(i int) error {
		if i == 0 {
			defer stop.Store(true)
			at, err := s.store.Load(s.ctx, key)
			if err != nil {
				return err
			}
			for n := 2; n <= rounds; n++ {
				outs, err := s.store.Commit(s.ctx, change(key, at, all(n)...))
				if err != nil || outs[0].Status != storage.Committed {
					return fmt.Errorf("writer: %v, %v", outs, err)
				}
				acknowledged.Store(uint64(n))
				at = &cart.Cart{ID: outs[0].ID, Version: outs[0].Base + 1}
			}
			return nil
		}
		for !stop.Load() {
			least := acknowledged.Load()
			c, err := store.Load(s.ctx, key)
			if err != nil {
				return err
			}
			m, v := c.MetadataValue("m")
			if text := string(c.Items.Object.Bytes()); text != string(c.Conditions.Object.Bytes()) || text != string(m) {
				return fmt.Errorf("torn: versions %d, %d and %d", c.Items.Version, c.Conditions.Version, v)
			}
			if n, err := number(c); err != nil || uint64(n) != c.Version || c.Items.Version != c.Version || c.Version < least {
				return fmt.Errorf("read n = %d at version %d, %d was acknowledged: %v", n, c.Version, least, err)
			}
		}
		return nil
	})
}

// testLoadedIsImmutable: a cart that was handed out stays as it was.
func testLoadedIsImmutable(s *subject) {
	first := s.put(key, items(`{"a":1}`), metadata("m", `"m"`))
	want := content{Version: 1, Items: `{"a":1}`, ItemsVersion: 1, Metadata: []entry{{"m", `"m"`, 1}}}
	conflict := s.commit(storage.Conflict, change(key, &cart.Cart{}, items(`{}`))).Cart
	s.put(key, items(`{"a":2}`), metadata("m", `"n"`), metadata("o", `1`))
	s.put(key, removed("m"))
	s.is("loaded before", first, want)
	s.is("conflict before", conflict, want)
}
