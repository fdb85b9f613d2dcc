package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// step is one operation of a batch, and the call that says the same alone.
type step struct{ operation, method, path, body string }

// Small sets, so that operations meet each other. Some are refused.
var (
	fuzzIDs        = []string{`"a"`, `"b"`, `"c"`, `"ü/.."`, `"` + strings.Repeat("n", 256) + `"`}
	fuzzQuantities = []string{`1`, `2`, `10000`, `0`, `-1`, `2.0`, `1e1`, `"3"`, `null`, `1.5`, `99999999999999999999`}
	fuzzMembers    = []string{``, `,"name":"Mug"`, `,"price":19.90`, `,"attributes":{"z":1,"a":2}`, `,"attributes":[]`, `,"price":"12,5"`, `,"conditions":{"x":{}}`}
	fuzzValues     = []string{`1`, `null`, `"x"`, `{"z":1,"a":[1.50,1e3]}`, `[]`, `{}`, `{"a":1,"a":2}`, `broken`}
	fuzzDeltas     = []string{`1`, `-1`, `-10000`, `0`, `10000`, `1.5`}
)

// steps reads operations from fuzzed bytes, four for each.
func steps(raw []byte) (list []step) {
	const most = 24
	pick := func(from []string, b byte) string { return from[int(b)%len(from)] }
	for ; len(raw) >= 4 && len(list) < most; raw = raw[4:] {
		id, value := pick(fuzzIDs, raw[1]), pick(fuzzValues, raw[2])
		item := `{"id":` + id + `,"quantity":` + pick(fuzzQuantities, raw[2]) + pick(fuzzMembers, raw[3]) + `}`
		var name string
		_ = json.Unmarshal([]byte(id), &name)
		escaped := percent(name)
		switch raw[0] % 13 {
		case 0:
			list = append(list, step{`{"addItem":{"item":` + item + `}}`, http.MethodPost, "/items", `{"item":` + item + `}`})
		case 1:
			patch := `{"quantity":` + pick(fuzzQuantities, raw[2]) + pick(fuzzMembers, raw[3]) + `}`
			list = append(list, step{`{"updateItem":{"id":` + id + `,"item":` + patch + `}}`, http.MethodPatch, "/items/" + escaped, `{"item":` + patch + `}`})
		case 2:
			delta := pick(fuzzDeltas, raw[2])
			list = append(list, step{`{"updateItem":{"id":` + id + `,"quantityDelta":` + delta + `}}`, http.MethodPatch, "/items/" + escaped, `{"quantityDelta":` + delta + `}`})
		case 3:
			list = append(list, step{`{"removeItem":{"id":` + id + `}}`, http.MethodDelete, "/items/" + escaped, ``})
		case 4:
			items := `{` + id + `:` + item + `,"c":{"id":"c","quantity":1}}`
			list = append(list, step{`{"putItems":{"items":` + items + `}}`, http.MethodPut, "/items", `{"items":` + items + `}`})
		case 5:
			condition := `{"value":` + value + `}`
			list = append(list, step{`{"putCondition":{"name":` + id + `,"condition":` + condition + `}}`, http.MethodPut, "/conditions/" + escaped, `{"condition":` + condition + `}`})
		case 6:
			list = append(list, step{`{"removeCondition":{"name":` + id + `}}`, http.MethodDelete, "/conditions/" + escaped, ``})
		case 7:
			list = append(list, step{`{"putMetadata":{"key":` + id + `,"value":` + value + `}}`, http.MethodPut, "/metadata/" + escaped, `{"value":` + value + `}`})
		case 8:
			list = append(list, step{`{"removeMetadata":{"key":` + id + `}}`, http.MethodDelete, "/metadata/" + escaped, ``})
		case 9:
			conditions := `{` + id + `:{"value":` + value + `},"z":{}}`
			list = append(list, step{`{"putConditions":{"conditions":` + conditions + `}}`, http.MethodPut, "/conditions", `{"conditions":` + conditions + `}`})
		case 10:
			metadata := `{` + id + `:` + value + `,"z":null}`
			list = append(list, step{`{"patchMetadata":{"metadata":` + metadata + `}}`, http.MethodPatch, "/metadata", `{"metadata":` + metadata + `}`})
		case 11:
			list = append(list, step{`{"clearMetadata":{}}`, http.MethodDelete, "/metadata", ``})
		case 12:
			list = append(list, step{`{"clear":{}}`, http.MethodPost, ":clear", ``})
		}
	}
	return list
}

