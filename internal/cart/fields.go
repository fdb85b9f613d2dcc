package cart

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
)

// describe names a value of the wrong kind. A short value is shown as it is.
func describe(value []byte) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		if len(value) > shownBytes {
			return "a long string"
		}
	}
	return shorten(string(value))
}

// problem makes an error on a path, to which the caller must still add a prefix.
func problem(path, want string, value []byte) error {
	return Invalidf(path, "must be %s, not %s", want, describe(value))
}

func isNull(value []byte) bool   { return value[0] == 'n' }
func isString(value []byte) bool { return value[0] == '"' }
func isNumber(value []byte) bool { return value[0] == '-' || value[0] >= '0' && value[0] <= '9' }

// stringValue is the content of a JSON string.
func stringValue(value []byte) (string, bool) {
	if !isString(value) {
		return "", false
	}
	return string(unescape(value[1 : len(value)-1])), true
}

// checkSelf checks a member that must repeat the key of its object.
func checkSelf(path, key string, value []byte) error {
	if s, ok := stringValue(value); !ok || s != key {
		return notSelf(path, key, value)
	}
	return nil
}

func notSelf(path, key string, value []byte) error {
	return problem(path, strconv.Quote(shorten(key))+", like its key", value)
}

// idOf reads the member "id" of an item. It is a string, or a whole number in digits: PHP turns keys that look like
// numbers into numbers.
func idOf(value []byte) (string, bool) {
	if isWhole(value) {
		return string(value), true
	}
	return stringValue(value)
}

func checkID(path, key string, value []byte) error {
	if id, ok := idOf(value); !ok || id != key {
		return notSelf(path, key, value)
	}
	return nil
}

// isWhole reports whether a value is a number written only in digits, with or without a minus sign.
func isWhole(value []byte) bool {
	return isDigits(bytes.TrimPrefix(value, []byte("-")))
}

func isDigits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(text) > 0
}

// emptyMap turns [] into {}: PHP writes an empty map as [].
func emptyMap(m *Member) (changed bool) {
	if string(m.Value) != "[]" {
		return false
	}
	m.Value = emptyObject
	return true
}

// parseQuantity reads a whole number from 0 up, in any form that JSON allows: 2, 2.0, 1e1, or a string of these. ok is
// false for everything else. A number that is too large becomes math.MaxInt64.
func parseQuantity(value []byte) (q int64, ok bool) {
	if isString(value) {
		value = value[1 : len(value)-1]
		if len(value) == 0 || !isNumber(value) || !json.Valid(value) {
			return 0, false
		}
	} else if !isNumber(value) {
		return 0, false
	}
	const mostDigits = 18
	if len(value) <= mostDigits && isDigits(value) {
		for _, c := range value {
			q = 10*q + int64(c-'0')
		}
		return q, true
	}
	digits, zeros := significant(value)
	switch {
	case value[0] == '-', zeros < 0:
		return 0, false
	case len(digits)+zeros > mostDigits:
		return math.MaxInt64, true
	}
	return wholeOf(digits, zeros)
}

// parseWhole reads a whole number of 64 bits, in any form that JSON allows: -2, 2.0, 1e1.
func parseWhole(value []byte) (n int64, ok bool) {
	if !isNumber(value) {
		return 0, false
	}
	const mostDigits = 19
	digits, zeros := significant(value)
	if zeros < 0 || len(digits)+zeros > mostDigits {
		return 0, false
	}
	if value[0] == '-' {
		digits = append([]byte("-"), digits...)
	}
	return wholeOf(digits, zeros)
}

