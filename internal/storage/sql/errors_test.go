package sql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// classed is a dialect all of whose errors are of one class.
type classed struct {
	Dialect
	class Class
	words string
}

func (c classed) Classify(error) (Class, string) { return c.class, c.words }

// TestTranslate shows what an error of each class becomes: while the store is open and after it was closed, within the
// bound and after it, and in a commit that may have been made.
func TestTranslate(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for name, tc := range map[string]struct {
		class                    Class
		words                    string
		closed, bounded, unknown bool

		want    error
		again   bool
		refused string
	}{
		"unreached":           {class: Unreached, want: storage.ErrUnavailable},
		"unreached, closed":   {class: Unreached, closed: true, want: storage.ErrClosed},
		"unreached, in words": {class: Unreached, words: "no TLS", want: storage.ErrUnavailable, refused: "no TLS"},
		"lost":                {class: Lost, want: storage.ErrUnavailable, again: true},
		"lost, closed":        {class: Lost, closed: true, want: storage.ErrClosed},
		"lost, late":          {class: Lost, bounded: true, want: storage.ErrUnavailable},
		"lost, unknown":       {class: Lost, unknown: true, want: storage.ErrUnavailable},
		"late":                {class: Late, words: "x", want: storage.ErrUnavailable},
		"again":               {class: Again, words: "x", want: storage.ErrUnavailable, again: true},
		"again, closed":       {class: Again, words: "x", closed: true, want: storage.ErrUnavailable, again: true},
		"again, unknown":      {class: Again, words: "x", unknown: true, want: storage.ErrUnavailable},
		"too large":           {class: TooLarge, words: "x", want: storage.ErrTooLarge},
		"corrupt":             {class: Corrupt, words: "x", want: storage.ErrCorrupt},
		"no table":            {class: NoTable, words: "gone", want: storage.ErrUnavailable, refused: "gone"},
		"denied":              {class: Denied, words: "no right", want: storage.ErrUnavailable, refused: "no right"},
		"refused":             {class: Refused, words: "no", want: storage.ErrUnavailable, refused: "no"},
		"refused, unknown":    {class: Refused, words: "no", unknown: true, want: storage.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Life: NewLife(), dialect: classed{class: tc.class, words: tc.words}}
			if tc.closed {
				s.Life.End(func() {})
			}
			bounded, cause := t.Context(), errors.New("cause")
			if tc.bounded {
				bounded = ended
			}
			if tc.unknown {
				cause = fmt.Errorf("%w: %w", cause, cell.ErrOutcomeUnknown)
			}
			err := s.Translate(t.Context(), bounded, cause)
			words, _ := storage.RefusalOf(err)
			if !errors.Is(err, tc.want) || errors.Is(err, ErrAgain) != tc.again || words != tc.refused || !errors.Is(err, cause) {
				t.Errorf("%v, with the words %q", err, words)
			}
		})
	}
}

// TestDeniedMigration: if a migration lacks a right, the error says what to do about it. No other error does. Neither
// shows a secret, since servers quote the user whom they refuse.
func TestDeniedMigration(t *testing.T) {
	s := &Server{
		Life: NewLife(), dialect: classed{class: Denied, words: "no right for shop-user"}, rights: Rights{Account: "role"},
		Hidden: []storage.Secret{storage.NewSecret("shop-user", "/s/user")},
	}
	cause := errors.New("42: no right for shop-user")
	for advised, err := range map[bool]error{
		true: s.ofMigration(t.Context(), cause), false: s.Translate(t.Context(), t.Context(), cause),
	} {
		words, _ := storage.RefusalOf(err)
		if !strings.HasPrefix(words, "no right") || strings.Contains(words, "make or change its tables") != advised {
			t.Errorf("%v: %q", advised, words)
		}
		if !errors.Is(err, cause) || strings.Contains(words+err.Error(), "shop-user") {
			t.Errorf("%v: %q, refused with %q", advised, err, words)
		}
	}
	tooOld := fmt.Errorf("%w: too old", storage.ErrUnsupported)
	if err := s.ofMigration(t.Context(), tooOld); !errors.Is(err, storage.ErrUnsupported) || errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("a newer schema: %v", err)
	}
	if err := s.ofMigration(t.Context(), nil); err != nil {
		t.Errorf("no error: %v", err)
	}
}
