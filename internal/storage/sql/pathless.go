package sql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// pathless is the engine of a database whose path is a secret: its errors show no path. It is
// written out, so that a new method cannot be forgotten.
type pathless struct{ inner engine }

func (e pathless) read(ctx context.Context, key cart.Key, documents bool) (*record, error) {
	r, err := e.inner.read(ctx, key, documents)
	return r, withoutPath(err)
}

func (e pathless) update(ctx context.Context, keys []cart.Key, change func(rows []*record) error) error {
	return withoutPath(e.inner.update(ctx, keys, change))
}

func (e pathless) instances(ctx context.Context, identifier string, now time.Time) ([]string, error) {
	instances, err := e.inner.instances(ctx, identifier, now)
	return instances, withoutPath(err)
}

func (e pathless) flush(ctx context.Context) error { return withoutPath(e.inner.flush(ctx)) }
func (e pathless) ping(ctx context.Context) error  { return withoutPath(e.inner.ping(ctx)) }
func (e pathless) beat(ctx context.Context) error  { return withoutPath(e.inner.beat(ctx)) }
func (e pathless) advice() []storage.Advice        { return e.inner.advice() }
func (e pathless) close() error                    { return withoutPath(e.inner.close()) }

// pathlessError is an error without the paths of the files that it is about.
type pathlessError struct {
	text  string
	cause error
}

func (e *pathlessError) Error() string { return e.text }
func (e *pathlessError) Unwrap() error { return e.cause }

// withoutPath leaves the path out of what the operating system says of a file, also where the
// driver passes it on: "open: is a directory".
func withoutPath(err error) error {
	p, ok := errors.AsType[*fs.PathError](err)
	if !ok {
		return err
	}
	return &pathlessError{strings.ReplaceAll(err.Error(), p.Error(), fmt.Sprintf("%s: %v", p.Op, p.Err)), err}
}
