package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/open"
)

// stores are where carts and checkouts are.
type stores struct {
	carts storage.Store
	// checkouts is the critical backend; nil if checkouts are beside the carts.
	checkouts storage.Store
	// identities are those that the stores were opened from.
	identities identities
}

// identities say what the stores of a configuration are opened from.
type identities struct{ carts, checkouts string }

func identitiesOf(c *config.Config) identities {
	return identities{open.Identity(c), open.CriticalIdentity(c)}
}

// openStores opens the stores of c. It reuses a present store that is opened from the same settings, since opening a
// memory store anew loses its carts. If probed is true, a newly opened store must give a sign of life.
func openStores(ctx context.Context, c *config.Config, present stores, probed bool) (stores, error) {
	s := stores{identities: identitiesOf(c)}
	if s.identities.carts == present.identities.carts {
		s.carts = present.carts
	}
	if s.identities.checkouts == present.identities.checkouts {
		s.checkouts = present.checkouts
	}
	err := s.open(ctx, c, present, probed)
	if err != nil {
		return stores{}, errors.Join(err, s.close(present))
	}
	return s, nil
}

func (s *stores) open(ctx context.Context, c *config.Config, present stores, probed bool) (err error) {
	if s.carts == nil {
		if s.carts, err = open.Store(ctx, c); err != nil {
			return err
		}
		if probed {
			if err := probe(ctx, c, "backend", &c.Backend, s.carts); err != nil {
				return err
			}
		}
	}
	if s.checkouts == nil {
		if s.checkouts, err = open.Critical(ctx, c); err != nil {
			return err
		}
		if probed && s.checkouts != nil {
			return probe(ctx, c, "criticalBackend", c.CriticalBackend, s.checkouts)
		}
	}
	return nil
}

// probe fails if a store of c gives no sign of life.
func probe(ctx context.Context, c *config.Config, path string, b *config.Backend, store storage.Store) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime(c))
	defer cancel()
	if err := store.Ping(ctx); err != nil {
		return config.Problems{{Path: path, Message: fmt.Sprintf("%s %s", describe(b), trouble(err))}}
	}
	return nil
}

// close closes the stores that are not in kept.
func (s stores) close(kept stores) error {
	var errs []error
	if s.carts != nil && s.carts != kept.carts {
		errs = append(errs, s.carts.Close())
	}
	if s.checkouts != nil && s.checkouts != kept.checkouts {
		errs = append(errs, s.checkouts.Close())
	}
	return errors.Join(errs...)
}
