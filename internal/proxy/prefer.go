package proxy

import (
	"context"
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

// Headers of answers. Over gRPC the first two are metadata, in lower case.
const (
	headerCartID  = "Sidecart-Cart-Id"
	headerVersion = "Sidecart-Version"
	headerApplied = "Preference-Applied"

	metadataCartID  = "sidecart-cart-id"
	metadataVersion = "sidecart-version"
)

// identity says which cart an answer is about, as it is after the call.
type identity struct {
	id      string // "" for a cart that is not there
	version uint64
}

// tell puts the cart's identity into the headers of the answer.
func tell(ctx context.Context, c *cart.Cart) {
	if h := httpCallOf(ctx); h != nil {
		h.about = &identity{c.ID, c.Version}
		return
	}
	md := metadata.MD{metadataVersion: {strconv.FormatUint(c.Version, 10)}}
	if c.ID != "" {
		md[metadataCartID] = []string{c.ID}
	}
	_ = grpc.SetHeader(ctx, md) // it fails only if the headers were sent, or in a test without a connection
}

// setIdentity puts the cart's identity, as the handler told it, into the headers of HTTP.
func setIdentity(h http.Header, c *httpCall) {
	if c == nil || c.about == nil {
		return
	}
	if c.about.id != "" {
		h.Set(headerCartID, c.about.id)
	}
	h.Set(headerVersion, strconv.FormatUint(c.about.version, 10))
}

// answered finishes the answer to a change. It says which cart the answer is about and whether the change was made
// before. It leaves the documents out if the client asks for that.
func answered[R proto.Message](ctx context.Context, r changing, res lock.Result, answer R) R {
	tell(ctx, res.Cart)
	tellRepeat(ctx, res.Repeat)
	minimal := r.GetMinimal()
	if h := httpCallOf(ctx); h != nil {
		minimal, h.applied = h.minimal, h.minimal
	}
	if minimal {
		leaveOut(answer.ProtoReflect())
	}
	return answer
}

// leaveOut clears the documents of a message and of the messages in it.
func leaveOut(m protoreflect.Message) {
	for _, f := range shapeOf(m.Descriptor()).fields {
		switch {
		case f.doc:
			m.Clear(f.desc)
		case f.desc.Message() != nil && !f.desc.IsList() && m.Has(f.desc):
			leaveOut(m.Get(f.desc).Message())
		}
	}
}

// prefersMinimal reads Prefer by RFC 7240: it ignores preferences that are unknown or have no value. A client that asks
// for both return=minimal and return=representation gets the default.
func prefersMinimal(values []string) bool {
	minimal, whole := false, false
	for rest := strings.Join(values, ","); rest != ""; {
		var preference string
		preference, rest = cutUnquoted(rest, ',')
		preference, _ = cutUnquoted(preference, ';') // parameters follow
		name, value, _ := strings.Cut(preference, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "return") {
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"`)
		minimal = minimal || strings.EqualFold(value, "minimal")
		whole = whole || strings.EqualFold(value, "representation")
	}
	return minimal && !whole
}

// cutUnquoted returns the text before and after the first separator outside quotes.
func cutUnquoted(text string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}
