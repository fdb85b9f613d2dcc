package cart

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/maphash"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// rules say what a text must satisfy when it is read.
type rules struct {
	// maxBytes is the largest size in compact form.
	maxBytes int
	// level is how deep the text will sit in its document. An item is one level below the items, and must stay within
	// [MaxDepth] there.
	level int
	// maxMembers is how many members the outermost object may have, 0 for any number. They are counted before anything
	// else is done with them. tooMany makes the error.
	maxMembers int
	tooMany    func(n int) error
	// keyed says that the client chose the names of the outermost object's members. Paths then write them as ["name"]
	// and never as .name.
	keyed bool
}

// read checks a text strictly and returns it in compact form.
func read(field string, raw []byte, r rules) ([]byte, error) {
	if !utf8.Valid(raw) {
		return nil, Invalidf(field, "is not valid UTF-8 at offset %d", invalidAt(raw))
	}
	text := raw
	compact := isCompact(raw)
	if !compact {
		var buf bytes.Buffer
		buf.Grow(len(raw))
		if json.Compact(&buf, raw) != nil {
			return nil, syntaxError(field, raw)
		}
		text = buf.Bytes()
	}
	if len(text) > r.maxBytes {
		return nil, tooManyBytes(field, len(text), r.maxBytes)
	}
	if r.maxMembers > 0 {
		if n := countMembers(text); n > r.maxMembers {
			return nil, r.tooMany(n)
		}
	}
	w := walker{text: text, keyedLevel: -1, keys: make([][]byte, 0, 2*fewKeys)}
	if r.keyed {
		w.keyedLevel = r.level + 1
	}
	if _, err := w.value(0, r.level); err != nil {
		return nil, within(field, err)
	}
	if compact {
		return bytes.Clone(text), nil
	}
	return exact(text), nil
}

func tooManyBytes(field string, size, limit int) error {
	return TooLargef(field, int64(limit), int64(size), "is %d bytes as compact JSON, at most %d are allowed", size, limit)
}

// within puts a prefix before the field of an [*InvalidError].
func within(prefix string, err error) error {
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	moved := *invalid
	moved.Field = prefix + moved.Field
	return &moved
}

// syntaxError says where raw stops being JSON. json.Compact gives no offsets, so syntaxError reads the text once more.
func syntaxError(field string, raw []byte) error {
	err := json.Unmarshal(raw, new(json.RawMessage))
	var syntax *json.SyntaxError
	switch {
	case !errors.As(err, &syntax):
		return Invalidf(field, "is not valid JSON: %v", err)
	case strings.HasSuffix(syntax.Error(), "exceeded max depth"):
		return Invalidf(field, "is nested too deeply: at most %d levels are allowed", MaxDepth)
	case strings.HasPrefix(syntax.Error(), "unexpected end"):
		return Invalidf(field, "is not valid JSON: it ends too early, at offset %d", len(raw))
	}
	return Invalidf(field, "is not valid JSON: %v at offset %d", syntax, syntax.Offset-1)
}

