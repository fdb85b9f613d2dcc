package storage

import (
	"context"
	"errors"
)

// Beater is a store with a sign of life that costs less than Ping and proves less: that the backend answers and takes
// writes. It may not see other obstacles to a change, such as a missing right. The fallback is Ping.
type Beater interface {
	Beat(ctx context.Context) error
}

// Advisor is a store that knows how safe its carts are. The fallback is no advice.
type Advisor interface {
	// Advice returns what the operator of a shop should know now, the gravest first. It is empty if all is well. An
	// error means that the backend could not be asked.
	Advice(ctx context.Context) ([]Advice, error)
}

// Advice is one thing to know about how safe carts are.
type Advice struct {
	// Code is one of those below. Codes that begin with Unknown say that something could not be found out.
	Code string
	// Message says what it means and what to do, in one sentence or two. It holds no secret and no name of a cart.
	Message string
}

// Codes of [Advice].
const (
	// AdviceEvictionPolicy: a full backend will forget carts.
	AdviceEvictionPolicy = "EvictionPolicy"
	// AdviceCartsEvicted: the backend has forgotten keys already.
	AdviceCartsEvicted = "CartsEvicted"
	// AdviceNotPersistent: a restart of the backend forgets carts.
	AdviceNotPersistent = "NotPersistent"
	// AdviceNotDurable: carts end with this process.
	AdviceNotDurable = "NotDurable"
	// AdviceOneMachine: carts are shared by the processes of one machine only.
	AdviceOneMachine = "OneMachine"
	// AdviceNoWakeUps: waiters for a lock are not woken, so they poll.
	AdviceNoWakeUps = "NoWakeUps"
	// AdviceClockDiffers: the clock of this sidecar is not that of the backend, so locks and carts end early or late.
	AdviceClockDiffers = "ClockDiffers"
	// AdviceExpiredStay: the backend keeps carts that have expired. Nobody is served them, but they take up its room.
	AdviceExpiredStay = "ExpiredStay"
	// AdviceUnknownEviction and AdviceUnknownPersistence: the backend does not say.
	AdviceUnknownEviction    = "UnknownEviction"
	AdviceUnknownPersistence = "UnknownPersistence"
)

// Refusal is the cause of an [ErrUnavailable] where the backend answered and refused. Nothing was changed.
type Refusal struct {
	// Words are the backend's own. They quote nothing of the call: no name of a cart, no secret.
	Words string
}

func (r *Refusal) Error() string { return r.Words }

// Silence is the cause of an [ErrUnavailable] where one of several servers did not answer in time.
type Silence struct {
	// Server says which one, by its address.
	Server string
}

func (s *Silence) Error() string { return s.Server + ": no answer in time" }

// RefusalOf returns the backend's words if err is about a refusal.
func RefusalOf(err error) (words string, ok bool) {
	var r *Refusal
	if !errors.As(err, &r) {
		return "", false
	}
	return r.Words, true
}
