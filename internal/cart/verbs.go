package cart

// Put replaces whole documents. A nil pointer leaves that document alone.
type Put struct {
	Items, Conditions *Object
}

// AddItem adds an item, or adds to the quantity of the item with the same id. The given members replace those of that
// item. A missing quantity is 1.
type AddItem struct{ Item Item }

// Item is an item as a client sent it, with its id in a field of its own.
type Item struct {
	ID     string
	Object Object
}

// UpdateItem sets the given members of an existing item, and adds Delta to its quantity unless Delta is nil. If the sum
// is 0 or less, the item is removed.
type UpdateItem struct {
	ID    string
	Item  Object
	Delta *int64
}

// RemoveItem removes an item. A missing item is no error.
type RemoveItem struct{ ID string }

// TakeItems takes away quantities that were read from the cart earlier. It removes an item of which nothing is left. It
// is no error to take more than is there, or from an item that has gone.
type TakeItems struct{ Items []ItemQuantity }

// ItemQuantity is a quantity of one item.
type ItemQuantity struct {
	ID       string
	Quantity int64
}

// PutCondition sets one condition.
type PutCondition struct {
	Name      string
	Condition Object
}

// RemoveCondition removes one condition. A missing condition is no error.
type RemoveCondition struct{ Name string }

// PatchMetadata sets metadata keys in order. A nil Value removes the key.
type PatchMetadata struct{ Values []Member }

// IncrementMetadata adds By to the whole number under a metadata key. A missing key counts from 0. If By is 0, an
// existing value stays as it is.
type IncrementMetadata struct {
	Key string
	By  int64
}

// ClearMetadata removes every metadata key.
type ClearMetadata struct{}

// Clear empties items, conditions and metadata and keeps the cart's id.
type Clear struct{}

// Batch makes several verbs one change: in order, all or nothing. An error's field is prefixed with "operations[i].".
type Batch struct{ Verbs []Verb }

// Receive takes over the contents of another cart: the target's side of a merge. A swap does not change the target: see
// [Cart.Moved]. ID is the hand-over's id, kept in [PartReceived]; "" if both sides are one atomic step.
type Receive struct {
	From     *Cart
	Strategy Strategy
	ID       string
}

// Strategy decides what becomes of an item that both carts of a merge have.
type Strategy string

// The strategies. In a merge all other items are kept, and conditions and metadata of the target win.
const (
	// StrategyAddQuantities adds the quantities. The target's other members win.
	StrategyAddQuantities Strategy = "add_quantities"
	// StrategyKeepHighestQuantity keeps the target's item, with the higher of the two quantities.
	StrategyKeepHighestQuantity Strategy = "keep_highest_quantity"
	// StrategyKeepTarget keeps the target's item.
	StrategyKeepTarget Strategy = "keep_target"
	// StrategyReplace takes the source's item.
	StrategyReplace Strategy = "replace"
	// StrategySwap is no merge: the cart itself moves and replaces the target. [Receive] refuses it.
	StrategySwap Strategy = "swap"
)
