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
	item := d.open(v.Item.ID)
	if item == nil {
		members := overlay(nil, given)
		if find(members, "id") < 0 {
			members = slices.Insert(members, 0, Member{"id", appendKey(nil, v.Item.ID)})
		}
		if !counted {
			members = append(members, Member{"quantity", quantityText(more)})
		}
		return d.addItem(v.Item.ID, newObject(members).Bytes())
	}
	has := quantityOf(item.members)
	if more > d.limits.MaxQuantity-has {
		return Invalidf("item.quantity", "%d more than the %d that are there: at most %d are allowed", more, has, d.limits.MaxQuantity)
	}
	before := item.size
	item.overlay(given)
	item.set("quantity", quantityText(has+more))
	return d.fitsItem(item, before)
}

// Parts implements [Verb].
func (UpdateItem) Parts(*Cart) []Part { return []Part{PartItems} }

// Apply implements [Verb].
func (v UpdateItem) Apply(d *Draft) error {
	item := d.open(v.ID)
	if item == nil {
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
	has, before := quantityOf(item.members), item.size
	if v.Delta != nil && *v.Delta > 0 && *v.Delta > d.limits.MaxQuantity-has {
		return Invalidf("quantityDelta", "%d more than the %d that are there: at most %d are allowed", *v.Delta, has, d.limits.MaxQuantity)
	}
	if v.Delta != nil && *v.Delta != 0 && has+*v.Delta <= 0 {
		return d.removeItem(v.ID)
	}
	item.overlay(v.Item.Members())
	if v.Delta != nil && *v.Delta != 0 {
		item.set("quantity", quantityText(has+*v.Delta))
	}
	return d.fitsItem(item, before)
}

// Parts implements [Verb].
func (RemoveItem) Parts(*Cart) []Part { return []Part{PartItems} }

// Apply implements [Verb].
func (v RemoveItem) Apply(d *Draft) error { return d.removeItem(v.ID) }
