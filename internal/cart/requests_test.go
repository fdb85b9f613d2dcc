package cart

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func requests(n int) (list []Request) {
	for i := range n {
		list = append(list, Request{
			Key: fmt.Sprint("key ", i), Sum: Sum{byte(i), 0xff}, Version: uint64(i) << 40, Changed: i%2 == 0,
			At: time.UnixMilli(1_700_000_000_000 + int64(i)).UTC(),
		})
	}
	return list
}

func TestRemember(t *testing.T) {
	c := &Cart{ID: "4f0c"}
	all := requests(MaxRequests + 3)
	for n, want := range map[int][]Request{0: nil, 1: all[:1], MaxRequests: all[:MaxRequests], MaxRequests + 3: all[3:]} {
		if err := c.Remember(all[:n]); err != nil {
			t.Fatal(err)
		}
		got, err := c.Remembered(time.Time{})
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%d requests: %v (-want +got):\n%s", n, err, d)
		}
	}
	if err := c.Remember(all); err != nil || c.Ledger.Version != 5 {
		t.Errorf("version %d after 5 writes, %v", c.Ledger.Version, err)
	}
	got, err := c.Remembered(all[5].At)
	if d := cmp.Diff(all[5:], got); d != "" || err != nil {
		t.Errorf("since the sixth: %v (-want +got):\n%s", err, d)
	}
	stranger := *c
	stranger.ID = "another"
	if got, err := stranger.Remembered(time.Time{}); len(got) > 0 || err != nil {
		t.Errorf("a cart remembers %d requests of its predecessor, %v", len(got), err)
	}
	if err := stranger.Remember(all[:1]); err != nil {
		t.Fatal(err)
	}
	if got, err := stranger.Remembered(time.Time{}); len(got) != 1 || err != nil {
		t.Errorf("of %d requests, %v", len(got), err)
	}
	if got, err := (&Cart{Ledger: c.Ledger}).Remembered(time.Time{}); len(got) > 0 || err != nil {
		t.Errorf("no cart remembers %d requests, %v", len(got), err)
	}
}

// A ledger that a later release wrote keeps what this one does not know, and what is no ledger is refused.
func TestLedger(t *testing.T) {
	later := ledger{sectionRequests: nil, 9: []byte("later"), 2: []byte("\x00\xff")}
	c := &Cart{ID: "4f0c", Ledger: Opaque{later.encode("4f0c"), 7}}
	if err := c.Remember(requests(2)); err != nil {
		t.Fatal(err)
	}
	l, err := c.ledger()
	if err != nil || string(l[9]) != "later" || string(l[2]) != "\x00\xff" || c.Ledger.Version != 8 {
		t.Errorf("%q and %q, %v, at %d", l[9], l[2], err, c.Ledger.Version)
	}
	for n := 1; n < len(c.Ledger.Value); n++ {
		cut := Cart{ID: c.ID, Ledger: Opaque{c.Ledger.Value[:n], 1}}
		got, err := cut.Remembered(time.Time{})
		if err == nil && len(got) != 0 && len(got) != 2 {
			t.Errorf("the first %d bytes hold %d requests", n, len(got))
		}
	}
	for _, bad := range []string{"\x02", "\x01\xff", "\x01\x044f0c\x01\x05k"} {
		c := Cart{ID: "4f0c", Ledger: Opaque{[]byte(bad), 1}}
		if _, err := c.Remembered(time.Time{}); err == nil {
			t.Errorf("%q is a ledger", bad)
		}
		if err := c.Remember(nil); err == nil {
			t.Errorf("%q is overwritten", bad)
		}
	}
}

// Of two carts that become one, each request stays once, in the order in which they were made.
func TestJoined(t *testing.T) {
	all := requests(4)
	twice := all[1]
	twice.At = all[3].At.Add(time.Second)
	want := []Request{all[0], all[2], all[3], twice}
	if d := cmp.Diff(want, Joined([]Request{all[1], all[3]}, []Request{all[0], all[2], twice})); d != "" {
		t.Error(d)
	}
}
