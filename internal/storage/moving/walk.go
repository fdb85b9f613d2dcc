package moving

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// walk is the state of the walk.
type walk struct {
	mu       sync.Mutex
	progress storage.Progress
	stop     context.CancelFunc // of the walk that Start began
	stopped  sync.WaitGroup
}

func (w *walk) note(f func(p *storage.Progress)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.progress)
}

// Progress implements [storage.Mover].
func (s *Store) Progress() storage.Progress {
	s.walk.mu.Lock()
	defer s.walk.mu.Unlock()
	p := s.walk.progress
	if p.State == "" {
		p.State = storage.Moving
	}
	return p
}

const (
	// chore is the name of the walk, which one sidecar does for all.
	chore = "move"
	// pageSize is how many names are asked for at once.
	pageSize = 200
	// firstPatience is how long the walk queues for a locked cart. It doubles with each walk, up to lastPatience, since
	// one client's lease may follow another.
	firstPatience = time.Second
	lastPatience  = 30 * time.Second
	// leastPause is the shortest pause between two carts, so that the walk moves a thousand carts a second at most. The
	// pause is also as long as the last cart took, so that the walk uses one connection half of the time.
	leastPause = time.Millisecond
	mostPause  = time.Second
	// betweenWalks is how long it rests before it looks for carts that are left. whileDone is how long it rests after
	// there were none: a sidecar that does not know of the move may still create some.
	betweenWalks = time.Second
	whileDone    = 30 * time.Second
	// takeover is how often a sidecar checks whether another does the walk.
	takeover = 5 * time.Second
)

// Start implements [storage.Mover].
func (s *Store) Start() {
	ctx, stop := context.WithCancel(context.Background())
	s.walk.mu.Lock()
	defer s.walk.mu.Unlock()
	if s.walk.stop != nil {
		stop()
		return
	}
	s.walk.stop = stop
	s.walk.stopped.Go(func() { s.run(ctx) })
}

// end ends the walk that Start began.
func (w *walk) end() {
	w.mu.Lock()
	stop := w.stop
	w.mu.Unlock()
	if stop != nil {
		stop()
	}
	w.stopped.Wait()
}

// run walks until ctx ends, whenever nobody else does.
func (s *Store) run(ctx context.Context) {
	for ctx.Err() == nil {
		did, err := s.alone(ctx, s.walkOn)
		s.walk.note(func(p *storage.Progress) {
			p.Walking = false
			if err != nil && ctx.Err() == nil {
				p.Err = err
			} else if !did {
				p.Err = nil
			}
		})
		_ = wait(ctx, takeover)
	}
}

// Finish implements [storage.Mover].
func (s *Store) Finish(ctx context.Context) (did bool, err error) {
	return s.alone(ctx, func(ctx context.Context) error {
		for patience := firstPatience; ; patience = min(2*patience, lastPatience) {
			left, err := s.once(ctx, patience)
			if err != nil || left == 0 {
				return err
			}
			if p := s.Progress(); errors.Is(p.Err, storage.ErrTooLarge) {
				return fmt.Errorf("%d carts are left: %w", p.Left, p.Err)
			}
			if err := wait(ctx, betweenWalks); err != nil {
				return err
			}
		}
	})
}

// walkOn walks again and again.
func (s *Store) walkOn(ctx context.Context) error {
	s.walk.note(func(p *storage.Progress) { p.Walking = true })
	patience := firstPatience
	for {
		left, err := s.once(ctx, patience)
		if err != nil {
			return err
		}
		pause := betweenWalks
		if patience = min(2*patience, lastPatience); left == 0 {
			pause, patience = whileDone, firstPatience
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// once makes one whole walk, and returns how many carts it left where they are. An error has ended the walk.
func (s *Store) once(ctx context.Context, patience time.Duration) (left int, err error) {
	found, began := 0, time.Now()
	var why error
	err = s.pages(ctx, func(keys []cart.Key) error {
		for _, key := range keys {
			started := time.Now()
			staying, err := s.carry(ctx, key, patience)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			pause := max(leastPause, min(time.Since(started), mostPause))
			switch {
			case err != nil: // it may be that the backend has enough to do
				left, why, pause = left+1, err, mostPause
			case staying != nil:
				left, why = left+1, staying
			}
			if left != found || why != nil {
				found = left
				s.walk.note(func(p *storage.Progress) { p.State, p.Left, p.Err = storage.Moving, max(p.Left, left), why })
			}
			if err := wait(ctx, pause); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return left, err
	}
	s.walk.note(func(p *storage.Progress) {
		p.State, p.Left, p.Err = storage.Done, left, why
		if left > 0 {
			p.State = storage.Moving
		} else {
			p.Clean = began
		}
	})
	return left, nil
}

// pages gives visit the names in the old store, page by page, without those that no client can name.
func (s *Store) pages(ctx context.Context, visit func(keys []cart.Key) error) error {
	w, ok := storage.As[storage.Walker](s.old)
	if !ok {
		return fmt.Errorf("%w: the old backend cannot find all carts; each moves when somebody changes it", storage.ErrUnsupported)
	}
	for after := ""; ; {
		keys, next, err := w.Page(ctx, after, pageSize)
		if err != nil {
			return err
		}
		named := keys[:0:len(keys)]
		for _, key := range keys {
			if key.Identifier != "" {
				named = append(named, key)
			}
		}
		if err := visit(named); err != nil {
			return err
		}
		if after = next; next == "" {
			return nil
		}
	}
}

// alone is [storage.Loner] of the old store, or a lease there on a name that no client can have.
func (s *Store) alone(ctx context.Context, do func(ctx context.Context) error) (did bool, err error) {
	if l, ok := storage.As[storage.Loner](s.old); ok {
		return l.Alone(ctx, chore, do)
	}
	key := cart.Key{Instance: "chore-" + chore}
	claim := s.newTurn()
	claim.Leased, claim.Duration = true, choreTTL
	try, cancel := context.WithTimeout(ctx, storage.Heartbeat)
	_, err = s.old.Acquire(try, key, claim, false)
	cancel()
	if errors.Is(err, storage.ErrLockTimeout) && ctx.Err() == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer giveBack(ctx, s.old, key, claim.Token)
	ctx, cancel = context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		defer cancel()
		s.keep(ctx, key, claim.Token)
	}()
	err = do(ctx)
	cancel()
	<-kept
	return true, err
}

// choreTTL is how long it takes until another takes over the walk of a sidecar that died.
const choreTTL = 15 * time.Second

// keep renews a lease until ctx ends or the lease is lost.
func (s *Store) keep(ctx context.Context, key cart.Key, token string) {
	for ends := time.Now().Add(choreTTL); time.Now().Before(ends); {
		if wait(ctx, choreTTL/3) != nil {
			return
		}
		asked := time.Now()
		switch _, err := s.old.Renew(ctx, key, token, choreTTL); {
		case err == nil:
			ends = asked.Add(choreTTL)
		case errors.Is(err, storage.ErrLockLost), errors.Is(err, storage.ErrLockUnknown):
			return
		}
	}
}
