package main

import (
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"sync"
	"time"
)

// tally is one line of `shop load`. Its numbers are those since the start, so the last line of a run says all of it.
type tally struct {
	Run          string               `json:"run"` // tells the lines of several runs apart
	Host         string               `json:"host"`
	At           time.Time            `json:"at"`
	Done         bool                 `json:"done"` // this is the last line, and no add is under way
	Attempted    int64                `json:"attempted"`
	Acknowledged int64                `json:"acknowledged"`
	Failed       map[string]int64     `json:"failed"`    // by reason
	Uncertain    int64                `json:"uncertain"` // failed adds that may have been made all the same
	Slowest      float64              `json:"slowestSeconds"`
	Carts        map[string]cartTally `json:"carts"`
}

// cartTally is the part of one cart.
type cartTally struct {
	Attempted    int64 `json:"attempted"`
	Acknowledged int64 `json:"acknowledged"`
	Uncertain    int64 `json:"uncertain,omitempty"`
}

// account counts how the adds of one run ended. It may be used by several goroutines.
type account struct {
	mu    sync.Mutex
	tally tally
}

func newAccount() *account {
	host, _ := os.Hostname() // for people; "" does no harm
	return &account{tally: tally{Run: rand.Text(), Host: host, Failed: map[string]int64{}, Carts: map[string]cartTally{}}}
}

// attempt is called before an add is sent.
func (a *account) attempt(cart string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tally.Attempted++
	c := a.tally.Carts[cart]
	c.Attempted++
	a.tally.Carts[cart] = c
}

// record is called with the result of the add.
func (a *account) record(cart string, err error, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tally.Slowest = max(a.tally.Slowest, took.Seconds())
	c := a.tally.Carts[cart]
	var p *problem
	switch {
	case err == nil:
		a.tally.Acknowledged++
		c.Acknowledged++
	case errors.As(err, &p) && !p.uncertain():
		a.tally.Failed[p.Reason]++
	default:
		reason := "OTHER"
		if p != nil {
			reason = p.Reason
		}
		a.tally.Failed[reason]++
		a.tally.Uncertain++
		c.Uncertain++
	}
	a.tally.Carts[cart] = c
}

// snapshot is the tally as of now.
func (a *account) snapshot(done bool) tally {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tally
	t.At, t.Done = time.Now().UTC().Truncate(time.Millisecond), done
	t.Failed, t.Carts = maps.Clone(t.Failed), maps.Clone(t.Carts)
	return t
}
