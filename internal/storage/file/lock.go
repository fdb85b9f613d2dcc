package file

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// locks are the locks of carts. A change of a cart's file takes one: first among the goroutines of this process, which
// queue, and then among the processes of the machine, which poll. The second is on the cart's own byte of the lock
// file, which is opened anew for it. So it ends with the process, however that ends.
type locks struct {
	path    string
	file    os.FileInfo
	wait    time.Duration
	closing <-chan struct{}

	mu   sync.Mutex
	held map[string]*heldLock
}

type heldLock struct {
	turn  chan struct{} // holds one value while the lock is held
	users int           // how many hold it or wait for it
}

// unlock gives a lock back.
type unlock func()

// open makes the lock file. It must never be deleted or replaced, or two processes would lock two files.
func (l *locks) open(path string, wait time.Duration, closing <-chan struct{}) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return unavailable(err)
	}
	defer func() { _ = f.Close() }()
	if l.file, err = f.Stat(); err != nil {
		return unavailable(err)
	}
	ok, err := lockByte(f, 0)
	if err == nil && ok {
		err = unlockByte(f, 0)
	}
	if err != nil {
		return fmt.Errorf("%w: %s cannot be locked: %w", storage.ErrUnsupported, path, err)
	}
	l.path, l.wait, l.closing, l.held = path, wait, closing, map[string]*heldLock{}
	return nil
}

// unmoved fails if the path no longer leads to the folder that was opened. Writes to a deleted folder are lost, and
// reads after an unmount do not show what was acknowledged.
func (l *locks) unmoved() error {
	now, err := os.Stat(l.path)
	if err == nil && os.SameFile(now, l.file) {
		return nil
	}
	return l.moved(err)
}

func (l *locks) moved(cause error) error {
	if cause == nil {
		cause = errors.New("it is not the file that was opened")
	}
	refusal := &storage.Refusal{Words: "the folder of the carts was moved, replaced or deleted"}
	return fmt.Errorf("%w: %w: %s: %w", storage.ErrUnavailable, refusal, l.path, cause)
}

// lock waits for the lock of a place.
func (l *locks) lock(ctx context.Context, p place) (unlock, error) {
	h := l.enter(p.path)
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		l.leave(p.path, h)
		return nil, ended(ctx)
	case <-l.closing:
		l.leave(p.path, h)
		return nil, storage.ErrClosed
	}
	return l.amongProcesses(p, h, func(f *os.File) error { return l.poll(ctx, f, p.number()) })
}

// errBusy is returned if somebody else holds a lock.
var errBusy = errors.New("the lock is held")

// try takes the lock of a place if nobody holds it.
func (l *locks) try(p place) (unlock, error) {
	h := l.enter(p.path)
	select {
	case h.turn <- struct{}{}:
	default:
		l.leave(p.path, h)
		return nil, errBusy
	}
	return l.amongProcesses(p, h, func(f *os.File) error {
		if ok, err := lockByte(f, p.number()); err != nil || !ok {
			return errors.Join(errBusy, err)
		}
		return nil
	})
}

// amongProcesses opens the lock file and has take lock it.
func (l *locks) amongProcesses(p place, h *heldLock, take func(*os.File) error) (unlock, error) {
	f, err := l.reopen()
	if err == nil {
		if err = take(f); err == nil {
			return func() {
				_ = f.Close() // this gives the lock back
				<-h.turn
				l.leave(p.path, h)
			}, nil
		}
		_ = f.Close()
	}
	<-h.turn
	l.leave(p.path, h)
	return nil, err
}

func (l *locks) reopen() (*os.File, error) {
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, l.moved(err)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, l.file) {
		_ = f.Close()
		return nil, l.moved(err)
	}
	return f, nil
}

// poll waits for other processes. They hold a lock for the time of a change, which is a few milliseconds.
func (l *locks) poll(ctx context.Context, f *os.File, number int64) error {
	if l.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.wait)
		defer cancel()
	}
	for {
		ok, err := lockByte(f, number)
		if err != nil {
			return unavailable(err)
		}
		if ok {
			return nil
		}
		timer := time.NewTimer(time.Millisecond/2 + rand.N(time.Millisecond))
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
			err = fmt.Errorf("another process changes the cart all the while: %w", ended(ctx))
		case <-l.closing:
			err = storage.ErrClosed
		}
		timer.Stop()
		return err
	}
}

func (l *locks) enter(path string) *heldLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[path]
	if h == nil {
		h = &heldLock{turn: make(chan struct{}, 1)}
		l.held[path] = h
	}
	h.users++
	return h
}

func (l *locks) leave(path string, h *heldLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(l.held, path)
	}
}
