package memcached

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// Config says which servers to use.
type Config struct {
	// Addresses are host:port, spelled as other clients of the same servers spell them, since they decide where a key
	// is.
	Addresses []string
	// Prefix begins all keys: letters, digits, and _ : . -.
	Prefix string
	// Dial bounds how long a connection may take, Read how long an answer may, and Write how much longer where a value
	// is sent before it. 0 stands for 1 s, 500 ms and 500 ms.
	Dial, Read, Write time.Duration
}

var (
	_ cell.Swapper    = (*driver)(nil)
	_ cell.Recaller   = (*driver)(nil)
	_ cell.Pacer      = (*driver)(nil)
	_ cell.Prober     = (*driver)(nil)
	_ storage.Beater  = (*driver)(nil)
	_ storage.Advisor = (*driver)(nil)
)

// recentFor is how long a value that was read or stored is used for the next change without a read. If the value has
// changed since, the cas has cost a round trip and nothing else.
const recentFor = time.Second

// driver is a [cell.Swapper] over some servers.
type driver struct {
	*cell.Recent
	names   names
	ring    ring
	servers []*server
	timeouts
	now     func() time.Time
	closing chan struct{}
}

// New makes a store. It dials when it is used.
func New(c Config) *cell.Store { return cell.New(cell.Swapping(newDriver(c))) }

func newDriver(c Config) *driver {
	d := &driver{
		Recent: cell.NewRecent(recentFor),
		names:  names{c.Prefix}, ring: newRing(c.Addresses), now: time.Now, closing: make(chan struct{}),
		timeouts: timeouts{
			dial: cmp.Or(c.Dial, time.Second), read: cmp.Or(c.Read, 500*time.Millisecond), write: cmp.Or(c.Write, 500*time.Millisecond),
		},
	}
	for _, address := range c.Addresses {
		d.servers = append(d.servers, &server{
			address: address, names: d.names, timeouts: d.timeouts, slots: make(chan struct{}, maxSessions), closing: d.closing,
		})
	}
	return d
}

// place is where the cart of key is: its server, and the key there.
func (d *driver) place(key cart.Key) (*server, string) {
	name := d.names.cart(key)
	return d.servers[d.ring.server(name)], name
}

// uniqueBits is how many bits of a revision hold the unique. A server that makes a million changes a second needs nine
// years to use them up. The other bits hold the number of the process.
const uniqueBits = 48

// errOtherProcess is returned if a revision is from another process of the server than the connection.
var errOtherProcess = errors.New("the server was restarted since the value was read")

// Get implements [cell.Swapper].
func (d *driver) Get(ctx context.Context, key cart.Key) (value []byte, revision uint64, err error) {
	server, name := d.place(key)
	var item *memcache.Item
	err = server.call(ctx, d.read, true, func(c *session) error {
		var err error
		if item, err = c.client.Get(name); err != nil {
			return err
		}
		if item.CasID == 0 || item.CasID>>uniqueBits > 0 {
			return errUnique
		}
		revision = uint64(c.epoch)<<uniqueBits | item.CasID
		return nil
	})
	if errors.Is(err, memcache.ErrCacheMiss) {
		d.Drop(key)
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if value, err = cell.DecodeNamed(key, item.Value); err != nil {
		return nil, 0, fmt.Errorf("key %s of memcached %s: %w", name, server.address, err)
	}
	d.Read(key, value, revision)
	return value, revision, nil
}

// Swap implements [cell.Swapper]. It is sent once: if its answer does not come, the value may be stored.
func (d *driver) Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, ends time.Time) (bool, error) {
	server, name := d.place(key)
	item := &memcache.Item{Key: name, CasID: revision & (1<<uniqueBits - 1), Expiration: -1}
	if value != nil {
		item.Value, item.Expiration = cell.EncodeNamed(key, value), expiration(d.now(), ends)
	}
	d.Drop(key)
	err := server.call(ctx, d.read+d.write, false, func(c *session) error {
		if err := server.fits(name, item.Value); err != nil {
			return err
		}
		if revision != 0 && uint16(revision>>uniqueBits) != c.epoch {
			return errOtherProcess
		}
		there, err := c.store(item)
		d.note(key, c, there, err == nil)
		return err
	})
	if isCondition(err) || errors.Is(err, errOtherProcess) {
		return false, nil
	}
	return err == nil, err
}

