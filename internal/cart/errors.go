package cart

import (
	"errors"
	"fmt"
)

// The sentinels of the domain. Every error that a verb returns matches exactly one of them with errors.Is.
var (
	// ErrInvalid is matched when a document, field, name or number breaks a rule.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge is matched when a document or a number of items is over its limit.
	ErrTooLarge = errors.New("too large")
	// ErrNotFound is matched when an item to update is not there.
	ErrNotFound = errors.New("not found")
	// ErrConflict is matched when a precondition names another version than the current one, or no version at all.
	ErrConflict = errors.New("conflict")
)

// InvalidError says which field breaks which rule. It matches [ErrInvalid], or [ErrTooLarge] when TooLarge is set.
type InvalidError struct {
	// Field is the path of the field as the client wrote it: `items["sku-1"].quantity`.
	Field string
	// Problem says what is wrong and what would be right.
	Problem string
	// TooLarge says that the request exceeds a limit on size or number. Limit is that limit. Actual is what the request
	// would have led to, in the same unit.
	TooLarge      bool
	Limit, Actual int64
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

// Is makes errors.Is answer for the sentinel.
func (e *InvalidError) Is(target error) bool {
	if e.TooLarge {
		return target == ErrTooLarge
	}
	return target == ErrInvalid
}

// Invalidf makes an [*InvalidError] that matches [ErrInvalid].
func Invalidf(field, format string, args ...any) error {
	return &InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// TooLargef makes an [*InvalidError] that matches [ErrTooLarge].
func TooLargef(field string, limit, actual int64, format string, args ...any) error {
	return &InvalidError{Field: field, Problem: fmt.Sprintf(format, args...), TooLarge: true, Limit: limit, Actual: actual}
}

// NotFoundError says what is not there. It matches [ErrNotFound].
type NotFoundError struct {
	// What is the kind of thing: "item".
	What string
	// Name is which one.
	Name string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("%s %q is not there", e.What, e.Name) }

// Is makes errors.Is answer for [ErrNotFound].
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// ConflictError says which version was expected and which is there. It matches [ErrConflict].
type ConflictError struct {
	// Attempted is the version that the caller's etag names. It is 0 if the caller expected nothing to be there, or
	// gave something that is no etag.
	Attempted uint64
	// Current is the current version; 0 if nothing is there.
	Current uint64
	// Problem says it in words.
	Problem string
}

func (e *ConflictError) Error() string { return e.Problem }

// Is makes errors.Is answer for [ErrConflict].
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
