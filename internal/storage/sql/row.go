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
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// Row is the row of one cart, in the types that every database has. Times are in milliseconds; the zero time is NULL,
// as are nil and an empty ID.
type Row struct {
	ID                                       string
	Version, ItemsVersion, ConditionsVersion uint64
	CreatedAt, UpdatedAt, ExpiresAt          time.Time
	// RemovableAt is when cart, locks and the memory of leases have all ended.
	RemovableAt time.Time
	// Locks and Metadata are JSON.
	Locks, Metadata    []byte
	Transfer, Received []byte
	// Ledger has LedgerVersion. That is 0 if the ledger was never set, as in rows older than the column.
	Ledger        []byte
	LedgerVersion uint64
	// Items and Conditions are JSON. When a row is stored, nil keeps the stored document; in a new row nil stores {}.
	Items, Conditions []byte
}

// Columns are the columns of a row without its names and documents, in the order of [Scan.Into] and [Row.Values].
// Row.Values has removable_at after them.
const Columns = "id, version, items_version, conditions_version, created_at, updated_at, expires_at, locks, metadata, transfer, received, ledger, ledger_version"

// Values are what a statement stores: text, whole numbers, bytes, and nil for NULL.
func (row *Row) Values() []any {
	values := []any{
		nil, int64(row.Version), int64(row.ItemsVersion), int64(row.ConditionsVersion),
		millis(row.CreatedAt), millis(row.UpdatedAt), millis(row.ExpiresAt),
		text(row.Locks), text(row.Metadata), blob(row.Transfer), blob(row.Received),
		blob(row.Ledger), int64(row.LedgerVersion), swept(row.RemovableAt),
	}
	if row.ID != "" {
		values[0] = row.ID
	}
	return values
}

// Text is a document as a statement stores it, nil for NULL.
func Text(document []byte) any { return text(document) }

func text(b []byte) any {
	if b == nil {
		return nil
	}
	return string(b)
}

func blob(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// sweepStep rounds the time from which a row is swept. That column has an index. If the rounded value stays the same,
// as in nearly every commit, the server need not write to the index.
const sweepStep = time.Hour

func swept(removable time.Time) any {
	if removable.IsZero() {
		return nil
	}
	return removable.Truncate(sweepStep).Add(sweepStep).UnixMilli()
}

// Scan reads a row of [Columns]. If there was no row, the columns are NULL and Found is false.
type Scan struct {
	id                                *string
	version, items, conditions        *int64
	created, updated, expires         *int64
	locks, metadata                   []byte
	transfer, received, ledger        []byte
	ledgerVersion                     *int64
	itemsDocument, conditionsDocument []byte
}

// Into returns the variables to scan into: those of Columns and, with documents, then items and conditions.
func (s *Scan) Into(documents bool) []any {
	into := []any{
		&s.id, &s.version, &s.items, &s.conditions, &s.created, &s.updated, &s.expires, &s.locks, &s.metadata,
		&s.transfer, &s.received, &s.ledger, &s.ledgerVersion,
	}
	if documents {
		into = append(into, &s.itemsDocument, &s.conditionsDocument)
	}
	return into
}

// Found reports whether there was a row.
func (s *Scan) Found() bool { return s.version != nil }

// Record returns the record of the row, with its documents if they were scanned.
func (s *Scan) Record(documents bool) (r cell.Record, err error) {
	if !s.Found() {
		return r, nil
	}
	row := Row{
		Version: number(s.version), ItemsVersion: number(s.items), ConditionsVersion: number(s.conditions),
		CreatedAt: moment(s.created), UpdatedAt: moment(s.updated), ExpiresAt: moment(s.expires),
		Locks: s.locks, Metadata: s.metadata, Transfer: s.transfer, Received: s.received,
		Ledger: s.ledger, LedgerVersion: number(s.ledgerVersion),
	}
	if s.id != nil {
		row.ID = *s.id
	}
	if r.State, err = row.State(); err != nil || !documents {
		return r, err
	}
	return r, Documents(s.itemsDocument, s.conditionsDocument, &r.State.Cart)
}

func number(n *int64) uint64 {
	if n == nil {
		return 0
	}
	return uint64(*n)
}

func moment(ms *int64) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return time.UnixMilli(*ms).UTC()
}

