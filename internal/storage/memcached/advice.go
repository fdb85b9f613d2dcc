package memcached

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// forgotTold is for how long a loss is told of.
const forgotTold = time.Hour

// health is what a server says about how it keeps its items.
type health struct {
	evicted uint64    // since it started
	evicts  bool      // when it is full, it forgets
	forgot  time.Time // when it was last seen to have lost all it had; zero for never
	clock   time.Duration
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(ctx context.Context) ([]storage.Advice, error) {
	var mu sync.Mutex
	found := map[*server]health{}
	err := d.each(func(s *server) error {
		h, err := s.health(ctx, d.now)
		mu.Lock()
		defer mu.Unlock()
		found[s] = h
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask how carts are kept: %w", err)
	}
	var all []storage.Advice
	advise := func(code, format string, args ...any) {
		all = append(all, storage.Advice{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	var evicting []string
	for _, s := range d.servers {
		h := found[s]
		if h.evicted > 0 {
			advise(storage.AdviceCartsEvicted, "Memcached %s has evicted %d items since it started: carts that were acknowledged may be among them. Give it more memory (-m).", s.address, h.evicted)
		}
		if !h.forgot.IsZero() && time.Since(h.forgot) < forgotTold {
			advise(storage.AdviceCartsEvicted, "Memcached %s was found at %s to have lost what it had: it was restarted, flushed or full, or the address leads to several servers. The carts that were on it are gone.", s.address, h.forgot.UTC().Format(time.TimeOnly))
		}
		if h.evicts {
			evicting = append(evicting, s.address)
		}
	}
	for _, s := range d.servers {
		if by := found[s].clock; by.Abs() > clockTolerance {
			advise(storage.AdviceClockDiffers, "The clock of this sidecar and that of Memcached %s differ by %s: locks and carts end by the clocks of the sidecars, which must agree. Set the clocks by NTP.", s.address, by.Abs())
		}
	}
	if len(evicting) > 0 {
		advise(storage.AdviceEvictionPolicy, "Memcached %s forgets carts when it is full, instead of refusing changes. Give it memory for all carts (-m) and, where it has nothing else, start it with -M.", strings.Join(evicting, ", "))
	}
	advise(storage.AdviceNotPersistent, "Memcached has carts in memory only: when a server restarts, its carts are gone. Where that must not be, use another backend.")
	return all, nil
}

// clockTolerance is the difference from which two clocks count as different: a server's is normally a second or two
// behind.
const clockTolerance = 5 * time.Second

func (s *server) health(ctx context.Context, clock func() time.Time) (h health, err error) {
	err = s.call(ctx, s.timeouts.read, true, func(c *session) error {
		now := clock()
		stats, err := c.stats("")
		if err != nil {
			return err
		}
		h.evicted, _ = strconv.ParseUint(stats["evictions"], 10, 64)
		if seconds, err := strconv.ParseInt(stats["time"], 10, 64); err == nil {
			h.clock = time.Duration(now.Unix()-seconds) * time.Second
		}
		if stats, err = c.stats("settings"); err != nil {
			return err
		}
		h.evicts = stats["evictions"] != "off"
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	h.forgot = s.forgot
	return h, err
}
