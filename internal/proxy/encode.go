package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// timeLayout is RFC 3339 to the millisecond, in UTC.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// shape is what the codec knows of a message type.
type shape struct {
	fields []*field
	byName map[string]*field // those that a body may have
	known  string            // their names, for errors
	oneof  bool              // exactly one of the fields must be there
}

// field is one field of a message.
type field struct {
	desc protoreflect.FieldDescriptor
	name string // as in JSON
	doc  bool   // a bytes field that holds JSON
}

var shapes sync.Map // protoreflect.FullName to *shape

func shapeOf(d protoreflect.MessageDescriptor) *shape {
	if s, ok := shapes.Load(d.FullName()); ok {
		return s.(*shape)
	}
	s := &shape{byName: map[string]*field{}, oneof: d.Oneofs().Len() > 0 && !d.Oneofs().Get(0).IsSynthetic()}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := &field{desc: fd, name: fd.JSONName(), doc: proto.GetExtension(fd.Options(), pb.E_Json).(bool)}
		s.fields = append(s.fields, f)
		if proto.GetExtension(fd.Options(), pb.E_OutsideBody).(bool) {
			continue
		}
		s.byName[f.name] = f
		if s.known != "" {
			s.known += ", "
		}
		s.known += strconv.Quote(f.name)
	}
	v, _ := shapes.LoadOrStore(d.FullName(), s)
	return v.(*shape)
}

// appendMessage appends a message as JSON: every field in the order of the .proto file, documents inlined, times to the
// millisecond. An unset field has its zero value; an unset message is null. A document that is missing was left out: an
// empty document is {}.
func appendMessage(b []byte, m protoreflect.Message) ([]byte, error) {
	var err error
	b = append(b, '{')
	for _, f := range shapeOf(m.Descriptor()).fields {
		v := m.Get(f.desc)
		if f.doc && len(v.Bytes()) == 0 {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(appendString(b, f.name), ':')
		switch {
		case f.doc:
			b = append(b, v.Bytes()...)
		case f.desc.IsList():
			b, err = appendList(b, f.desc, v.List())
		case f.desc.Message() != nil && !m.Has(f.desc):
			b = append(b, "null"...)
		default:
			b, err = appendValue(b, f.desc, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendList(b []byte, fd protoreflect.FieldDescriptor, l protoreflect.List) ([]byte, error) {
	var err error
	b = append(b, '[')
	for i := range l.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, fd, l.Get(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendValue(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return appendString(b, v.String()), nil
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool()), nil
	case protoreflect.Uint64Kind:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case protoreflect.Int64Kind:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case protoreflect.MessageKind:
		if t, ok := v.Message().Interface().(*timestamppb.Timestamp); ok {
			return appendTime(b, t.AsTime()), nil
		}
		return appendMessage(b, v.Message())
	}
	return nil, fmt.Errorf("field %s has a kind that the codec does not know: %s", fd.FullName(), fd.Kind())
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, timeLayout)
	return append(b, '"')
}

// appendString appends s as a JSON string; nearly all are plain ASCII.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			var buf bytes.Buffer
			e := json.NewEncoder(&buf)
			e.SetEscapeHTML(false)
			_ = e.Encode(s) // a string always encodes
			return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
