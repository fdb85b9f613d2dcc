package cart

import (
	"math"
	"slices"
)

// Parts implements [Verb].
func (Receive) Parts(*Cart) []Part { return []Part{PartAll} }

// Apply implements [Verb]. If the hand-over has arrived already, it changes nothing, so that the second step can be
// repeated.
func (v Receive) Apply(d *Draft) error {
	if v.ID != "" {
		if string(d.cart.Received) == v.ID {
			return nil
		}
		d.cart.Received = []byte(v.ID)
	}
	if _, err := ParseStrategy("strategy", string(v.Strategy)); err != nil {
		return err
	}
	return v.merge(d)
}

// merge takes over what the source has. What is over a limit is refused only if it is more than either cart had.
func (v Receive) merge(d *Draft) error {
	d.closeItems()
	from := v.From.Items.Object
	capped := map[string]bool{}
	items := mergeMembers(d.cart.Items.Object, from, func(id string, target, source []byte) []byte {
		merged, over := v.Strategy.resolve(target, source, d.limits)
		if over {
			capped[id] = true
		}
		return merged
	})
	if err := d.moveItems(items, from); err != nil {
		return err
	}
	for _, m := range items.Members() {
		if capped[m.Key] {
			d.capped = append(d.capped, m.Key)
		}
	}
	from = v.From.Conditions.Object
	keepTarget := func(_ string, target, _ []byte) []byte { return target }
	if err := d.moveConditions(mergeMembers(d.cart.Conditions.Object, from, keepTarget), from); err != nil {
		return err
	}
	before := d.keys
	for i := range v.From.Metadata {
		if e := &v.From.Metadata[i]; d.metadataValue(e.Key) == nil {
			d.writeMetadata(e.Key, e.Value)
		}
	}
	if d.keys > d.limits.MaxMetadataKeys && d.keys > max(before, len(v.From.Metadata)) {
		return tooManyKeys("metadata", d.keys, d.limits)
	}
	return nil
}

// mergeMembers returns the members of target, then those that only source has. If both have a key, resolve decides.
func mergeMembers(target, source Object, resolve func(key string, target, source []byte) []byte) Object {
	out := slices.Grow(slices.Clone(target.Members()), source.Len())
	index := make(map[string]int, len(out))
	for i := range out {
		index[out[i].Key] = i
	}
	for _, m := range source.Members() {
		if i, ok := index[m.Key]; ok {
			out[i].Value = resolve(m.Key, out[i].Value, m.Value)
		} else {
			out = append(out, m)
		}
	}
	return newObject(out).rewritten() // otherwise one member would keep the whole text of its object in memory
}

// resolve merges an item that both carts have. A quantity over the limit becomes the limit, and capped reports that. It
// is not refused, because a merge happens at a login, where the customer could do nothing about it.
func (s Strategy) resolve(target, source []byte, l Limits) (merged []byte, capped bool) {
	switch s {
	case StrategyKeepTarget:
		return target, false
	case StrategyReplace:
		return source, false
	}
	mine, _ := split(target)
	theirs, _ := split(source)
	has, more := quantityOf(mine), quantityOf(theirs)
	quantity, both := more, mine
	if s == StrategyKeepHighestQuantity {
		if more <= has {
			return target, false
		}
	} else {
		quantity = int64(math.MaxInt64)
		if more <= math.MaxInt64-has {
			quantity = has + more
		}
		both = overlay(overlay(mine, theirs), mine) // the target's order and values, then the members it lacks
	}
	if quantity > l.MaxQuantity {
		quantity, capped = l.MaxQuantity, true
	}
	return newObject(set(both, "quantity", quantityText(quantity))).Bytes(), capped
}
