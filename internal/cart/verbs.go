package cart

// Put replaces whole documents. A nil pointer leaves that document alone.
type Put struct {
	Items, Conditions *Object
}

// AddItem adds an item, or adds to the quantity of the one with the same id. Members given replace those of the item
// that is there; a missing quantity is 1.
type AddItem struct{ Item Item }

// Item is an item as a client sent it, with its id lifted out.
type Item struct {
	ID     string
	Object Object
}

// UpdateItem sets the given members of an item that is there, and adds Delta to its quantity where Delta is not nil; at
// 0 or less the item is removed.
type UpdateItem struct {
	ID    string
	Item  Object
	Delta *int64
}

// RemoveItem removes an item; one that is not there is no error.
type RemoveItem struct{ ID string }

// TakeItems takes quantities away, which something has seen in the cart: an item is removed where nothing is left of
// it. More than is there, and an item that is not there any more, are no error.
type TakeItems struct{ Items []ItemQuantity }

// ItemQuantity is so many of an item.
type ItemQuantity struct {
	ID       string
	Quantity int64
}

// PutCondition sets one condition.
type PutCondition struct {
	Name      string
	Condition Object
}

// RemoveCondition removes one condition; one that is not there is no error.
type RemoveCondition struct{ Name string }

// PatchMetadata sets metadata keys in order; a nil Value removes the key.
type PatchMetadata struct{ Values []Member }

// IncrementMetadata adds By to the whole number under a metadata key; a key that is not there counts from 0. 0 alters
// nothing that is there.
type IncrementMetadata struct {
	Key string
	By  int64
}

// ClearMetadata removes every metadata key.
type ClearMetadata struct{}

// Clear empties items, conditions and metadata and keeps the cart's id.
type Clear struct{}

// Batch makes several verbs one change, in order, all or nothing. An error's field is prefixed with "operations[i].".
type Batch struct{ Verbs []Verb }

// Receive takes over the contents of another cart: the target's side of a merge. A swap is no change of the target: see
// [Cart.Moved]. ID is the hand-over's id, kept in [PartReceived]; "" where both sides are one atomic step.
type Receive struct {
	From     *Cart
	Strategy Strategy
	ID       string
}

// Strategy decides what becomes of an item that both carts of a merge have.
type Strategy string

// The strategies. In a merge all other items are kept, and conditions and metadata of the target win.
const (
	// StrategyAddQuantities adds the quantities; the target's other members win.
	StrategyAddQuantities Strategy = "add_quantities"
	// StrategyKeepHighestQuantity keeps the target's item with the higher quantity.
	StrategyKeepHighestQuantity Strategy = "keep_highest_quantity"
	// StrategyKeepTarget keeps the target's item.
	StrategyKeepTarget Strategy = "keep_target"
	// StrategyReplace takes the source's item.
	StrategyReplace Strategy = "replace"
	// StrategySwap is no merge: the cart itself moves, and the target goes. [Receive] refuses it.
	StrategySwap Strategy = "swap"
)