// note remembers the value that the server has after a swap: that of the swap, or another.
func (d *driver) note(key cart.Key, c *session, item *memcache.Item, own bool) {
	if item == nil || item.CasID == 0 || item.CasID>>uniqueBits > 0 {
		return
	}
	value, err := cell.DecodeNamed(key, item.Value)
	switch revision := uint64(c.epoch)<<uniqueBits | item.CasID; {
	case err != nil:
	case own:
		d.Stored(key, value, revision)
	default:
		d.Read(key, value, revision)
	}
}

// Pauses implements [cell.Pacer]: a look takes a fraction of a millisecond, of the server too.
func (d *driver) Pauses() (shortest, longest time.Duration) {
	return 200 * time.Microsecond, 5 * time.Millisecond
}

const (
	// maxRelative is the longest expiry that Memcached takes for one from now on. A longer one is a point in time.
	maxRelative = 30 * 24 * time.Hour
	// itemMargin is how much longer an item lives than its value counts: a second that the server may round away, and
	// one more.
	itemMargin = 2 * time.Second
)

// expiration is the expiry of an item whose value counts until ends. It is 0, for never, from 2038 on, which the
// protocol cannot say: the value has the time itself.
func expiration(now, ends time.Time) int32 {
	if ends.IsZero() {
		return 0
	}
	if left := max(ends.Sub(now), 0); left <= maxRelative-itemMargin {
		return seconds(left + itemMargin)
	}
	at := ends.Add(itemMargin).Unix() + 1
	if at > math.MaxInt32 {
		return 0
	}
	return int32(at)
}

// seconds rounds up.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }

// each calls f for all servers at once, and returns the first error in the order of their addresses.
func (d *driver) each(f func(*server) error) error {
	errs := make([]error, len(d.servers))
	var all sync.WaitGroup
	for i, s := range d.servers {
		all.Go(func() { errs[i] = f(s) })
	}
	all.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// Probe implements [cell.Prober]. It makes a value on each server, finds it, and deletes it as a cart is deleted.
func (d *driver) Probe(ctx context.Context) error {
	const (
		size = 1 << 10
		life = 10 // seconds, if the probe does not reach its end
	)
	name := d.names.probe(rand.Text())
	return d.each(func(s *server) error {
		return s.call(ctx, d.read+d.write, true, func(c *session) error {
			name := name + rand.Text() // again must not meet what was left behind
			if err := c.client.Add(&memcache.Item{Key: name, Value: make([]byte, size), Expiration: life}); err != nil {
				return err
			}
			item, err := c.client.Get(name)
			if err != nil {
				return err
			}
			if item.CasID == 0 || item.CasID>>uniqueBits > 0 {
				return errUnique
			}
			item.Value, item.Expiration = nil, -1
			return c.client.CompareAndSwap(item)
		})
	})
}

// Beat implements [storage.Beater]: each server answers, and is the process that the connections lead to. Reading the
// epoch also keeps it from being forgotten.
func (d *driver) Beat(ctx context.Context) error {
	return d.each(func(s *server) error {
		return s.call(ctx, d.read, true, func(c *session) error {
			item, err := c.client.Get(d.names.epoch())
			switch {
			case errors.Is(err, memcache.ErrCacheMiss):
				return errStale
			case err != nil:
				return err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if c.epoch != s.known.number || string(item.Value) != s.known.epoch {
				return errStale
			}
			return nil
		})
	})
}

// Capabilities implements [cell.Swapper].
func (d *driver) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Memcached", Shared: true}
}

// Close implements [cell.Swapper]. Calls under way end with their result, within their timeouts.
func (d *driver) Close() error {
	close(d.closing)
	for _, s := range d.servers {
		s.close()
	}
	return nil
}
