package open

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/moving"
)

// mover is shown to people who look at a lock that a move holds.
const mover = "a move between backends"

// openMoving opens both backends of a move as one store, a [storage.Mover] that nobody has started.
func openMoving(ctx context.Context, c *config.Config) (storage.Store, error) {
	to := *c
	to.MoveFrom = nil
	into, err := backend(ctx, &to)
	if err != nil {
		return nil, err
	}
	from, err := anyBackend(ctx, c.From())
	if err != nil {
		return nil, errors.Join(under("moveFrom.backend", "the backend that carts move from", err), into.Close())
	}
	s, err := moving.New(from, into, mover)
	if err != nil {
		return nil, errors.Join(err, from.Close(), into.Close())
	}
	return s, nil
}

// under gives the problems of a backend, which was opened as if it were the only one, its real path. Other errors get
// the name of what was opened.
func under(path, what string, err error) error {
	problems, ok := errors.AsType[config.Problems](err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	there := make(config.Problems, len(problems))
	for i, p := range problems {
		if rest, ok := strings.CutPrefix(p.Path, "backend"); ok {
			p.Path = path + rest
		}
		there[i] = p
	}
	return there
}
