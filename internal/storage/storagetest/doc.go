// Package storagetest is the conformance suite of [storage.Store]. Every backend and every wrapper around one passes
// [Run], over real servers and never a mock. [Caps] names what a backend cannot do, with the reason, and the suite then
// asserts that the backend refuses it. A backend whose data are files of one machine passes the tests of [Local] too:
// several processes at once, some of them killed or stopped, and a full disk.
//
// It imports storage, cart and testing, never a backend.
package storagetest
