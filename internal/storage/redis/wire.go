package redis

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// unpacker reads what the scripts pack with cmsgpack: lists, text, whole numbers and booleans. After an error
// everything reads as zero.
type unpacker struct {
	rest string
	err  error
}

type value struct {
	list bool // n elements follow
	bool bool
	n    int64
	text string
}

func (u *unpacker) take(n int) string {
	if n < 0 || n > len(u.rest) {
		u.fail("is cut off")
		return ""
	}
	s := u.rest[:n]
	u.rest = u.rest[n:]
	return s
}

func (u *unpacker) fail(problem string) {
	if u.err == nil {
		u.err = fmt.Errorf("reply of the script %s", problem)
	}
	u.rest = ""
}

// number reads a big-endian number of size bytes.
func (u *unpacker) number(size int) (n uint64) {
	s := u.take(size)
	for i := range len(s) {
		n = n<<8 | uint64(s[i])
	}
	return n
}

func (u *unpacker) next() value {
	head := u.take(1)
	if head == "" {
		return value{}
	}
	switch c := head[0]; {
	case c < 0x80:
		return value{n: int64(c)}
	case c >= 0xe0:
		return value{n: int64(int8(c))}
	case c >= 0xa0 && c < 0xc0:
		return value{text: u.take(int(c & 0x1f))}
	case c >= 0x90 && c < 0xa0:
		return value{list: true, n: int64(c & 0x0f)}
	case c == 0xc0, c == 0xc2:
		return value{}
	case c == 0xc3:
		return value{bool: true}
	case c >= 0xcc && c <= 0xcf:
		return value{n: int64(u.number(1 << (c - 0xcc)))}
	case c >= 0xd0 && c <= 0xd3:
		size := 1 << (c - 0xd0)
		unused := 64 - 8*size
		return value{n: int64(u.number(size)) << unused >> unused}
	case c == 0xcb:
		return value{n: int64(math.Float64frombits(u.number(8)))}
	case c >= 0xd9 && c <= 0xdb:
		return value{text: u.take(int(u.number(1 << (c - 0xd9))))}
	case c == 0xdc, c == 0xdd:
		return value{list: true, n: int64(u.number(2 << (c - 0xdc)))}
	}
	u.fail(fmt.Sprintf("has type %#x", head[0]))
	return value{}
}

// texts reads a list of text, or false, which gives nil.
func (u *unpacker) texts() []string {
	v := u.next()
	if !v.list {
		return nil
	}
	if v.n > int64(len(u.rest)) {
		u.fail("is cut off")
		return nil
	}
	list := make([]string, v.n)
	for i := range list {
		list[i] = u.next().text
	}
	return list
}

// name reads a short text that may outlive the reply, such as the id of a cart. The copy does not keep a reply of
// megabytes in memory: gRPC remembers the values of headers for as long as a connection lasts.
func (u *unpacker) name() string { return strings.Clone(u.next().text) }

func (u *unpacker) time() time.Time { return instant(u.next().n) }

// fence reads a fence, which travels as text.
func (u *unpacker) fence() uint64 {
	n, err := strconv.ParseUint(u.next().text, 10, 53)
	if err != nil {
		u.fail("holds a fence that is no number")
	}
	return n
}

// instant is the time of so many milliseconds; 0 stands for none.
func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// granted is a script's answer to a claim.
type granted struct {
	yes bool
	// first is when the first of those before it ends by itself, in milliseconds; -1 for never. poll says that only
	// another program's lock stands in the way.
	first int64
	poll  bool
	// flat is the cart if the lock was granted. fence and expires are those of a lease.
	flat    []string
	fence   uint64
	expires time.Time
}

func decodeClaim(reply string) (granted, error) {
	u := unpacker{rest: reply}
	n := u.next().n
	g := granted{yes: u.next().bool, first: u.next().n, poll: u.next().bool, flat: u.texts()}
	if n > 4 {
		g.fence, g.expires = u.fence(), u.time()
	}
	return g, u.err
}

// decodeQuick reads the reply of quick.lua after its mark.
func decodeQuick(numbers, id string) (storage.Outcome, granted, error) {
	var n [5]int64
	fields := strings.Fields(numbers)
	if len(fields) != 4 && len(fields) != 5 {
		return storage.Outcome{}, granted{}, fmt.Errorf("%w: unexpected reply %q", storage.ErrCorrupt, numbers)
	}
	for i, text := range fields {
		var err error
		if n[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return storage.Outcome{}, granted{}, fmt.Errorf("%w: version or time created is no number: %w", storage.ErrCorrupt, err)
		}
	}
	return storage.Outcome{
		Status: storage.Committed, ID: id, Base: uint64(n[0]),
		CreatedAt: instant(n[1]), UpdatedAt: instant(n[2]), ExpiresAt: instant(n[3]),
		Claimed: storage.Claimed{Queued: len(fields) == 5},
	}, granted{first: n[4]}, nil
}

// decodeOutcome reads the answer to one commit.
func decodeOutcome(u *unpacker) (storage.Outcome, granted, error) {
	u.next()
	out := storage.Outcome{Status: storage.Status(u.next().n)}
	out.Claimed = storage.Claimed{Granted: u.next().bool, Queued: u.next().bool}
	g := granted{yes: out.Claimed.Granted, first: u.next().n, poll: u.next().bool}
	out.ID, out.Base = u.name(), uint64(u.next().n)
	out.CreatedAt, out.UpdatedAt, out.ExpiresAt = u.time(), u.time(), u.time()
	flat := u.texts()
	if u.err != nil || flat == nil {
		return out, g, u.err
	}
	var err error
	out.Cart, err = decodeCart(flat)
	return out, g, err
}

