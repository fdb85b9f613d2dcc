package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// document is a document of items or conditions of n bytes.
func document(n int) string {
	const frame = `{"a":{"x":""}}`
	return `{"a":{"x":"` + strings.Repeat("x", n-len(frame)) + `"}}`
}

// A whole cart has a limit, by whatever change it would come to be over it, and what is within it is answered to
// clients of every kind.
func TestWholeCart(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		fits := func(what string, r reply) {
			t.Helper()
			if r.code != 0 {
				t.Fatalf("%s: %s %s", what, r.reason, r.message)
			}
		}
		over := func(what string, r reply, actual int) {
			t.Helper()
			want := map[string]string{"field": "cart", "limit": "2097152", "actual": fmt.Sprint(actual)}
			if diff := cmp.Diff(want, r.meta); diff != "" || r.reason != "TOO_LARGE" || r.http != 0 && r.http != 413 {
				t.Fatalf("%s: %s %s (-want +got):\n%s", what, r.reason, r.message, diff)
			}
		}
		value := func(key string, n int) ask {
			return ask{rpc: "PutMetadataValue", params: p{"key": key}, body: `{"value":"` + strings.Repeat("v", n) + `"}`}
		}
		const most, doc = 2 << 20, 1 << 20
		fits("items", call(items(document(doc))))
		fits("conditions", call(ask{rpc: "PutConditions", body: `{"conditions":` + document(doc-100) + `}`}))
		// What is left is for {"k":"…"}.
		over("a value too much", call(value("k", 93)), most+1)
		fits("a value", call(value("k", 92)))
		over("one more", call(value("l", 0)), most+len(`,"l":""`))
		over("an item more", call(ask{rpc: "PutCart", body: `{"items":` + document(doc) + `,"conditions":` + document(doc) + `}`}), most+100)
		over("a batch", call(raw("Batch", `{"operations":[{"removeItem":{"id":"no"}},{"putMetadata":{"key":"l","value":1}}]}`)), most+len(`,"l":1`))
		fits("a batch that makes room", call(raw("Batch", `{"operations":[{"putMetadata":{"key":"l","value":"ten bytes"}},{"removeMetadata":{"key":"k"}}]}`)))
		fits("it is read whole", call(ask{rpc: "GetCart"}))
		r := call(ask{rpc: "AcquireLease"})
		fits("and with a lease", r)
		token := tokenIn(r)
		fits("which can be given back", call(ask{rpc: "ReleaseLease", params: p{"token": token}}))

		fits("a guest", call(ask{rpc: "PutItems", params: p{"identifier": "guest"}, body: `{"items":{"guest's":{"x":"` + strings.Repeat("x", 200) + `"}}}`}))
		guest := call(ask{rpc: "GetItems", params: p{"identifier": "guest"}})
		merge := ask{rpc: "Merge", params: p{"identifier": "guest"}, body: `{"toIdentifier":"u1","strategy":"add_quantities"}`}
		if r := call(merge); r.reason != "TOO_LARGE" {
			t.Fatalf("a merge: %s %s", r.reason, r.message)
		}
		if again := call(ask{rpc: "GetItems", params: p{"identifier": "guest"}}); again.body != guest.body {
			t.Errorf("a merge that was refused touched its source: %s", again.body)
		}
		fits("a move of all", call(ask{rpc: "Swap", body: `{"toIdentifier":"guest"}`}))
		fits("a smaller one", call(ask{rpc: "PutConditions", params: p{"identifier": "guest"}, body: `{"conditions":{}}`}))
	})
}

