package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// fields are the leaves of a document by their paths, none of them "". Text and numbers are told apart by quotes.
type fields map[string]string

// parse reads a value: nothing, JSON, or what PHP's serialize writes. ok is false for anything else.
func parse(value []byte) (f fields, ok bool) {
	f = fields{}
	if value == nil {
		return f, true
	}
	document, ok := decode(value)
	if !ok {
		return nil, false
	}
	f.add("", document)
	return f, true
}

func decode(value []byte) (any, bool) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err == nil && !decoder.More() {
		if text, ok := document.(string); ok { // a document within a string, as some libraries write it
			if inner, ok := decode([]byte(text)); ok {
				return inner, true
			}
		}
		return document, true
	}
	p := php{rest: string(value)}
	document = p.value(0)
	if p.bad || p.rest != "" {
		return nil, false
	}
	if text, ok := document.(string); ok {
		if inner, ok := decode([]byte(text)); ok {
			return inner, true
		}
	}
	return document, true
}

// add adds the contents of v under its path. The path of a list's element is not its position but what it is: its id,
// if it has one.
func (f fields) add(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			f.add(path+"/"+name, inner)
		}
	case []any:
		times := map[string]int{}
		for _, inner := range v {
			name := nameOf(inner)
			if times[name]++; times[name] > 1 {
				name = fmt.Sprintf("%s (%d)", name, times[name])
			}
			f[path+"/"+name] = "listed"
			f.add(path+"/"+name, inner)
		}
	case string:
		f[path] = strconv.Quote(v)
	default:
		f[path] = fmt.Sprint(v)
	}
}

// ids are the fields by which an item of a list is known, the likeliest first.
var ids = []string{"id", "sku", "item_id", "itemId", "product_id", "productId", "rowId", "key", "name"}

func nameOf(v any) string {
	if m, ok := v.(map[string]any); ok {
		for _, id := range ids {
			switch id := m[id].(type) {
			case string:
				return id
			case json.Number:
				return id.String()
			}
		}
	}
	text, _ := json.Marshal(v) // of what was just parsed; keys are sorted
	return string(text)
}

// php reads the format of PHP's serialize.
type php struct {
	rest string
	bad  bool
}

// maxDepth bounds how deep documents may be.
const maxDepth = 64

// value reads one value. Arrays and objects become maps, with the names of private fields as they are.
func (p *php) value(depth int) any {
	kind := p.until(1)
	switch kind {
	case "N":
		p.expect(";")
		return nil
	case "i", "d", "r", "R", "b":
		p.expect(":")
		return json.Number(p.upTo(";"))
	case "s":
		p.expect(":")
		s := p.text()
		p.expect(";")
		return s
	case "a", "O":
		p.expect(":")
		if kind == "O" {
			p.text() // the class
			p.expect(":")
		}
		n, err := strconv.Atoi(p.upTo(":"))
		p.expect("{")
		if err != nil || depth > maxDepth {
			p.bad = true
		}
		m := map[string]any{}
		for ; n > 0 && !p.bad; n-- {
			name := fmt.Sprint(p.value(depth + 1))
			m[name] = p.value(depth + 1)
		}
		p.expect("}")
		return m
	}
	p.bad = true
	return nil
}

// text reads a length and as many bytes in quotes.
func (p *php) text() string {
	n, err := strconv.Atoi(p.upTo(":"))
	p.expect(`"`)
	if err != nil || n < 0 || n > len(p.rest) {
		p.bad = true
		return ""
	}
	s := p.until(n)
	p.expect(`"`)
	return s
}

func (p *php) until(n int) string {
	if n > len(p.rest) {
		p.bad = true
		return ""
	}
	s := p.rest[:n]
	p.rest = p.rest[n:]
	return s
}

func (p *php) upTo(end string) string {
	s, rest, ok := strings.Cut(p.rest, end)
	if !ok {
		p.bad = true
		return ""
	}
	p.rest = rest
	return s
}

func (p *php) expect(s string) {
	if p.until(len(s)) != s {
		p.bad = true
	}
}
