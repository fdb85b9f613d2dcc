package moving

import (
	"context"
	"fmt"
	"strings"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Walker = (*Store)(nil)

// The first letters of a place say in which store it is.
const inOld, inNew = "old:", "new:"

// Page implements [storage.Walker]: the names of the old store, and then those of the new one. In the other order, the
// walk could miss a cart that moves meanwhile: it would have passed the one store before the cart came, and reach the
// other after the cart had gone. A cart that has moved is on two pages.
func (s *Store) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	after, there := strings.CutPrefix(after, inNew)
	from := storage.Store(s.old)
	if there {
		from = s.new
	} else {
		after = strings.TrimPrefix(after, inOld)
	}
	w, ok := storage.As[storage.Walker](from)
	if !ok {
		return nil, "", fmt.Errorf("walk: %w: %s cannot find all carts", storage.ErrUnsupported, from.Capabilities().Backend)
	}
	if keys, next, err = w.Page(ctx, after, limit); err != nil {
		return nil, "", err
	}
	switch {
	case there && next == "":
	case there || next == "":
		next = inNew + next
	default:
		next = inOld + next
	}
	return keys, next, nil
}
