package storage_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// fullState has every field that a state can have.
func fullState() *storage.State {
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	return &storage.State{
		Cart: cart.Cart{
			ID: "4f0c", Version: 1 << 60, Items: cart.Document{Version: 7}, Conditions: cart.Document{Version: 3},
			Metadata: []cart.Entry{{Key: "notes", Value: []byte(`"<ü>"`), Version: 5}, {Key: "", Value: []byte(`1.50`), Version: 6}},
			Removed:  map[string]uint64{"b": 2, "a": 4}, Floor: 2,
			CreatedAt: at(1), UpdatedAt: at(1_700_000_000_123), ExpiresAt: at(32_503_680_000_000),
			Transfer: []byte{}, Received: []byte("\x00\xff"),
			Ledger: cart.Opaque{Value: []byte("\xfe"), Version: 3},
		},
		Held: []storage.Hold{
			{Token: "t1", Holder: "pod", Parts: []cart.Part{items, notes}, Expires: start.UTC(), Leased: true, Fence: 1 << 52, DurationMillis: 5000},
			{Token: "t2", Parts: []cart.Part{conditions}, Expires: time.Date(2999, 1, 1, 0, 0, 0, 1, time.UTC), Unconfirmed: true},
		},
		Queue: []storage.Waiter{{Claim: storage.Claim{Token: "t3", Holder: "web-0", Parts: []cart.Part{all}, Duration: time.Hour + 1, Leased: true}, Alive: start.UTC()}},
		Lost:  []storage.Lost{{Token: "t0", Expired: at(5)}, {Token: "t00", Expired: at(6)}},
		Fence: 9,
	}
}

var sameState = cmp.Comparer(func(a, b cart.Object) bool { return bytes.Equal(a.Bytes(), b.Bytes()) })

func TestStateCodec(t *testing.T) {
	for name, s := range map[string]*storage.State{
		"full": fullState(), "empty": {}, "cart": {Cart: fullState().Cart}, "locks": {Held: fullState().Held, Queue: fullState().Queue}, "living": living(0),
	} {
		// The text is kept as it is, be it JSON or not.
		value := storage.EncodeState(s, []byte(`{"price": 19.90}`), []byte("no JSON"))
		got, items, conditions, err := storage.DecodeState(value)
		if err != nil || string(items) != `{"price": 19.90}` || string(conditions) != "no JSON" {
			t.Errorf("%s: documents %q, %q, %v", name, items, conditions, err)
		}
		want := s.Clone()
		if name == "living" {
			want.Cart.CreatedAt, want.Cart.UpdatedAt = want.Cart.CreatedAt.UTC().Truncate(time.Millisecond), want.Cart.UpdatedAt.UTC().Truncate(time.Millisecond)
		}
		if d := cmp.Diff(want, got, sameState); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if again := storage.EncodeState(&got, items, conditions); !bytes.Equal(again, value) {
			t.Errorf("%s: the same state becomes another value", name)
		}
	}
	if s, items, conditions, err := storage.DecodeState(nil); err != nil || !s.Empty() || items != nil || conditions != nil {
		t.Errorf("no value becomes %+v, %q, %q, %v", s, items, conditions, err)
	}
}

// TestStateFormat: a value of an unknown format is not guessed at, and a part of a value is not taken for a whole one.
func TestStateFormat(t *testing.T) {
	value := storage.EncodeState(fullState(), []byte("{}"), []byte("{}"))
	if len(value) > 300 {
		t.Errorf("%d bytes", len(value))
	}
	other := bytes.Clone(value)
	other[0] = 7
	if _, _, _, err := storage.DecodeState(other); !errors.Is(err, storage.ErrUnsupported) || errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), "format 7") {
		t.Errorf("format 7: %v", err)
	}
	for n := 1; n < len(value); n++ {
		if _, _, _, err := storage.DecodeState(value[:n]); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	if _, _, _, err := storage.DecodeState(append(value, 0)); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	// A list of 2^62 entries does not ask for memory.
	if _, _, _, err := storage.DecodeState([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f}); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("an endless list: %v", err)
	}
}

