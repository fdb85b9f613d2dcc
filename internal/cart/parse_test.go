package cart

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestParseItems(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                                     `{}`,
		` [ ] `:                                  `{}`,
		`{"a":{}}`:                               `{"a":{}}`,
		` { "a" : { } } `:                        `{"a":{}}`,
		`{"b":{},"a":{}}`:                        `{"b":{},"a":{}}`,
		`{"\u0061\/":{}}`:                        `{"a/":{}}`,
		`{"ü\n\"":{}}`:                           `{"ü\u000a\"":{}}`,
		`{"\ud83d\ude00":{}}`:                    `{"😀":{}}`,
		`{"a":{"id":"\u0061","quantity":10000}}`: `{"a":{"id":"\u0061","quantity":10000}}`,
		`{"a":{"attributes":[],"x":[],"conditions":[],"q":1}}`:        `{"a":{"attributes":{},"x":[],"conditions":{},"q":1}}`,
		`{"a":{"attributes":null,"conditions":null,"name":null}}`:     `{"a":{"attributes":null,"conditions":null,"name":null}}`,
		`{"a":{"price":19.90,"x":1E+2,"y":"<&>\u003c","z":"\ud800"}}`: `{"a":{"price":19.90,"x":1E+2,"y":"<&>\u003c","z":"\ud800"}}`,
		`{"a":{"price":"19.90"},"b":{"price":null}}`:                  `{"a":{"price":"19.90"},"b":{"price":null}}`,
		`{"a":{"x":{"\ud800":1,"\ud801":2}}}`:                         `{"a":{"x":{"\ud800":1,"\ud801":2}}}`,
		// What Sidecart does not compute with it does not judge.
		`{"a":[],"b":{"x":1}}`:                                                             `{"a":{},"b":{"x":1}}`,
		`{"7":{"id":7},"-7":{"id":-7},"x":{"id":"x"}}`:                                     `{"7":{"id":7},"-7":{"id":-7},"x":{"id":"x"}}`,
		`{"a":{"name":7,"price":true,"type":[],"order":1.5}}`:                              `{"a":{"name":7,"price":true,"type":[],"order":1.5}}`,
		`{"a":{"attributes":[1],"conditions":"x"},"b":{"attributes":[[]],"conditions":7}}`: `{"a":{"attributes":[1],"conditions":"x"},"b":{"attributes":[[]],"conditions":7}}`,
		// A whole number keeps its text, however it is written.
		`{"a":{"quantity":2.0},"b":{"quantity":1e1},"c":{"quantity":"2"},"d":{"quantity":"1.0E+1"},"e":{"quantity":100e-1}}`: `{"a":{"quantity":2.0},"b":{"quantity":1e1},"c":{"quantity":"2"},"d":{"quantity":"1.0E+1"},"e":{"quantity":100e-1}}`,
		`{"a":{"associated_model":{"class":"Product","id":[1,2,{}]}}}`:                                                       `{"a":{"associated_model":{"class":"Product","id":[1,2,{}]}}}`,
	} {
		o, err := ParseItems("items", []byte(in), DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := string(o.Bytes()); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestParseItemsRefuses(t *testing.T) {
	const q = `items["sku-1"].quantity: must be a whole number from 1 to 10000, not `
	for in, want := range map[string]string{
		``:                                    `items: is required: an object of items by id, {} for none`,
		" \n":                                 `items: is required: an object of items by id, {} for none`,
		`null`:                                `items: must be an object of items by id, {} for none, not null`,
		`[{}]`:                                `items: must be an object of items by id, {} for none, not a list`,
		`"x"`:                                 `items: must be an object of items by id, {} for none, not "x"`,
		`7`:                                   `items: must be an object of items by id, {} for none, not 7`,
		`{"a":{},}`:                           `items: is not valid JSON: invalid character '}' looking for beginning of object key string at offset 8`,
		`{"a":{}`:                             `items: is not valid JSON: it ends too early, at offset 7`,
		`{} {}`:                               `items: is not valid JSON: invalid character '{' after top-level value at offset 3`,
		"{\"a\xff\":{}}":                      `items: is not valid UTF-8 at offset 3`,
		`{"a":{},"a":{}}`:                     `items["a"]: is there twice`,
		`{"a":{},"\u0061":{}}`:                `items["a"]: is there twice`,
		`{"a":{"x":[0,{"k":1,"k":2}]}}`:       `items["a"].x[1].k: is there twice`,
		`{"a":{"x":{"b c":{"":1,"":2}}}}`:     `items["a"].x["b c"][""]: is there twice`,
		`{"a":{"x":{"\ud800":1,"\ud800":2}}}`: `items["a"].x["\xed\xa0\x80"]: is there twice`,
		`{"":{}}`:                             `items[""]: must not be empty`,
		`{"a\u0000":{}}`:                      `items["a\x00"]: must not contain NUL`,
		`{"\ud800":{}}`:                       `items["\xed\xa0\x80"]: has half of a surrogate pair in its name: write a whole character`,
		`{"a":null}`:                          `items["a"]: must be an item, which is an object, not null`,
		`{"a":{"id":"b"}}`:                    `items["a"].id: must be "a", like its key, not "b"`,
		`{"a":[1]}`:                           `items["a"]: must be an item, which is an object, not a list`,
		`{"7":{"id":8}}`:                      `items["7"].id: must be "7", like its key, not 8`,
		`{"7.0":{"id":7.0}}`:                  `items["7.0"].id: must be "7.0", like its key, not 7.0`,
		`{"7":{"id":7e0}}`:                    `items["7"].id: must be "7", like its key, not 7e0`,
		`{"a":{"id":null}}`:                   `items["a"].id: must be "a", like its key, not null`,
		`{"a":{"id":["a"]}}`:                  `items["a"].id: must be "a", like its key, not a list`,
		`{"sku-1":{"quantity":1e400}}`:        q + `1e400`,
		`{"sku-1":{"quantity":1e999999999999999999999}}`:  q + `1e999999999999999999999`,
		`{"sku-1":{"quantity":1e-400}}`:                   q + `1e-400`,
		`{"sku-1":{"quantity":1e-999999999999999999999}}`: q + `1e-999999999999999999999`,
		`{"sku-1":{"quantity":10000.5}}`:                  q + `10000.5`,
		`{"sku-1":{"quantity":0e9}}`:                      q + `0e9`,
		`{"sku-1":{"quantity":"abc"}}`:                    q + `"abc"`,
		`{"sku-1":{"quantity":""}}`:                       q + `""`,
		`{"sku-1":{"quantity":" 2"}}`:                     q + `" 2"`,
		`{"sku-1":{"quantity":"02"}}`:                     q + `"02"`,
		`{"sku-1":{"quantity":"2 3"}}`:                    q + `"2 3"`,
		`{"sku-1":{"quantity":"\u0032"}}`:                 q + `"\u0032"`,
		`{"sku-1":{"quantity":"-2"}}`:                     q + `"-2"`,
		`{"sku-1":{"quantity":[]}}`:                       q + `a list`,
		`{"sku-1":{"quantity":1e99}}`:                     q + `1e99`,
		`{"sku-1":{"quantity":2.5}}`:                      q + `2.5`,
		`{"sku-1":{"quantity":true}}`:                     q + `true`,
		`{"sku-1":{"quantity":null}}`:                     q + `null`,
		`{"sku-1":{"quantity":{}}}`:                       q + `an object`,
		`{"sku-1":{"quantity":0}}`:                        q + `0`,
		`{"sku-1":{"quantity":-1}}`:                       q + `-1`,
		`{"sku-1":{"quantity":-0}}`:                       q + `-0`,
		`{"sku-1":{"quantity":10001}}`:                    q + `10001`,
		`{"sku-1":{"quantity":18446744073709551617}}`:     q + `18446744073709551617`,
	} {
		_, err := ParseItems("items", []byte(in), DefaultLimits())
		wantError(t, err, ErrInvalid, want)
	}
}

func TestParseConditions(t *testing.T) {
	in := `{"vat":{"name":"vat","type":"tax","target":"subtotal","value":"6%","attributes":[],"order":0},"x":{"value":-1.50,"order":1.5,"type":7,"target":[],"attributes":[1],"z":[]},"y":[],"z":{"order":"first","value":{}}}`
	o, err := ParseConditions("conditions", []byte(in), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(o.Bytes()), strings.NewReplacer(`"attributes":[]`, `"attributes":{}`, `"y":[]`, `"y":{}`).Replace(in); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for in, want := range map[string]string{
		``:                   `conditions: is required: an object of conditions by name, {} for none`,
		`[1]`:                `conditions: must be an object of conditions by name, {} for none, not a list`,
		`{"a":1}`:            `conditions["a"]: must be a condition, which is an object, not 1`,
		`{"a":{"name":"b"}}`: `conditions["a"].name: must be "a", like its key, not "b"`,
		`{"7":{"name":7}}`:   `conditions["7"].name: must be "7", like its key, not 7`,
		`{"a":[{}]}`:         `conditions["a"]: must be a condition, which is an object, not a list`,
	} {
		_, err := ParseConditions("conditions", []byte(in), DefaultLimits())
		wantError(t, err, ErrInvalid, want)
	}
}

func TestParseItem(t *testing.T) {
	for in, want := range map[string]string{
		`{"id":"a"}`: `{"id":"a","quantity":1}`,
		`{"id":"a","quantity":3,"attributes":[]}`: `{"id":"a","quantity":3,"attributes":{}}`,
		`{"quantit\u0079":3,"i\u0064":"\u0061"}`:  `{"quantity":3,"id":"\u0061"}`,
	} {
		item, err := ParseItem("item", []byte(in), DefaultLimits())
		if err != nil || item.ID != "a" || string(item.Object.Bytes()) != want {
			t.Errorf("%s: %q %s %v", in, item.ID, item.Object.Bytes(), err)
		}
	}
	item, err := ParseItem("item", []byte(`{"id":5,"quantity":"2","name":[1]}`), DefaultLimits())
	if got := string(item.Object.Bytes()); err != nil || item.ID != "5" || got != `{"id":5,"quantity":"2","name":[1]}` {
		t.Errorf("%q %s %v", item.ID, got, err)
	}
	for in, want := range map[string]string{
		``:                             `item: is required: an item, which is an object`,
		`{}`:                           `item.id: is required: a string of 1 to 255 bytes`,
		`[]`:                           `item.id: is required: a string of 1 to 255 bytes`,
		`{"id":1.0}`:                   `item.id: must be a string, or a whole number, not 1.0`,
		`{"id":true}`:                  `item.id: must be a string, or a whole number, not true`,
		`{"id":"a","quantity":"0"}`:    `item.quantity: must be a whole number from 1 to 10000, not "0"`,
		`{"id":""}`:                    `item.id: must not be empty`,
		`{"id":"\udc00"}`:              `item.id: has half of a surrogate pair in its name: write a whole character`,
		`{"id":"a","quantity":0}`:      `item.quantity: must be a whole number from 1 to 10000, not 0`,
		`{"id":"a","x":{"y":1,"y":1}}`: `item.x.y: is there twice`,
	} {
		_, err := ParseItem("item", []byte(in), DefaultLimits())
		wantError(t, err, ErrInvalid, want)
	}
}

func TestParseItemPatch(t *testing.T) {
	o, err := ParseItemPatch("item", []byte(`{"id":"any","quantity":3,"attributes":[]}`), DefaultLimits())
	if got := string(o.Bytes()); err != nil || got != `{"id":"any","quantity":3,"attributes":{}}` {
		t.Errorf("%s %v", got, err)
	}
	for in, want := range map[string]string{
		``:                 `item: is required: an object of the members to set`,
		`{"id":null}`:      `item.id: must be a string, or a whole number, not null`,
		`{"quantity":0.0}`: `item.quantity: must be a whole number from 1 to 10000, not 0: to remove the item, delete it or use quantityDelta`,
		`{"quantity":0}`:   `item.quantity: must be a whole number from 1 to 10000, not 0: to remove the item, delete it or use quantityDelta`,
	} {
		_, err := ParseItemPatch("item", []byte(in), DefaultLimits())
		wantError(t, err, ErrInvalid, want)
	}
}

func TestParseCondition(t *testing.T) {
	o, err := ParseCondition("condition", "vat", []byte(`{"name":"vat","attributes":[]}`), DefaultLimits())
	if got := string(o.Bytes()); err != nil || got != `{"name":"vat","attributes":{}}` {
		t.Errorf("%s %v", got, err)
	}
	_, err = ParseCondition("condition", "vat", []byte(`{"name":"fee"}`), DefaultLimits())
	wantError(t, err, ErrInvalid, `condition.name: must be "vat", like its key, not "fee"`)
	_, err = ParseCondition("condition", "", []byte(`{}`), DefaultLimits())
	wantError(t, err, ErrInvalid, `name: must not be empty`)
}

func TestParseMetadata(t *testing.T) {
	l := DefaultLimits()
	for in, want := range map[string]string{`null`: ``, ` [ ] `: `[]`, `"\ud800"`: `"\ud800"`, `1.0`: `1.0`, `{"a" :null}`: `{"a":null}`} {
		got, err := ParseMetadataValue("value", []byte(in), l)
		if err != nil || string(got) != want || (got == nil) != (in == `null`) {
			t.Errorf("%s: %s %v", in, got, err)
		}
	}
	_, err := ParseMetadataValue("value", nil, l)
	wantError(t, err, ErrInvalid, `value: is required: any JSON value, null for none`)

	values, err := ParseMetadataPatch("metadata", []byte(`{"b":[],"a":null,"\u0063":{"x":1}}`), l)
	if err != nil || len(values) != 3 || values[0].Key != "b" || string(values[0].Value) != `[]` ||
		values[1].Value != nil || values[2].Key != "c" || string(values[2].Value) != `{"x":1}` {
		t.Errorf("%v %v", values, err)
	}
	if values, err := ParseMetadataPatch("metadata", []byte(`[]`), l); err != nil || len(values) != 0 {
		t.Errorf("%v %v", values, err)
	}
	for in, want := range map[string]string{
		`null`:                `metadata: must be an object of values by key, null to remove a key, not null`,
		`{"":1}`:              `metadata[""]: must not be empty`,
		`{"k":{"a":1,"a":2}}`: `metadata["k"].a: is there twice`,
	} {
		_, err := ParseMetadataPatch("metadata", []byte(in), l)
		wantError(t, err, ErrInvalid, want)
	}
	l.MaxDocumentBytes = 5
	if _, err := ParseMetadataPatch("metadata", []byte(`{"a":"123","b":"456","c": 12345}`), l); err != nil {
		t.Errorf("each value is within the limit: %v", err)
	}
	_, err = ParseMetadataPatch("metadata", []byte(`{"a":"1234"}`), l)
	wantError(t, err, ErrTooLarge, `metadata["a"]: is 6 bytes as compact JSON, at most 5 are allowed`)
	_, err = ParseMetadataValue("value", []byte(`"1234"`), l)
	wantError(t, err, ErrTooLarge, `value: is 6 bytes as compact JSON, at most 5 are allowed`)
}

func TestLimits(t *testing.T) {
	l := Limits{MaxItems: 2, MaxDocumentBytes: 25, MaxCartBytes: 100, MaxMetadataKeys: 2, MaxQuantity: 5}
	if _, err := ParseItems("items", []byte(`{ "a" : {}, "b" : {}                    }`), l); err != nil {
		t.Errorf("white space counts: %v", err)
	}
	_, err := ParseItems("items", []byte(`{"a":{},"b":{},"c":{}}`), l)
	wantTooLarge(t, err, 2, 3, `items: has 3 items, at most 2 are allowed`)
	_, err = ParseMetadataPatch("metadata", []byte(`{"a":1,"b":null,"c":null}`), l)
	wantTooLarge(t, err, 2, 3, `metadata: has 3 keys, at most 2 are allowed`)
	_, err = ParseItems("items", []byte(`{"a":{"name":"too long a name"}}`), l)
	wantTooLarge(t, err, 25, 32, `items: is 32 bytes as compact JSON, at most 25 are allowed`)
	_, err = ParseItem("item", []byte(`{"id":"a","quantity":6}`), l)
	wantError(t, err, ErrInvalid, `item.quantity: must be a whole number from 1 to 5, not 6`)
	_, err = ParseItems("items", []byte(`{"`+strings.Repeat("x", 256)+`":{}}`), DefaultLimits())
	wantError(t, err, ErrInvalid, `items["`+strings.Repeat("x", 64)+`…"]: is 256 bytes long, at most 255 are allowed`)
}

func TestDepth(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	l := DefaultLimits()
	for _, tc := range []struct {
		name  string
		most  int
		parse func(levels int) error
	}{
		{"value", 64, func(n int) error { _, err := ParseValue("f", []byte(nested(n))); return err }},
		{"object", 64, func(n int) error { _, err := ParseObject("f", []byte(`{"x":`+nested(n-1)+`}`)); return err }},
		{"items", 64, func(n int) error {
			_, err := ParseItems("f", []byte(`{"a":{"x":`+nested(n-2)+`}}`), l)
			return err
		}},
		{"item, a level below its document", 63, func(n int) error {
			_, err := ParseItem("f", []byte(`{"id":"a","x":`+nested(n-1)+`}`), l)
			return err
		}},
		{"value in a patch", 64, func(n int) error {
			_, err := ParseMetadataPatch("f", []byte(`{"k":`+nested(n)+`}`), l)
			return err
		}},
		{"far too deep", 64, func(n int) error {
			if n <= 64 {
				return nil
			}
			_, err := ParseValue("f", []byte(nested(1_000_000)))
			return err
		}},
	} {
		if err := tc.parse(tc.most); err != nil {
			t.Errorf("%s: %d levels: %v", tc.name, tc.most, err)
		}
		err := tc.parse(tc.most + 1)
		if !errors.Is(err, ErrInvalid) || !strings.HasSuffix(err.Error(), ": is nested too deeply: at most 64 levels are allowed") {
			t.Errorf("%s: %d levels: %v", tc.name, tc.most+1, err)
		}
	}
}

func TestManyKeys(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		b.WriteString(`"k`)
		b.WriteString(strings.Repeat("x", i%7))
		b.Write(quantityText(int64(i)))
		b.WriteString(`":1,`)
	}
	if _, err := ParseObject("f", []byte(`{`+b.String()+`"last":1}`)); err != nil {
		t.Error(err)
	}
	_, err := ParseObject("f", []byte(`{`+b.String()+`"kxxx990":1}`))
	wantError(t, err, ErrInvalid, `f.kxxx990: is there twice`)
	_, err = ParseObject("f", []byte(`{`+b.String()+`"kxxx10":1}`))
	wantError(t, err, ErrInvalid, `f.kxxx10: is there twice`)
}

func TestParseStrategy(t *testing.T) {
	for _, s := range []Strategy{StrategyAddQuantities, StrategyKeepHighestQuantity, StrategyKeepTarget, StrategyReplace} {
		if got, err := ParseStrategy("strategy", string(s)); got != s || err != nil {
			t.Errorf("%s: %q %v", s, got, err)
		}
	}
	for _, s := range []string{"", "swap", "ADD_QUANTITIES"} {
		_, err := ParseStrategy("strategy", s)
		wantError(t, err, ErrInvalid, `strategy: "`+s+`" is no merge strategy: write "add_quantities", "keep_highest_quantity", "keep_target" or "replace"`)
	}
}

// TestPlainItems: what is found plain is what the check of all members would leave as it is. All else is taken apart.
func TestPlainItems(t *testing.T) {
	l := DefaultLimits()
	for text, want := range map[string]bool{
		`{}`: true, `{"id":"a"}`: true, `{"id":"a","quantity":2,"attributes":{},"conditions":{"x":[]}}`: true,
		`{"name":"Mug","id":"a","quantity":"2","price":19.90,"nested":{"quantity":0,"id":"b"}}`: true, `{"quantity":1e1}`: true,
		`{"id":"b"}`: false, `{"id":1}`: false, `{"id":"\u0061"}`: false, `{"i\u0064":"b"}`: false, `{"quantity":0}`: false,
		`{"quantity":10001}`: false, `{"quantity":1.5}`: false, `{"quantity":null}`: false, `{"attributes":[]}`: false,
		`{"id":"a","conditions":[]}`: false, `[]`: false, `5`: false, `"a"`: false,
	} {
		if got := isPlainItem("a", []byte(text), l); got != want {
			t.Errorf("item %s: plain is %v, want %v", text, got, want)
		}
		members, _ := split([]byte(text))
		if changed, err := checkItem("a", members, l); isPlainItem("a", []byte(text), l) && (changed || err != nil) {
			t.Errorf("item %s is plain, and the check says %v, %v", text, changed, err)
		}
	}
	for text, want := range map[string]bool{
		`{}`: true, `{"name":"a","attributes":{"x":[]},"value":"6%"}`: true,
		`{"name":"b"}`: false, `{"name":1}`: false, `{"n\u0061me":"b"}`: false, `{"attributes":[]}`: false, `[]`: false,
	} {
		if got := isPlainCondition("a", []byte(text)); got != want {
			t.Errorf("condition %s: plain is %v, want %v", text, got, want)
		}
	}
}

// TestManyItemsAtOnce: reading a document does not allocate for each of its items, and equal keys are still found.
func TestManyItemsAtOnce(t *testing.T) {
	text := itemsText(1000)
	if n := testing.AllocsPerRun(5, func() {
		if _, err := ParseItems("items", text, DefaultLimits()); err != nil {
			t.Fatal(err)
		}
	}); n > 100 {
		t.Errorf("a document of 1000 items took %v allocations", n)
	}
	for _, again := range []string{"sku-0", "sku-15", "sku-16", "sku-998"} {
		twice := append(bytes.TrimSuffix(itemsText(999), []byte("}")), `,"`+again+`":{}}`...)
		var invalid *InvalidError
		if _, err := ParseItems("items", twice, DefaultLimits()); !errors.As(err, &invalid) || !strings.Contains(err.Error(), again) {
			t.Errorf("%s twice: %v, want an error that names it", again, err)
		}
	}
}
