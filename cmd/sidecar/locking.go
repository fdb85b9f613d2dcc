package main

import (
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
)

// Reasons for the state of locking, if the configuration gives none.
const (
	reasonConfigured = "Configured"         // the mode says so
	reasonShared     = "BackendIsShared"    // auto: other replicas may use the same carts
	reasonNotShared  = "BackendIsNotShared" // auto: no other replica can use them
)

// lockingOf says whether locks are wanted, and why. The coordinator knows whether the backend can take them.
func lockingOf(l config.Locking, caps storage.Capabilities) (on bool, reason string) {
	switch {
	case l.Mode == config.LockingEnabled:
		on, reason = true, reasonConfigured
	case l.Mode == config.LockingDisabled:
		on, reason = false, reasonConfigured
	case caps.Shared && caps.Locks:
		return true, reasonShared
	default:
		return false, reasonNotShared
	}
	if l.Reason != "" {
		reason = l.Reason
	}
	return on, reason
}

// warnLocking returns the warning about a backend that cannot lock across replicas, or "". It is logged in every mode,
// so that people do not learn of it from lost carts.
func warnLocking(l config.Locking, caps storage.Capabilities) string {
	switch {
	case caps.Shared && caps.Locks:
		return ""
	case l.Mode == config.LockingEnabled:
		return "locking is enabled, but backend " + caps.Backend + " cannot lock across replicas: run one replica only, or use another backend"
	}
	return "backend " + caps.Backend + " is not shared and cannot lock across replicas: run one replica only"
}
