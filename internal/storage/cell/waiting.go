package cell

import "github.com/sidecart/sidecart/internal/cart"

// listen makes the channel by which a release wakes the waiter of token.
func (s *Store) listen(token string) <-chan struct{} {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[token] = ch
	return ch
}

// hears reports whether the releases of all stores of the same data wake the waiters of this one. Those in this store
// always do.
func (s *Store) hears() bool {
	if !s.driver.Capabilities().Shared {
		return true
	}
	if h, ok := s.notifier.(Hearer); ok {
		return h.Hears()
	}
	return s.notifier != nil
}

func (s *Store) unlisten(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, token)
}

// wake tells waiters of a cart, here and in other stores, that their claims were granted.
func (s *Store) wake(key cart.Key, tokens []string) {
	if len(tokens) == 0 {
		return
	}
	s.wakeHere(tokens)
	if s.notifier != nil {
		s.notifier.Notify(key, tokens)
	}
}

// wakeHere wakes the waiters of this store.
func (s *Store) wakeHere(tokens []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range tokens {
		signal(s.waiting[token])
	}
}

func (s *Store) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range s.waiting {
		signal(ch)
	}
}

// signal does nothing to a channel that is nil or full.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
