package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// pathlessError is an error without the paths of the files that it is about.
type pathlessError struct {
	text  string
	cause error
}

func (e *pathlessError) Error() string { return e.text }
func (e *pathlessError) Unwrap() error { return e.cause }

// WithoutPath removes the path of a file from an error of the operating system, as in "open: is a directory", also if
// the driver has wrapped that error.
func WithoutPath(err error) error {
	p, ok := errors.AsType[*fs.PathError](err)
	if !ok {
		return err
	}
	return &pathlessError{strings.ReplaceAll(err.Error(), p.Error(), fmt.Sprintf("%s: %v", p.Op, p.Err)), err}
}
