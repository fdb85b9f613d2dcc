package cart

// Moved returns the cart as it is under its new name after a swap. It keeps its id, its creation time, the versions of
// its parts, the order of its metadata and its tombstones. Its version rises by one. Records of hand-overs belong to
// the name and stay behind.
func (c *Cart) Moved() *Cart {
	moved := *c
	moved.Version++
	moved.Transfer, moved.Received = nil, nil
	return &moved
}
