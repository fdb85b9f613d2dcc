// Package moving is a [storage.Locker] over two: carts move from an old backend to a new one while both are in use.
// What says where a cart counts is one record in the old backend, a [storage.Marker]. See docs/design/0007-moving.md.
//
// It never writes a cart to both: until the marker says that it is done the cart is frozen in the old one, and from
// then on the old one holds nothing but the marker. It imports storage and cart, no backend.
package moving
