package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidecart/sidecart/internal/cart"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

func TestEncode(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.FixedZone("", 3600)))
	for _, row := range []struct {
		m    proto.Message
		want string
	}{
		{&pb.Cart{}, `{"identifier":"","instance":"","id":"","version":0,"etag":"","createdAt":null,"updatedAt":null,"expiresAt":null}`},
		{&pb.Cart{Identifier: "é\"\\\n<☃", Version: 1<<64 - 1, Items: []byte(`{"a":19.90}`), ExpiresAt: at},
			`{"identifier":"é\"\\\n<☃","instance":"","id":"","version":18446744073709551615,"etag":"","items":{"a":19.90},"createdAt":null,"updatedAt":null,"expiresAt":"2026-01-02T02:04:05.678Z"}`},
		{&pb.Cart{CreatedAt: timestamppb.New(time.Unix(0, 0))}, `{"identifier":"","instance":"","id":"","version":0,"etag":"","createdAt":"1970-01-01T00:00:00.000Z","updatedAt":null,"expiresAt":null}`},
		{&pb.Instances{Identifier: "u", Instances: []string{"a", "b"}}, `{"identifier":"u","instances":["a","b"]}`},
		{&pb.Instances{}, `{"identifier":"","instances":[]}`},
		{&pb.SwapResponse{}, `{"swapped":false,"cart":null}`},
		{&pb.FlushResponse{}, `{}`},
		{&pb.ForgetAllResponse{Forgotten: -1}, `{"forgotten":-1}`},
	} {
		got, err := appendMessage(nil, row.m.ProtoReflect())
		if err != nil || string(got) != row.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, row.want)
		}
	}
}

// Every field that comes in the path is marked as such: otherwise a body could name another cart than the path does,
// and be believed.
func TestPathFieldsAreOutsideOfBodies(t *testing.T) {
	methods := pb.File_sidecart_v1_service_proto.Services().ByName("CartService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		_, path := route(m)
		for name := range strings.SplitSeq(path, "{") {
			name, _, ok := strings.Cut(name, "}")
			if !ok {
				continue
			}
			f := m.Input().Fields().ByTextName(name)
			if f == nil || !proto.GetExtension(f.Options(), pb.E_OutsideBody).(bool) {
				t.Errorf("%s: %s is not marked", m.Name(), name)
			}
		}
		for _, name := range []string{"if_match", "if_none_match", "lease", "release"} {
			if f := m.Input().Fields().ByTextName(name); f != nil && !proto.GetExtension(f.Options(), pb.E_OutsideBody).(bool) {
				t.Errorf("%s: %s is not marked", m.Name(), name)
			}
		}
	}
}

func FuzzHTTPDecode(f *testing.F) {
	for _, row := range badRows {
		if len(row.ask.body) < 4096 {
			f.Add([]byte(row.ask.body))
		}
	}
	for _, row := range script {
		f.Add([]byte(row.ask.body))
	}
	f.Add([]byte(`{"operations":[{"putConditions":{"conditions":A}}]}`)) // a broken document inside of an operation
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, m := range []proto.Message{&pb.BatchRequest{}, &pb.PutCartRequest{}, &pb.UpdateItemRequest{}, &pb.MergeRequest{}, &pb.ClearRequest{}} {
			err := decodeBody(text, m.ProtoReflect())
			switch {
			case errors.Is(err, io.EOF):
				if len(bytes.TrimSpace(text)) != 0 {
					t.Fatalf("%q passes for empty", text)
				}
			case err != nil:
				var bad *cart.InvalidError
				if !errors.As(err, &bad) || bad.Problem == "" {
					t.Fatalf("%q: %v is no error for clients", text, err)
				}
			default:
				checkDecoded(t, text, m)
			}
		}
	})
}

// checkDecoded compares what was decoded with what encoding/json finds in the text, as far as its documents are JSON.
func checkDecoded(t *testing.T, text []byte, m proto.Message) {
	t.Helper()
	if !json.Valid(text) {
		// Then a document is what is broken, and whoever reads it must see that.
		if _, err := cart.ParseObject("x", text); err == nil {
			t.Fatalf("%q is JSON to one and not to the other", text)
		}
		if !brokenDocument(m.ProtoReflect()) {
			t.Fatalf("%q was decoded as %s", text, protojson.Format(m))
		}
		return
	}
	again, err := appendMessage(nil, m.ProtoReflect())
	if err != nil || !json.Valid(again) {
		t.Fatalf("%q became %q, %v", text, again, err)
	}
	if c, ok := m.(*pb.PutCartRequest); ok {
		var want struct{ Items, Conditions json.RawMessage }
		if err := json.Unmarshal(text, &want); err == nil && (!bytes.Equal(want.Items, c.Items) || !bytes.Equal(want.Conditions, c.Conditions)) {
			t.Fatalf("%q was decoded as %q and %q", text, c.Items, c.Conditions)
		}
	}
}

// brokenDocument reports whether a document somewhere in m is not JSON.
func brokenDocument(m protoreflect.Message) (broken bool) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() == protoreflect.BytesKind: // no body has other bytes than documents
			broken = !json.Valid(v.Bytes())
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				broken = broken || brokenDocument(v.List().Get(i).Message())
			}
		case f.Message() != nil:
			broken = brokenDocument(v.Message())
		}
		return !broken
	})
	return broken
}
