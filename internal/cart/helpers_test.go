package cart

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// fingerprint is everything that a cart says, in one text. Metadata is sorted:
// its order is not a part of the state.
func fingerprint(c *Cart) string {
	var b strings.Builder
	fmt.Fprintf(&b, "id=%s v=%d floor=%d\n", c.ID, c.Version, c.Floor)
	fmt.Fprintf(&b, "items@%d %s\n", c.Items.Version, c.Items.Object.Bytes())
	fmt.Fprintf(&b, "conditions@%d %s\n", c.Conditions.Version, c.Conditions.Object.Bytes())
	var lines []string
	for _, e := range c.Metadata {
		lines = append(lines, fmt.Sprintf("%s@%d %s", e.Key, e.Version, e.Value))
	}
	for k, v := range c.Removed {
		lines = append(lines, fmt.Sprintf("%s@%d removed", k, v))
	}
	slices.Sort(lines)
	fmt.Fprintf(&b, "%s\nreceived=%s", strings.Join(lines, "\n"), c.Received)
	return b.String()
}

func mustObject(tb testing.TB, text string) Object {
	tb.Helper()
	o, err := ParseObject("test", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func mustItem(tb testing.TB, text string) Item {
	tb.Helper()
	item, err := ParseItem("item", []byte(text), DefaultLimits())
	if err != nil {
		tb.Fatal(err)
	}
	return item
}

// cartWith is a cart of id "c1" at the given version, with the documents and metadata at that version.
func cartWith(tb testing.TB, version uint64, items, conditions string, metadata ...string) *Cart {
	tb.Helper()
	c := &Cart{ID: "c1", Version: version}
	c.Items = Document{mustObject(tb, items), version}
	c.Conditions = Document{mustObject(tb, conditions), version}
	for i := 0; i < len(metadata); i += 2 {
		c.Metadata = append(c.Metadata, Entry{metadata[i], []byte(metadata[i+1]), version})
	}
	return c
}

// change applies verbs as one change each, and fails on the first error.
func change(tb testing.TB, d *Draft, verbs ...Verb) (altered bool) {
	tb.Helper()
	for _, v := range verbs {
		if err := v.Apply(d); err != nil {
			tb.Fatalf("%#v: %v", v, err)
		}
		altered = d.Seal()
	}
	return altered
}

// wantError compares an error with its text, and its sentinel with what the text says.
func wantError(tb testing.TB, err error, sentinel error, text string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want %q", text)
	}
	if err.Error() != text {
		tb.Errorf("error\n got %s\nwant %s", err, text)
	}
	for _, s := range []error{ErrInvalid, ErrTooLarge, ErrNotFound, ErrConflict} {
		if errors.Is(err, s) != (s == sentinel) {
			tb.Errorf("errors.Is(%q, %v) is %v", err, s, s != sentinel)
		}
	}
}

func ptr[T any](v T) *T { return &v }