// entry gathers the fields of one metadata key.
type entry struct {
	key     string
	value   []byte
	version uint64
	ordinal uint64
}

// decodeCart reads the fields of a cart's hash, name and value by turns.
func decodeCart(flat []string) (*cart.Cart, error) {
	c := &cart.Cart{}
	if len(flat) == 0 {
		return c, nil
	}
	var metadata map[string]*entry
	at := func(key string) *entry {
		if metadata == nil {
			metadata = map[string]*entry{}
		}
		e := metadata[key]
		if e == nil {
			e = &entry{key: strings.Clone(key)} // see unpacker.name
			metadata[e.key] = e
		}
		return e
	}
	var items, conditions string
	d := decoder{}
	for i := 0; i+1 < len(flat); i += 2 {
		field, text := flat[i], flat[i+1]
		switch field {
		case "id":
			c.ID = strings.Clone(text)
		case "version":
			c.Version = d.number(field, text)
		case "created":
			c.CreatedAt = instant(int64(d.number(field, text)))
		case "updated":
			c.UpdatedAt = instant(int64(d.number(field, text)))
		case "expires":
			c.ExpiresAt = instant(int64(d.number(field, text)))
		case "items":
			items = text
		case "conditions":
			conditions = text
		case "v:items":
			c.Items.Version = d.number(field, text)
		case "v:conditions":
			c.Conditions.Version = d.number(field, text)
		case "floor":
			c.Floor = d.number(field, text)
		case "transfer":
			c.Transfer = []byte(text)
		case "received":
			c.Received = []byte(text)
		case "ledger":
			c.Ledger.Value = []byte(text)
		case "v:ledger":
			c.Ledger.Version = d.number(field, text)
		default:
			if key, ok := strings.CutPrefix(field, "metadata."); ok {
				at(key).value = []byte(text)
			} else if key, ok := strings.CutPrefix(field, "v:metadata."); ok {
				at(key).version = d.number(field, text)
			} else if key, ok := strings.CutPrefix(field, "s:metadata."); ok {
				at(key).ordinal = d.number(field, text)
			}
		}
	}
	c.Items.Object = d.object("items", items, c.Items.Version)
	c.Conditions.Object = d.object("conditions", conditions, c.Conditions.Version)
	d.metadata(c, metadata)
	if c.ID == "" || c.Version == 0 || c.CreatedAt.IsZero() || c.UpdatedAt.IsZero() {
		d.fail("id, version, created or updated is missing")
	}
	if d.err != nil {
		return nil, d.err
	}
	return c, nil
}

// appendCart appends the fields of a cart's hash, name and value by turns, as decodeCart reads them. It leaves out what
// the server adds: updated, expires and indexed.
func appendCart(args []any, c *cart.Cart, keep bool) []any {
	args = append(args, "id", c.ID, "version", c.Version, "created", c.CreatedAt.UnixMilli())
	document := func(p cart.Part, d *cart.Document) {
		if d.Version > 0 {
			args = append(args, string(p), d.Object.Bytes(), versionField(p), d.Version)
		}
	}
	document(cart.PartItems, &c.Items)
	document(cart.PartConditions, &c.Conditions)
	for i, e := range c.Metadata {
		p := cart.PartMetadata(e.Key)
		args = append(args, string(p), e.Value, versionField(p), e.Version, "s:"+string(p), i+1)
	}
	if n := len(c.Metadata); n > 0 {
		args = append(args, "seq", n)
	}
	for key, version := range c.Removed {
		args = append(args, versionField(cart.PartMetadata(key)), version)
	}
	if c.Floor > 0 {
		args = append(args, "floor", c.Floor)
	}
	if keep {
		args = append(args, "updated", c.UpdatedAt.UnixMilli(), "expires", expiry(c.ExpiresAt))
	}
	if c.Transfer != nil {
		args = append(args, string(cart.PartTransfer), c.Transfer)
	}
	if c.Received != nil {
		args = append(args, string(cart.PartReceived), c.Received)
	}
	if c.Ledger.Value != nil {
		args = append(args, string(cart.PartLedger), c.Ledger.Value, versionField(cart.PartLedger), c.Ledger.Version,
			livesUntil, expiry(c.LivesUntil()))
	}
	return args
}

// expiry returns milliseconds since 1970, or 0 for never.
func expiry(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

// decoder remembers the first damage that it meets.
type decoder struct{ err error }

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{storage.ErrCorrupt}, args...)...)
	}
}

func (d *decoder) number(field, text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		d.fail("field %q is no number", field)
	}
	return n
}

func (d *decoder) object(field, text string, version uint64) cart.Object {
	if (text == "") != (version == 0) {
		d.fail("field %q is without version, or a version without it", field)
	}
	if text == "" {
		return cart.Object{}
	}
	o, err := cart.TrustedObject([]byte(text))
	if err != nil {
		d.fail("field %q: %w", field, err)
	}
	return o
}

func (d *decoder) metadata(c *cart.Cart, found map[string]*entry) {
	var present []*entry
	for key, e := range found {
		if e.version == 0 {
			d.fail("metadata %q has no version", key)
		}
		if e.value != nil {
			present = append(present, e)
			continue
		}
		if c.Removed == nil {
			c.Removed = map[string]uint64{}
		}
		c.Removed[key] = e.version
	}
	slices.SortFunc(present, func(a, b *entry) int { return cmp.Compare(a.ordinal, b.ordinal) })
	for _, e := range present {
		var one cart.Cart // StorePart copies what is there, which would be quadratic
		if err := one.StorePart(cart.PartMetadata(e.key), e.value, e.version); err != nil {
			d.fail("metadata %q: %w", e.key, err)
		}
		c.Metadata = append(c.Metadata, one.Metadata...)
	}
}
