package controller

import (
	"context"
	"sync"
)

// slots bound how much is under way at once, in all and per namespace, so that a namespace whose pods answer slowly
// leaves room for others.
type slots struct {
	all chan struct{}
	own int

	mu         sync.Mutex
	namespaces map[string]*namespaceSlots
}

// namespaceSlots are the slots of one namespace. They exist while somebody has one or waits for one.
type namespaceSlots struct {
	taken chan struct{}
	users int
}

func newSlots(all, own int) *slots {
	return &slots{all: make(chan struct{}, all), own: own, namespaces: map[string]*namespaceSlots{}}
}

// take waits for a slot. It returns false if ctx ends first.
func (s *slots) take(ctx context.Context, namespace string) bool {
	s.mu.Lock()
	n := s.namespaces[namespace]
	if n == nil {
		n = &namespaceSlots{taken: make(chan struct{}, s.own)}
		s.namespaces[namespace] = n
	}
	n.users++
	s.mu.Unlock()
	select {
	case n.taken <- struct{}{}:
	case <-ctx.Done():
		s.leave(namespace)
		return false
	}
	select {
	case s.all <- struct{}{}:
		return true
	case <-ctx.Done():
		<-n.taken
		s.leave(namespace)
		return false
	}
}

// give returns a slot.
func (s *slots) give(namespace string) {
	<-s.all
	s.mu.Lock()
	n := s.namespaces[namespace]
	s.mu.Unlock()
	<-n.taken
	s.leave(namespace)
}

func (s *slots) leave(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[namespace]
	if n.users--; n.users == 0 {
		delete(s.namespaces, namespace)
	}
}
