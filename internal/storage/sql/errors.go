package sql

import (
	"context"
	"errors"
	"fmt"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// Class is what an error means for a call. The error is the server's, or that of the library that talks to it.
type Class int

// The classes. The first two can also come of closing the store.
const (
	// Unreached means that there was no connection or no answer, or that the library rejected the answer.
	Unreached Class = iota
	// Lost means that the connection ended, and with it everything uncommitted.
	Lost
	// Late means that the server gave up: the statement took too long, or waited too long for a lock.
	Late
	// Again means that the server changed nothing, and a second try may succeed.
	Again
	// TooLarge means that something does not fit.
	TooLarge
	// Corrupt means that stored data are damaged.
	Corrupt
	// NoTable means that somebody removed a table.
	NoTable
	// Denied means that the account lacks a right.
	Denied
	// Refused is every other refusal of the server.
	Refused
)

// Translate turns an error into one that matches a sentinel of package storage. It also matches ErrAgain if nothing was
// changed and a second try may succeed. bounded is ctx with the bound of the call.
func (s *Server) Translate(ctx, bounded context.Context, err error) error {
	hidden := storage.Hide(err, s.Hidden...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, storage.ErrCorrupt), errors.Is(err, storage.ErrClosed):
		return err
	case ctx.Err() != nil && !s.Life.Over():
		return Ended(ctx, hidden)
	}
	class, words := s.dialect.Classify(err)
	switch {
	case class <= Lost && s.Life.Over():
		return fmt.Errorf("%w: %w", storage.ErrClosed, hidden)
	case errors.Is(err, cell.ErrOutcomeUnknown), class == Late, class == Lost && bounded.Err() != nil:
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, hidden)
	case class == Lost, class == Again:
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, ErrAgain, hidden)
	case class == TooLarge:
		return fmt.Errorf("%w: %w", storage.ErrTooLarge, hidden)
	case class == Corrupt:
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, hidden)
	case class == Unreached && words == "":
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, hidden)
	case class == NoTable:
		s.Schema.Again()
	}
	refusal := &storage.Refusal{Words: storage.HideIn(words, s.Hidden...)}
	return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, refusal, hidden)
}

// ofMigration translates an error of [Dialect.Migrate]. It says what to do if the account may not make the tables.
func (s *Server) ofMigration(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, storage.ErrUnsupported) {
		return err
	}
	if class, words := s.dialect.Classify(err); class == Denied {
		return s.rights.Missing(storage.HideIn(words, s.Hidden...), storage.Hide(err, s.Hidden...))
	}
	return s.Translate(ctx, ctx, err)
}
