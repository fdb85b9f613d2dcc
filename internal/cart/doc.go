// Package cart is the domain: documents, verbs, versions, etags, limits and merge strategies. It is pure: no I/O, no
// clock, no randomness, and it imports the standard library only.
//
// Values of this package are immutable once they are shared. A [Cart] that came from a backend or a cache is never
// written to. A change goes through a [Draft], which copies what it alters.
package cart
