package sql

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// full has every field that a row keeps.
func full() storage.State {
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	start := time.Date(2026, 3, 1, 11, 0, 0, 123_456_789, time.UTC)
	return storage.State{
		Cart: cart.Cart{
			ID: "4f0c", Version: 9, Items: cart.Document{Version: 7}, Conditions: cart.Document{Version: 3},
			Metadata: []cart.Entry{{Key: "notes", Value: []byte(`"<ü>"`), Version: 5}, {Key: "n", Value: []byte(`1.50`), Version: 6}},
			Removed:  map[string]uint64{"b": 2, "a": 4}, Floor: 2,
			CreatedAt: at(1), UpdatedAt: at(1_700_000_000_123), ExpiresAt: at(32_503_680_000_000),
			Transfer: []byte{}, Received: []byte("\x00\xff"),
			Ledger: cart.Opaque{Value: []byte("\xfe"), Version: 3},
		},
		Held: []storage.Hold{
			{Token: "t1", Holder: "pod", Parts: []cart.Part{"items", "metadata.notes"}, Expires: start, Leased: true, Fence: 1 << 52, DurationMillis: 5000},
			{Token: "t2", Parts: []cart.Part{"conditions"}, Expires: time.Date(2999, 1, 1, 0, 0, 0, 1, time.UTC), Unconfirmed: true},
		},
		Queue: []storage.Waiter{{Claim: storage.Claim{Token: "t3", Holder: "web-0", Parts: []cart.Part{"*"}, Duration: time.Hour + 1, Leased: true}, Alive: start}},
		Lost:  []storage.Lost{{Token: "t0", Expired: at(5)}, {Token: "t00", Expired: at(6)}},
	}
}

// What releases have stored since the schema's version 2, letter by letter: the release before this one reads it beside
// this one, and this one what that one wrote.
const (
	storedLocks = `{"held":[{"token":"t1","holder":"pod","parts":["items","metadata.notes"],"expires":"2026-03-01T11:00:00.123456789Z","leased":true,"fence":4503599627370496,"durationMillis":5000},` +
		`{"token":"t2","parts":["conditions"],"expires":"2999-01-01T00:00:00.000000001Z","unconfirmed":true}],` +
		`"queue":[{"token":"t3","holder":"web-0","parts":["*"],"lease":"1h0m0.000000001s","alive":"2026-03-01T11:00:00.123456789Z","fence":true}],"lost":"t0 5 t00 6"}`
	storedMetadata = `{"entries":[{"key":"notes","version":5,"value":"<ü>"},{"key":"n","version":6,"value":1.50}],"removed":{"a":4,"b":2},"floor":2}`
)

func TestStoredFormat(t *testing.T) {
	r := cell.Record{State: full(), Items: []byte(`{"a":1}`)}
	row := RowOf(&r)
	if string(row.Locks) != storedLocks || string(row.Metadata) != storedMetadata || row.RemovableAt.UnixMilli() != 32_503_680_000_000 {
		t.Errorf("stored\n%s\n%s\n%d", row.Locks, row.Metadata, row.RemovableAt.UnixMilli())
	}
	if string(row.Items) != `{"a":1}` || row.Conditions != nil {
		t.Errorf("documents %s and %s", row.Items, row.Conditions)
	}
	got, err := row.State()
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Lost {
		got.Lost[i].Expired = got.Lost[i].Expired.UTC()
	}
	if d := cmp.Diff(full(), got, cmp.Comparer(func(a, b cart.Object) bool { return string(a.Bytes()) == string(b.Bytes()) })); d != "" {
		t.Errorf("read again (-want +got):\n%s", d)
	}
	none := RowOf(&cell.Record{})
	if none.ID != "" || none.Locks != nil || none.Metadata != nil || !none.RemovableAt.IsZero() {
		t.Errorf("nothing is stored as %+v", none)
	}
}

func TestDamagedColumns(t *testing.T) {
	for name, row := range map[string]Row{
		"locks":       {Locks: []byte(`{"held": [}`)},
		"lease":       {Locks: []byte(`{"queue": [{"lease": "soon"}]}`)},
		"lost alone":  {Locks: []byte(`{"lost": "token"}`)},
		"lost at all": {Locks: []byte(`{"lost": "token then"}`)},
		"metadata":    {ID: "id", Metadata: []byte(`[`)},
	} {
		if _, err := row.State(); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	into := cart.Cart{ID: "id"}
	for _, documents := range [][2]string{{"{", "{}"}, {"{}", "1"}} {
		if err := Documents([]byte(documents[0]), []byte(documents[1]), &into); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%q: %v", documents, err)
		}
	}
}
