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

func BenchmarkPartETag(b *testing.B) {
	c := storedCart(b, 3)
	b.ReportAllocs()
	for b.Loop() {
		if c.PartETag(PartItems) == "" {
			b.Fatal("no etag")
		}
	}
}
