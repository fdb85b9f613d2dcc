package cart

import "encoding/binary"

// isCompact reports whether text is one JSON value as json.Compact would leave it: valid, without white space, and
// nested at most [MaxDepth] deep. Nearly all documents are sent compact. For them it saves a copy and most of the time
// of json.Compact. If it reports false, the text may still be valid.
func isCompact(text []byte) bool {
	var objects [MaxDepth + 1]bool // whether the value at each depth is an object; the rest are arrays
	depth := 0
	i := 0
value:
	if i >= len(text) {
		return false
	}
	switch c := text[i]; c {
	case '{', '[':
		if depth == MaxDepth {
			return false
		}
		depth++
		objects[depth] = c == '{'
		i++
		if i < len(text) && text[i] == c+2 { // the closing character comes two after the opening one
			i++
			depth--
			goto end
		}
		if c == '[' {
			goto value
		}
		goto key
	case '"':
		i = scanString(text, i)
	case 't':
		i = scanWord(text, i, "true")
	case 'f':
		i = scanWord(text, i, "false")
	case 'n':
		i = scanWord(text, i, "null")
	default:
		i = scanNumber(text, i)
	}
	if i < 0 {
		return false
	}
end:
	if depth == 0 {
		return i == len(text)
	}
	if i >= len(text) {
		return false
	}
	switch text[i] {
	case ',':
		i++
		if objects[depth] {
			goto key
		}
		goto value
	case '}':
		if !objects[depth] {
			return false
		}
	case ']':
		if objects[depth] {
			return false
		}
	default:
		return false
	}
	i++
	depth--
	goto end
key:
	if i >= len(text) || text[i] != '"' {
		return false
	}
	if i = scanString(text, i); i < 0 || i >= len(text) || text[i] != ':' {
		return false
	}
	i++
	goto value
}

// scanString returns where the string that opens at i ends, or -1 if it is none.
func scanString(text []byte, i int) int {
	for i++; ; i++ {
		// Eight bytes at a time, while none is a quote, a backslash or a control character.
		for i+8 <= len(text) && isPlain(binary.LittleEndian.Uint64(text[i:])) {
			i += 8
		}
		if i >= len(text) {
			return -1
		}
		switch c := text[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i++; i >= len(text) {
				return -1
			}
			switch text[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					if i++; i >= len(text) || !isHex(text[i]) {
						return -1
					}
				}
			default:
				return -1
			}
		}
	}
}

// isPlain reports whether none of the eight bytes of w is a quote, a backslash or a control character. The XOR makes a
// byte zero where w has the wanted character; the borrow of the subtraction then sets its highest bit. Bytes of 128 and
// more are plain.
func isPlain(w uint64) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash := w^(ones*'"'), w^(ones*'\\')
	return ((quote-ones)&^quote|(backslash-ones)&^backslash|(w-ones*' ')&^w)&high == 0
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func scanWord(text []byte, i int, word string) int {
	if len(text)-i < len(word) || string(text[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

// scanNumber returns where the number at i ends, or -1 if it is none.
func scanNumber(text []byte, i int) int {
	at := func() byte {
		if i < len(text) {
			return text[i]
		}
		return 0
	}
	digits := func() bool {
		start := i
		for c := at(); c >= '0' && c <= '9'; c = at() {
			i++
		}
		return i > start
	}
	if at() == '-' {
		i++
	}
	if at() == '0' {
		i++
	} else if !digits() {
		return -1
	}
	if at() == '.' {
		if i++; !digits() {
			return -1
		}
	}
	if at()|0x20 == 'e' {
		if i++; at() == '+' || at() == '-' {
			i++
		}
		if !digits() {
			return -1
		}
	}
	return i
}
