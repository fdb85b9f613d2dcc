package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
)

// Headers of the answer to a request that was made before. Over gRPC they are metadata, in lower case.
const (
	headerReplayed = "Idempotency-Replayed"
	headerChange   = "Sidecart-Change-Version"
)

// maxKeyBytes is the longest idempotency key.
const maxKeyBytes = 255

// requestOf reads the idempotency key of a change, from the header or the message. Double quotes around it, as in the
// IETF's draft of the header, are not part of it.
func requestOf(ctx context.Context, r changing) (lock.Request, error) {
	field, key := keyField(ctx), r.GetIdempotencyKey()
	h := httpCallOf(ctx)
	if h != nil {
		key = h.key
	}
	if key == "" {
		return lock.Request{}, nil
	}
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = key[1 : n-1]
	}
	switch printable := strings.IndexFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) < 0; {
	case key == "":
		return lock.Request{}, cart.Invalidf(field, "is empty: leave it out, or give 1 to %d printable ASCII characters", maxKeyBytes)
	case len(key) > maxKeyBytes:
		return lock.Request{}, cart.Invalidf(field, "is %d bytes long, at most %d are allowed", len(key), maxKeyBytes)
	case !printable:
		return lock.Request{}, cart.Invalidf(field, "must be printable ASCII characters: a UUID, for example")
	}
	sum, err := sumOf(CallOf(ctx), r, h)
	return lock.Request{Key: key, Sum: sum}, err
}

// keyField names the field in which a call has its idempotency key.
func keyField(ctx context.Context) string {
	if httpCallOf(ctx) != nil {
		return headerKey
	}
	return "idempotencyKey"
}

// sumOf distinguishes requests by call, cart, body and preconditions. White space between the values of a document does
// not count. Nor do the front, the lease, and how much of the answer the client wants.
func sumOf(method string, r changing, h *httpCall) (sum cart.Sum, err error) {
	m := proto.CloneOf[proto.Message](r.(proto.Message)).ProtoReflect()
	for _, name := range []protoreflect.Name{"lease", "release", "minimal", "idempotency_key"} {
		m.Clear(m.Descriptor().Fields().ByName(name))
	}
	if h != nil {
		for name, value := range map[protoreflect.Name]string{"if_match": h.ifMatch, "if_none_match": h.ifNoneMatch} {
			m.Set(m.Descriptor().Fields().ByName(name), protoreflect.ValueOfString(value))
		}
	}
	compact(m)
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte(method+"\n"), m.Interface())
	if err != nil {
		return sum, err
	}
	all := sha256.Sum256(b)
	copy(sum[:], all[:])
	return sum, nil
}

// compact removes the white space in the documents of a message, and of the messages in it. Text that is no JSON stays
// as it is: the request will be refused.
func compact(m protoreflect.Message) {
	for _, f := range shapeOf(m.Descriptor()).fields {
		switch {
		case f.doc:
			var b bytes.Buffer
			if text := m.Get(f.desc).Bytes(); len(text) > 0 && json.Compact(&b, text) == nil {
				m.Set(f.desc, protoreflect.ValueOfBytes(b.Bytes()))
			}
		case f.desc.Message() == nil || !m.Has(f.desc):
		case f.desc.IsList():
			list := m.Get(f.desc).List()
			for i := range list.Len() {
				compact(list.Get(i).Message())
			}
		default:
			compact(m.Get(f.desc).Message())
		}
	}
}

// tellRepeat says in the headers of the answer that the request was made before.
func tellRepeat(ctx context.Context, repeat lock.Repeat) {
	if repeat == (lock.Repeat{}) {
		return
	}
	if h := httpCallOf(ctx); h != nil {
		h.repeat = repeat
		return
	}
	_ = grpc.SetHeader(ctx, metadata.MD{
		strings.ToLower(headerReplayed): {"true"},
		strings.ToLower(headerChange):   {strconv.FormatUint(repeat.Version, 10)},
	})
}

// setReplayed puts what a handler said about a repeat into the headers of HTTP.
func setReplayed(h http.Header, c *httpCall) {
	if c == nil || c.repeat == (lock.Repeat{}) {
		return
	}
	h.Set(headerReplayed, "true")
	h.Set(headerChange, strconv.FormatUint(c.repeat.Version, 10))
}
