package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// pause is how long a client rests after a failed add. Without it, a client that finds no sidecar would fail thousands
// of times in a second, which no shopper does.
const pause = 100 * time.Millisecond

// load is what `shop load` was asked to do.
type load struct {
	adds     int64
	duration time.Duration
	carts    int
	items    int
	clients  int
	rate     float64
	every    time.Duration
	prefix   string
}

func runLoad(ctx context.Context, carts *carts, args []string, stdout io.Writer) error {
	var l load
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.Int64Var(&l.adds, "adds", 0, "stop after `n` adds; 0 is no bound")
	flags.DurationVar(&l.duration, "for", 0, "stop after this `time`; 0 is no bound")
	flags.IntVar(&l.carts, "carts", 1, "spread the adds over `n` carts")
	flags.IntVar(&l.items, "items", 10, "and each cart's over `n` items, since a quantity has a limit")
	flags.IntVar(&l.clients, "clients", 4, "`n` clients at once")
	flags.Float64Var(&l.rate, "rate", 0, "`n` adds per second at most, of all clients together; 0 is as fast as they can")
	flags.DurationVar(&l.every, "every", time.Second, "print the account each `time`")
	flags.StringVar(&l.prefix, "prefix", "load", "carts are called `name`-0, name-1 and so on; take one that is new, or check finds more than there should be")
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	if err := l.validate(flags.NArg()); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return l.run(ctx, carts, stdout)
}

func (l *load) validate(rest int) error {
	switch {
	case rest > 0:
		return errors.New("takes flags only")
	case l.adds < 0:
		return errors.New("--adds must be 0 or more")
	case l.duration < 0:
		return errors.New("--for must be 0 or more")
	case l.carts < 1:
		return errors.New("--carts must be 1 or more")
	case l.items < 1:
		return errors.New("--items must be 1 or more")
	case l.clients < 1:
		return errors.New("--clients must be 1 or more")
	case l.rate < 0 || l.rate > 1e6:
		return errors.New("--rate must be from 0 to 1000000")
	case l.every <= 0:
		return errors.New("--every must be more than 0")
	}
	return nil
}

// run adds until its bounds or the context end it, and prints the account: at the start, each l.every, and at the end.
// An add that is under way at the end is finished first.
func (l *load) run(ctx context.Context, carts *carts, stdout io.Writer) error {
	if l.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.duration)
		defer cancel()
	}
	account := newAccount()
	out := json.NewEncoder(stdout)
	if err := out.Encode(account.snapshot(false)); err != nil {
		return err
	}
	var pace <-chan time.Time
	if l.rate > 0 {
		ticker := time.NewTicker(time.Duration(float64(time.Second) / l.rate))
		defer ticker.Stop()
		pace = ticker.C
	}
	var next atomic.Int64
	var clients sync.WaitGroup
	for range l.clients {
		clients.Go(func() { l.client(ctx, carts, account, &next, pace) })
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	ticker := time.NewTicker(l.every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := out.Encode(account.snapshot(false)); err != nil {
				return err
			}
		case <-done:
			return out.Encode(account.snapshot(true))
		}
	}
}

// client makes one add after the other. It repeats none and uses no idempotency key, so that it counts exactly what
// happened.
func (l *load) client(ctx context.Context, carts *carts, account *account, next *atomic.Int64, pace <-chan time.Time) {
	for ctx.Err() == nil {
		if pace != nil {
			select {
			case <-pace:
			case <-ctx.Done():
				return
			}
		}
		n := next.Add(1) - 1
		if l.adds > 0 && n >= l.adds {
			return
		}
		name := fmt.Sprintf("%s-%d", l.prefix, n%int64(l.carts))
		thing := item{ID: fmt.Sprintf("sku-%d", n/int64(l.carts)%int64(l.items)), Quantity: 1}
		account.attempt(name)
		start := time.Now()
		// This does not use ctx: if the end of the load cut off an add, nobody would know its outcome.
		_, err := carts.add(context.WithoutCancel(ctx), "", name, thing)
		account.record(name, err, time.Since(start))
		if err != nil {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}