// FuzzDecodeState: no bytes make it panic, and what it reads it writes back the same.
func FuzzDecodeState(f *testing.F) {
	f.Add(storage.EncodeState(fullState(), []byte(`{"a":1}`), []byte(`{}`)))
	f.Add(storage.EncodeState(&storage.State{}, nil, nil))
	f.Fuzz(func(t *testing.T, value []byte) {
		s, items, conditions, err := storage.DecodeState(value)
		if err != nil {
			if !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrUnsupported) {
				t.Errorf("%v is no sentinel", err)
			}
			return
		}
		again, _, _, err := storage.DecodeState(storage.EncodeState(&s, items, conditions))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, again, sameState); d != "" {
			t.Error(d)
		}
	})
}

// TestEnds: a record may go when everything in it has ended, and not before.
func TestEnds(t *testing.T) {
	const hour = time.Hour
	at := start.Add
	hold := func(d time.Duration, leased, unconfirmed bool) storage.Hold {
		return storage.Hold{Token: "t", Expires: at(d), Leased: leased, Unconfirmed: unconfirmed}
	}
	for name, test := range map[string]struct {
		state *storage.State
		want  time.Time
	}{
		"nothing":             {&storage.State{}, time.Time{}},
		"a cart for ever":     {living(0), time.Time{}},
		"a cart":              {living(2 * hour), at(2 * hour)},
		"a turn":              {&storage.State{Held: []storage.Hold{hold(hour, false, false)}}, at(hour)},
		"a lease":             {&storage.State{Held: []storage.Hold{hold(hour, true, false)}}, at(hour + storage.LeaseMemory)},
		"a lease of nobody":   {&storage.State{Held: []storage.Hold{hold(hour, true, true)}}, at(hour)},
		"the last of several": {&storage.State{Held: []storage.Hold{hold(3*hour, false, false), hold(hour, false, false)}}, at(3 * hour)},
		"a waiter":            {&storage.State{Queue: []storage.Waiter{{Claim: claim("t"), Alive: at(hour)}}}, at(hour + storage.WaiterTTL)},
		"a lost lease":        {&storage.State{Lost: []storage.Lost{{Token: "t", Expired: at(hour)}}}, at(hour + storage.LeaseMemory)},
		"a fence":             {&storage.State{Fence: uint64(start.UnixMicro())}, start.Truncate(time.Microsecond).Add(storage.LeaseMemory)},
	} {
		got := test.state.Ends()
		if !got.Equal(test.want) {
			t.Errorf("%s ends at %v, want %v", name, got, test.want)
		}
		if got.IsZero() {
			continue
		}
		// Until then something counts, and from then on nothing does. A waiter's place ends sooner, unless it is
		// granted.
		before, last := test.state.Clone(), got.Add(-time.Nanosecond)
		if before.Settle(last); before.Empty() && len(test.state.Queue) == 0 {
			t.Errorf("%s: a moment before its end nothing is left", name)
		}
		after := test.state.Clone()
		after.Settle(got.Add(storage.WaiterTTL))
		if after.Settle(got.Add(storage.WaiterTTL)); !after.Empty() {
			t.Errorf("%s: after its end %+v is left", name, after)
		}
	}
}

// TestNextFence: the fallback never goes back, whatever the clocks of the sidecars that give fences, as long as they
// differ by less than the time for which leases are remembered.
func TestNextFence(t *testing.T) {
	s := &storage.State{}
	last := uint64(0)
	for i, now := range []time.Time{start, start, start.Add(-storage.LeaseMemory + time.Second), start.Add(time.Second), start.Add(time.Minute)} {
		s.Settle(now)
		if got := s.NextFence(now); got <= last {
			t.Errorf("%d: fence %d after %d", i, got, last)
		}
		last = s.Fence
	}
	// A sidecar forgets the fence only when its clock is so far ahead that even a clock that is behind gives a greater
	// fence.
	end := s.Ends()
	if s.Settle(end.Add(-1)); s.Fence != last {
		t.Error("forgotten too early")
	}
	if s.Settle(end); s.Fence != 0 || !s.Empty() {
		t.Error("never forgotten")
	}
	if got := s.NextFence(end.Add(-storage.LeaseMemory + time.Microsecond)); got <= last {
		t.Errorf("by a clock that is behind: fence %d after %d", got, last)
	}
}

// TestClone: what changes a clone leaves the state alone.
func TestClone(t *testing.T) {
	s, want := fullState(), fullState()
	c := s.Clone()
	c.Settle(start.Add(1000 * time.Hour))
	c = s.Clone()
	c.Abandon("t1", start)
	c = s.Clone()
	if _, err := c.Renew("t1", time.Hour, start.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, s, sameState); d != "" {
		t.Errorf("the state changed with its clone (-want +got):\n%s", d)
	}
}
