package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// Config says which folder to use.
type Config struct {
	// Directory is created if it does not exist.
	Directory string
	// Prefix keeps the carts of several stores in one folder apart: letters, digits, and _ : . -.
	Prefix string
	// Write bounds how long a change may wait for another process that holds the cart's file. The wait behind others in
	// this process does not count. 0 leaves it to the context.
	Write time.Duration
}

var (
	_ cell.Driver     = (*driver)(nil)
	_ cell.Lister     = (*driver)(nil)
	_ cell.Counter    = (*driver)(nil)
	_ cell.Flusher    = (*driver)(nil)
	_ cell.Walker     = (*driver)(nil)
	_ storage.Beater  = (*driver)(nil)
	_ storage.Advisor = (*driver)(nil)
)

// driver is a [cell.Driver] over the folder of a prefix.
type driver struct {
	root    string
	locks   locks
	closing chan struct{}
	changes sync.RWMutex // held for reading while files are changed, so that Close can wait for that
	sweeper sweeper
}

// Open opens the folder.
func Open(c Config) (*cell.Store, error) {
	d, err := openDriver(c)
	if err != nil {
		return nil, fmt.Errorf("open folder of carts: %w", err)
	}
	return cell.New(d), nil
}

func openDriver(c Config) (*driver, error) {
	if c.Directory == "" {
		return nil, fmt.Errorf("%w: the folder is missing: write a path, such as /var/lib/sidecart", storage.ErrUnsupported)
	}
	directory, err := filepath.Abs(c.Directory) // the process may change its working directory later
	if err != nil {
		return nil, unavailable(err)
	}
	d := &driver{root: filepath.Join(directory, "carts."+c.Prefix), closing: make(chan struct{})}
	if err := makeFolders(d.root); err != nil {
		return nil, unavailable(err)
	}
	if err := d.locks.open(filepath.Join(d.root, "lock"), c.Write, d.closing); err != nil {
		return nil, err
	}
	d.sweeper.driver = d
	return d, nil
}

// enter fails if the driver is closed, ctx has ended, or the folder is not the one that was opened.
func (d *driver) enter(ctx context.Context) error {
	select {
	case <-d.closing:
		return storage.ErrClosed
	default:
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return d.locks.unmoved()
}

// Load implements [cell.Driver]. A file is replaced in one step, so it takes no lock.
func (d *driver) Load(ctx context.Context, key cart.Key, documents bool) (r cell.Record, now time.Time, err error) {
	if err = d.enter(ctx); err == nil {
		r, _, err = d.read(d.place(key))
	}
	if err == nil && documents {
		err = r.Documents(&r.State.Cart)
	}
	return r, time.Now(), err
}

// Update implements [cell.Driver].
func (d *driver) Update(ctx context.Context, keys []cart.Key, change cell.Change) error {
	d.changes.RLock()
	defer d.changes.RUnlock()
	if err := d.enter(ctx); err != nil {
		return err
	}
	if err := d.update(ctx, d.place(keys[0]), change); err != nil {
		return err
	}
	d.sweeper.step(time.Now())
	return nil
}

func (d *driver) update(ctx context.Context, p place, change cell.Change) error {
	unlock, err := d.locks.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	r, found, err := d.read(p)
	if err != nil {
		return err
	}
	if err := change(time.Now(), []*cell.Record{&r}); err != nil || !r.Save {
		return err
	}
	switch value := r.Encode(); {
	case value != nil:
		return p.replace(cell.EncodeNamed(p.key, value), r.State.Ends())
	case found:
		return p.remove()
	}
	return nil
}

// read returns the record of a file; found says whether there is one.
func (d *driver) read(p place) (r cell.Record, found bool, err error) {
	stored, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		r, err = cell.DecodeRecord(nil)
		return r, false, err
	}
	if err != nil {
		return r, false, unavailable(err)
	}
	value, err := cell.DecodeNamed(p.key, stored)
	if err == nil {
		r, err = cell.DecodeRecord(value)
	}
	if err != nil {
		return cell.Record{}, true, fmt.Errorf("file %s: %w", p.path, err)
	}
	return r, true, nil
}

// Instances implements [cell.Lister].
func (d *driver) Instances(ctx context.Context, identifier string) (instances []string, err error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	first := d.place(cart.Key{Identifier: identifier})
	err = d.each(ctx, first.folder, func(path string) error {
		if !first.sameIdentifier(path) {
			return nil
		}
		key, exists, err := cartAt(path, time.Now())
		if exists {
			instances = append(instances, key.Instance)
		}
		return err
	})
	return instances, err
}

