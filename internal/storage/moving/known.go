package moving

import (
	"sync"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// remembered bounds a [memory], so that its two halves take some 20 MB at most.
const remembered = 1 << 16

// memory remembers something about the carts that were used last. Its zero value is ready.
type memory[T any] struct {
	mu sync.Mutex
	// New entries go to young. When that is full, it becomes old, and the former old is forgotten.
	young, old map[cart.Key]T
}

func (m *memory[T]) get(key cart.Key) (v T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok = m.young[key]; ok {
		return v, true
	}
	if v, ok = m.old[key]; ok {
		m.put(key, v) // it is asked for, and stays
	}
	return v, ok
}

func (m *memory[T]) has(key cart.Key) bool {
	_, ok := m.get(key)
	return ok
}

func (m *memory[T]) add(key cart.Key, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, v)
}

func (m *memory[T]) put(key cart.Key, v T) {
	if m.young == nil || len(m.young) >= remembered {
		m.young, m.old = make(map[cart.Key]T), m.young
	}
	m.young[key] = v
}

func (m *memory[T]) drop(key cart.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.young, key)
	delete(m.old, key)
}

func (m *memory[T]) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.young, m.old = nil, nil
}

// waiting knows in which store a claim of this process is queued, until an Acquire takes it over.
type waiting struct {
	mu sync.Mutex
	at map[string]backend
}

func (w *waiting) add(token string, at backend) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = make(map[string]backend)
	}
	w.at[token] = at
}

// take returns where a claim is queued, and forgets it.
func (w *waiting) take(token string) (at backend, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok = w.at[token]
	delete(w.at, token)
	return at, ok
}

// newTurn is a claim for the whole cart.
func (s *Store) newTurn() storage.Claim {
	return storage.Claim{Token: storage.NewToken(), Holder: s.holder, Parts: wholeCart, Duration: turnTTL}
}

var wholeCart = []cart.Part{cart.PartAll}