// cartState is what a batch may change. The order of metadata's keys is not compared: it is that of the changes.
type cartState struct {
	Version           uint64
	Items, Conditions json.RawMessage
	Metadata          map[string]json.RawMessage
}

func (s *fuzzed) state(t *testing.T, path string) (c cartState) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.must(t, http.MethodGet, path, "")), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// FuzzBatch makes the same operations as one batch and one by one. Both end with the same cart; if one of them is
// refused, the batch is refused for the same reason and has changed nothing. A batch raises the version by one at most.
func FuzzBatch(f *testing.F) {
	for kind := range byte(13) {
		f.Add(true, []byte{kind, 0, 0, 0})
		f.Add(false, []byte{kind, 1, 1, 1, kind, 1, 2, 3})
		for n := range byte(11) {
			f.Add(n%2 == 0, []byte{0, 0, 0, 0, kind, n, n, n, kind + 1, n, n + 1, n})
		}
	}
	f.Add(true, []byte("a batch of many operations, one after another, of which some are refused"))
	s := newFuzzed(f, 5*time.Second)
	f.Fuzz(func(t *testing.T, there bool, raw []byte) {
		list := steps(raw)
		together, single := s.fresh(), s.fresh()
		if there {
			for _, path := range []string{together, single} {
				s.must(t, http.MethodPut, path, `{"items":{"a":{"id":"a","quantity":3},"b":{"id":"b","quantity":9999}},"conditions":{"a":{"name":"a"}}}`)
			}
		}
		before := s.state(t, together)
		operations := make([]string, len(list))
		for i := range list {
			operations[i] = list[i].operation
		}
		header := func() http.Header { return http.Header{"Content-Type": {contentJSON}} }
		body := `{"operations":[` + strings.Join(operations, ",") + `]}`
		batch := s.ask(t, http.MethodPost, together+":batch", body, header())

		// What is found in the text goes before what is found in the cart, so that the batch may tell of another
		// operation than the first that is refused alone.
		reasons := map[string]bool{}
		if len(list) == 0 {
			reasons["INVALID"] = true
		}
		for i, step := range list {
			if w := s.ask(t, step.method, single+step.path, step.body, header()); w.Code != http.StatusOK {
				reasons[jsonField(t, w.Body.String(), "reason")] = true
				t.Logf("operation %d: %d %s", i, w.Code, w.Body)
			}
		}
		after := s.state(t, together)
		if reason := jsonField(t, batch.Body.String(), "reason"); (batch.Code == http.StatusOK) != (len(reasons) == 0) || reason != "" && !reasons[reason] {
			t.Fatalf("%s\nthe batch answers %d %s, one by one it is %v", body, batch.Code, batch.Body, reasons)
		}
		if batch.Code != http.StatusOK {
			if d := cmp.Diff(fmt.Sprint(before), fmt.Sprint(after)); d != "" {
				t.Fatalf("%s\na batch that was refused changed the cart: %s", body, d)
			}
			return
		}
		if after.Version > before.Version+1 {
			t.Fatalf("%s\nthe version rose from %d to %d", body, before.Version, after.Version)
		}
		want := s.state(t, single)
		changed := want.Version != before.Version
		want.Version = after.Version
		if d := cmp.Diff(text(want), text(after)); d != "" {
			t.Fatalf("%s\none by one (-) and as a batch (+): %s", body, d)
		}
		if !changed && after.Version != before.Version {
			t.Fatalf("%s\nnothing changed, and the version rose from %d to %d", body, before.Version, after.Version)
		}
	})
}

// text is a state that can be compared, with its documents as they were sent.
func text(c cartState) map[string]string {
	m := map[string]string{"items": string(c.Items), "conditions": string(c.Conditions)}
	for key, value := range c.Metadata {
		m["metadata."+key] = string(value)
	}
	return m
}
