package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

func nested(depth int) string {
	return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
}

func manyItems(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"i%d":{}`, i)
	}
	return "{" + b.String() + "}"
}

var (
	long  = strings.Repeat("x", 256)
	large = `{"` + strings.Repeat("k", 1<<20) + `":1}`
)

// badRow is input that must be refused. field is what the answer must name.
type badRow struct {
	name   string
	ask    ask
	reason string
	field  string
	// http is the status; 0 stands for that of the reason.
	http int
	// only says that the input cannot be expressed by the other front.
	only string
}

func items(body string) ask { return ask{rpc: "PutItems", body: `{"items":` + body + `}`} }

func raw(rpc, body string) ask { return ask{rpc: rpc, body: body} }

func typed(contentType string) http.Header { return http.Header{"Content-Type": {contentType}} }

var badRows = []badRow{
	// The envelope.
	{name: "no body", ask: raw("PutItems", ""), field: "items"},
	{name: "only space", ask: raw("PutItems", " \n"), field: "items", only: "http"},
	{name: "empty envelope", ask: raw("PutItems", "{}"), field: "items"},
	{name: "broken", ask: raw("PutItems", `{"items":{}`), field: "body", only: "http"},
	{name: "no colon", ask: raw("PutItems", `{"items" {}}`), field: "body", only: "http"},
	{name: "bare key", ask: raw("PutItems", `{items:{}}`), field: "body", only: "http"},
	{name: "comma at the end", ask: raw("PutItems", `{"items":{},}`), field: "body", only: "http"},
	{name: "no value", ask: raw("PutItems", `{"items":}`), field: "items", only: "http"},
	{name: "trailing data", ask: raw("PutItems", `{"items":{}} {}`), field: "body", only: "http"},
	{name: "NUL behind", ask: raw("PutItems", "{\"items\":{}}\x00"), field: "body", only: "http"},
	{name: "an array", ask: raw("PutItems", `[{}]`), field: "body", only: "http"},
	{name: "a string", ask: raw("PutItems", `"items"`), field: "body", only: "http"},
	{name: "null", ask: raw("Clear", `null`), field: "body", only: "http"},
	{name: "byte order mark", ask: raw("PutItems", "\uFEFF{}"), field: "body", only: "http"},
	{name: "unknown field", ask: raw("PutItems", `{"items":{},"itemz":{}}`), field: "itemz", only: "http"},
	{name: "unknown field where none is known", ask: raw("Clear", `{"x":1}`), field: "x", only: "http"},
	{name: "unknown field inside", ask: raw("Batch", `{"operations":[{"removeItem":{"id":"a"}},{"removeItem":{"id":"a"}},{"addItem":{"itemm":{}}}]}`), field: "operations[2].addItem.itemm", only: "http"},
	{name: "field twice", ask: raw("PutItems", `{"items":{},"items":{}}`), field: "items", only: "http"},
	{name: "field twice, once escaped", ask: raw("PutItems", `{"items":{},"\u0069tems":{}}`), field: "items", only: "http"},
	{name: "a path field in the body", ask: raw("PutItems", `{"items":{},"identifier":"u2"}`), field: "identifier", only: "http"},
	{name: "a header field in the body", ask: raw("PutItems", `{"items":{},"ifMatch":"*"}`), field: "ifMatch", only: "http"},
	{name: "a header field in .proto spelling", ask: raw("PutItems", `{"items":{},"if_match":"*"}`), field: "if_match", only: "http"},
	{name: "no UTF-8 in a name", ask: raw("PutItems", "{\"it\xFFems\":{}}"), field: "field name", only: "http"},
	{name: "half a surrogate pair", ask: raw("Swap", `{"toIdentifier":"\ud800"}`), field: "toIdentifier", only: "http"},
	{name: "control character", ask: raw("Swap", "{\"toIdentifier\":\"a\nb\"}"), field: "body", only: "http"},
	{name: "a number for a string", ask: raw("Swap", `{"toIdentifier":5}`), field: "toIdentifier", only: "http"},
	{name: "null for a string", ask: raw("Swap", `{"toIdentifier":null}`), field: "toIdentifier", only: "http"},
	{name: "an object for a list", ask: raw("Batch", `{"operations":{}}`), field: "operations", only: "http"},
	{name: "a string for an operation", ask: raw("Batch", `{"operations":["clear"]}`), field: "operations[0]", only: "http"},
	{name: "a string for a number", ask: ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":"1"}`}, field: "quantityDelta", only: "http"},
	{name: "a fraction", ask: ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":1.5}`}, field: "quantityDelta", only: "http"},
	{name: "an exponent", ask: ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":1e99}`}, field: "quantityDelta", only: "http"},
	{name: "leading zero", ask: ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":01}`}, field: "quantityDelta", only: "http"},
	{name: "over 64 bits", ask: ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":9223372036854775808}`}, field: "quantityDelta", only: "http"},
	{name: "two operations in one", ask: raw("Batch", `{"operations":[{"removeItem":{"id":"a"},"removeMetadata":{"key":"k"}}]}`), field: "operations[0]", only: "http"},
	{name: "no operation in one", ask: raw("Batch", `{"operations":[{}]}`), field: "operations[0]", only: "http"},
	{name: "body over its limit", ask: raw("PutItems", `{"items":{}`+strings.Repeat(" ", 3<<20)+`}`), reason: "TOO_LARGE", field: "body", only: "http"},
	{name: "form", ask: ask{rpc: "PutItems", body: `{"items":{}}`, header: typed("application/x-www-form-urlencoded")}, field: "Content-Type", only: "http", http: 415},
	{name: "text", ask: ask{rpc: "Clear", body: `{}`, header: typed("text/plain")}, field: "Content-Type", only: "http", http: 415},
	{name: "Latin-1", ask: ask{rpc: "Clear", body: `{}`, header: typed("application/json; charset=iso-8859-1")}, field: "Content-Type", only: "http", http: 415},
	{name: "broken content type", ask: ask{rpc: "Clear", body: `{}`, header: typed("application/json; charset")}, field: "Content-Type", only: "http", http: 415},
	{name: "no content type", ask: ask{rpc: "Clear", body: `{}`, header: http.Header{"Content-Type": nil}}, field: "Content-Type", only: "http", http: 415},
	{name: "gzip", ask: ask{rpc: "Clear", body: `{}`, header: http.Header{"Content-Encoding": {"gzip"}}}, field: "Content-Encoding", only: "http", http: 415},

	// Items.
	{name: "items are a string", ask: items(`"a"`), field: "items"},
	{name: "items are null", ask: items(`null`), field: "items"},
	{name: "items are a list", ask: items(`[{}]`), field: "items"},
	{name: "items are broken", ask: items(`{"a":{"x":[1,]}}`), field: "items"},
	{name: "an item is a number", ask: items(`{"a":1}`), field: `items["a"]`},
	{name: "key twice", ask: items(`{"a":{},"a":{}}`), field: `items["a"]`},
	{name: "key twice below", ask: items(`{"a":{"x":{"y":1,"\u0079":2}}}`), field: `items["a"].x.y`},
	{name: "depth", ask: items(`{"a":` + nested(64) + `}`), field: "items"},
	{name: "depth bomb", ask: items(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)), field: "items"},
	{name: "list bomb", ask: items(`{"a":{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}}`), field: "items"},
	{name: "no UTF-8", ask: items("{\"a\":{\"x\":\"\xFF\"}}"), field: "items"},
	{name: "NUL in an id", ask: items(`{"a\u0000b":{}}`), field: "items"},
	{name: "empty id", ask: items(`{"":{}}`), field: "items"},
	{name: "long id", ask: items(`{"` + long + `":{}}`), field: "items"},
	{name: "other id inside", ask: items(`{"a":{"id":"b"}}`), field: `items["a"].id`},
	{name: "1,001 items", ask: items(manyItems(1001)), reason: "TOO_LARGE", field: "items"},
	{name: "1 MiB and one byte", ask: items(large[:1] + large[1:]), reason: "TOO_LARGE", field: "items"},
	{name: "quantity 0", ask: items(`{"a":{"quantity":0}}`), field: `items["a"].quantity`},
	{name: "quantity -1", ask: items(`{"a":{"quantity":-1}}`), field: `items["a"].quantity`},
	{name: "quantity 10001", ask: items(`{"a":{"quantity":10001}}`), field: `items["a"].quantity`},
	{name: "quantity 1e99", ask: items(`{"a":{"quantity":1e99}}`), field: `items["a"].quantity`},
	{name: "quantity 1.5", ask: items(`{"a":{"quantity":1.5}}`), field: `items["a"].quantity`},
	{name: "quantity as text", ask: items(`{"a":{"quantity":"one"}}`), field: `items["a"].quantity`},
	{name: "quantity null", ask: items(`{"a":{"quantity":null}}`), field: `items["a"].quantity`},
	{name: "quantity NaN", ask: items(`{"a":{"quantity":NaN}}`), field: "items"},

	// Verbs.
	{name: "add nothing", ask: raw("AddItem", `{}`), field: "item"},
	{name: "add without id", ask: raw("AddItem", `{"item":{"quantity":1}}`), field: "item.id"},
	{name: "add with a number for id", ask: raw("AddItem", `{"item":{"id":1.5}}`), field: "item.id"},
	{name: "add over the limit in sum", ask: raw("AddItem", `{"item":{"id":"keep","quantity":10000}}`), field: "item.quantity"},
	{name: "update nothing", ask: ask{rpc: "UpdateItem", params: p{"itemId": "keep"}, body: `{}`}, field: "item"},
	{name: "update to 0", ask: ask{rpc: "UpdateItem", params: p{"itemId": "keep"}, body: `{"item":{"quantity":0}}`}, field: "item.quantity"},
	{name: "update what is not there", ask: ask{rpc: "UpdateItem", params: p{"itemId": "no"}, body: `{"item":{"quantity":1}}`}, reason: "NOT_FOUND", field: "no"},
	{name: "delta over the limit", ask: ask{rpc: "UpdateItem", params: p{"itemId": "keep"}, body: `{"quantityDelta":10000}`}, field: "quantity"},
	{name: "delta that overflows", ask: ask{rpc: "UpdateItem", params: p{"itemId": "keep"}, body: `{"quantityDelta":9223372036854775807}`}, field: "quantity"},
	{name: "long item id", ask: ask{rpc: "RemoveItem", params: p{"itemId": long}}, field: "itemId"},
	{name: "conditions are a string", ask: raw("PutConditions", `{"conditions":"x"}`), field: "conditions"},
	{name: "a condition is a list", ask: ask{rpc: "PutCondition", params: p{"name": "vat"}, body: `{"condition":[1]}`}, field: "condition"},
	{name: "a condition of another name", ask: ask{rpc: "PutCondition", params: p{"name": "vat"}, body: `{"condition":{"name":"fee"}}`}, field: "condition.name"},
	{name: "long condition name", ask: ask{rpc: "RemoveCondition", params: p{"name": long}}, field: "name"},
	{name: "no value in envelope", ask: ask{rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{}`}, field: "value"},
	{name: "value twice the keys", ask: ask{rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":{"a":1,"a":2}}`}, field: "value.a"},
	{name: "value over 1 MiB", ask: ask{rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":` + large + `}`}, reason: "TOO_LARGE", field: "value"},
	{name: "long key", ask: ask{rpc: "PutMetadataValue", params: p{"key": long}, body: `{"value":1}`}, field: "key"},
	{name: "long key, read", ask: ask{rpc: "GetMetadataValue", params: p{"key": long}}, field: "key"},
	{name: "metadata is a number", ask: raw("PatchMetadata", `{"metadata":1}`), field: "metadata"},
	{name: "metadata with an empty key", ask: raw("PatchMetadata", `{"metadata":{"":1}}`), field: "metadata"},
	{name: "both are missing", ask: raw("PutCart", `{}`), field: "items"},
	{name: "one of both is bad", ask: raw("PutCart", `{"items":{"new":{}},"conditions":5}`), field: "conditions"},
	{name: "empty batch", ask: raw("Batch", `{"operations":[]}`), field: "operations"},
	{name: "too many operations", ask: raw("Batch", `{"operations":[`+strings.Repeat(`{"removeItem":{"id":"a"}},`, 1000)+`{"removeItem":{"id":"a"}}]}`), reason: "TOO_LARGE", field: "operations", only: "http"},
	{name: "the last operation is bad", ask: raw("Batch", `{"operations":[{"removeItem":{"id":"keep"}},{"addItem":{"item":{"id":"x","quantity":0}}}]}`), field: "operations[1].addItem.item.quantity"},
	{name: "the last operation fails", ask: raw("Batch", `{"operations":[{"removeItem":{"id":"keep"}},{"updateItem":{"id":"keep","item":{"n":1}}}]}`), reason: "NOT_FOUND", field: "keep"},
	{name: "operation without id", ask: raw("Batch", `{"operations":[{"removeItem":{}}]}`), field: "operations[0].removeItem.id"},
	{name: "swap to nobody", ask: raw("Swap", `{}`), field: "toIdentifier"},
	{name: "swap to NUL", ask: raw("Swap", `{"toIdentifier":"a\u0000"}`), field: "toIdentifier"},
	{name: "merge without strategy", ask: raw("Merge", `{"toIdentifier":"u2"}`), field: "strategy"},
	{name: "merge by a strategy that is none", ask: raw("Merge", `{"toIdentifier":"u2","strategy":"swap"}`), field: "strategy"},

	// Names and preconditions.
	{name: "empty identifier", ask: ask{rpc: "GetCart", params: p{"identifier": ""}}, field: "identifier"},
	{name: "long identifier", ask: ask{rpc: "Clear", params: p{"identifier": long}}, field: "identifier"},
	{name: "NUL in the identifier", ask: ask{rpc: "Clear", params: p{"identifier": "a\x00b"}}, field: "identifier"},
	{name: "no UTF-8 in the identifier", ask: ask{rpc: "Clear", params: p{"identifier": "\xFF"}}, field: "identifier", only: "http"},
	{name: "long instance", ask: ask{rpc: "ListInstances", params: p{"identifier": long}}, field: "identifier"},
	{name: "NUL in the instance", ask: ask{rpc: "Forget", params: p{"instance": "\x00"}}, field: "instance"},
	{name: "forget all of nobody", ask: ask{rpc: "ForgetAll", params: p{"identifier": ""}}, field: "identifier"},
	{name: "garbage for an etag", ask: ask{rpc: "Clear", ifMatch: "garbage"}, reason: "CONFLICT", field: "garbage", http: 412},
	{name: "etag of nowhere", ask: ask{rpc: "Clear", ifMatch: `"4f0c-1"`}, reason: "CONFLICT", field: "4f0c-1", http: 412},
	{name: "does not exist, but does", ask: ask{rpc: "Clear", ifNoneMatch: "*"}, reason: "CONFLICT", field: "there", http: 412},
	{name: "if none match of a change with an etag", ask: ask{rpc: "Clear", ifNoneMatch: `"a"`}, field: "If-None-Match"},

	// Lists.
	{name: "a page of 0", ask: ask{rpc: "ListCarts", params: p{"pageSize": "0"}}, field: "pageSize"},
	{name: "a page of -1", ask: ask{rpc: "ListCarts", params: p{"pageSize": "-1"}}, field: "pageSize"},
	{name: "a page of 1001", ask: ask{rpc: "ListCarts", params: p{"pageSize": "1001"}}, field: "pageSize"},
	{name: "a page of some", ask: ask{rpc: "ListCarts", params: p{"pageSize": "some"}}, field: "pageSize", only: "http"},
	{name: "a page of nothing", ask: ask{rpc: "ListCarts", params: p{"pageSize": ""}}, field: "pageSize", only: "http"},
	{name: "a page that is too long to count", ask: ask{rpc: "ListCarts", params: p{"pageSize": "4294967297"}}, field: "pageSize", only: "http"},
	{name: "idle in words", ask: ask{rpc: "ListCarts", params: p{"idleFor": "long"}}, field: "idleFor", only: "http"},
	{name: "idle for nothing", ask: ask{rpc: "ListCarts", params: p{"idleFor": ""}}, field: "idleFor", only: "http"},
	{name: "idle in the future", ask: ask{rpc: "ListCarts", params: p{"idleFor": "-1s"}}, field: "idleFor"},
	{name: "a token of nobody", ask: ask{rpc: "ListCarts", params: p{"pageToken": "AAAAAAAAAAAAAAAAAAAA"}}, field: "pageToken"},
	{name: "a token that is none", ask: ask{rpc: "ListCarts", params: p{"pageToken": "2"}}, field: "pageToken"},
	{name: "a precondition of a list", ask: ask{rpc: "ListCarts", header: http.Header{"If-Match": {"*"}}}, field: "If-Match", only: "http"},

	// Batches.
	{name: "conditions of a batch are a list", ask: raw("Batch", `{"operations":[{"clear":{}},{"putConditions":{"conditions":[1]}}]}`), field: "operations[1].putConditions.conditions"},
	{name: "no conditions in a batch", ask: raw("Batch", `{"operations":[{"putConditions":{}}]}`), field: "operations[0].putConditions.conditions"},
	{name: "no metadata in a batch", ask: raw("Batch", `{"operations":[{"patchMetadata":{}}]}`), field: "operations[0].patchMetadata.metadata"},
	{name: "a key of a batch that is long", ask: raw("Batch", `{"operations":[{"patchMetadata":{"metadata":{"`+long+`":1}}}]}`), field: "operations[0].patchMetadata.metadata"},
	{name: "count without a key", ask: raw("Batch", `{"operations":[{"incrementMetadata":{"by":1}}]}`), field: "operations[0].incrementMetadata.key"},
	{name: "count by half", ask: raw("Batch", `{"operations":[{"incrementMetadata":{"key":"n","by":0.5}}]}`), field: "operations[0].incrementMetadata.by", only: "http"},
	{name: "count what is text", ask: raw("Batch", `{"operations":[{"putMetadata":{"key":"n","value":"1"}},{"incrementMetadata":{"key":"n"}}]}`), field: `operations[1].metadata["n"]`},
	{name: "count too far", ask: raw("Batch", `{"operations":[{"clear":{}},{"incrementMetadata":{"key":"n","by":9223372036854775807}},{"incrementMetadata":{"key":"n"}}]}`), field: "operations[2].by"},
	{name: "something to clear by", ask: raw("Batch", `{"operations":[{"clear":{"items":true}}]}`), field: "operations[0].clear.items", only: "http"},
	{name: "nothing but a name", ask: raw("Batch", `{"operations":[{"clearMetadata":null}]}`), field: "operations[0].clearMetadata", only: "http"},

	// Leases.
	{name: "a part that is none", ask: raw("AcquireLease", `{"parts":["item"]}`), field: "parts[0]"},
	{name: "metadata as a whole", ask: raw("AcquireLease", `{"parts":["items","metadata"]}`), field: "parts[1]"},
	{name: "metadata without a key", ask: raw("AcquireLease", `{"parts":["metadata."]}`), field: "parts[0]"},
	{name: "a part twice", ask: raw("AcquireLease", `{"parts":["items","conditions","items"]}`), field: "parts[2]"},
	{name: "the whole and a part", ask: raw("AcquireLease", `{"parts":["items","*"]}`), field: "parts[1]"},
	{name: "65 parts", ask: raw("AcquireLease", `{"parts":["items"`+strings.Repeat(`,"items"`, 64)+`]}`), field: "parts"},
	{name: "a number for a part", ask: raw("AcquireLease", `{"parts":[1]}`), field: "parts[0]", only: "http"},
	{name: "a string for parts", ask: raw("AcquireLease", `{"parts":"items"}`), field: "parts", only: "http"},
	{name: "wait in words", ask: raw("AcquireLease", `{"waitTimeout":"soon"}`), field: "waitTimeout", only: "http"},
	{name: "wait as a number", ask: raw("AcquireLease", `{"waitTimeout":2}`), field: "waitTimeout", only: "http"},
	{name: "negative wait", ask: raw("AcquireLease", `{"waitTimeout":"-1s"}`), field: "waitTimeout"},
	{name: "wait over the request timeout", ask: raw("AcquireLease", `{"waitTimeout":"6001ms"}`), field: "waitTimeout"},
	{name: "no lease duration", ask: raw("AcquireLease", `{"leaseDuration":"0s"}`), field: "leaseDuration"},
	{name: "lease over an hour", ask: raw("AcquireLease", `{"leaseDuration":"1h1s"}`), field: "leaseDuration"},
	{name: "long holder", ask: raw("AcquireLease", `{"holder":"`+long+`"}`), field: "holder"},
	{name: "NUL in the holder", ask: raw("AcquireLease", `{"holder":"a\u0000"}`), field: "holder"},
	{name: "a token in the body", ask: raw("AcquireLease", `{"lease":"x"}`), field: "lease", only: "http"},
	{name: "acquire again what never was", ask: ask{rpc: "AcquireLease", lease: "nosuchtokennosuchtoken"}, reason: "NOT_FOUND", field: "lease"},
	{name: "renew over an hour", ask: ask{rpc: "RenewLease", params: p{"token": "x"}, body: `{"leaseDuration":"2h"}`}, field: "leaseDuration"},
	{name: "renew what never was", ask: ask{rpc: "RenewLease", params: p{"token": "nosuchtokennosuchtoken"}}, reason: "NOT_FOUND", field: "lease"},
	{name: "renew what is no token", ask: ask{rpc: "RenewLease", params: p{"token": "x"}}, reason: "NOT_FOUND", field: "lease"},
	{name: "long token", ask: ask{rpc: "GetLease", params: p{"token": long}}, field: "token"},
	{name: "look for what never was", ask: ask{rpc: "GetLease", params: p{"token": "nosuchtokennosuchtoken"}}, reason: "NOT_FOUND", field: "lease"},
	{name: "release what never was", ask: ask{rpc: "ReleaseLease", params: p{"token": "nosuchtokennosuchtoken"}}, reason: "NOT_FOUND", field: "lease"},
	{name: "no token", ask: ask{rpc: "ReleaseLease"}, field: "token", only: "grpc"},
	{name: "a change under what never was", ask: ask{rpc: "Clear", lease: "nosuchtokennosuchtoken"}, reason: "NOT_FOUND", field: "lease"},
	{name: "a change under what is no token", ask: ask{rpc: "Forget", lease: "x, y"}, reason: "NOT_FOUND", field: "lease"},
	{name: "a swap under what never was", ask: ask{rpc: "Swap", lease: "nosuchtokennosuchtoken", body: `{"toIdentifier":"u2"}`}, reason: "NOT_FOUND", field: "lease"},
	{name: "a swap onto itself under what never was", ask: ask{rpc: "Swap", lease: "nosuchtokennosuchtoken", body: `{"toIdentifier":"u1"}`}, reason: "NOT_FOUND", field: "lease"},
	{name: "release of nothing", ask: ask{rpc: "Clear", release: true}, field: "elease"},
	{name: "release neither", ask: ask{rpc: "Clear", lease: "x", header: http.Header{"Sidecart-Release": {"yes"}}}, field: "Sidecart-Release", only: "http"},
	{name: "release in a read", ask: ask{rpc: "GetCart", header: http.Header{"Sidecart-Release": {"true"}}}, field: "Sidecart-Release", only: "http"},
	{name: "a lease of many carts", ask: ask{rpc: "ForgetAll", header: http.Header{"Sidecart-Lease": {"x"}}}, field: "Sidecart-Lease", only: "http"},
	{name: "precondition of a lease", ask: ask{rpc: "AcquireLease", header: http.Header{"If-Match": {"*"}}}, field: "If-Match", only: "http"},
	{name: "empty etag", ask: ask{rpc: "PutItems", body: `{"items":{}}`, header: http.Header{"If-Match": {""}}}, field: "If-Match", only: "http"},
	{name: "only a comma", ask: ask{rpc: "AddItem", body: `{"item":{"id":"a"}}`, header: http.Header{"If-Match": {" , "}}}, field: "If-Match", only: "http"},
	{name: "one empty etag of two", ask: ask{rpc: "Clear", header: http.Header{"If-Match": {"*", ""}}}, field: "If-Match", only: "http"},
	{name: "empty If-None-Match", ask: ask{rpc: "Clear", header: http.Header{"If-None-Match": {""}}}, field: "If-None-Match", only: "http"},
	{name: "empty If-None-Match of a read", ask: ask{rpc: "GetCart", header: http.Header{"If-None-Match": {""}}}, field: "If-None-Match", only: "http"},
	{name: "empty If-Match of a read", ask: ask{rpc: "GetItems", header: http.Header{"If-Match": {""}}}, field: "If-Match", only: "http"},
	{name: "empty lease", ask: ask{rpc: "Clear", header: http.Header{"Sidecart-Lease": {""}}}, field: "Sidecart-Lease", only: "http"},
	{name: "two leases", ask: ask{rpc: "Clear", header: http.Header{"Sidecart-Lease": {"x", "y"}}}, field: "Sidecart-Lease", only: "http"},
	{name: "empty release", ask: ask{rpc: "Clear", lease: "x", header: http.Header{"Sidecart-Release": {" "}}}, field: "Sidecart-Release", only: "http"},
	{name: "two releases", ask: ask{rpc: "Clear", lease: "x", header: http.Header{"Sidecart-Release": {"true", "true"}}}, field: "Sidecart-Release", only: "http"},
	{name: "a lease of a read", ask: ask{rpc: "GetItems", header: http.Header{"Sidecart-Lease": {"x"}}}, field: "Sidecart-Lease", only: "http"},
	{name: "an empty lease of a read", ask: ask{rpc: "GetLease", params: p{"token": "x"}, header: http.Header{"Sidecart-Lease": {""}}}, field: "Sidecart-Lease", only: "http"},
	{name: "timeout without a number", ask: ask{rpc: "AddItem", body: `{"item":{"id":"a"}}`, header: http.Header{"Grpc-Timeout": {`"1n`}}}, field: "Grpc-Timeout", only: "http"},
	{name: "timeout below zero", ask: ask{rpc: "AddItem", body: `{"item":{"id":"a"}}`, header: http.Header{"Grpc-Timeout": {"-1S"}}}, field: "Grpc-Timeout", only: "http"},
	{name: "timeout without a unit, of a read", ask: ask{rpc: "GetCart", header: http.Header{"Grpc-Timeout": {"500"}}}, field: "Grpc-Timeout", only: "http"},
	{name: "long idempotency key", ask: ask{rpc: "AddItem", body: `{"item":{"id":"a"}}`, key: long}, field: "dempotency"},
	{name: "idempotency key with umlauts", ask: ask{rpc: "Clear", key: "bücher"}, field: "dempotency"},
	{name: "idempotency key of nothing", ask: ask{rpc: "Clear", key: `""`}, field: "dempotency"},
	{name: "idempotency key with a tab", ask: ask{rpc: "Forget", key: "a\tb"}, field: "dempotency"},
	{name: "two idempotency keys", ask: ask{rpc: "Clear", header: http.Header{"Idempotency-Key": {"k1", "k2"}}}, field: "Idempotency-Key", only: "http"},
	{name: "empty idempotency key", ask: ask{rpc: "Clear", header: http.Header{"Idempotency-Key": {""}}}, field: "Idempotency-Key", only: "http"},
	{name: "idempotency key of many carts", ask: ask{rpc: "ForgetAll", header: http.Header{"Idempotency-Key": {"k1"}}}, field: "Idempotency-Key", only: "http"},
	{name: "idempotency key of all carts", ask: ask{rpc: "Flush", header: http.Header{"Idempotency-Key": {"k1"}}}, field: "Idempotency-Key", only: "http"},
	{name: "idempotency key of a lease", ask: ask{rpc: "AcquireLease", header: http.Header{"Idempotency-Key": {"k1"}}}, field: "Idempotency-Key", only: "http"},
	{name: "idempotency key of a read", ask: ask{rpc: "GetCart", header: http.Header{"Idempotency-Key": {"k1"}}}, field: "Idempotency-Key", only: "http"},
	{name: "if unmodified since", ask: ask{rpc: "Clear", header: http.Header{"If-Unmodified-Since": {"Wed, 21 Oct 2026 07:28:00 GMT"}}}, field: "If-Unmodified-Since", only: "http"},
	{name: "if modified since", ask: ask{rpc: "Clear", header: http.Header{"If-Modified-Since": {"Wed, 21 Oct 2026 07:28:00 GMT"}}}, field: "If-Modified-Since", only: "http"},
	{name: "if range", ask: ask{rpc: "Clear", header: http.Header{"If-Range": {`"x"`}}}, field: "If-Range", only: "http"},
	{name: "content range", ask: ask{rpc: "PutItems", body: `{"items":{}}`, header: http.Header{"Content-Range": {"bytes 0-1/2"}}}, field: "Content-Range", only: "http"},
	{name: "precondition of a list", ask: ask{rpc: "ListInstances", header: http.Header{"If-Match": {"*"}}}, field: "If-Match", only: "http"},
	{name: "precondition of a look at a lease", ask: ask{rpc: "GetLease", params: p{"token": "x"}, header: http.Header{"If-None-Match": {"*"}}}, field: "If-None-Match", only: "http"},
	{name: "precondition of many carts", ask: ask{rpc: "ForgetAll", header: http.Header{"If-Match": {"*"}}}, field: "If-Match", only: "http"},
}

var reasonStatus = map[string]int{"INVALID": 400, "TOO_LARGE": 413, "NOT_FOUND": 404}

var reasonCode = map[string]int{"INVALID": 3, "TOO_LARGE": 3, "NOT_FOUND": 5, "CONFLICT": 10}

func TestBadInput(t *testing.T) {
	eachFront(t, func(t *testing.T, w *world, call func(ask) reply) {
		if r := call(raw("Batch", `{"operations":[{"addItem":{"item":{"id":"keep","quantity":5}}},{"putCondition":{"name":"vat","condition":{}}},{"putMetadata":{"key":"k","value":1}}]}`)); r.code != 0 {
			t.Fatal(r.message)
		}
		before := call(ask{rpc: "GetCart"}).body
		run := 0
		for _, row := range badRows {
			if row.only != "" && !strings.HasSuffix(t.Name(), row.only) {
				continue
			}
			run++
			got, want := call(row.ask), row.reason
			if want == "" {
				want = "INVALID"
			}
			if got.reason != want || int(got.code) != reasonCode[want] {
				t.Errorf("%s: got %d %s: %.200s; want %s", row.name, got.code, got.reason, got.message, want)
				continue
			}
			status := row.http
			if status == 0 {
				status = reasonStatus[want]
			}
			if got.http != 0 && got.http != status {
				t.Errorf("%s: status %d, want %d", row.name, got.http, status)
			}
			if !strings.Contains(got.message, row.field) {
				t.Errorf("%s: %q does not name %q", row.name, got.message, row.field)
			}
			if len(got.message) > 600 {
				t.Errorf("%s: a message of %d bytes", row.name, len(got.message))
			}
			if want == "INVALID" && !strings.Contains(got.meta["field"], strings.TrimPrefix(row.field, "field name")) {
				t.Errorf("%s: metadata names %q, not %q", row.name, got.meta["field"], row.field)
			}
			if after := call(ask{rpc: "GetCart"}).body; after != before {
				t.Fatalf("%s changed the cart:\n%s\n%s", row.name, before, after)
			}
		}
		if run < 60 {
			t.Errorf("only %d rows", run)
		}
	})
}

// What fits exactly is accepted.
func TestLimitsAreInclusive(t *testing.T) {
	largest := `"` + strings.Repeat("k", 1<<20-2) + `"`
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		for _, a := range []ask{
			items(manyItems(1000)),
			items(`{"a":{"quantity":10000}}`),
			items(`{"a":` + nested(63) + `}`),
			{rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":` + largest + `}`},
			{rpc: "PutMetadataValue", params: p{"identifier": long[:255], "instance": long[:255], "key": long[:255]}, body: `{"value":1}`},
			{rpc: "PutItems", body: `{"items":{}}`, header: typed("application/json; charset=UTF-8")},
			{rpc: "PutItems", body: " {\n\t\"\\u0069tems\" : [ ] }\r\n"},
		} {
			if r := call(a); r.code != 0 {
				t.Errorf("%s %.80s: %s", a.rpc, a.body, r.message)
			}
		}
	})
}

// rawBytes sends what is no message of the call.
type rawBytes struct{}

func (rawBytes) Name() string                  { return "proto" }
func (rawBytes) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawBytes) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

var _ encoding.Codec = rawBytes{}

func TestGRPCRequestThatCannotBeRead(t *testing.T) {
	w := start(t, realBackend(t))
	for name, text := range map[string]string{
		"no message":       "\xFF\xFF\xFF",
		"no UTF-8":         "\x0a\x02\xFF\xFE",
		"cut off":          "\x0a\x10abc",
		"wrong wire type":  "\x08",
		"field number 0":   "\x02\x01a",
		"unterminated int": "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
	} {
		in, out := []byte(text), []byte{}
		err := w.conn.Invoke(t.Context(), "/sidecart.v1.CartService/GetCart", &in, &out, grpc.ForceCodec(rawBytes{}))
		if r := failed(t, err); r.reason != "INVALID" || r.code != 3 || r.meta["field"] != "request" {
			t.Errorf("%s: got %d %s %v: %s", name, r.code, r.reason, r.meta, r.message)
		}
	}
}

// A body that never ends holds neither a connection nor memory for ever.
func TestBodyThatNeverEnds(t *testing.T) {
	b := realBackend(t)
	b.RequestTimeout = 50 * time.Millisecond
	w := start(t, b)
	t.Run("slow", func(t *testing.T) {
		began := time.Now()
		r := rawHTTP(t, w, "PUT /v1/carts/u1/default/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"items\":")
		if r.http != 408 || r.reason != "INVALID" || !strings.Contains(r.message, "body") {
			t.Errorf("got %d %s: %s", r.http, r.reason, r.message)
		}
		if took := time.Since(began); took < b.RequestTimeout || took > 10*time.Second {
			t.Errorf("after %s", took)
		}
	})
	t.Run("endless", func(t *testing.T) {
		r := rawHTTP(t, w, "PUT /v1/carts/u1/default/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+
			strings.Repeat("10000\r\n"+strings.Repeat(" ", 0x10000)+"\r\n", 40))
		if r.http != 413 || r.reason != "TOO_LARGE" {
			t.Errorf("got %d %s: %s", r.http, r.reason, r.message)
		}
	})
	t.Run("announced", func(t *testing.T) {
		r := rawHTTP(t, w, "PUT /v1/carts/u1/default/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{")
		if r.http != 413 || r.reason != "TOO_LARGE" {
			t.Errorf("got %d %s: %s", r.http, r.reason, r.message)
		}
	})
}
