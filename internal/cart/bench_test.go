package cart

import (
	"fmt"
	"strings"
	"testing"
)

// itemsText is a document of n items of about 130 bytes.
func itemsText(n int) []byte {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"sku-%d":{"id":"sku-%d","name":"Mug","price":19.90,"quantity":2,"attributes":{"color":"red"},"conditions":{},"associated_model":null}`, i, i)
	}
	b.WriteByte('}')
	return []byte(b.String())
}

func storedCart(tb testing.TB, items int) *Cart {
	tb.Helper()
	c := &Cart{ID: "4f0c2c1e-97c5-4f5b-8a7e-0f4bb1f1f001", Version: 7}
	if err := c.StorePart(PartItems, itemsText(items), 7); err != nil {
		tb.Fatal(err)
	}
	return c
}

func BenchmarkAddItem(b *testing.B) {
	for name, n := range map[string]int{"small": 3, "1000": 1000} {
		b.Run(name, func(b *testing.B) {
			base := storedCart(b, n)
			item, err := ParseItem("item", []byte(`{"id":"sku-1","name":"Mug","price":19.90,"quantity":3}`), DefaultLimits())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				d := NewDraft(base, DefaultLimits(), "")
				if altered, err := d.Change(AddItem{item}); err != nil || !altered {
					b.Fatal(err)
				}
				_ = d.Cart().Items.Object.Bytes()
			}
		})
	}
}

func BenchmarkStorePart(b *testing.B) {
	for name, n := range map[string]int{"small": 3, "1000": 1000} {
		b.Run(name, func(b *testing.B) {
			text := itemsText(n)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				var c Cart
				if err := c.StorePart(PartItems, text, 7); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseItems(b *testing.B) {
	for name, n := range map[string]int{"small": 3, "1000": 1000} {
		b.Run(name, func(b *testing.B) {
			text := itemsText(n)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseItems("items", text, DefaultLimits()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMetadata changes n keys: eight times as many must cost about eight times as much.
func BenchmarkMetadata(b *testing.B) {
	for _, n := range []int{125, 1000} {
		values := manyKeys(n)
		base := NewDraft(&Cart{}, DefaultLimits(), "c1")
		change(b, base, PatchMetadata{values})
		for name, verb := range map[string]Verb{"patch": ClearMetadata{}, "batch": batchOf(values, `1`)} {
			b.Run(fmt.Sprint(name, "-", n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					d := NewDraft(base.Cart(), DefaultLimits(), "")
					change(b, d, verb)
					stored := *base.Cart()
					if err := stored.StoreParts(d.Written()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkBatch makes the largest batch on the largest document: of many small items, and of one with as much in it as
// fits.
func BenchmarkBatch(b *testing.B) {
	large := `{"sku-1":{"x":"` + strings.Repeat("x", 1<<20-100) + `"}}`
	var members strings.Builder
	for i := range 70_000 {
		fmt.Fprintf(&members, `"m%d":%d,`, i, i)
	}
	for name, text := range map[string]string{"items": string(itemsText(1000)), "text": large, "members": `{"sku-1":{` + members.String() + `"last":1}}`} {
		b.Run(name, func(b *testing.B) {
			base := &Cart{ID: "c1", Version: 7}
			if err := base.StorePart(PartItems, []byte(text), 7); err != nil {
				b.Fatal(err)
			}
			var verbs []Verb
			for i := range 1000 {
				id := "sku-1"
				if name == "items" {
					id = fmt.Sprint("sku-", i)
				}
				verbs = append(verbs, UpdateItem{ID: id, Delta: ptr(int64(1))})
			}
			b.ReportAllocs()
			for b.Loop() {
				change(b, NewDraft(base, DefaultLimits(), ""), Batch{verbs})
			}
		})
	}
}

func BenchmarkPartETag(b *testing.B) {
	c := storedCart(b, 3)
	b.ReportAllocs()
	for b.Loop() {
		if c.PartETag(PartItems) == "" {
			b.Fatal("no etag")
		}
	}
}
