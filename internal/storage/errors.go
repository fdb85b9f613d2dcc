package storage

import (
	"errors"
	"fmt"
)

// Sentinels of all backends, matched with errors.Is. The cause is kept below them. Conflicts and held locks are
// outcomes of a commit, not errors.
var (
	// ErrUnavailable is returned when the backend does not answer in time or cannot be reached. After a Commit it means
	// that the outcome is unknown: the change happened once or not at all.
	ErrUnavailable = errors.New("backend unavailable")
	// ErrUnsupported is returned when the backend cannot do what was asked, ever.
	ErrUnsupported = errors.New("unsupported by this backend")
	// ErrTooLarge is returned when the backend cannot hold a cart of that size; nothing was changed.
	ErrTooLarge = errors.New("too large for this backend")
	// ErrCorrupt is returned when the backend holds something under a cart's name that is not a cart; nothing was
	// changed.
	ErrCorrupt = errors.New("stored cart is damaged")
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("store is closed")
	// ErrLockTimeout is returned when the whole wait time has passed without the lock.
	ErrLockTimeout = errors.New("lock wait timed out")
	// ErrLockLost is returned when the lease of a token has expired or was taken.
	ErrLockLost = errors.New("lock lost")
	// ErrLockUnknown is returned when a token has no lease: it never was, was released, is forgotten, or belongs to
	// another cart.
	ErrLockUnknown = errors.New("no such lease")
)

// ErrTooLate is the ErrUnavailable of a [Locker.Acquire] whose lease was granted and had ended before its claim
// arrived, or arrived again.
var ErrTooLate = fmt.Errorf("%w: the lease ended before the answer to its claim came", ErrUnavailable)

// Errors lists every sentinel, for tables that must be complete.
var Errors = []error{ErrUnavailable, ErrUnsupported, ErrTooLarge, ErrCorrupt, ErrClosed, ErrLockTimeout, ErrLockLost, ErrLockUnknown}
