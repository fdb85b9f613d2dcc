package cart

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestMoved: all that tells a cart goes along, and what belongs to its name stays.
func TestMoved(t *testing.T) {
	c := cartWith(t, 7, `{"a":{"quantity":1}}`, `{"vat":{}}`, "z", `1`, "a", `2`)
	c.Removed, c.Floor = map[string]uint64{"gone": 5}, 3
	c.CreatedAt, c.UpdatedAt = time.UnixMilli(1), time.UnixMilli(2)
	c.Transfer, c.Received = []byte("t"), []byte("r")
	was := *c
	got := c.Moved()
	want := was
	want.Version, want.Transfer, want.Received = 8, nil, nil
	object := cmp.Comparer(func(a, b Object) bool { return a.Equal(b) })
	if d := cmp.Diff(&want, got, object); d != "" {
		t.Errorf("moved (-want +got):\n%s", d)
	}
	if d := cmp.Diff(&was, c, object, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("the cart itself was written to (-want +got):\n%s", d)
	}
	for _, p := range []Part{PartItems, PartConditions, PartMetadata("a"), PartMetadata("gone"), PartMetadataAll} {
		if got.PartETag(p) != c.PartETag(p) {
			t.Errorf("the etag of %s did not go along", p)
		}
	}
	if got.ETag() == c.ETag() {
		t.Error("the cart's etag stayed, although its version rose")
	}
}
