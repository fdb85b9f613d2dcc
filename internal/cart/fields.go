package cart

import (
	"strconv"
	"strings"
)

// describe names a value of the wrong kind: short ones as they are.
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

// problem makes an error on a path that the caller still has to prefix.
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

// checkSelf checks a member that repeats the key under which the object stands.
func checkSelf(path, key string, value []byte) error {
	if s, ok := stringValue(value); !ok || s != key {
		return problem(path, strconv.Quote(shorten(key))+", like its key", value)
	}
	return nil
}

func checkText(path string, value []byte) error {
	if !isString(value) && !isNull(value) {
		return problem(path, "a string or null", value)
	}
	return nil
}

func checkTextOrNumber(path string, value []byte) error {
	if !isString(value) && !isNumber(value) && !isNull(value) {
		return problem(path, "a string, a number or null", value)
	}
	return nil
}

func checkWhole(path string, value []byte) error {
	if !isNull(value) {
		if _, err := strconv.ParseInt(string(value), 10, 64); err != nil || !isNumber(value) {
			return problem(path, "a whole number or null", value)
		}
	}
	return nil
}

// checkMap checks a member that is a map, and makes [] of it {}.
func checkMap(m *Member) (changed bool, err error) {
	switch {
	case string(m.Value) == "[]":
		m.Value = emptyObject
		return true, nil
	case m.Value[0] != '{' && !isNull(m.Value):
		return false, problem("."+m.Key, "an object or null", m.Value)
	}
	return false, nil
}

// parseQuantity reads a plain whole number; ok is false for any other text. Too
// large a number is math.MaxInt64.
func parseQuantity(value []byte) (q int64, ok bool) {
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	q, _ = strconv.ParseInt(string(value), 10, 64)
	return q, len(value) > 0
}

// checkQuantity reads a quantity that a client gave.
func checkQuantity(path string, value []byte, l Limits) (int64, error) {
	q, ok := parseQuantity(value)
	if !ok || q < 1 || q > l.MaxQuantity {
		return 0, problem(path, "a whole number from 1 to "+strconv.FormatInt(l.MaxQuantity, 10), value)
	}
	return q, nil
}

// quantityOf is what the arithmetic takes as the quantity of a stored item.
func quantityOf(item []Member) int64 {
	if i := find(item, "quantity"); i >= 0 {
		if q, ok := parseQuantity(item[i].Value); ok {
			return q
		}
	}
	return 1
}

func quantityText(q int64) []byte { return strconv.AppendInt(nil, q, 10) }

// checkItem checks the members of an item and makes them regular in place. It
// reports whether it changed any. The id is compared where it is known.
func checkItem(id string, item []Member, l Limits) (changed bool, err error) {
	for i := range item {
		m := &item[i]
		switch m.Key {
		case "id":
			if id != "" {
				err = checkSelf(".id", id, m.Value)
			} else if !isString(m.Value) {
				err = problem(".id", "a string", m.Value)
			}
		case "name":
			err = checkText(".name", m.Value)
		case "price":
			err = checkTextOrNumber(".price", m.Value)
		case "quantity":
			_, err = checkQuantity(".quantity", m.Value, l)
		case "attributes", "conditions":
			var fixed bool
			fixed, err = checkMap(m)
			changed = changed || fixed
		}
		if err != nil {
			return false, err
		}
	}
	return changed, nil
}

// checkCondition does for a condition what checkItem does for an item.
func checkCondition(name string, condition []Member) (changed bool, err error) {
	for i := range condition {
		m := &condition[i]
		switch m.Key {
		case "name":
			err = checkSelf(".name", name, m.Value)
		case "type", "target":
			err = checkText("."+m.Key, m.Value)
		case "value":
			err = checkTextOrNumber(".value", m.Value)
		case "order":
			err = checkWhole(".order", m.Value)
		case "attributes":
			var fixed bool
			fixed, err = checkMap(m)
			changed = changed || fixed
		}
		if err != nil {
			return false, err
		}
	}
	return changed, nil
}

// checkName is ValidateName with a hint for the one way in which JSON can name
// what is no UTF-8.
func checkName(field, name string) error {
	if strings.Contains(name, "\xED") && ValidateName(field, strings.ToValidUTF8(name, "?")) == nil {
		if err := ValidateName(field, name); err != nil {
			return Invalidf(field, "has half of a surrogate pair in its name: write a whole character")
		}
	}
	return ValidateName(field, name)
}
