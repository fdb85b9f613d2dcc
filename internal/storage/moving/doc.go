// Package moving is a [storage.Locker] over two others: carts move from an old backend to a new one while both are in
// use. One record in the old backend says where a cart counts, a [storage.Marker]. See docs/design/0007-moving.md. A
// cart never counts in both: until the marker says that the move is done, the cart is frozen in the old one, and from
// then on the old one holds nothing but the marker. It imports storage and cart, no backend.
package moving
