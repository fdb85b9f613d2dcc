package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes is far more than any configuration has, and little enough to parse.
const maxFileBytes = 1 << 20

// decoder reads YAML into a Config more strictly than the library does. It goes on after a problem, and knows the path
// of each.
type decoder struct {
	problems Problems
	given    map[string]bool // paths that the file sets
}

func (d *decoder) problem(path, format string, args ...any) {
	d.problems = append(d.problems, Problem{path, fmt.Sprintf(format, args...)})
}

// file decodes a whole file into c.
func (d *decoder) file(data []byte, c *Config) {
	root, ok := d.parse(data)
	if !ok {
		return
	}
	if root.Kind != yaml.MappingNode {
		// It may be a secret file that was named by mistake, so the error quotes nothing of it.
		d.problem("file", "is %s, not a mapping of fields: see apiVersion %s", kindOf(root), APIVersion)
		return
	}
	v := reflect.ValueOf(c).Elem()
	if !knowsAny(root, v) {
		// A secret file such as "user:password" is a mapping too.
		d.problem("file", "has no field of a %s: see apiVersion %s", Kind, APIVersion)
		return
	}
	d.mapping(root, v, "")
}

// knowsAny reports whether a mapping has any of the keys of v.
func knowsAny(n *yaml.Node, v reflect.Value) bool {
	for i := 0; i < len(n.Content); i += 2 {
		if _, ok := fieldNamed(v, n.Content[i].Value); ok {
			return true
		}
	}
	return false
}

var yamlLine = regexp.MustCompile(`^yaml: (line \d+): (.*)$`)

// parse returns the root of the one document in data.
func (d *decoder) parse(data []byte) (*yaml.Node, bool) {
	if len(data) > maxFileBytes {
		d.problem("file", "is %d bytes long, at most %d are allowed", len(data), maxFileBytes)
		return nil, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		d.problem("file", "is empty: it must hold at least apiVersion and kind")
		return nil, false
	}
	if err == nil {
		if err = dec.Decode(&more); err == nil {
			d.problem("file", "holds more than one document")
			return nil, false
		}
		if errors.Is(err, io.EOF) {
			return doc.Content[0], true
		}
	}
	where, what := "file", strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		where, what = m[1], m[2]
	}
	if strings.HasPrefix(what, "unknown anchor") { // the library's text quotes the file, which may be a secret one
		what = "uses a YAML alias, which is not supported: write the value out"
	}
	d.problem(where, "%s", what)
	return nil, false
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.problem(orFile(path), "has a key that is %s, not a name (line %d)", describe(k), k.Line)
			continue
		}
		at := join(path, k.Value)
		if seen[k.Value] {
			d.problem(at, "is there twice (line %d)", k.Line)
			continue
		}
		seen[k.Value] = true
		f, ok := fieldNamed(v, k.Value)
		if !ok {
			d.problem(at, "unknown field")
			continue
		}
		d.value(value, f, at)
	}
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.problem(path, "uses a YAML anchor or alias, which are not supported: write the value out")
		return
	case n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode:
		return // null counts as an absent field
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, v.Elem(), path)
		return
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			d.problem(path, "must be a mapping of fields, is %s", describe(n))
			return
		}
		if v.Type() == reflect.TypeFor[Backend]() {
			v.SetZero() // a backend in the file replaces the default as a whole
		}
		d.given[path] = true
		d.mapping(n, v, path)
		return
	case reflect.Slice:
		d.list(n, v, path)
		return
	}
	d.given[path] = true
	d.scalar(n, v, path)
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.problem(path, "must be a list, is %s", describe(n))
		return
	}
	d.given[path] = true
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, e := range n.Content {
		d.value(e, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

// scalar sets a string, number, boolean or duration, each only from its own YAML type. A TTL of 86400 or a prefix of
// 007 is reported as a mistake.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	want, tags := "a string", "!!str !!timestamp" // 2026-01-02 is a string here
	switch v.Kind() {
	case reflect.Bool:
		want, tags = "true or false", "!!bool"
	case reflect.Int, reflect.Int64:
		want, tags = "a whole number", "!!int"
		if v.Type() == reflect.TypeFor[Duration]() {
			want, tags = "a duration such as 30s", "!!str"
			if n.Kind == yaml.ScalarNode && n.Value == "0" {
				tags += " !!int"
			}
		}
	}
	if n.Kind != yaml.ScalarNode || !strings.Contains(tags, n.ShortTag()) {
		d.problem(path, "must be %s, is %s", want, describe(n))
		return
	}
	if err := setText(v, n.Value); err != nil {
		d.problem(path, "%s", err)
	}
}

// setText sets v from text. The error says what would be right.
func setText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.Bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return fmt.Errorf("%q is no boolean: write true or false", text)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, 64)
		if errors.Is(err, strconv.ErrRange) || err == nil && (i > math.MaxInt || i < math.MinInt) {
			return fmt.Errorf("%s is out of range", text)
		}
		if err != nil {
			return fmt.Errorf("%q is no whole number: write it in decimal digits", text)
		}
		v.SetInt(i)
	default:
		v.SetString(text)
	}
	return nil
}

// fieldNamed is the field of a struct that has that name in YAML.
func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if yamlName(v.Type().Field(i)) == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

// kindOf names the kind of a node, without its value.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return "a single value"
}

func describe(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return kindOf(n)
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	case "!!null":
		return "null"
	}
	return fmt.Sprintf("the text %q", n.Value)
}

// join is the path of a field. A name that would be invisible or would break the line is quoted.
func join(path, name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func orFile(path string) string {
	if path == "" {
		return "file"
	}
	return path
}