// significant takes a JSON number apart and ignores its sign. It returns the digits without the zeros around them, and
// how many zeros follow. If zeros is below 0, the number has a fraction. For 0 it returns no digits and no zeros. The
// work does not grow with the exponent.
func significant(number []byte) (digits []byte, zeros int) {
	mantissa := bytes.TrimPrefix(number, []byte("-"))
	if i := bytes.IndexAny(mantissa, "eE"); i >= 0 {
		// An exponent that is out of range is cut to the bound: no document holds as many digits.
		zeros, _ = strconv.Atoi(string(mantissa[i+1:]))
		zeros = max(min(zeros, math.MaxInt32), math.MinInt32)
		mantissa = mantissa[:i]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	all := append(slices.Clip(whole), fraction...)
	digits = bytes.TrimRight(all, "0")
	zeros += len(all) - len(digits) - len(fraction)
	if digits = bytes.TrimLeft(digits, "0"); len(digits) == 0 {
		return nil, 0
	}
	return digits, zeros
}

// wholeOf is the number with these digits, which may begin with a sign, and with zeros after them.
func wholeOf(digits []byte, zeros int) (int64, bool) {
	text := string(digits) + strings.Repeat("0", zeros)
	if text == "" || text == "-" {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// checkQuantity reads a quantity that a client gave.
func checkQuantity(path string, value []byte, l Limits) (int64, error) {
	q, ok := parseQuantity(value)
	if !ok || q < 1 || q > l.MaxQuantity {
		return 0, problem(path, "a whole number from 1 to "+strconv.FormatInt(l.MaxQuantity, 10), value)
	}
	return q, nil
}

func isZero(quantity []byte) bool {
	q, ok := parseQuantity(quantity)
	return ok && q == 0
}

// quantityOf is the quantity of a stored item, 1 if it has none that can be read.
func quantityOf(item []Member) int64 {
	if i := find(item, "quantity"); i >= 0 {
		if q, ok := parseQuantity(item[i].Value); ok {
			return q
		}
	}
	return 1
}

func quantityText(q int64) []byte { return strconv.AppendInt(nil, q, 10) }

// checkItem checks the members that Sidecart itself uses, and turns empty lists into empty maps in place. It reports
// whether it changed any. It leaves all other members to the shop. It compares the id if id is not "".
func checkItem(id string, item []Member, l Limits) (changed bool, err error) {
	for i := range item {
		m := &item[i]
		switch m.Key {
		case "id":
			if id != "" {
				err = checkID(".id", id, m.Value)
			} else if _, ok := idOf(m.Value); !ok {
				err = problem(".id", idWanted, m.Value)
			}
		case "quantity":
			_, err = checkQuantity(".quantity", m.Value, l)
		case "attributes", "conditions":
			changed = emptyMap(m) || changed
		}
		if err != nil {
			return false, err
		}
	}
	return changed, nil
}

// isPlainItem reports whether checkItem would find nothing in an item and change nothing. It makes no copy.
func isPlainItem(id string, item []byte, l Limits) bool {
	for m := (cursor{text: item}); m.next(); {
		switch string(m.key) {
		case "id":
			if !m.isText(id) {
				return false
			}
		case "quantity":
			if q, ok := parseQuantity(m.value); !ok || q < 1 || q > l.MaxQuantity {
				return false
			}
		case "attributes", "conditions":
			if string(m.value) == "[]" {
				return false
			}
		}
		if m.isEscaped() {
			return false
		}
	}
	return item[0] == '{'
}

// isPlainCondition is isPlainItem for a condition, and checkCondition.
func isPlainCondition(name string, condition []byte) bool {
	for m := (cursor{text: condition}); m.next(); {
		if m.isEscaped() || string(m.key) == "name" && !m.isText(name) || string(m.key) == "attributes" && string(m.value) == "[]" {
			return false
		}
	}
	return condition[0] == '{'
}

const idWanted = "a string, or a whole number"

// checkCondition checks a condition as checkItem checks an item.
func checkCondition(name string, condition []Member) (changed bool, err error) {
	for i := range condition {
		m := &condition[i]
		switch m.Key {
		case "name":
			err = checkSelf(".name", name, m.Value)
		case "attributes":
			changed = emptyMap(m) || changed
		}
		if err != nil {
			return false, err
		}
	}
	return changed, nil
}

// checkName is ValidateName with a hint about half of a surrogate pair. That is the only way to write a name in JSON
// that is not UTF-8.
func checkName(field, name string) error {
	if strings.Contains(name, "\xED") && ValidateName(field, strings.ToValidUTF8(name, "?")) == nil {
		if err := ValidateName(field, name); err != nil {
			return Invalidf(field, "has half of a surrogate pair in its name: write a whole character")
		}
	}
	return ValidateName(field, name)
}
