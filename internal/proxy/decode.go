package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecart/sidecart/internal/cart"
)

// bodyField is the path of the body as a whole in errors.
const bodyField = "body"

// decoder reads an envelope: the part of a body around its documents. Of a document it finds only the beginning and the
// end. The code that reads the document checks, once, that it is strict JSON.
type decoder struct {
	text []byte
	at   int
}

// decodeBody reads a whole body into m. For an empty body it returns io.EOF, which the gateway treats as an envelope
// without fields.
func decodeBody(text []byte, m protoreflect.Message) error {
	d := &decoder{text: text}
	if d.space(); d.at == len(text) {
		return io.EOF
	}
	if err := d.message("", m); err != nil {
		return err
	}
	if d.space(); d.at < len(text) {
		return cart.Invalidf(bodyField, "must end after the JSON object: there is more at offset %d", d.at)
	}
	return nil
}

// message reads an object into m; path is where it stands, "" for the body.
func (d *decoder) message(path string, m protoreflect.Message) error {
	s := shapeOf(m.Descriptor())
	if d.space(); d.peek() != '{' {
		return d.wrongType(path, "an object")
	}
	d.at++
	n := 0
	seen := make(map[string]bool, len(s.byName))
	if d.space(); d.peek() == '}' {
		d.at++
	} else {
		for {
			name, err := d.key(path)
			if err != nil {
				return err
			}
			where := join(path, name)
			f := s.byName[name]
			switch {
			case f == nil && s.known == "":
				return cart.Invalidf(where, "unknown field; none is known here")
			case f == nil:
				return cart.Invalidf(where, "unknown field; known are %s", s.known)
			case seen[name]:
				return cart.Invalidf(where, "is there twice")
			}
			seen[name] = true
			if err := d.field(where, f, m); err != nil {
				return err
			}
			n++
			more, err := d.more(path, '}')
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
	}
	if s.oneof && n != 1 {
		return cart.Invalidf(path, "has %d fields; exactly one is needed of %s", n, s.known)
	}
	return nil
}

func (d *decoder) field(path string, f *field, m protoreflect.Message) error {
	d.space()
	switch {
	case f.doc:
		raw, err := d.raw(path)
		if err != nil {
			return err
		}
		m.Set(f.desc, protoreflect.ValueOfBytes(raw))
		return nil
	case f.desc.IsList():
		return d.list(path, f.desc.Kind(), m.Mutable(f.desc).List())
	case f.desc.Message() != nil && f.desc.Message().FullName() == durationName:
		return d.duration(path, f.desc, m)
	case f.desc.Kind() == protoreflect.MessageKind:
		return d.message(path, m.Mutable(f.desc).Message())
	case f.desc.Kind() == protoreflect.StringKind:
		s, err := d.quoted(path)
		if err != nil {
			return err
		}
		m.Set(f.desc, protoreflect.ValueOfString(s))
		return nil
	case f.desc.Kind() == protoreflect.Int64Kind:
		return d.integer(path, f.desc, m)
	}
	return fmt.Errorf("field %s has a kind that the codec does not know: %s", f.desc.FullName(), f.desc.Kind())
}

// quoted reads a string where nothing else may stand.
func (d *decoder) quoted(path string) (string, error) {
	if d.peek() != '"' {
		return "", d.wrongType(path, "a string")
	}
	return d.str(path)
}

var durationName = (*durationpb.Duration)(nil).ProtoReflect().Descriptor().FullName()

// duration reads a duration as Go writes it: "1.5s" or "500ms". That includes protobuf's form.
func (d *decoder) duration(path string, fd protoreflect.FieldDescriptor, m protoreflect.Message) error {
	if d.peek() != '"' {
		return d.wrongType(path, `a duration such as "2s" or "500ms"`)
	}
	s, err := d.str(path)
	if err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return cart.Invalidf(path, `must be a duration such as "2s" or "500ms", not %q`, shown([]byte(s)))
	}
	m.Set(fd, protoreflect.ValueOfMessage(durationpb.New(v).ProtoReflect()))
	return nil
}

// list reads an array of messages or strings.
func (d *decoder) list(path string, kind protoreflect.Kind, l protoreflect.List) error {
	if d.peek() != '[' {
		return d.wrongType(path, "an array")
	}
	d.at++
	if d.space(); d.peek() == ']' {
		d.at++
		return nil
	}
	for i := 0; ; i++ {
		where := path + "[" + strconv.Itoa(i) + "]"
		if kind == protoreflect.MessageKind && i == maxOperations { // the only list of messages in a body
			return d.surplus(path, i)
		}
		if kind == protoreflect.StringKind {
			d.space()
			s, err := d.quoted(where)
			if err != nil {
				return err
			}
			l.Append(protoreflect.ValueOfString(s))
		} else if err := d.message(where, l.AppendMutable().Message()); err != nil {
			return err
		}
		if more, err := d.more(path, ']'); err != nil || !more {
			return err
		}
	}
}

// surplus counts the elements of a list from the one at i, which are over the limit, without decoding them.
func (d *decoder) surplus(path string, i int) error {
	for n := i + 1; ; n++ {
		d.space()
		if _, err := d.raw(path); err != nil {
			return err
		}
		if more, err := d.more(path, ']'); err != nil {
			return err
		} else if !more {
			return tooManyOperations(path, n)
		}
	}
}

