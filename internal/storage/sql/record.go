package sql

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// record is one row on its way through an update.
type record struct {
	key cart.Key
	// state is what the row holds. Of the documents it has only the versions,
	// until documents was called.
	state storage.State
	// documents reads the documents into state, for a cart that exists still.
	documents func() error

	// save asks the engine to store state.
	save bool
	// items and conditions are documents to store; nil leaves those of
	// the row, as long as it is the same cart.
	items, conditions []byte

	found  bool   // there is such a row
	stored string // the id in the row
}

// fill reads the documents of the row's cart into c, which is a copy of it.
func (r *record) fill(c *cart.Cart) error {
	if c == nil || !c.Exists() {
		return nil
	}
	if err := r.documents(); err != nil {
		return err
	}
	c.Items.Object, c.Conditions.Object = r.state.Cart.Items.Object, r.state.Cart.Conditions.Object
	return nil
}

// texts are the documents to store; nil leaves what the row has.
func (r *record) texts() (items, conditions []byte) {
	items, conditions = r.items, r.conditions
	if r.stored != r.state.Cart.ID { // another cart than that of the row
		if items == nil {
			items = []byte("{}")
		}
		if conditions == nil {
			conditions = []byte("{}")
		}
	}
	return items, conditions
}

// empty reports whether there is nothing left to store.
func (r *record) empty() bool {
	return !r.state.Cart.Exists() && len(r.state.Held) == 0 && len(r.state.Queue) == 0 && len(r.state.Lost) == 0
}

// removable is when cart, locks and the memory of leases have all ended, unless time stops them; zero for never.
func (r *record) removable() time.Time {
	var at time.Time
	later := func(t time.Time) {
		if t.After(at) {
			at = t
		}
	}
	if r.state.Cart.Exists() {
		if r.state.Cart.ExpiresAt.IsZero() {
			return time.Time{}
		}
		later(r.state.Cart.ExpiresAt)
	}
	ends := func(t time.Time, leased bool) {
		if leased {
			t = t.Add(storage.LeaseMemory)
		}
		later(t)
	}
	for _, h := range r.state.Held {
		ends(h.Expires, h.Leased && !h.Unconfirmed)
	}
	for _, w := range r.state.Queue { // it may be granted at the last moment of its life
		ends(w.Alive.Add(min(w.Lease, storage.WaiterLife)), false)
	}
	for _, l := range r.state.Lost {
		ends(l.Expired, true)
	}
	return at
}

// The JSON of the columns metadata and locks. It is for people as well, so it
// has names, and times that can be read.
type (
	metadataColumn struct {
		Entries []entryColumn     `json:"entries,omitempty"`
		Removed map[string]uint64 `json:"removed,omitempty"`
		Floor   uint64            `json:"floor,omitempty"`
	}
	entryColumn struct {
		Key     string          `json:"key"`
		Version uint64          `json:"version"`
		Value   json.RawMessage `json:"value"`
	}
	locksColumn struct {
		Held  []storage.Hold `json:"held,omitempty"`
		Queue []waiterColumn `json:"queue,omitempty"`
		Lost  string         `json:"lost,omitempty"` // tokens, each with the ms of its end; a thousand objects would cost every commit
	}
	waiterColumn struct {
		Token  string      `json:"token"`
		Holder string      `json:"holder,omitempty"`
		Parts  []cart.Part `json:"parts"`
		Lease  string      `json:"lease"`
		Alive  time.Time   `json:"alive"`
		Fence  bool        `json:"fence,omitempty"`
	}
)

// encode is JSON without the escapes that would alter the text of a value.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // these types hold nothing that JSON cannot, and values come from a Draft
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// encodeMetadata is nil for metadata that was never set.
func encodeMetadata(c *cart.Cart) []byte {
	if len(c.Metadata) == 0 && len(c.Removed) == 0 && c.Floor == 0 {
		return nil
	}
	m := metadataColumn{Removed: c.Removed, Floor: c.Floor}
	for _, e := range c.Metadata {
		m.Entries = append(m.Entries, entryColumn{e.Key, e.Version, e.Value})
	}
	return encode(m)
}

func decodeMetadata(c *cart.Cart, raw []byte) error {
	var m metadataColumn
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return damaged("metadata", err)
	}
	for _, e := range m.Entries {
		c.Metadata = append(c.Metadata, cart.Entry{Key: e.Key, Value: e.Value, Version: e.Version})
	}
	c.Removed, c.Floor = m.Removed, m.Floor
	return nil
}

// encodeLocks is nil where there are none.
func encodeLocks(s *storage.State) []byte {
	if len(s.Held) == 0 && len(s.Queue) == 0 && len(s.Lost) == 0 {
		return nil
	}
	l := locksColumn{Held: slices.Clone(s.Held), Lost: encodeLost(s.Lost)}
	for i := range l.Held {
		l.Held[i].Expires = l.Held[i].Expires.UTC()
	}
	for _, w := range s.Queue {
		l.Queue = append(l.Queue, waiterColumn{w.Token, w.Holder, w.Parts, w.Lease.String(), w.Alive.UTC(), w.Fence})
	}
	return encode(l)
}

func decodeLocks(s *storage.State, raw []byte) error {
	var l locksColumn
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return damaged("locks", err)
	}
	s.Held = l.Held
	if err := decodeLost(s, l.Lost); err != nil {
		return damaged("locks", err)
	}
	for _, w := range l.Queue {
		lease, err := time.ParseDuration(w.Lease)
		if err != nil {
			return damaged("locks", err)
		}
		s.Queue = append(s.Queue, storage.Waiter{
			Claim: storage.Claim{Token: w.Token, Holder: w.Holder, Parts: w.Parts, Lease: lease, Fence: w.Fence}, Alive: w.Alive,
		})
	}
	return nil
}

func encodeLost(lost []storage.Lost) string {
	var b strings.Builder
	for i, l := range lost {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(l.Token)
		b.WriteByte(' ')
		b.WriteString(strconv.FormatInt(l.Expired.UnixMilli(), 10))
	}
	return b.String()
}

func decodeLost(s *storage.State, text string) error {
	fields := strings.Fields(text)
	if len(fields)%2 != 0 {
		return errors.New("lost: a token without an end")
	}
	for i := 0; i < len(fields); i += 2 {
		ms, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return fmt.Errorf("lost: %w", err)
		}
		s.Lost = append(s.Lost, storage.Lost{Token: fields[i], Expired: time.UnixMilli(ms)})
	}
	return nil
}

func damaged(column string, err error) error {
	return fmt.Errorf("%w: column %s: %w", storage.ErrCorrupt, column, err)
}
