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

// Parts implements [Verb].
func (TakeItems) Parts(*Cart) []Part { return []Part{PartItems} }

// Apply implements [Verb].
func (v TakeItems) Apply(d *Draft) error {
	for _, taken := range v.Items {
		item := d.open(taken.ID)
		if item == nil {
			continue
		}
		has, before := quantityOf(item.members), item.size
		if has <= taken.Quantity {
			if err := d.removeItem(taken.ID); err != nil {
				return err
			}
			continue
		}
		item.set("quantity", quantityText(has-taken.Quantity))
		if err := d.fitsItem(item, before); err != nil {
			return err
		}
	}
	return nil
}

// Quantities are the items of a cart, in their order, with their quantities.
func (c *Cart) Quantities() []ItemQuantity {
	items := c.Items.Object.Members()
	out := make([]ItemQuantity, len(items))
	for i, m := range items {
		members, _ := split(m.Value)
		out[i] = ItemQuantity{m.Key, quantityOf(members)}
	}
	return out
}
