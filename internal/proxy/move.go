package proxy

import (
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// statusMove is what this sidecar knows of a move. Left is known to the one that walks.
type statusMove struct {
	From    string            `json:"from"`
	State   storage.MoveState `json:"state"`
	Walking bool              `json:"walking"`
	Carried uint64            `json:"carried"`
	Left    int               `json:"left"`
	// CleanSeconds is how long ago this sidecar began its last complete walk that left nothing; null if there was none.
	// It is an age, because the reader's clock may differ.
	CleanSeconds *float64 `json:"cleanSeconds,omitempty"`
	Message      string   `json:"message,omitempty"`
}

func moveOf(b *Backend) *statusMove {
	if b.Move == nil {
		return nil
	}
	p := b.Move()
	m := &statusMove{From: b.MovesFrom, State: p.State, Walking: p.Walking, Carried: p.Carried, Left: p.Left}
	if !p.Clean.IsZero() {
		age := time.Since(p.Clean).Seconds()
		m.CleanSeconds = &age
	}
	if p.Err != nil {
		m.Message = "carts are left: " + moveTrouble(p.Err)
	}
	return m
}

// moveTrouble says why carts are left. It drops the names of carts in the errors of stores.
func moveTrouble(err error) string {
	if words, ok := storage.RefusalOf(err); ok {
		return "a backend refuses changes: " + words
	}
	switch {
	case errors.Is(err, storage.ErrTooLarge):
		return "the new backend cannot hold a cart of that size"
	case errors.Is(err, storage.ErrUnsupported):
		return "the old backend cannot find its carts: each moves when it is changed"
	case errors.Is(err, storage.ErrUnavailable):
		return "a backend does not answer"
	case errors.Is(err, storage.ErrCorrupt):
		return "what the old backend holds under a name is no cart"
	}
	return "locks are held on them, or a hand-over of them is not finished"
}
