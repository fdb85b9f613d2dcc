package lock

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
)

// shapes are carts that take much more memory than the text that is in them, and such that do not. Each call makes one
// of its own.
var shapes = map[string]func(t testing.TB) *cart.Cart{
	"small metadata": func(t testing.TB) *cart.Cart {
		return grown(t, func(d *cart.Draft) cart.Verb {
			return patch(t, 1000, func(i int) string { return fmt.Sprintf(`"k%04d":%d`, i, 1000+i) })
		})
	},
	"small metadata, stored": func(t testing.TB) *cart.Cart {
		c := &cart.Cart{ID: id(), Version: 1}
		for i := range 1000 {
			store(t, c, cart.PartMetadata(fmt.Sprintf("k%04d", i)), fmt.Sprint(1000+i))
		}
		return c
	},
	"long names": func(t testing.TB) *cart.Cart {
		return grown(t, func(d *cart.Draft) cart.Verb {
			return patch(t, 100, func(i int) string { return fmt.Sprintf(`"%s%03d":1`, strings.Repeat("k", 250), i) })
		})
	},
	"tombstones": func(t testing.TB) *cart.Cart {
		set := func(value string) func(*cart.Draft) cart.Verb {
			return func(*cart.Draft) cart.Verb {
				return patch(t, cart.MaxTombstones, func(i int) string { return fmt.Sprintf(`"%s%03d":%s`, strings.Repeat("k", 30), i, value) })
			}
		}
		return grown(t, set("1"), set("null"))
	},
	"small items": func(t testing.TB) *cart.Cart {
		c := &cart.Cart{ID: id(), Version: 1}
		store(t, c, cart.PartItems, object(1000, func(i int) string { return fmt.Sprintf(`"%d":{"quantity":1}`, i) }))
		return c
	},
	"empty items": func(t testing.TB) *cart.Cart {
		c := &cart.Cart{ID: id(), Version: 1}
		store(t, c, cart.PartItems, object(1000, func(i int) string { return fmt.Sprintf(`"%d":{}`, i) }))
		return c
	},
	"ordinary": func(t testing.TB) *cart.Cart {
		c := &cart.Cart{ID: id(), Version: 1}
		store(t, c, cart.PartItems, object(10, func(i int) string {
			return fmt.Sprintf(`"sku-%d":{"id":"sku-%d","name":"A mug of the usual size","price":1999,"quantity":2,"attributes":{"color":"red"}}`, i, i)
		}))
		store(t, c, cart.PartConditions, `{"vat":{"name":"vat","type":"tax","target":"subtotal","value":"6%"}}`)
		store(t, c, cart.PartMetadata("notes"), `"Leave at door"`)
		return c
	},
	"nothing in it": func(testing.TB) *cart.Cart { return &cart.Cart{ID: id(), Version: 1} },
	"an item of what was large": func(t testing.TB) *cart.Cart {
		c := &cart.Cart{ID: id(), Version: 1}
		store(t, c, cart.PartItems, `{"small":{"quantity":1},"large":{"name":"`+strings.Repeat("x", 20<<10)+`"}}`)
		return changed(t, c, cart.RemoveItem{ID: "large"})
	},
	"a key of what was large": func(t testing.TB) *cart.Cart {
		large := patch(t, 2, func(i int) string { return []string{`"small":1`, `"large":"` + strings.Repeat("x", 20<<10) + `"`}[i] })
		return changed(t, changed(t, &cart.Cart{}, large), patch(t, 1, func(int) string { return `"large":null` }))
	},
	"written with much space": func(t testing.TB) *cart.Cart {
		o, err := cart.ParseItems("items", []byte(`{"small":`+strings.Repeat(" ", 20<<10)+`{}}`), cart.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		return changed(t, &cart.Cart{}, cart.Put{Items: &o})
	},
	"changed often": func(t testing.TB) *cart.Cart {
		c := &cart.Cart{}
		for i := range 50 {
			it, err := cart.ParseItem("item", fmt.Appendf(nil, `{"id":"sku-%d","name":"A mug of the usual size","quantity":1}`, i%7), cart.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			c = changed(t, c, cart.AddItem{Item: it})
			_ = c.Items.Object.Bytes() // as it is stored
		}
		return c
	},
}

func id() string { return strings.Clone("4f0c1d2e-0000-4000-8000-123456789abc") }

func object(n int, member func(i int) string) string {
	members := make([]string, n)
	for i := range members {
		members[i] = member(i)
	}
	return "{" + strings.Join(members, ",") + "}"
}

func patch(t testing.TB, n int, member func(i int) string) cart.Verb {
	t.Helper()
	values, err := cart.ParseMetadataPatch("metadata", []byte(object(n, member)), cart.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return cart.PatchMetadata{Values: values}
}

func store(t testing.TB, c *cart.Cart, p cart.Part, value string) {
	t.Helper()
	if err := c.StorePart(p, []byte(value), 1); err != nil {
		t.Fatal(err)
	}
}

func changed(t testing.TB, c *cart.Cart, v cart.Verb) *cart.Cart {
	t.Helper()
	d := cart.NewDraft(c, cart.DefaultLimits(), id())
	if err := v.Apply(d); err != nil {
		t.Fatal(err)
	}
	d.Seal()
	return d.Cart()
}

func grown(t testing.TB, verbs ...func(*cart.Draft) cart.Verb) *cart.Cart {
	t.Helper()
	c := &cart.Cart{}
	for _, v := range verbs {
		c = changed(t, c, v(nil))
	}
	return c
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// fill puts carts of one shape in the cache until full says so, and returns what it takes and what it counts. Those
// that are to be worked on are taken apart and written after they were put in.
func fill(t *testing.T, c *cache, shape func(testing.TB) *cart.Cart, work bool, full func(counted int) bool) (took, counted int) {
	t.Helper()
	before := heap()
	for i := 0; !full(counted); i++ {
		key := cart.Key{Identifier: fmt.Sprintf("user-%d", i), Instance: "default"}
		c.set(key, shape(t))
		k, _ := c.get(key)
		if k == nil {
			t.Fatal("the last cart is not there")
		}
		if work {
			_, _, _ = k.Items.Object.Len(), k.Conditions.Object.Bytes(), k.Items.Object.Bytes()
			c.used(key)
		}
		counted = 0
		for j := range c.parts {
			counted += c.parts[j].bytes
		}
	}
	took = int(heap() - before)
	entries := 0
	for i := range c.parts {
		entries += len(c.parts[i].byKey)
	}
	t.Logf("%d carts: counted %d bytes each, take %d", entries, counted/entries, took/entries)
	return took, counted
}

// TestCacheCountsWhatItHolds: what is counted of a cart is what it takes, within a quarter, whatever its shape, also
// when it is worked on after it was put in.
func TestCacheCountsWhatItHolds(t *testing.T) {
	for name, shape := range shapes {
		for _, work := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/worked on=%v", name, work), func(t *testing.T) {
				took, counted := fill(t, newCache(), shape, work, func(counted int) bool { return counted > 1<<20 })
				if took > counted+counted/tolerance {
					t.Errorf("%d bytes are counted, and %d are taken", counted, took)
				}
				most := took + took/4
				if name == "changed often" { // what its items were before counts until they are written anew
					most = 2 * took
				}
				if counted > most {
					t.Errorf("%d bytes are counted, and only %d are taken", counted, took)
				}
			})
		}
	}
}

// TestCacheIsBounded: however many carts there are, and of whatever shape, the cache takes no more than its bound.
func TestCacheIsBounded(t *testing.T) {
	const bound = 16 * cacheBytes
	for _, name := range []string{"small items", "empty items", "nothing in it"} {
		t.Run(name, func(t *testing.T) {
			c, put, most := newCache(), 0, 0
			took, counted := fill(t, c, shapes[name], true, func(counted int) bool {
				put++
				most = max(most, counted)
				return most > bound*7/8 && put%1000 == 0
			})
			if counted > bound || took > bound+bound/20 {
				t.Errorf("%d bytes are counted and %d taken, %d are allowed", counted, took, bound)
			}
			if took < bound/2 {
				t.Errorf("%d bytes are taken of the %d that are allowed", took, bound)
			}
		})
	}
}
