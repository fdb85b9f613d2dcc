package render

import (
	"cmp"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// Former is cs as it was before its carts began to move: with the backend and the prefix of moveFrom. It has no backend
// for checkouts, which do not move. It is nil if no carts move.
func Former(cs *v1alpha1.CartStorage) *v1alpha1.CartStorage {
	m := cs.Spec.MoveFrom
	if m == nil {
		return nil
	}
	former := &v1alpha1.CartStorage{ObjectMeta: cs.ObjectMeta, Spec: cs.Spec}
	former.Spec.Backend, former.Spec.KeyPrefix = m.Backend, cmp.Or(m.KeyPrefix, cs.Spec.KeyPrefix)
	former.Spec.MoveFrom, former.Spec.CriticalBackend = nil, nil
	return former
}

// MoveID is the same for as long as carts move between the same places, whatever else changes.
func MoveID(cs *v1alpha1.CartStorage) string {
	former := Former(cs)
	if former == nil {
		return ""
	}
	here := withoutCheckouts(cs)
	return hash(fmt.Sprintf("%q %t %q %t", places(former), scattered(former), places(here), scattered(here)))
}

// MoveState is how far the move of cs is, as its status says. It is "" if the status is about another move, or about
// none.
func MoveState(cs *v1alpha1.CartStorage) v1alpha1.MoveState {
	if m := cs.Status.Move; m != nil && m.ID == MoveID(cs) {
		return m.State
	}
	return ""
}

// Moves reports whether a ConfigMap of [ConfigMap] makes carts move. It is false for one that is nil or cannot be read.
func Moves(current *corev1.ConfigMap) bool {
	if current == nil {
		return false
	}
	c, err := config.Load([]byte(current.Data[ConfigFile]))
	return err == nil && c.MoveFrom != nil
}

// renderMove says where carts are while they move. Sidecars use the former backend alone until all of them can use
// both, and the new one alone when nothing is left in the former one.
func renderMove(c *config.Config, cs *v1alpha1.CartStorage) {
	m := cs.Spec.MoveFrom
	if m == nil {
		return
	}
	former := backend(&m.Backend)
	switch MoveState(cs) {
	case v1alpha1.MoveWaiting:
		c.Backend, c.KeyPrefix = former, cmp.Or(m.KeyPrefix, c.KeyPrefix)
	case v1alpha1.MoveFinished:
	default:
		c.MoveFrom = &config.MoveFrom{Backend: former, KeyPrefix: m.KeyPrefix}
	}
}