// Too many keys and operations are refused as what they are, before there is any work.
func TestTooManyKeys(t *testing.T) {
	var b strings.Builder
	for i := range 80_000 {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	patch := raw("PatchMetadata", `{"metadata":{`+strings.TrimSuffix(b.String(), ",")+`}}`)
	const operations = 50_001
	batch := &pb.BatchRequest{Identifier: "u1", Instance: "default"}
	for range operations {
		batch.Operations = append(batch.Operations, &pb.Operation{}) // of which none would do
	}
	w := start(t, realBackend(t))
	for front, r := range map[string][2]reply{
		"http": {w.http(patch), w.http(raw("Batch", `{"operations":[`+strings.Repeat(`{"removeItem":{"id":"a"}},`, 1000)+strings.Repeat(`{},`, operations-1001)+`{}]}`))},
		"grpc": {w.grpc(patch), failed(t, w.conn.Invoke(t.Context(), pb.CartService_Batch_FullMethodName, batch, &pb.Cart{}))},
	} {
		for i, want := range []map[string]string{
			{"field": "metadata", "limit": "1000", "actual": "80000"},
			{"field": "operations", "limit": "1000", "actual": fmt.Sprint(operations)},
		} {
			if diff := cmp.Diff(want, r[i].meta); diff != "" || r[i].reason != "TOO_LARGE" {
				t.Errorf("%s: %s %s:\n%s", front, r[i].reason, r[i].message, diff)
			}
		}
	}
}

// manyInstances is a coordinator that knows of many carts of one identifier.
type manyInstances struct {
	Coordinator
	names []string
}

func (c manyInstances) Instances(context.Context, string) ([]string, error) { return c.names, nil }

// A list that fits no answer is told so.
func TestTooManyInstances(t *testing.T) {
	b := realBackend(t)
	names := make([]string, 13_000)
	for i := range names {
		names[i] = fmt.Sprintf("%0255d", i)
	}
	b.Coordinator = manyInstances{b.Coordinator, names}
	w := start(t, b)
	for front, call := range map[string]func(ask) reply{"http": w.http, "grpc": w.grpc} {
		r := call(ask{rpc: "ListInstances"})
		if r.reason != "TOO_LARGE" || r.meta["field"] != "instances" || r.meta["limit"] != "3145728" || r.meta["actual"] != fmt.Sprint(4+13_000*258) {
			t.Errorf("%s: %s %s %v", front, r.reason, r.message, r.meta)
		}
	}
}

// A merge is not refused for quantities: it tells which became the largest that is allowed.
func TestMergeTellsWhatIsCapped(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		for user, body := range map[string]string{
			"guest": `{"items":{"c":{"quantity":"9000"},"a":{"quantity":1},"b":{"quantity":9999.0}}}`,
			"user":  `{"items":{"a":{"quantity":5},"b":{"quantity":2},"c":{"quantity":1e3},"d":{"quantity":4001}}}`,
		} {
			if r := call(ask{rpc: "PutItems", params: p{"identifier": user}, body: body}); r.code != 0 {
				t.Fatalf("%s: %s", r.reason, r.message)
			}
		}
		r := call(ask{rpc: "Merge", params: p{"identifier": "guest"}, body: `{"toIdentifier":"user","strategy":"add_quantities"}`})
		var got struct {
			Merged bool
			Capped []string
			Cart   struct{ Items json.RawMessage }
		}
		if err := json.Unmarshal([]byte(r.body), &got); err != nil {
			t.Fatalf("%s %s: %v", r.reason, r.message, err)
		}
		const want = `{"a":{"quantity":6},"b":{"quantity":10000},"c":{"quantity":10000},"d":{"quantity":4001}}`
		if diff := cmp.Diff([]string{"b"}, got.Capped); diff != "" || !got.Merged || string(got.Cart.Items) != want {
			t.Errorf("%s:\n%s", r.body, diff)
		}
		again := call(ask{rpc: "Merge", params: p{"identifier": "guest"}, body: `{"toIdentifier":"user","strategy":"add_quantities"}`})
		if !strings.HasSuffix(again.body, `,"capped":[]}`) {
			t.Errorf("nothing to move: %s", again.body)
		}
	})
}

// What clients in PHP, Python and JavaScript really send is taken and kept.
func TestDocumentsOfAllLanguages(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		for _, row := range []struct {
			name string
			ask  ask
			want string
		}{
			{"an empty item of PHP", items(`{"a":[],"7":{"id":7,"quantity":"2","attributes":[],"conditions":[]}}`), `{"a":{},"7":{"id":7,"quantity":"2","attributes":{},"conditions":{}}}`},
			{"a float of Python", raw("AddItem", `{"item":{"id":5,"quantity":2.0,"price":[19.90],"name":null}}`), `{"a":{},"7":{"id":7,"quantity":"2","attributes":{},"conditions":{}},"5":{"id":5,"quantity":2.0,"price":[19.90],"name":null}}`},
			{"more of it", ask{rpc: "UpdateItem", params: p{"itemId": "5"}, body: `{"quantityDelta":1}`}, `{"a":{},"7":{"id":7,"quantity":"2","attributes":{},"conditions":{}},"5":{"id":5,"quantity":3,"price":[19.90],"name":null}}`},
			{"more of a text", raw("Batch", `{"operations":[{"updateItem":{"id":"7","quantityDelta":1}},{"addItem":{"item":{"id":"7","quantity":1e1,"conditions":[{"x":[]}]}}},{"removeItem":{"id":"5"}}]}`), `{"a":{},"7":{"id":7,"quantity":13,"attributes":{},"conditions":[{"x":[]}]}}`},
		} {
			if strings.Contains(row.name, "text") { // an id that is a text replaces the number, as it was given
				row.want = strings.Replace(row.want, `"id":7`, `"id":"7"`, 1)
			}
			r := call(row.ask)
			var got struct{ Items json.RawMessage }
			if err := json.Unmarshal([]byte(r.body), &got); err != nil || string(got.Items) != row.want {
				t.Fatalf("%s: %s %s\n got %s\nwant %s", row.name, r.reason, r.message, got.Items, row.want)
			}
		}
		r := call(ask{rpc: "PutConditions", body: `{"conditions":{"vat":[],"fee":{"order":"first","type":1,"value":{},"target":[]}}}`})
		if want := `{"conditions":{"vat":{},"fee":{"order":"first","type":1,"value":{},"target":[]}}`; !strings.HasPrefix(r.body, want) {
			t.Errorf("conditions: %s %s", r.message, r.body)
		}
		r = call(raw("PatchMetadata", `{"metadata":{"z":1,"a":2,"m":3}}`))
		if want := `{"metadata":{"z":1,"a":2,"m":3}`; !strings.HasPrefix(r.body, want) {
			t.Errorf("metadata: %s %s", r.message, r.body)
		}
		for _, bad := range []string{`2.5`, `-1`, `0`, `"abc"`, `1e9`, `1e400`, `null`} {
			r := call(raw("AddItem", `{"item":{"id":"x","quantity":`+bad+`}}`))
			if want := "item.quantity: must be a whole number from 1 to 10000, not " + bad; r.reason != "INVALID" || r.message != want {
				t.Errorf("quantity %s: %s %s", bad, r.reason, r.message)
			}
		}
	})
}
