package cart

// Moved is the cart as it stands under its new name after a swap: its id, its creation time, the versions of its parts,
// the order of its metadata and what is known of removed keys go along, and its version rises by one. Records of
// hand-overs belong to the name and stay behind.
func (c *Cart) Moved() *Cart {
	moved := *c
	moved.Version++
	moved.Transfer, moved.Received = nil, nil
	return &moved
}
