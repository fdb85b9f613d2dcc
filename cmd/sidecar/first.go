package main

import (
	"context"

	"github.com/sidecart/sidecart/internal/config"
)

// first is what a sidecar starts with.
type first struct {
	config *config.Config
	stores stores
	// refused says why the sidecar does not start on the newest configuration; nil if it does.
	refused error
	// alsoWatched are the files that the newest configuration depends on, if it is another one.
	alsoWatched []string
}

// first chooses what to start with. A restart obeys the same rules as a change while it runs. If the newest
// configuration has another backend than the one that worked last, it must be valid and its backend must answer.
// Otherwise the sidecar starts on the one that worked. If none has worked yet, the newest is used as it is.
//
// The choice is made before anything is served, so that no change is acknowledged on a backend that the sidecar is
// about to leave.
func (l *layers) first(ctx context.Context) (*first, error) {
	newest, refused := l.load()
	good := l.loadLastGood()
	if refused != nil && good == nil {
		return nil, refused
	}
	if refused == nil && (good == nil || identitiesOf(newest) == identitiesOf(good)) {
		return openFirst(ctx, newest)
	}
	var also []string
	if refused == nil {
		opened, err := openStores(ctx, newest, stores{}, true)
		if err == nil {
			return &first{config: newest, stores: opened}, nil
		}
		refused, also = err, l.watched(newest)
	}
	f, err := openFirst(ctx, good)
	switch {
	case err == nil:
		f.refused, f.alsoWatched = refused, also
		return f, nil
	case newest != nil:
		return openFirst(ctx, newest)
	}
	return nil, refused
}

// openFirst opens the stores of c, which need not answer yet.
func openFirst(ctx context.Context, c *config.Config) (*first, error) {
	opened, err := openStores(ctx, c, stores{}, false)
	if err != nil {
		return nil, err
	}
	return &first{config: c, stores: opened}, nil
}
