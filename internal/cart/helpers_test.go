package cart

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// fingerprint is everything that a cart says, in one text: metadata in its order, what was removed by name.
func fingerprint(c *Cart) string {
	var b strings.Builder
	fmt.Fprintf(&b, "id=%s v=%d floor=%d\n", c.ID, c.Version, c.Floor)
	fmt.Fprintf(&b, "items@%d %s\n", c.Items.Version, c.Items.Object.Bytes())
	fmt.Fprintf(&b, "conditions@%d %s\n", c.Conditions.Version, c.Conditions.Object.Bytes())
	var lines []string
	for _, e := range c.Metadata {
		lines = append(lines, fmt.Sprintf("%s@%d %s", e.Key, e.Version, e.Value))
	}
	for _, k := range slices.Sorted(maps.Keys(c.Removed)) {
		lines = append(lines, fmt.Sprintf("%s@%d removed", k, c.Removed[k]))
	}
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
		var err error
		if altered, err = d.Change(v); err != nil {
			tb.Fatalf("%#v: %v", v, err)
		}
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

// applied is the error of a change.
func applied(d *Draft, v Verb) error {
	_, err := d.Change(v)
	return err
}

// wantTooLarge is wantError for a limit that was passed.
func wantTooLarge(tb testing.TB, err error, limit, actual int64, text string) {
	tb.Helper()
	wantError(tb, err, ErrTooLarge, text)
	var invalid *InvalidError
	if !errors.As(err, &invalid) || invalid.Limit != limit || invalid.Actual != actual {
		tb.Errorf("%v: %+v, want limit %d and actual %d", err, invalid, limit, actual)
	}
}
