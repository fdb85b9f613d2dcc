package cart

import (
	"encoding/base64"
	"errors"
	"hash/fnv"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestETags(t *testing.T) {
	c := cartWith(t, 7, `{"a":{}}`, `{}`, "k", `1`, "l", `1`)
	scopes := []Part{PartAll, PartItems, PartConditions, PartMetadataAll, PartMetadata("k"), PartMetadata("l")}
	seen := map[string]Part{}
	for _, p := range scopes {
		etag := c.PartETag(p)
		if other, ok := seen[etag]; ok || etag == "" || url.QueryEscape(etag) != etag {
			t.Errorf("%s has etag %q, %s has it too", p, etag, other)
		}
		seen[etag] = p
	}
	if c.ETag() != c.PartETag(PartAll) || c.MetadataETag() != c.PartETag(PartMetadataAll) {
		t.Error("the same resource has two etags")
	}
	successor := cartWith(t, 7, `{"a":{}}`, `{}`, "k", `1`, "l", `1`)
	successor.ID = "c2"
	later := cartWith(t, 8, `{"a":{}}`, `{}`, "k", `1`, "l", `1`)
	for _, p := range scopes {
		if etag := c.PartETag(p); etag == successor.PartETag(p) || etag == later.PartETag(p) {
			t.Errorf("the etag of %s does not change", p)
		}
	}
	for _, p := range []Part{PartTransfer, PartReceived} {
		if etag := c.PartETag(p); etag != "" {
			t.Errorf("%s, which is not served, has etag %q", p, etag)
		}
	}
}

// What is not there has an etag, which is no empty one, and holds as long as it is not there.
func TestETagsOfWhatIsNotThere(t *testing.T) {
	var none Cart
	bare := &Cart{ID: "c1", Version: 1}
	k, l := PartMetadata("k"), PartMetadata("l")
	scopes := []Part{PartAll, PartItems, PartConditions, PartMetadataAll, k, l}
	seen := map[string]string{}
	for name, c := range map[string]*Cart{"no cart": &none, "a cart": bare} {
		for _, p := range scopes {
			etag := c.PartETag(p)
			if other, ok := seen[etag]; ok || etag == "" {
				t.Errorf("%s of %s has etag %q, %s has it too", p, name, etag, other)
			}
			seen[etag] = string(p) + " of " + name
		}
	}
	items := cartWith(t, 3, `{"a":{}}`, `{}`)
	items.Conditions.Version = 0
	emptied := cartWith(t, 4, `{}`, `{}`)
	successor := *bare
	successor.ID = "c2"
	metadata := cartWith(t, 2, `{}`, `{}`, "l", `1`)
	metadata.Items.Version, metadata.Conditions.Version = 0, 0
	buried := *bare
	buried.Version, buried.Floor = 9, 8
	for _, tc := range []struct {
		name  string
		etag  string
		cart  *Cart
		scope Part
		want  string // "" where it holds
	}{
		{"no cart, still none", none.ETag(), &none, PartAll, ""},
		{"no cart, still none, for a part", none.ETag(), &none, PartItems, ""},
		{"no cart, and now one", none.ETag(), bare, PartAll, "there is a cart now, at version 1"},
		{"no cart, and now one, for a part that is not set", none.ETag(), bare, PartItems, "there is a cart now, at version 1"},
		{"no items, still no cart", none.PartETag(PartItems), &none, PartItems, ""},
		{"no items, and now a cart without", none.PartETag(PartItems), bare, PartItems, ""},
		{"no items, and now metadata", none.PartETag(PartItems), metadata, PartItems, ""},
		{"no items, and now some", none.PartETag(PartItems), items, PartItems, "items were set meanwhile, at version 3"},
		{"no items, and set and emptied", none.PartETag(PartItems), emptied, PartItems, "items were set meanwhile, at version 4"},
		{"no conditions, and now items", none.PartETag(PartConditions), items, PartConditions, ""},
		{"no metadata, and now items", none.MetadataETag(), items, PartMetadataAll, ""},
		{"no metadata, and now some", none.MetadataETag(), metadata, PartMetadataAll, "metadata was set meanwhile, at version 2"},
		{"no value, and now another", none.PartETag(k), metadata, k, ""},
		{"no value, and now one", none.PartETag(l), metadata, l, `metadata["l"] was set meanwhile, at version 2`},
		{"no value, but the floor rose", none.PartETag(k), &buried, k, `metadata["k"] was set meanwhile, at version 8`},
		{"another part", none.PartETag(PartItems), &none, PartConditions, "the etag is of another part of the cart"},
		{"another key", none.PartETag(k), &none, l, "the etag is of another part of the cart"},
		{"a part for the whole", none.PartETag(PartItems), &none, PartAll, "the etag is of another part of the cart"},
		{"never set in a cart", bare.PartETag(PartItems), bare, PartItems, ""},
		{"never set in a cart, which is gone", bare.PartETag(PartItems), &none, PartItems, "there is no such cart any more"},
		{"never set in a cart, nor in its successor", bare.PartETag(PartItems), &successor, PartItems, "the cart was made anew since, or the etag is of another cart"},
		{"never set in a cart, and now it is", bare.PartETag(PartItems), items, PartItems, "items were set meanwhile, at version 3"},
		{"never set in a cart, another part", bare.PartETag(PartItems), bare, PartConditions, "the etag is of another part of the cart"},
	} {
		err := Precondition{IfMatch: []string{strconv.Quote(tc.etag)}}.Check(tc.cart, tc.scope)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		var conflict *ConflictError
		if !errors.As(err, &conflict) || conflict.Problem != tc.want || conflict.Attempted != 0 || conflict.Current != tc.cart.PartVersion(tc.scope) {
			t.Errorf("%s: %+v, want %q", tc.name, conflict, tc.want)
		}
	}
}

// A slip in copying an etag makes it no etag, and not that of another version.
func TestETagChecksum(t *testing.T) {
	c := cartWith(t, 7, `{}`, `{}`, "k", `1`)
	for _, p := range []Part{PartAll, PartItems, PartMetadata("k")} {
		etag := []byte(c.PartETag(p))
		for i := range etag {
			was := etag[i]
			for _, slip := range []byte("Aa0-_=*") {
				if etag[i] = slip; slip == was {
					continue
				}
				if tag, ok := parseTag(string(etag)); ok {
					t.Errorf("%s is read as %+v", etag, tag)
				}
			}
			etag[i] = was
		}
	}
}

// Names of internal parts are metadata keys like any other.
func TestInternalPartsHaveNoVersion(t *testing.T) {
	c := cartWith(t, 7, `{}`, `{}`, "transfer", `1`, "received", `1`, "metadata", `1`)
	if c.PartVersion(PartTransfer) != 0 || c.PartVersion(PartReceived) != 0 || c.PartVersion(PartMetadata("transfer")) != 7 {
		t.Error("an internal part has the version of a metadata key")
	}
}

func TestCheck(t *testing.T) {
	c := cartWith(t, 5, `{"a":{}}`, `{}`, "k", `1`)
	c.Version = 9
	c.Conditions.Version = 0
	c.Removed = map[string]uint64{"gone": 8}
	old := *c
	old.Version, old.Items.Version, old.Metadata = 3, 3, []Entry{{"k", []byte(`1`), 2}}
	other := *c
	other.ID = "c2"
	k, gone := PartMetadata("k"), PartMetadata("gone")
	var none Cart
	match := func(etags ...string) Precondition { return Precondition{IfMatch: etags} }
	for _, tc := range []struct {
		name      string
		p         Precondition
		cart      *Cart
		scope     Part
		want      string // "" where it holds
		attempted uint64
		current   uint64
	}{
		{"nothing demanded", Precondition{}, &none, PartItems, "", 0, 0},
		{"own etag", match(c.PartETag(PartItems)), c, PartItems, "", 0, 0},
		{"own etag, quoted", match(`"` + c.PartETag(k) + `"`), c, k, "", 0, 0},
		{"etag of the cart", match(c.ETag()), c, PartItems, "", 0, 0},
		{"etag of the cart for metadata", match(c.ETag()), c, PartMetadataAll, "", 0, 0},
		{"etag of all metadata", match(c.MetadataETag()), c, PartMetadataAll, "", 0, 0},
		{"one of several", match("x", old.ETag(), c.ETag()), c, PartAll, "", 0, 0},
		{"tombstone", match(c.PartETag(gone)), c, gone, "", 0, 0},
		{"old items", match(old.PartETag(PartItems)), c, PartItems, "items are at version 5, not 3", 3, 5},
		{"old key", match("x", old.PartETag(k)), c, k, `metadata["k"] is at version 5, not 2`, 2, 5},
		{"old cart", match(old.ETag()), c, PartAll, "the cart is at version 9, not 3", 3, 9},
		{"old cart for items", match(old.ETag()), c, PartItems, "the cart is at version 9, not 3", 3, 5},
		{"old metadata", match(old.MetadataETag()), c, PartMetadataAll, "", 0, 0}, // gone@8 is the newest in both
		{"items for conditions", match(c.PartETag(PartItems)), c, PartConditions, "the etag is of another part of the cart", 5, 0},
		{"key for another key", match(c.PartETag(k)), c, gone, "the etag is of another part of the cart", 5, 8},
		{"items for the cart", match(c.PartETag(PartItems)), c, PartAll, "the etag is of another part of the cart", 5, 9},
		{"another cart", match(other.PartETag(PartItems)), c, PartItems, "the cart was made anew since, or the etag is of another cart", 5, 5},
		{"no cart", match(c.ETag()), &none, PartAll, "there is no such cart any more", 9, 0},
		{"garbage", match("foo"), c, PartItems, `"foo" is no etag of this cart`, 0, 5},
		{"empty", match(""), &none, PartAll, `"" is no etag of this cart`, 0, 0},
		{"weak", match(`W/"` + c.ETag() + `"`), c, PartAll, `"W/\"` + c.ETag() + `\"" is a weak etag, which never matches`, 0, 9},
		{"weak and right", match(`W/"x"`, c.ETag()), c, PartAll, "", 0, 0},
		{"any", match("*"), c, PartAll, "", 0, 0},
		{"any items", match("*"), c, PartItems, "", 0, 0},
		{"any key", match("*"), c, k, "", 0, 0},
		{"a quoted star", match(`"*"`), c, PartAll, `"*" is no etag of this cart`, 0, 9},
		{"any cart, none there", match("*"), &none, PartAll, "the cart is not there", 0, 0},
		{"any conditions, never set", match("*"), c, PartConditions, "conditions are not there", 0, 0},
		{"any value, removed", match("*"), c, gone, `metadata["gone"] is not there`, 0, 8},
		{"none", Precondition{IfNoneMatch: true}, &none, PartAll, "", 0, 0},
		{"none, never set", Precondition{IfNoneMatch: true}, c, PartConditions, "", 0, 0},
		{"none, removed", Precondition{IfNoneMatch: true}, c, gone, "", 0, 0},
		{"none, but there", Precondition{IfNoneMatch: true}, c, PartAll, "the cart is there already, at version 9", 0, 9},
		{"none, but items", Precondition{IfNoneMatch: true}, c, PartItems, "items are there already, at version 5", 0, 5},
		{"none, but a key", Precondition{IfNoneMatch: true}, c, k, `metadata["k"] is there already, at version 5`, 0, 5},
		{"both", Precondition{IfMatch: []string{c.ETag()}, IfNoneMatch: true}, c, PartAll, "the cart is there already, at version 9", 0, 9},
	} {
		err := tc.p.Check(tc.cart, tc.scope)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		wantError(t, err, ErrConflict, tc.want)
		var conflict *ConflictError
		if !errors.As(err, &conflict) || conflict.Attempted != tc.attempted || conflict.Current != tc.current {
			t.Errorf("%s: %+v, want %d and %d", tc.name, conflict, tc.attempted, tc.current)
		}
	}
}

func TestParsePrecondition(t *testing.T) {
	for in, want := range map[string][]string{
		``:                   nil,
		` * `:                {`*`},
		`"a"`:                {`"a"`},
		`a`:                  {`a`},
		`"a", "b",W/"c" , d`: {`"a"`, `"b"`, `W/"c"`, `d`},
		`"a,b"`:              {`"a,b"`},
		`""`:                 {`""`},
		`,`:                  {`,`}, // it was meant to hold off a change, and does
		`"a`:                 {`"a`},
	} {
		p, err := ParsePrecondition(in, "")
		if err != nil || p.IfNoneMatch || !slices.Equal(p.IfMatch, want) {
			t.Errorf("%s: %q %v", in, p.IfMatch, err)
		}
	}
	if p, err := ParsePrecondition("", " * "); err != nil || !p.IfNoneMatch || p.IfMatch != nil {
		t.Errorf("%v %v", p, err)
	}
	for _, blank := range []string{" ", "\t "} { // never taken for a header that is not there
		_, err := ParsePrecondition(blank, "")
		wantError(t, err, ErrInvalid, `If-Match: must not be empty: give an etag, "*", or leave it out`)
		_, err = ParsePrecondition("", blank)
		wantError(t, err, ErrInvalid, `If-None-Match: must not be empty: give "*", or leave it out`)
	}
	if p, err := ParsePrecondition(" , ,", ""); err != nil || p.Check(&Cart{}, PartAll) == nil {
		t.Errorf("a list without an etag demands nothing: %v %v", p, err)
	}
	_, err := ParsePrecondition("", `"a"`)
	wantError(t, err, ErrInvalid, `If-None-Match: must be "*" on a change, not "\"a\""`)
}

func FuzzETag(f *testing.F) {
	c := cartWith(f, 300, `{}`, `{}`, "k", `1`)
	bare := &Cart{ID: "c2", Version: 300}
	carts := []*Cart{{}, c, bare}
	scopes := []Part{PartAll, PartItems, PartConditions, PartMetadataAll, PartMetadata("k")}
	for _, c := range carts {
		for _, p := range scopes {
			etag := c.PartETag(p)
			f.Add(etag)
			f.Add(etag[1:])
			f.Add(etag + "A")
			f.Add(strings.ToUpper(etag))
		}
	}
	f.Add("")
	f.Add("*")
	f.Add(", ,")
	f.Add(base64.RawURLEncoding.EncodeToString(make([]byte, 14)))
	f.Fuzz(func(t *testing.T, s string) {
		tag, ok := parseTag(s)
		if ok && tag.String() != s {
			t.Errorf("%q is read as %+v, whose etag is %q", s, tag, tag)
		}
		for _, c := range carts {
			for _, p := range scopes {
				holds := Precondition{IfMatch: []string{s}}.Check(c, p) == nil
				given := unquote(s)
				right := s == "*" && c.has(p) || given == c.PartETag(p) || given == c.ETag() ||
					given == carts[0].PartETag(p) && p != PartAll && c.PartVersion(p) == 0
				if holds != right {
					t.Errorf("%q for %s of %q: holds %v", s, p, c.ID, holds)
				}
			}
		}
		p, err := ParsePrecondition(s, "")
		switch blank := strings.TrimSpace(s) == ""; {
		case s != "" && blank && !errors.Is(err, ErrInvalid):
			t.Errorf("If-Match %q: %v", s, err)
		case !blank && (err != nil || len(p.IfMatch) == 0):
			t.Errorf("If-Match %q demands nothing: %v", s, err)
		}
	})
}

// Etags stand in clients and in stored pages: their hash is FNV-1a for ever.
func TestHash(t *testing.T) {
	for _, text := range []string{"", "a", "4f0c2c1e-97c5-4f5b-8a7e-0f4bb1f1f001", "\xff é"} {
		h := fnv.New64a()
		h.Write([]byte(text))
		if got := hash(text); got != h.Sum64() {
			t.Errorf("hash(%q) = %x, want %x", text, got, h.Sum64())
		}
	}
}
