package proxy

import (
	"fmt"

	"github.com/sidecart/sidecart/internal/cart"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// Single calls and batches share the functions that make verbs. prefix precedes the names of fields in errors.

func putItems(field string, raw []byte, l cart.Limits) (cart.Verb, error) {
	items, err := cart.ParseItems(field, raw, l)
	return cart.Put{Items: &items}, err
}

func addItem(field string, raw []byte, l cart.Limits) (cart.Verb, error) {
	item, err := cart.ParseItem(field, raw, l)
	return cart.AddItem{Item: item}, err
}

// itemPatch is an update of an item, alone or in a batch.
type itemPatch interface {
	*pb.UpdateItemRequest | *pb.UpdateItemOperation
	GetItem() []byte
}

func updateItem[P itemPatch](prefix, idField, id string, patch P, l cart.Limits) (cart.Verb, error) {
	if err := cart.ValidateName(idField, id); err != nil {
		return nil, err
	}
	u := cart.UpdateItem{ID: id}
	switch p := any(patch).(type) {
	case *pb.UpdateItemRequest:
		u.Delta = p.QuantityDelta
	case *pb.UpdateItemOperation:
		u.Delta = p.QuantityDelta
	}
	raw := patch.GetItem()
	if raw == nil {
		if u.Delta == nil {
			return nil, cart.Invalidf(prefix+"item", "is required, or quantityDelta")
		}
		return u, nil
	}
	var err error
	u.Item, err = cart.ParseItemPatch(prefix+"item", raw, l)
	return u, err
}

func removeItem(field, id string) (cart.Verb, error) {
	return cart.RemoveItem{ID: id}, cart.ValidateName(field, id)
}

func putConditions(field string, raw []byte, l cart.Limits) (cart.Verb, error) {
	conditions, err := cart.ParseConditions(field, raw, l)
	return cart.Put{Conditions: &conditions}, err
}

func putCondition(prefix, name string, raw []byte, l cart.Limits) (cart.Verb, error) {
	if err := cart.ValidateName(prefix+"name", name); err != nil {
		return nil, err
	}
	condition, err := cart.ParseCondition(prefix+"condition", name, raw, l)
	return cart.PutCondition{Name: name, Condition: condition}, err
}

func removeCondition(field, name string) (cart.Verb, error) {
	return cart.RemoveCondition{Name: name}, cart.ValidateName(field, name)
}

func putMetadata(prefix, key string, raw []byte, l cart.Limits) (cart.Verb, error) {
	if err := cart.ValidateName(prefix+"key", key); err != nil {
		return nil, err
	}
	value, err := cart.ParseMetadataValue(prefix+"value", raw, l)
	return cart.PatchMetadata{Values: []cart.Member{{Key: key, Value: value}}}, err
}

func removeMetadata(field, key string) (cart.Verb, error) {
	return cart.PatchMetadata{Values: []cart.Member{{Key: key}}}, cart.ValidateName(field, key)
}

func patchMetadata(field string, raw []byte, l cart.Limits) (cart.Verb, error) {
	values, err := cart.ParseMetadataPatch(field, raw, l)
	return cart.PatchMetadata{Values: values}, err
}

func incrementMetadata(keyField string, o *pb.IncrementMetadataOperation) (cart.Verb, error) {
	v := cart.IncrementMetadata{Key: o.GetKey(), By: 1}
	if o.By != nil {
		v.By = *o.By
	}
	return v, cart.ValidateName(keyField, v.Key)
}

// maxOperations bounds the work of one batch.
const maxOperations = 1000

func batch(field string, operations []*pb.Operation, l cart.Limits) (cart.Verb, error) {
	if len(operations) == 0 {
		return nil, cart.Invalidf(field, "is required: one operation or more")
	}
	if n := len(operations); n > maxOperations {
		return nil, tooManyOperations(field, n)
	}
	verbs := make([]cart.Verb, len(operations))
	for i, o := range operations {
		var err error
		if verbs[i], err = operation(fmt.Sprintf("%s[%d]", field, i), o, l); err != nil {
			return nil, err
		}
	}
	return cart.Batch{Verbs: verbs}, nil
}

func tooManyOperations(field string, n int) error {
	return cart.TooLargef(field, maxOperations, int64(n), "has %d operations, at most %d are allowed", n, maxOperations)
}

func operation(path string, o *pb.Operation, l cart.Limits) (cart.Verb, error) {
	switch v := o.GetVerb().(type) {
	case *pb.Operation_AddItem:
		return addItem(path+".addItem.item", v.AddItem.GetItem(), l)
	case *pb.Operation_UpdateItem:
		return updateItem(path+".updateItem.", path+".updateItem.id", v.UpdateItem.GetId(), v.UpdateItem, l)
	case *pb.Operation_RemoveItem:
		return removeItem(path+".removeItem.id", v.RemoveItem.GetId())
	case *pb.Operation_PutItems:
		return putItems(path+".putItems.items", v.PutItems.GetItems(), l)
	case *pb.Operation_PutCondition:
		return putCondition(path+".putCondition.", v.PutCondition.GetName(), v.PutCondition.GetCondition(), l)
	case *pb.Operation_RemoveCondition:
		return removeCondition(path+".removeCondition.name", v.RemoveCondition.GetName())
	case *pb.Operation_PutMetadata:
		return putMetadata(path+".putMetadata.", v.PutMetadata.GetKey(), v.PutMetadata.GetValue(), l)
	case *pb.Operation_RemoveMetadata:
		return removeMetadata(path+".removeMetadata.key", v.RemoveMetadata.GetKey())
	case *pb.Operation_PutConditions:
		return putConditions(path+".putConditions.conditions", v.PutConditions.GetConditions(), l)
	case *pb.Operation_PatchMetadata:
		return patchMetadata(path+".patchMetadata.metadata", v.PatchMetadata.GetMetadata(), l)
	case *pb.Operation_IncrementMetadata:
		return incrementMetadata(path+".incrementMetadata.key", v.IncrementMetadata)
	case *pb.Operation_ClearMetadata:
		return cart.ClearMetadata{}, nil
	case *pb.Operation_Clear:
		return cart.Clear{}, nil
	}
	return nil, cart.Invalidf(path, "must have exactly one operation: %s", shapeOf((*pb.Operation)(nil).ProtoReflect().Descriptor()).known)
}