func (d *decoder) integer(path string, fd protoreflect.FieldDescriptor, m protoreflect.Message) error {
	start := d.at
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		return d.wrongType(path, "a whole number")
	}
	raw, err := d.raw(path)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || !json.Valid(raw) {
		d.at = start
		return cart.Invalidf(path, "must be a whole number of 64 bits, not %s", shown(raw))
	}
	m.Set(fd, protoreflect.ValueOfInt64(n))
	return nil
}

// key reads a member's name and the colon after it.
func (d *decoder) key(path string) (string, error) {
	if d.space(); d.peek() != '"' {
		return "", d.syntax("a field name in quotes")
	}
	name, err := d.str(join(path, "(a field name)"))
	if err != nil {
		return "", err
	}
	if d.space(); d.peek() != ':' {
		return "", d.syntax("a colon")
	}
	d.at++
	return name, nil
}

// more reads what follows a member or element: a comma, or the end.
func (d *decoder) more(path string, end byte) (bool, error) {
	d.space()
	switch d.peek() {
	case ',':
		d.at++
		return true, nil
	case end:
		d.at++
		return false, nil
	}
	return false, d.syntax("a comma or " + string(end))
}

// str reads a string strictly: valid UTF-8 and no half of a surrogate pair.
func (d *decoder) str(path string) (string, error) {
	start := d.at
	end, ok := skipString(d.text, d.at)
	if !ok {
		return "", d.early()
	}
	raw := d.text[start:end]
	d.at = end
	if !utf8.Valid(raw) {
		return "", cart.Invalidf(path, "is not valid UTF-8")
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		d.at = start
		return "", d.syntax("a string without control characters and with valid escapes")
	}
	// encoding/json writes U+FFFD for half of a surrogate pair. Any other U+FFFD was in the text, plain or escaped.
	if n := strings.Count(s, "\uFFFD"); n > 0 {
		lower := bytes.ToLower(raw)
		if n > bytes.Count(raw, []byte("\uFFFD"))+bytes.Count(lower, []byte(`\ufffd`)) {
			return "", cart.Invalidf(path, "has half of a surrogate pair: write a whole character")
		}
	}
	return s, nil
}

// raw finds the end of one value without decoding it. It does not recurse, so any depth is safe.
func (d *decoder) raw(path string) ([]byte, error) {
	start, depth := d.at, 0
scan:
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case '"':
			end, ok := skipString(d.text, d.at)
			if !ok {
				return nil, d.early()
			}
			if d.at = end; depth == 0 {
				break scan
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				break scan
			}
			if depth--; depth == 0 {
				d.at++
				break scan
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				break scan
			}
		}
		d.at++
	}
	switch {
	case depth > 0 || d.at == len(d.text):
		return nil, d.early()
	case d.at == start:
		return nil, cart.Invalidf(path, "must have a value: found %q at offset %d", d.text[d.at], d.at)
	}
	return d.text[start:d.at:d.at], nil
}

// skipString returns where the string that opens at i ends.
func skipString(text []byte, i int) (end int, ok bool) {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i + 1, true
		case '\\':
			i++
		}
	}
	return 0, false
}

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return
		}
	}
}

// peek is the next byte; 0, which no JSON has outside of a string, at the end.
func (d *decoder) peek() byte {
	if d.at == len(d.text) {
		return 0
	}
	return d.text[d.at]
}

func (d *decoder) syntax(wanted string) error {
	if d.at >= len(d.text) {
		return d.early()
	}
	r, _ := utf8.DecodeRune(d.text[d.at:])
	return cart.Invalidf(bodyField, "is not valid JSON: found %q at offset %d, where %s belongs", r, d.at, wanted)
}

func (d *decoder) early() error {
	return cart.Invalidf(bodyField, "is not valid JSON: it ends too early, at offset %d", len(d.text))
}

// wrongType is the error for a value of the wrong type.
func (d *decoder) wrongType(path, wanted string) error {
	if path == "" {
		path = bodyField
	}
	found := ""
	switch c := d.peek(); {
	case c == 0:
		return d.early()
	case c == '{':
		found = "an object"
	case c == '[':
		found = "an array"
	case c == '"':
		found = "a string"
	case c == 't', c == 'f':
		found = "a boolean"
	case c == 'n':
		found = "null"
	case c == '-', c >= '0' && c <= '9':
		found = "a number"
	default:
		return d.syntax(wanted)
	}
	return cart.Invalidf(path, "must be %s, not %s", wanted, found)
}

// join is the path of a member of the object at path.
func join(path, name string) string {
	name = shown([]byte(name))
	if path == "" {
		return name
	}
	return path + "." + name
}

// shown is a client's text, short enough and printable for an error.
func shown(text []byte) string {
	const most = 64
	if len(text) > most {
		text = append(bytes.Clone(text[:most]), "…"...)
	}
	quoted := strconv.Quote(string(bytes.ToValidUTF8(text, []byte("�"))))
	return quoted[1 : len(quoted)-1]
}