// Count implements [cell.Counter]. A file that is damaged is no cart.
func (d *driver) Count(ctx context.Context, most int) (n int, err error) {
	if err := d.enter(ctx); err != nil {
		return 0, err
	}
	for i := 0; i < folders && n < most && err == nil; i++ {
		err = d.each(ctx, d.folder(i), func(path string) error {
			key, exists, err := cartAt(path, time.Now())
			if exists && !key.Reserved() && n < most {
				n++
			}
			if errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrUnsupported) {
				return nil
			}
			return err
		})
	}
	return n, err
}

// cartAt reads a file and returns its cart's key, and whether it holds a cart that has not expired.
func cartAt(path string, now time.Time) (key cart.Key, exists bool, err error) {
	key, state, err := stateAt(path)
	c := &state.Cart
	return key, c.Exists() && (c.ExpiresAt.IsZero() || now.Before(c.ExpiresAt)), err
}

// Page implements [cell.Walker]: the carts of one folder, or as many of them as were asked for, in the order of their
// files. Where it goes on is the number of a folder, and the last file that it had of it.
func (d *driver) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	if err := d.enter(ctx); err != nil {
		return nil, "", err
	}
	folder, last, _ := strings.Cut(after, "/")
	i := 0
	if after != "" {
		if i, err = strconv.Atoi(folder); err != nil || i < 0 || i >= folders {
			return nil, "", fmt.Errorf("%w: %q is no place in a walk", storage.ErrUnsupported, after)
		}
	}
	var paths []string
	err = d.each(ctx, d.folder(i), func(path string) error {
		if filepath.Base(path) > last {
			paths = append(paths, path)
		}
		return nil
	})
	slices.Sort(paths)
	if i+1 < folders {
		next = strconv.Itoa(i + 1)
	}
	if len(paths) > limit {
		paths = paths[:limit]
		next = strconv.Itoa(i) + "/" + filepath.Base(paths[limit-1])
	}
	for _, path := range paths {
		if err != nil {
			break
		}
		var key cart.Key
		if key, _, err = stateAt(path); err == nil && key != (cart.Key{}) {
			keys = append(keys, key)
		}
	}
	return keys, next, err
}

// stateAt reads a file. A file that has gone has the zero state.
func stateAt(path string) (key cart.Key, state storage.State, err error) {
	stored, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return key, state, nil
	}
	if err != nil {
		return key, state, unavailable(err)
	}
	key, value, err := cell.ReadNamed(stored)
	if err == nil {
		state, _, _, err = storage.DecodeState(value)
	}
	if err != nil {
		return key, storage.State{}, fmt.Errorf("file %s: %w", path, err)
	}
	return key, state, nil
}

// Flush implements [cell.Flusher]. It deletes damaged files too.
func (d *driver) Flush(ctx context.Context) error {
	d.changes.RLock()
	defer d.changes.RUnlock()
	if err := d.enter(ctx); err != nil {
		return err
	}
	for i := range folders {
		err := d.each(ctx, d.folder(i), func(path string) error {
			p := placeAt(path)
			unlock, err := d.locks.lock(ctx, p)
			if err != nil {
				return err
			}
			defer unlock()
			return p.unlink()
		})
		if err == nil {
			err = syncFolder(d.folder(i))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Beat implements [storage.Beater]: a file can be made and written, which the disk need not have yet.
func (d *driver) Beat(ctx context.Context) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	path := filepath.Join(d.root, "beat") // shared by all processes, so that killed ones leave only this one file
	err := os.WriteFile(path, make([]byte, 4<<10), 0o600)
	if gone := os.Remove(path); err == nil && !errors.Is(gone, fs.ErrNotExist) {
		err = gone
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(context.Context) ([]storage.Advice, error) {
	return []storage.Advice{{
		Code: storage.AdviceOneMachine,
		Message: "A folder of carts is shared by the processes of one machine only: a pod elsewhere has carts of its own. " +
			"Run one pod, or use a backend that pods share.",
	}}, nil
}

// Capabilities implements [cell.Driver]. Shared is among the processes of one machine.
func (d *driver) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "File", Shared: true, Durable: true}
}

// Close implements [cell.Driver]. Calls under way end with their result.
func (d *driver) Close() error {
	close(d.closing)
	d.changes.Lock()
	defer d.changes.Unlock()
	d.sweeper.close()
	return nil
}
