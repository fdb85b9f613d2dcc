package config

import (
	"cmp"
	"reflect"
)

// From returns the configuration of the backend that carts move from, as if it were the only one, or nil if none do.
func (c *Config) From() *Config {
	if c.MoveFrom == nil {
		return nil
	}
	from := *c
	from.Backend, from.KeyPrefix, from.MoveFrom, from.CriticalBackend = c.MoveFrom.Backend, cmp.Or(c.MoveFrom.KeyPrefix, c.KeyPrefix), nil, nil
	return &from
}

// Critical returns the configuration of the backend for checkouts, as if it were the only one, or nil if checkouts are
// beside the carts. If it can keep an audit trail, it keeps one, for at least as long as the checkouts.
func (c *Config) Critical() *Config {
	if c.CriticalBackend == nil {
		return nil
	}
	critical := *c
	critical.Backend, critical.MoveFrom, critical.CriticalBackend = *c.CriticalBackend, nil, nil
	critical.Audit.Retention = 0
	if critical.Backend.mayAudit() {
		critical.Audit.Retention = max(c.Audit.Retention, c.CheckoutRetention, Duration(minRetention))
	}
	return &critical
}

// move checks a move between two backends.
func (v *validator) move(c *Config) {
	m := c.MoveFrom
	if m == nil {
		return
	}
	v.backend("moveFrom.backend", &m.Backend)
	if m.KeyPrefix != "" {
		v.keyPrefix("moveFrom.keyPrefix", m.KeyPrefix)
	}
	switch from := c.From(); {
	case m.Backend.Type == BackendMemory:
		v.problem("moveFrom.backend.type", "must not be Memory, whose carts end with their process: remove moveFrom")
	case c.Backend.Type == BackendMemory:
		v.problem("moveFrom", "must not be set where backend.type is Memory, which would lose the carts that move there: choose another backend, or remove moveFrom")
	case from.KeyPrefix == c.KeyPrefix && samePlace(&from.Backend, &c.Backend):
		v.problem("moveFrom.backend", "is the same place as backend, with the same prefix: name where the carts are now, or remove moveFrom")
	}
}

// samePlace reports whether the same prefix means the same carts in both backends, as far as the configuration shows.
// Credentials and the like do not matter.
func samePlace(a, b *Backend) bool {
	if a.Type != b.Type {
		return false
	}
	if a.Redis != nil && b.Redis != nil && a.Redis.Namespace != b.Redis.Namespace {
		return false
	}
	return reflect.DeepEqual(a, b) || a.Place() == b.Place()
}
