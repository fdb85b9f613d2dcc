package redis

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/sidecart/sidecart/internal/storage"
)

func TestUnpack(t *testing.T) {
	for packed, want := range map[string]value{
		"\x05": {n: 5}, "\xff": {n: -1}, "\xc0": {}, "\xc2": {}, "\xc3": {bool: true},
		"\xcc\xff": {n: 255}, "\xcd\x01\x00": {n: 256}, "\xce\xff\xff\xff\xff": {n: 1<<32 - 1}, "\xcf\x00\x00\x01\x00\x00\x00\x00\x00": {n: 1 << 40},
		"\xd0\x80": {n: -128}, "\xd1\xff\x00": {n: -256}, "\xd2\x80\x00\x00\x00": {n: -1 << 31}, "\xd3\x00\x00\x01\x9a\x00\x00\x00\x00": {n: 0x19a << 32},
		"\xcb\x42\x78\x00\x00\x00\x00\x00\x00": {n: 0x18000000000},
		"\xa2ab":                               {text: "ab"}, "\xd9\x02ab": {text: "ab"}, "\xda\x00\x02ab": {text: "ab"}, "\xdb\x00\x00\x00\x02ab": {text: "ab"},
		"\x93": {list: true, n: 3}, "\xdc\x00\x10": {list: true, n: 16}, "\xdd\x00\x01\x00\x00": {list: true, n: 65536},
	} {
		u := unpacker{rest: packed}
		if got := u.next(); got != want || u.err != nil || u.rest != "" {
			t.Errorf("%x: %+v, %v, rest %q, want %+v", packed, got, u.err, u.rest, want)
		}
	}
}

// FuzzReply: whatever comes instead of a reply gives an error or a value, and never a panic or a large allocation.
func FuzzReply(f *testing.F) {
	f.Add("\x91\x9b\x01\xc2\xc2\xff\xc2\xa0\x00\x00\x00\x00\x92\xa2id\xa1x")
	f.Add("\x94\xc3\xff\xc2\x90")
	f.Add("\xdd\xff\xff\xff\xff")
	f.Add("+1 2 3 4")
	f.Fuzz(func(t *testing.T, reply string) {
		u := &unpacker{rest: reply}
		u.next()
		if _, _, err := decodeOutcome(u); err == nil && u.err != nil {
			t.Fatalf("the error was lost: %v", u.err)
		}
		if _, err := decodeClaim(reply); err == nil && len(reply) < 5 {
			t.Fatalf("%q passes for the answer to a claim", reply)
		}
		_, _, _ = decodeQuick(strings.TrimPrefix(reply, "+"), "id")
	})
}

func TestDecodeCart(t *testing.T) {
	good := []string{
		"id", "4f0c", "version", "7", "created", "1000", "updated", "2000", "expires", "0", "indexed", "0",
		"items", `{"a":1.90}`, "v:items", "3", "seq", "9", "floor", "1",
		"metadata.z", `"z"`, "v:metadata.z", "4", "s:metadata.z", "2",
		"metadata.b", `[]`, "v:metadata.b", "5", "s:metadata.b", "9",
		"v:metadata.gone", "6", "transfer", "t", "ledger", "q", "v:ledger", "8",
	}
	c, err := decodeCart(good)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(c), `4f0c 7 items {"a":1.90} 3 conditions {} 0 z="z" 4 b=[] 5 removed map[gone:6] floor 1 transfer "t" received - ledger "q" at 8`; got != want {
		t.Errorf("decoded\n%s, want\n%s", got, want)
	}
	if !c.ExpiresAt.IsZero() || c.CreatedAt.UnixMilli() != 1000 || c.UpdatedAt.UnixMilli() != 2000 {
		t.Errorf("times %v %v %v", c.CreatedAt, c.UpdatedAt, c.ExpiresAt)
	}
	for field, bad := range map[string]string{
		"id": "", "version": "x", "created": "0", "updated": "-1", "expires": "", "items": `{"a":`, "v:items": "0",
		"metadata.z": "null", "metadata.b": "[", "v:metadata.b": "0", "v:metadata.gone": "1.5", "s:metadata.z": "-", "floor": "a",
	} {
		damaged := slices.Clone(good)
		damaged[slices.Index(damaged, field)+1] = bad
		if c, err := decodeCart(damaged); !errors.Is(err, storage.ErrCorrupt) || c != nil {
			t.Errorf("%s=%q: %v, %v, want ErrCorrupt", field, bad, c, err)
		}
	}
	for _, missing := range []string{"id", "version", "created", "updated", "items", "v:items", "v:metadata.b"} {
		damaged := slices.Clone(good)
		i := slices.Index(damaged, missing)
		if _, err := decodeCart(slices.Delete(damaged, i, i+2)); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("without %s: %v, want ErrCorrupt", missing, err)
		}
	}
	for _, absent := range [][]string{nil, {}} {
		if c, err := decodeCart(absent); err != nil || c.Exists() {
			t.Errorf("no fields: %+v, %v, want the zero cart", c, err)
		}
	}
}

// A text that outlives a reply, as a cart's id does in the headers of a connection, does not keep the reply in memory.
func TestNamesAreNoPartOfTheReply(t *testing.T) {
	fields := "\x9e\xa2id\xa44f0c\xa7version\xa17\xa7created\xa41000\xa7updated\xa42000\xaametadata.z\xa11\xacv:metadata.z\xa14\xafv:metadata.gone\xa16"
	reply := "\x91\x9b\x01\xc2\xc2\xff\xc2\xa44f0c\x07\x00\x00\x00" + fields
	u := &unpacker{rest: reply}
	u.next()
	out, _, err := decodeOutcome(u)
	if err != nil || out.Cart == nil || len(out.Cart.Metadata) != 1 || len(out.Cart.Removed) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	begin := uintptr(unsafe.Pointer(unsafe.StringData(reply)))
	texts := map[string]string{"id": out.ID, "id of the cart": out.Cart.ID, "metadata key": out.Cart.Metadata[0].Key}
	for key := range out.Cart.Removed {
		texts["removed key"] = key
	}
	for what, text := range texts {
		if at := uintptr(unsafe.Pointer(unsafe.StringData(text))); text == "" || at >= begin && at < begin+uintptr(len(reply)) {
			t.Errorf("%s: %q is a part of the reply", what, text)
		}
	}
}
