package cart

import (
	"math"
	"slices"
)

// Parts implements [Verb].
func (Receive) Parts(*Cart) []Part { return []Part{PartAll} }

// Apply implements [Verb]. A hand-over that has arrived already changes nothing,
// so that its second step can be repeated.
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

func (v Receive) merge(d *Draft) error {
	items, err := mergeMembers(d.cart.Items.Object, v.From.Items.Object, func(id string, target, source []byte) ([]byte, error) {
		return v.Strategy.resolve(id, target, source, d.limits)
	})
	if err != nil {
		return err
	}
	if err := d.setItems(items); err != nil {
		return err
	}
	conditions, _ := mergeMembers(d.cart.Conditions.Object, v.From.Conditions.Object, keepTarget)
	if err := d.setConditions(conditions); err != nil {
		return err
	}
	for _, e := range v.From.Metadata {
		if value, _ := d.cart.MetadataValue(e.Key); value == nil {
			if err := d.setMetadata(e.Key, e.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// mergeMembers is target, then what only source has; resolve decides where both have a key.
func mergeMembers(target, source Object, resolve func(key string, target, source []byte) ([]byte, error)) (Object, error) {
	out := slices.Grow(slices.Clone(target.Members()), source.Len())
	index := make(map[string]int, len(out))
	for i := range out {
		index[out[i].Key] = i
	}
	for _, m := range source.Members() {
		i, ok := index[m.Key]
		if !ok {
			out = append(out, m)
			continue
		}
		value, err := resolve(m.Key, out[i].Value, m.Value)
		if err != nil {
			return Object{}, err
		}
		out[i].Value = value
	}
	return newObject(out).rewritten(), nil // or either text would live as long as one member of it
}

func keepTarget(_ string, target, _ []byte) ([]byte, error) { return target, nil }

// resolve makes one item of the two that both carts of a merge have.
func (s Strategy) resolve(id string, target, source []byte, l Limits) ([]byte, error) {
	switch s {
	case StrategyKeepTarget:
		return target, nil
	case StrategyReplace:
		return source, nil
	}
	mine, _ := split(target)
	theirs, _ := split(source)
	has, more := quantityOf(mine), quantityOf(theirs)
	if s == StrategyKeepHighestQuantity {
		if more <= has {
			return target, nil
		}
		return newObject(set(mine, "quantity", quantityText(more))).Bytes(), nil
	}
	sum := int64(math.MaxInt64)
	if more <= math.MaxInt64-has {
		sum = has + more
	}
	if sum > l.MaxQuantity {
		return nil, Invalidf("items"+keySegment(id)+".quantity",
			"%d here and %d there are more than the %d that are allowed", has, more, l.MaxQuantity)
	}
	both := overlay(overlay(mine, theirs), mine) // the target's order and values, then what it lacks
	return newObject(set(both, "quantity", quantityText(sum))).Bytes(), nil
}
