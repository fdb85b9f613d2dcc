package cart

import "slices"

// Parts implements [Verb].
func (AddItem) Parts(*Cart) []Part { return []Part{PartItems} }

// Apply implements [Verb].
func (v AddItem) Apply(d *Draft) error {
	if err := checkName("item.id", v.Item.ID); err != nil {
		return err
	}
	given := v.Item.Object.Members()
	more := int64(1)
	quantity, counted := v.Item.Object.Get("quantity")
	if counted {
		var err error
		if more, err = checkQuantity("item.quantity", quantity, d.limits); err != nil {
			return err
		}
	}
	items := d.cart.Items.Object
	text, ok := items.Get(v.Item.ID)
	if !ok {
		item := overlay(nil, given)
		if find(item, "id") < 0 {
			item = slices.Insert(item, 0, Member{"id", appendKey(nil, v.Item.ID)})
		}
		if !counted {
			item = set(item, "quantity", quantityText(more))
		}
		return d.setItem(v.Item.ID, item)
	}
	item, _ := split(text)
	has := quantityOf(item)
	if more > d.limits.MaxQuantity-has {
		return Invalidf("item.quantity", "%d more than the %d that are there: at most %d are allowed", more, has, d.limits.MaxQuantity)
	}
	return d.setItem(v.Item.ID, set(overlay(item, given), "quantity", quantityText(has+more)))
}

func (d *Draft) setItem(id string, item []Member) error {
	return d.setItems(d.cart.Items.Object.With(id, newObject(item).Bytes()))
}

// overlay is base with the members of over set. It leaves both alone, and has
// room for one more. An item may have as many members as fit into a document, so that a scan for
// each would be too much.
func overlay(base, over []Member) []Member {
	out := make([]Member, len(base), len(base)+len(over)+1)
	copy(out, base)
	find := func(key string) int { return find(base, key) }
	if len(base) > fewKeys && len(over) > fewKeys {
		index := make(map[string]int, len(base))
		for i := range base {
			index[base[i].Key] = i
		}
		find = func(key string) int {
			if i, ok := index[key]; ok {
				return i
			}
			return -1
		}
	}
	for _, m := range over { // whose keys are different
		if i := find(m.Key); i >= 0 {
			out[i].Value = m.Value
		} else {
			out = append(out, m)
		}
	}
	return out
}

// set sets a member in place, or at the end where it is not there.
func set(members []Member, key string, value []byte) []Member {
	if i := find(members, key); i >= 0 {
		members[i].Value = value
		return members
	}
	return append(members, Member{key, value})
}

// Parts implements [Verb].
func (UpdateItem) Parts(*Cart) []Part { return []Part{PartItems} }

// Apply implements [Verb].
func (v UpdateItem) Apply(d *Draft) error {
	text, ok := d.cart.Items.Object.Get(v.ID)
	if !ok {
		return &NotFoundError{What: "item", Name: v.ID}
	}
	if id, ok := v.Item.Get("id"); ok {
		if err := checkID("item.id", v.ID, id); err != nil {
			return err
		}
	}
	if quantity, ok := v.Item.Get("quantity"); ok {
		if v.Delta != nil {
			return Invalidf("quantityDelta", "must not be given together with item.quantity: give one of them")
		}
		if isZero(quantity) {
			return zeroQuantity("item.quantity", d.limits)
		}
		if _, err := checkQuantity("item.quantity", quantity, d.limits); err != nil {
			return err
		}
	}
	old, _ := split(text)
	item := overlay(old, v.Item.Members())
	if v.Delta != nil && *v.Delta != 0 {
		has, delta := quantityOf(old), *v.Delta
		switch {
		case delta > 0 && delta > d.limits.MaxQuantity-has:
			return Invalidf("quantityDelta", "%d more than the %d that are there: at most %d are allowed", delta, has, d.limits.MaxQuantity)
		case has+delta <= 0:
			return d.setItems(d.cart.Items.Object.Without(v.ID))
		}
		item = set(item, "quantity", quantityText(has+delta))
	}
	return d.setItem(v.ID, item)
}

// Parts implements [Verb].
func (RemoveItem) Parts(*Cart) []Part { return []Part{PartItems} }

// Apply implements [Verb].
func (v RemoveItem) Apply(d *Draft) error { return d.setItems(d.cart.Items.Object.Without(v.ID)) }
