package sql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var (
	_ storage.Locker  = (*Store)(nil)
	_ storage.Beater  = (*Store)(nil)
	_ storage.Advisor = (*Store)(nil)
)

// Config says which database to open.
type Config struct {
	// URL names the database: "sqlite:" and the path of a file, which is made where it
	// is not there.
	URL string
	// SecretURL is the URL where it comes from a secret file. Errors then show that file's
	// name in place of the database's.
	SecretURL storage.Secret
	// Prefix keeps the carts of several stores in one database apart.
	Prefix string
	// Dial bounds Open, Read a read, and Write a commit, each waiting for other
	// processes included; 0 leaves it to the context.
	Dial, Read, Write time.Duration
}

// engine is one kind of database: all that differs between them. It returns errors of
// package storage. All methods are safe for concurrent use.
type engine interface {
	// read reads one row, with its documents if asked, at one instant. A row that is not
	// there is a record that was not found.
	read(ctx context.Context, key cart.Key, documents bool) (*record, error)
	// update reads the rows of keys, calls change, and stores those that it says to
	// save, in one transaction, in which nobody else writes these rows. It gives their leases
	// fences from a counter in the database. An error of change, which is called once at most, stores nothing.
	update(ctx context.Context, keys []cart.Key, change func(rows []*record) error) error
	// instances lists those whose cart exists at now, sorted by their bytes.
	instances(ctx context.Context, identifier string, now time.Time) ([]string, error)
	// flush deletes all rows of the prefix.
	flush(ctx context.Context) error
	// ping proves that a transaction can write, by one that does and one that takes it back.
	ping(ctx context.Context) error
	// beat proves that a transaction could begin to write.
	beat(ctx context.Context) error
	// advice says how safe carts are.
	advice() []storage.Advice
	// close ends calls under way with their result or ErrClosed.
	close() error
}

// Store is a [storage.Locker] in a database.
type Store struct {
	engine      engine
	read, write time.Duration
	closed      chan struct{}
	close       func() error

	mu sync.Mutex
	// waiting has a channel for each Acquire of this process, by token.
	waiting map[string]chan struct{}
}

// Open opens the database and brings its schema up to date. A schema that is newer than
// this program is refused.
func Open(ctx context.Context, c Config) (*Store, error) {
	ctx, cancel := bounded(ctx, c.Dial)
	defer cancel()
	scheme, rest, _ := strings.Cut(cmp.Or(c.SecretURL.Reveal(), c.URL), ":")
	var (
		e   engine
		err error
	)
	switch strings.ToLower(scheme) {
	case "sqlite":
		e, err = openSQLite(ctx, rest, c.SecretURL.String(), c.Prefix)
	default: // the URL may hold a password: say no more of it than the scheme
		switch {
		case c.SecretURL != (storage.Secret{}):
			scheme = c.SecretURL.String()
		case scheme == c.URL: // it has no colon, and so no scheme
			scheme = ""
		}
		err = fmt.Errorf("%w: database URL of scheme %q: write sqlite:PATH", storage.ErrUnsupported, scheme)
	}
	if c.SecretURL != (storage.Secret{}) {
		if err != nil {
			err = fmt.Errorf("%s: %w", c.SecretURL, withoutPath(err))
		}
		e = pathless{e}
	}
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{engine: e, read: c.Read, write: c.Write, closed: make(chan struct{}), waiting: map[string]chan struct{}{}}
	s.close = sync.OnceValue(func() error {
		close(s.closed)
		return e.close()
	})
	return s, nil
}

// bounded is ctx with a timeout, where there is one.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// Load implements [storage.Store].
func (s *Store) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	r, err := s.row(ctx, key, true)
	if err != nil {
		return nil, fmt.Errorf("load %q: %w", key, err)
	}
	// Without its locks: what they would grant just now, and let the cart outlive, nobody has stored.
	state := storage.State{Cart: r.state.Cart}
	state.Settle(time.Now())
	return &state.Cart, nil
}

func (s *Store) row(ctx context.Context, key cart.Key, documents bool) (*record, error) {
	ctx, cancel := bounded(ctx, s.read)
	defer cancel()
	return s.engine.read(ctx, key, documents)
}

// Commit implements [storage.Store].
func (s *Store) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	ctx, cancel := bounded(ctx, s.write)
	defer cancel()
	keys := make([]cart.Key, len(commits))
	for i := range commits {
		keys[i] = commits[i].Key
	}
	var (
		outs    []storage.Outcome
		granted []string
	)
	err := s.engine.update(ctx, keys, func(rows []*record) (err error) {
		outs, granted, err = apply(rows, commits, time.Now())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("commit %q: %w", keys, err)
	}
	s.wake(granted)
	return outs, nil
}

// apply makes the commits on their rows and marks those to save.
func apply(rows []*record, commits []storage.Commit, now time.Time) ([]storage.Outcome, []string, error) {
	states := make([]*storage.State, len(rows))
	var granted []string
	for i, r := range rows {
		states[i] = &r.state
		granted = append(granted, r.state.Settle(now)...)
	}
	outs, released := storage.Apply(states, commits, now)
	for i, r := range rows {
		c := &commits[i]
		if err := r.fill(outs[i].Cart); err != nil {
			return nil, nil, err
		}
		if outs[i].Status != storage.Committed {
			r.save = outs[i].Claimed != storage.Claimed{}
			continue
		}
		r.save = c.Steps > 0 || c.Forget || c.Touch || c.Release || len(c.Writes) > 0 || c.Place != nil
		if c.Place != nil {
			r.items, r.conditions = c.Place.Items.Object.Bytes(), c.Place.Conditions.Object.Bytes()
		}
		for _, w := range c.Writes {
			switch {
			case c.Forget:
			case w.Part == cart.PartItems:
				r.items = w.Value
			case w.Part == cart.PartConditions:
				r.conditions = w.Value
			}
		}
	}
	return outs, append(granted, released...), nil
}

// Atomic implements [storage.Store].
func (s *Store) Atomic(_, _ cart.Key) bool { return true }

// Instances implements [storage.Store].
func (s *Store) Instances(ctx context.Context, identifier string) ([]string, error) {
	ctx, cancel := bounded(ctx, s.read)
	defer cancel()
	instances, err := s.engine.instances(ctx, identifier, time.Now())
	if err != nil {
		return nil, fmt.Errorf("instances of %q: %w", identifier, err)
	}
	return instances, nil
}

// Flush implements [storage.Store]. It deletes in steps, so that others get
// their turn, and takes as long as ctx allows.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.engine.flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Ping implements [storage.Store].
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := bounded(ctx, s.write)
	defer cancel()
	if err := s.engine.ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// Beat implements [storage.Beater].
func (s *Store) Beat(ctx context.Context) error {
	ctx, cancel := bounded(ctx, s.write)
	defer cancel()
	if err := s.engine.beat(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// Advice implements [storage.Advisor].
func (s *Store) Advice(context.Context) ([]storage.Advice, error) { return s.engine.advice(), nil }

// Capabilities implements [storage.Store]. Shared is among the processes of one
// machine where the database is SQLite.
func (s *Store) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Database", Shared: true, Locks: true, Durable: true}
}

// Close implements [storage.Store].
func (s *Store) Close() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// ended tells how a call ends whose context did: a deadline means that the
// database did not answer in time.
func ended(ctx context.Context, cause error) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
