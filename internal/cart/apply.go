package cart

import (
	"errors"
	"slices"
	"strconv"
)

var (
	_ Verb = Put{}
	_ Verb = AddItem{}
	_ Verb = UpdateItem{}
	_ Verb = RemoveItem{}
	_ Verb = TakeItems{}
	_ Verb = PutCondition{}
	_ Verb = RemoveCondition{}
	_ Verb = PatchMetadata{}
	_ Verb = IncrementMetadata{}
	_ Verb = ClearMetadata{}
	_ Verb = Clear{}
	_ Verb = Batch{}
	_ Verb = Receive{}
	_ Verb = Settle{}
)

// Parts implements [Verb].
func (v Put) Parts(*Cart) (parts []Part) {
	if v.Items != nil {
		parts = append(parts, PartItems)
	}
	if v.Conditions != nil {
		parts = append(parts, PartConditions)
	}
	return parts
}

// Apply implements [Verb].
func (v Put) Apply(d *Draft) error {
	if v.Items != nil {
		if err := d.setItems(*v.Items); err != nil {
			return err
		}
	}
	if v.Conditions != nil {
		return d.setConditions(*v.Conditions)
	}
	return nil
}

// Parts implements [Verb].
func (PutCondition) Parts(*Cart) []Part { return []Part{PartConditions} }

// Apply implements [Verb].
func (v PutCondition) Apply(d *Draft) error {
	if err := checkName("name", v.Name); err != nil {
		return err
	}
	return d.setConditions(d.cart.Conditions.Object.With(v.Name, v.Condition.Bytes()))
}

// Parts implements [Verb].
func (RemoveCondition) Parts(*Cart) []Part { return []Part{PartConditions} }

// Apply implements [Verb].
func (v RemoveCondition) Apply(d *Draft) error {
	return d.setConditions(d.cart.Conditions.Object.Without(v.Name))
}

// Parts implements [Verb].
func (v PatchMetadata) Parts(*Cart) (parts []Part) {
	for _, m := range v.Values {
		parts = append(parts, PartMetadata(m.Key))
	}
	return union(parts)
}

// Apply implements [Verb].
func (v PatchMetadata) Apply(d *Draft) error {
	for _, m := range v.Values {
		if err := checkName(metadataField(m.Key), m.Key); err != nil {
			return err
		}
		value := m.Value
		if string(value) == "null" {
			value = nil
		}
		if err := d.setMetadata(m.Key, value); err != nil {
			return err
		}
	}
	return nil
}

// Parts implements [Verb].
func (v IncrementMetadata) Parts(*Cart) []Part { return []Part{PartMetadata(v.Key)} }

// Apply implements [Verb].
func (v IncrementMetadata) Apply(d *Draft) error {
	if err := checkName(metadataField(v.Key), v.Key); err != nil {
		return err
	}
	text, has := d.metadataValue(v.Key), int64(0)
	if text != nil {
		var ok bool
		if has, ok = parseWhole(text); !ok {
			return problem(metadataField(v.Key), "a whole number of 64 bits to be incremented", text)
		}
		if v.By == 0 {
			return nil // the stored text of the number stays
		}
	}
	sum := has + v.By
	if (sum > has) != (v.By > 0) && v.By != 0 {
		return Invalidf("by", "%d more than the %d that is there does not fit into a whole number of 64 bits", v.By, has)
	}
	return d.setMetadata(v.Key, strconv.AppendInt(nil, sum, 10))
}

// Parts implements [Verb].
func (ClearMetadata) Parts(c *Cart) (parts []Part) {
	for i := range c.Metadata {
		parts = append(parts, PartMetadata(c.Metadata[i].Key))
	}
	return parts
}

// Apply implements [Verb].
func (ClearMetadata) Apply(d *Draft) error {
	for _, key := range d.metadataKeys() {
		if err := d.setMetadata(key, nil); err != nil {
			return err
		}
	}
	return nil
}

// metadataKeys returns a copy of the keys that are set now.
func (d *Draft) metadataKeys() []string {
	keys := make([]string, 0, len(d.cart.Metadata))
	for i := range d.cart.Metadata {
		if d.cart.Metadata[i].Value != nil {
			keys = append(keys, d.cart.Metadata[i].Key)
		}
	}
	return keys
}

// Parts implements [Verb].
func (Clear) Parts(*Cart) []Part { return []Part{PartAll} }

// Apply implements [Verb].
func (Clear) Apply(d *Draft) error {
	return errors.Join(d.setItems(Object{}), d.setConditions(Object{}), ClearMetadata{}.Apply(d))
}

// Parts implements [Verb].
func (v Batch) Parts(c *Cart) (parts []Part) {
	for _, verb := range v.Verbs {
		parts = append(parts, verb.Parts(c)...)
	}
	return union(parts)
}

// union drops repeats; [PartAll] stands alone.
func union(parts []Part) []Part {
	if slices.Contains(parts, PartAll) {
		return []Part{PartAll}
	}
	slices.Sort(parts)
	return slices.Compact(parts)
}

// Apply implements [Verb].
func (v Batch) Apply(d *Draft) error {
	for i, verb := range v.Verbs {
		if err := verb.Apply(d); err != nil {
			return within("operations["+strconv.Itoa(i)+"].", err)
		}
	}
	return nil
}
