package cart

import (
	"bytes"
	"math"
	"slices"
	"strings"
)

const (
	itemsWanted      = "an object of items by id, {} for none"
	conditionsWanted = "an object of conditions by name, {} for none"
	metadataWanted   = "an object of values by key, null to remove a key"
)

// ParseItems reads an items document: an object of items by id. Errors are [*InvalidError] with the path below field.
// If the document exceeds the limit on its size or on the number of items, the error matches [ErrTooLarge].
//
// Only the members that Sidecart itself uses have rules: the id and quantity of an item, and the name of a condition.
// An empty list becomes {} where an object belongs: in place of an item, or of its attributes or conditions.
func ParseItems(field string, raw []byte, l Limits) (Object, error) {
	o, err := parseObject(field, raw, itemsWanted, rules{
		maxBytes: l.MaxDocumentBytes, keyed: true,
		maxMembers: l.MaxItems, tooMany: func(n int) error { return tooManyItems(field, n, l) },
	})
	if err != nil {
		return Object{}, err
	}
	return checkEach(field, o, "an item", func(id string, item []byte) bool { return isPlainItem(id, item, l) },
		func(id string, item []Member) (bool, error) { return checkItem(id, item, l) })
}

func tooManyItems(field string, n int, l Limits) error {
	return TooLargef(field, int64(l.MaxItems), int64(n), "has %d items, at most %d are allowed", n, l.MaxItems)
}

func tooManyKeys(field string, n int, l Limits) error {
	return TooLargef(field, int64(l.MaxMetadataKeys), int64(n), "has %d keys, at most %d are allowed", n, l.MaxMetadataKeys)
}

// ParseConditions reads a conditions document: an object of conditions by name.
func ParseConditions(field string, raw []byte, l Limits) (Object, error) {
	o, err := parseObject(field, raw, conditionsWanted, rules{maxBytes: l.MaxDocumentBytes, keyed: true})
	if err != nil {
		return Object{}, err
	}
	return checkEach(field, o, "a condition", isPlainCondition, checkCondition)
}

// checkEach checks the names and members of all objects of a document. Most are plain: check finds nothing in them and
// changes nothing, so they are not taken apart.
func checkEach(field string, o Object, what string, plain func(string, []byte) bool, check func(string, []Member) (bool, error)) (Object, error) {
	members := o.Members()
	own := false
	for i := range members {
		key, value := members[i].Key, members[i].Value
		if err := checkName("", key); err != nil {
			return Object{}, within(field+keySegment(key), err)
		}
		empty := string(value) == "[]"
		if value[0] != '{' && !empty {
			return Object{}, within(field, problem(keySegment(key), what+", which is an object", value))
		}
		if plain(key, value) {
			continue
		}
		parts, _ := split(value)
		changed, err := check(key, parts)
		if err != nil {
			return Object{}, within(field+keySegment(key), err)
		}
		if changed || empty {
			if !own {
				members, own = slices.Clone(members), true
			}
			members[i].Value = newObject(parts).Bytes()
		}
	}
	if own {
		return newObject(members), nil
	}
	return o, nil
}

// ParseItem reads an item to add. Its id is required. A missing quantity becomes 1.
func ParseItem(field string, raw []byte, l Limits) (Item, error) {
	o, err := parseObject(field, raw, "an item, which is an object", rules{maxBytes: l.MaxDocumentBytes, level: 1})
	if err != nil {
		return Item{}, err
	}
	text, ok := o.Get("id")
	if !ok {
		return Item{}, Invalidf(field+".id", "is required: a string of 1 to %d bytes", MaxNameBytes)
	}
	id, ok := idOf(text)
	if !ok {
		return Item{}, problem(field+".id", idWanted, text)
	}
	if err := checkName(field+".id", id); err != nil {
		return Item{}, err
	}
	o, err = checkOne(field, o, func(item []Member) (bool, error) { return checkItem(id, item, l) })
	if err != nil {
		return Item{}, err
	}
	if _, ok := o.Get("quantity"); !ok {
		o = o.With("quantity", quantityText(1))
	}
	return Item{ID: id, Object: o}, nil
}

// ParseItemPatch reads the members to set in an item.
func ParseItemPatch(field string, raw []byte, l Limits) (Object, error) {
	o, err := parseObject(field, raw, "an object of the members to set", rules{maxBytes: l.MaxDocumentBytes, level: 1})
	if err != nil {
		return Object{}, err
	}
	if q, ok := o.Get("quantity"); ok && isZero(q) {
		return Object{}, zeroQuantity(field+".quantity", l)
	}
	return checkOne(field, o, func(item []Member) (bool, error) { return checkItem("", item, l) })
}

func zeroQuantity(field string, l Limits) error {
	return Invalidf(field, "must be a whole number from 1 to %d, not 0: to remove the item, delete it or use quantityDelta", l.MaxQuantity)
}

// ParseCondition reads one condition, to be stored under name.
func ParseCondition(field, name string, raw []byte, l Limits) (Object, error) {
	if err := checkName("name", name); err != nil {
		return Object{}, err
	}
	o, err := parseObject(field, raw, "a condition, which is an object", rules{maxBytes: l.MaxDocumentBytes, level: 1})
	if err != nil {
		return Object{}, err
	}
	return checkOne(field, o, func(condition []Member) (bool, error) { return checkCondition(name, condition) })
}

func checkOne(field string, o Object, check func([]Member) (bool, error)) (Object, error) {
	members := slices.Clone(o.Members())
	changed, err := check(members)
	switch {
	case err != nil:
		return Object{}, within(field, err)
	case changed:
		return newObject(members), nil
	}
	return o, nil
}

// ParseMetadataValue reads the value of one metadata key: any JSON. null, which removes the key, is returned as nil.
func ParseMetadataValue(field string, raw []byte, l Limits) ([]byte, error) {
	return parseValue(field, raw, l.MaxDocumentBytes)
}

// ParseMetadataPatch reads an object of metadata values by key. It takes at most as many keys as a cart may hold. A
// null is returned as a nil Value.
func ParseMetadataPatch(field string, raw []byte, l Limits) ([]Member, error) {
	// Each value is a document of its own: it starts at level 0 and may have the full size. The transport bounds the
	// patch as a whole.
	o, err := parseObject(field, raw, metadataWanted, rules{
		maxBytes: math.MaxInt, level: -1, keyed: true,
		maxMembers: l.MaxMetadataKeys, tooMany: func(n int) error { return tooManyKeys(field, n, l) },
	})
	if err != nil {
		return nil, err
	}
	values := slices.Clone(o.Members())
	for i := range values {
		m := &values[i]
		path := field + keySegment(m.Key)
		if err := checkName(path, m.Key); err != nil {
			return nil, err
		}
		// Each value is stored separately, and must not keep the whole patch in memory.
		m.Key, m.Value = strings.Clone(m.Key), bytes.Clone(m.Value)
		if isNull(m.Value) {
			m.Value = nil
		}
		if len(m.Value) > l.MaxDocumentBytes {
			return nil, tooManyBytes(path, len(m.Value), l.MaxDocumentBytes)
		}
	}
	return values, nil
}

// ParseStrategy reads the strategy of a merge.
func ParseStrategy(field, s string) (Strategy, error) {
	switch st := Strategy(s); st {
	case StrategyAddQuantities, StrategyKeepHighestQuantity, StrategyKeepTarget, StrategyReplace:
		return st, nil
	}
	return "", Invalidf(field, "%q is no merge strategy: write %q, %q, %q or %q", shorten(s),
		StrategyAddQuantities, StrategyKeepHighestQuantity, StrategyKeepTarget, StrategyReplace)
}
