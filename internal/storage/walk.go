package storage

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// Walker is a store that can list its carts. Without it, a cart is found only by its name.
type Walker interface {
	// Page returns the names of about limit carts, in no order, and where to go on: after is "" for the first page and
	// then the next of the page before, and next is "" at the end. A cart that exists from the first page to the last
	// is on at least one page; others may be, reserved ones too, and a page may be empty. Use it seldom. It does not
	// slow changes down.
	Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error)
}

// Fencer is a store whose fences can go on from those of another store. Without it no cart can move to or from the
// store.
type Fencer interface {
	// LastFence returns a number at least as great as every fence of a lease of key so far.
	LastFence(ctx context.Context, key cart.Key) (uint64, error)

	// RaiseFence lets every later lease of key have a fence greater than fence. It may raise others too.
	RaiseFence(ctx context.Context, key cart.Key, fence uint64) error
}

// Loner is a store that lets one of all its sidecars do a chore. The fallback is a lease on a cart that no client can
// name.
type Loner interface {
	// Alone runs do unless another sidecar is at the chore of that name, and reports whether it ran. The context of do
	// ends if the right to the chore is lost. Others may do the chore as soon as do has returned.
	Alone(ctx context.Context, chore string, do func(ctx context.Context) error) (did bool, err error)
}

// Mover is a store to which carts move from another while it is used. Each cart moves when somebody changes it; a walk
// moves the rest.
type Mover interface {
	// Start begins to walk, until the store is closed. Of all stores to which the same carts move, one walks at a time,
	// and the others wait to take over. A walk that broke off begins anew, and skips carts that have moved.
	Start()

	// Finish walks until a whole walk has found nothing left. If another store walks, it does nothing, and did is
	// false. An error says why carts are left.
	Finish(ctx context.Context) (did bool, err error)

	// Progress says how far the move has come.
	Progress() Progress
}

// MoveState is how far a move is.
type MoveState string

// The states of a move.
const (
	// Moving: carts are left, or nobody has looked yet.
	Moving MoveState = "Moving"
	// Done: a whole walk found nothing left.
	Done MoveState = "Done"
)

// Progress is how far a move has come, as one process knows it.
type Progress struct {
	State MoveState
	// Walking says that this process walks. The others do not know how many carts are left.
	Walking bool
	// Carried is how many carts this process has moved, by walking or since somebody changed them.
	Carried uint64
	// Left is how many carts the last whole walk of this process, or the one under way, found and could not move.
	Left int
	// Clean is when the last whole walk of this process that left nothing began; zero for none. Carts that came to the
	// old backend after that were not seen.
	Clean time.Time
	// Err says why one of them could not move, or why the walk does not go on; nil if all is well.
	Err error
}