func invalidAt(raw []byte) int {
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRune(raw[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(raw)
}

// walker checks what encoding/json does not: depth and duplicate keys. Its text is valid and compact.
type walker struct {
	text       []byte
	keyedLevel int
	keys       [][]byte // a stack: the keys seen so far in each object around the current position
}

// fewKeys is the number of keys up to which a scan is faster than a map.
const fewKeys = 16

// value checks the value at i, which sits level deep, and returns where it ends. It recurses at most MaxDepth deep.
func (w *walker) value(i, level int) (int, error) {
	switch w.text[i] {
	case '{':
		return w.object(i, level+1)
	case '[':
		return w.array(i, level+1)
	}
	return skipValue(w.text, i), nil
}

func (w *walker) object(i, level int) (int, error) {
	if level > MaxDepth {
		return 0, tooDeep()
	}
	if i++; w.text[i] == '}' {
		return i + 1, nil
	}
	first := len(w.keys)
	var seen map[uint64]struct{}
	for {
		end := skipString(w.text, i)
		key := unescape(w.text[i+1 : end-1])
		if duplicate(w.keys[first:], key, &seen) {
			return 0, &InvalidError{Field: w.segment(key, level), Problem: "is there twice"}
		}
		w.keys = append(w.keys, key)
		next, err := w.value(end+1, level)
		if err != nil {
			return 0, within(w.segment(key, level), err)
		}
		if w.text[next] == '}' {
			w.keys = w.keys[:first]
			return next + 1, nil
		}
		i = next + 1
	}
}

// duplicate reports whether key is among keys. Once there are many, *seen has their hashes, and a scan is only needed
// where two are equal.
func duplicate(keys [][]byte, key []byte, seen *map[uint64]struct{}) bool {
	if len(keys) >= fewKeys {
		if *seen == nil {
			*seen = make(map[uint64]struct{}, 4*fewKeys)
			for _, k := range keys {
				(*seen)[maphash.Bytes(keySeed, k)] = struct{}{}
			}
		}
		hash := maphash.Bytes(keySeed, key)
		if _, ok := (*seen)[hash]; !ok {
			(*seen)[hash] = struct{}{}
			return false
		}
	}
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

// keySeed is random, so that nobody can send keys of one hash.
var keySeed = maphash.MakeSeed()

func (w *walker) array(i, level int) (int, error) {
	if level > MaxDepth {
		return 0, tooDeep()
	}
	if i++; w.text[i] == ']' {
		return i + 1, nil
	}
	for n := 0; ; n++ {
		next, err := w.value(i, level)
		if err != nil {
			return 0, within("["+strconv.Itoa(n)+"]", err)
		}
		if w.text[next] == ']' {
			return next + 1, nil
		}
		i = next + 1
	}
}

func tooDeep() error {
	return Invalidf("", "is nested too deeply: at most %d levels are allowed", MaxDepth)
}

func (w *walker) segment(key []byte, level int) string {
	if level == w.keyedLevel || !plainName(key) {
		return keySegment(string(key))
	}
	return "." + string(key)
}

func plainName(key []byte) bool {
	for _, c := range key {
		if c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return len(key) > 0 && len(key) <= shownBytes
}

// keySegment is the step of a path to a member that the client named.
func keySegment(key string) string { return "[" + strconv.Quote(shorten(key)) + "]" }

// shownBytes is how much of a client's text an error repeats.
const shownBytes = 64

func shorten(s string) string {
	if len(s) <= shownBytes {
		return s
	}
	n := shownBytes
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// skipString returns where the string that opens at i ends.
func skipString(text []byte, i int) int {
	for i++; ; i++ {
		i += bytes.IndexByte(text[i:], '"')
		escapes := 0
		for text[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// skipValue returns where the value at i ends. It does not recurse, so any depth is safe.
func skipValue(text []byte, i int) int {
	for depth := 0; i < len(text); {
		switch text[i] {
		case '"':
			if i = skipString(text, i); depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // closes the object or list around a bare number or literal
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// countMembers counts the members of an object in valid compact JSON; it returns 0 for any other value.
func countMembers(text []byte) (n int) {
	if len(text) < 2 || text[0] != '{' || text[1] == '}' {
		return 0
	}
	for i := 1; i < len(text); i++ {
		i = skipValue(text, skipString(text, i)+1)
		n++
	}
	return n
}

// cursor goes over the members of an object, given as valid compact JSON, without taking it apart.
type cursor struct {
	text []byte
	end  int // of the member
	// key is as it is written, without quotes, and value is compact JSON.
	key, value []byte
}

// next goes to the next member, and returns false after the last.
func (c *cursor) next() bool {
	if c.end >= len(c.text)-1 || c.end == 0 && (c.text[0] != '{' || c.text[1] == '}') {
		return false
	}
	from := c.end + 1 // over the brace or the comma
	colon := skipString(c.text, from)
	c.end = skipValue(c.text, colon+1)
	c.key, c.value = c.text[from+1:colon-1], c.text[colon+1:c.end]
	return true
}

// isEscaped reports whether the key is not written as it is.
func (c *cursor) isEscaped() bool { return bytes.IndexByte(c.key, '\\') >= 0 }

// isText reports whether the value is a string, written as it is.
func (c *cursor) isText(text string) bool {
	return isString(c.value) && string(c.value[1:len(c.value)-1]) == text && strings.IndexByte(text, '\\') < 0
}

// split returns the members of an object in valid compact JSON, and none for any other value. escaped says that some
// key is written with escapes. The keys share one string.
func split(text []byte) (members []Member, escaped bool) {
	if len(text) < 2 || text[0] != '{' || text[1] == '}' {
		return nil, false
	}
	keys := make([]byte, 0, 16*fewKeys) // these two stay on the stack while they are small
	ends := make([]int, 0, fewKeys)
	members = make([]Member, 0, countMembers(text))
	for i := 1; i < len(text); i++ { // over the comma, or out of the object
		end := skipString(text, i)
		key := unescape(text[i+1 : end-1])
		escaped = escaped || len(key) != end-i-2
		keys = append(keys, key...)
		ends = append(ends, len(keys))
		i = skipValue(text, end+1)
		members = append(members, Member{Value: text[end+1 : i : i]})
	}
	names, start := string(keys), 0
	for n, end := range ends {
		members[n].Key = names[start:end]
		start = end
	}
	return members, escaped
}

// unescape returns the content of a JSON string. An escaped half of a surrogate pair becomes the three bytes that UTF-8
// would use if it allowed it. So different keys stay different, and no name with such a half is valid.
func unescape(s []byte) []byte {
	at := bytes.IndexByte(s, '\\')
	if at < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:at]...)
	for i := at; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				if i+2 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
					if pair := utf16.DecodeRune(r, hex4(s[i+3:])); pair != utf8.RuneError {
						out = utf8.AppendRune(out, pair)
						i += 6
						continue
					}
				}
				out = append(out, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
				continue
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, s[i])
		}
	}
	return out
}

func hex4(s []byte) (r rune) {
	for _, c := range s[:4] {
		switch {
		case c <= '9':
			r = r<<4 | rune(c-'0')
		default:
			r = r<<4 | rune(c|0x20-'a'+10)
		}
	}
	return r
}

// appendKey appends key as a JSON string. It is the inverse of unescape, with as few escapes as possible.
func appendKey(dst []byte, key string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(key); i++ {
		c := key[i]
		half := c == 0xED && i+2 < len(key) && key[i+1] >= 0xA0
		if c >= ' ' && c != '"' && c != '\\' && !half {
			continue
		}
		dst = append(dst, key[start:i]...)
		switch {
		case half:
			r := rune(c&0x0F)<<12 | rune(key[i+1]&0x3F)<<6 | rune(key[i+2]&0x3F)
			dst = append(dst, '\\', 'u', hex[r>>12], hex[r>>8&0xF], hex[r>>4&0xF], hex[r&0xF])
			i += 2
		case c >= ' ':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
		}
		start = i + 1
	}
	return append(append(dst, key[start:]...), '"')
}

// keyLen is the length of what appendKey appends.
func keyLen(key string) int {
	for i := 0; i < len(key); i++ {
		if c := key[i]; c < ' ' || c == '"' || c == '\\' || c == 0xED {
			return len(appendKey(nil, key))
		}
	}
	return len(key) + 2
}