// RowOf turns a record into a row.
func RowOf(r *cell.Record) Row {
	k := &r.State.Cart
	return Row{
		ID: k.ID, Version: k.Version, ItemsVersion: k.Items.Version, ConditionsVersion: k.Conditions.Version,
		CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt, ExpiresAt: k.ExpiresAt, RemovableAt: r.State.Ends(),
		Locks: encodeLocks(&r.State), Metadata: encodeMetadata(k), Transfer: k.Transfer, Received: k.Received,
		Ledger: k.Ledger.Value, LedgerVersion: k.Ledger.Version,
		Items: r.Items, Conditions: r.Conditions,
	}
}

// State reads a row without its documents. It does not keep the memory of Locks and Metadata; it keeps that of the
// other slices.
func (row *Row) State() (s storage.State, err error) {
	if err := decodeLocks(&s, row.Locks); err != nil || row.ID == "" {
		return s, err
	}
	k := &s.Cart
	k.ID, k.Version, k.Items.Version, k.Conditions.Version = row.ID, row.Version, row.ItemsVersion, row.ConditionsVersion
	k.CreatedAt, k.UpdatedAt, k.ExpiresAt = row.CreatedAt, row.UpdatedAt, row.ExpiresAt
	k.Transfer, k.Received = row.Transfer, row.Received
	k.Ledger = cart.Opaque{Value: row.Ledger, Version: row.LedgerVersion}
	return s, decodeMetadata(k, row.Metadata)
}

// Documents reads the documents of a row into its cart. It does not keep their memory.
func Documents(items, conditions []byte, into *cart.Cart) (err error) {
	if !into.Exists() {
		return nil
	}
	if into.Items.Object, err = cart.TrustedObject(items); err != nil {
		return Damaged("items", err)
	}
	if into.Conditions.Object, err = cart.TrustedObject(conditions); err != nil {
		return Damaged("conditions", err)
	}
	return nil
}

// The JSON of the columns metadata and locks. People read it too, so it has names and readable times.
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
		Lost  string         `json:"lost,omitempty"` // tokens, each with the ms of its end; a thousand objects would slow every commit
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

// encode writes JSON without the escapes that would alter the text of a value.
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
		return Damaged("metadata", err)
	}
	for _, e := range m.Entries {
		c.Metadata = append(c.Metadata, cart.Entry{Key: e.Key, Value: e.Value, Version: e.Version})
	}
	c.Removed, c.Floor = m.Removed, m.Floor
	return nil
}

// encodeLocks is nil if there are none.
func encodeLocks(s *storage.State) []byte {
	if len(s.Held) == 0 && len(s.Queue) == 0 && len(s.Lost) == 0 {
		return nil
	}
	l := locksColumn{Held: slices.Clone(s.Held), Lost: encodeLost(s.Lost)}
	for i := range l.Held {
		l.Held[i].Expires = l.Held[i].Expires.UTC()
	}
	for _, w := range s.Queue {
		l.Queue = append(l.Queue, waiterColumn{w.Token, w.Holder, w.Parts, w.Duration.String(), w.Alive.UTC(), w.Leased})
	}
	return encode(l)
}

func decodeLocks(s *storage.State, raw []byte) error {
	var l locksColumn
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return Damaged("locks", err)
	}
	s.Held = l.Held
	if err := decodeLost(s, l.Lost); err != nil {
		return Damaged("locks", err)
	}
	for _, w := range l.Queue {
		lease, err := time.ParseDuration(w.Lease)
		if err != nil {
			return Damaged("locks", err)
		}
		s.Queue = append(s.Queue, storage.Waiter{
			Claim: storage.Claim{Token: w.Token, Holder: w.Holder, Parts: w.Parts, Duration: lease, Leased: w.Fence}, Alive: w.Alive,
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

// Damaged is the ErrCorrupt of a column.
func Damaged(column string, err error) error {
	return fmt.Errorf("%w: column %s: %w", storage.ErrCorrupt, column, err)
}
