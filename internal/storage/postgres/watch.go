package postgres

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Of the transactions that notify, PostgreSQL lets only one commit at a time. So a change notifies only if somebody
// watches its cart. A store that watches carts announces them again and again, and the others remember that for a
// while. Beside the tokens of waiters, which have no colon, the channel carries three kinds of notifications:
//
//	watch:<who> <cart> <cart> …	who watches these
//	ask:<who>			who came just now, and does not know who watches what
//	changed:<cart>			such a cart has changed
//
// A cart is a hash of its name, since a notification has little room.
const (
	watchWord, askWord, changedWord = "watch:", "ask:", "changed:"

	// interestRenewal is how often watched carts are announced again, and interestLife how long an announcement is
	// remembered.
	interestRenewal = 5 * time.Second
	interestLife    = 3 * interestRenewal
	// watchedAtOnce is how many hashes fit in a notification.
	watchedAtOnce = 200
	hashBytes     = 12
	// gathering is how long to wait for more watches before they are announced together.
	gathering = 2 * time.Millisecond
)

// watches are the carts that this store watches, and those that others watch.
type watches struct {
	who      string
	followed *storage.Watches
	wake     chan struct{}

	mu   sync.Mutex
	asks bool                // others must be asked what they watch
	mine map[string]cart.Key // by hash
	said map[string]bool     // those that were announced

	some   atomic.Bool          // others watch something
	others map[string]time.Time // until when, by hash of the cart
}

func (w *watches) init() {
	w.who, w.wake = crand.Text(), make(chan struct{}, 1)
	w.mine, w.said, w.others = map[string]cart.Key{}, map[string]bool{}, map[string]time.Time{}
}

const askAll = true

// kick makes the store announce what it watches. If ask is set, it also asks the others.
func (w *watches) kick(ask bool) {
	w.mu.Lock()
	w.asks = w.asks || ask
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// unsaid forgets what was announced, because answers of others were not heard meanwhile.
func (w *watches) unsaid() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.said)
}

func cartHash(key cart.Key) string {
	sum := sha256.Sum256([]byte(key.Identifier + "\x00" + key.Instance))
	return hex.EncodeToString(sum[:hashBytes])
}

// Follow implements [cell.Announcer].
func (d *driver) Follow(followed *storage.Watches) {
	d.watches.followed = followed
	go d.speak()
}

// Watching implements [cell.Announcer].
func (d *driver) Watching(key cart.Key) {
	w := &d.watches
	w.mu.Lock()
	w.mine[cartHash(key)] = key
	w.mu.Unlock()
	w.kick(false)
}

// Announced implements [cell.Announcer].
func (d *driver) Announced(key cart.Key) bool {
	if !d.hears.Load() {
		return false
	}
	d.watches.mu.Lock()
	defer d.watches.mu.Unlock()
	return d.watches.said[cartHash(key)]
}

// speak announces what is watched here, as long as the store lives.
func (d *driver) speak() {
	ctx, cancel := d.Life.Context(context.Background())
	defer cancel()
	tick := time.NewTicker(interestRenewal)
	defer tick.Stop()
	for {
		all := false
		select {
		case <-d.Life.Closing():
			return
		case <-tick.C:
			all = true
		case <-d.watches.wake:
			timer := time.NewTimer(gathering)
			<-timer.C
		}
		if d.hears.Load() {
			d.say(ctx, all)
		}
	}
}

// say announces the carts that were not announced yet, or all. It asks others if that is due.
func (d *driver) say(ctx context.Context, all bool) {
	w := &d.watches
	w.mu.Lock()
	asks := w.asks
	w.asks = false
	maps.DeleteFunc(w.mine, func(hash string, key cart.Key) bool {
		gone := !w.followed.Has(key)
		if gone {
			delete(w.said, hash)
		}
		return gone
	})
	var tell []string
	for hash := range w.mine {
		if all || !w.said[hash] {
			tell = append(tell, hash)
		}
	}
	now := time.Now()
	maps.DeleteFunc(w.others, func(_ string, until time.Time) bool { return now.After(until) })
	w.some.Store(len(w.others) > 0)
	w.mu.Unlock()

	if asks && d.tell(ctx, askWord+w.who) != nil {
		w.mu.Lock()
		w.asks = true
		w.mu.Unlock()
		return // the next tick tries again
	}
	for hashes := range slices.Chunk(tell, watchedAtOnce) {
		if d.tell(ctx, watchWord+w.who+" "+strings.Join(hashes, " ")) != nil {
			return
		}
		var begun []cart.Key
		w.mu.Lock()
		for _, hash := range hashes {
			if key, ok := w.mine[hash]; ok && !w.said[hash] {
				w.said[hash] = true
				begun = append(begun, key)
			}
		}
		w.mu.Unlock()
		for _, key := range begun {
			w.followed.Tell(key)
		}
	}
}

func (d *driver) tell(ctx context.Context, payload string) error {
	return d.Call(ctx, d.Write, func(ctx context.Context, conn sql.Conn) error {
		_, err := conn.Exec(ctx, notify, d.channel, payload)
		return err
	})
}

// take handles a notification about watches, and reports whether it was one.
func (w *watches) take(payload string) bool {
	words := strings.Fields(payload)
	if len(words) == 0 {
		return false
	}
	if hash, ok := strings.CutPrefix(words[0], changedWord); ok {
		w.mu.Lock()
		key, mine := w.mine[hash]
		w.mu.Unlock()
		if mine {
			w.followed.Tell(key)
		}
		return true
	}
	if who, ok := strings.CutPrefix(words[0], askWord); ok {
		if who != w.who {
			w.unsaid()
			w.kick(false)
		}
		return true
	}
	who, ok := strings.CutPrefix(words[0], watchWord)
	if ok && who != w.who { // this store knows its own changes already
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, hash := range words[1:] {
			w.others[hash] = time.Now().Add(interestLife)
		}
		w.some.Store(len(w.others) > 0)
	}
	return ok
}

// announce notifies others of a change, in its transaction, if one of them watches the cart.
func (d *driver) announce(b *pgx.Batch, key cart.Key) {
	w := &d.watches
	if !w.some.Load() {
		return
	}
	hash := cartHash(key)
	w.mu.Lock()
	until, watched := w.others[hash]
	w.mu.Unlock()
	if watched && time.Now().Before(until) {
		b.Queue(notify, d.channel, changedWord+hash)
	}
}
