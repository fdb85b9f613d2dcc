package postgres

import (
	"context"
	crand "crypto/rand"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

const (
	// probeLimit is how long the test notification may take that shows whether notifications arrive.
	probeLimit = 2 * time.Second
	// After quietLimit without a notification the connection is tested, for at most tryLimit. A network that has gone
	// leaves the connection open.
	quietLimit = 10 * time.Second
	tryLimit   = 2 * time.Second
	// deafPause is the pause before the next try if notifications do not arrive, and lostPause the longest pause after
	// the connection was lost.
	deafPause = time.Minute
	lostPause = 2 * time.Second
)

// Notify implements [cell.Notifier]: the transaction has done it.
func (d *driver) Notify(cart.Key, []string) {}

// Hears implements [cell.Hearer].
func (d *driver) Hears() bool { return d.hears.Load() }

// Listen implements [cell.Notifier].
func (d *driver) Listen(wake func(tokens []string)) { go d.listen(wake) }

// listen receives notifications on a connection of its own, and replaces it when it is lost.
func (d *driver) listen(wake func(tokens []string)) {
	ctx, cancel := d.Life.Context(context.Background())
	defer cancel()
	go func() {
		<-d.Life.Closing()
		cancel()
	}()
	for pause := 100 * time.Millisecond; ctx.Err() == nil; {
		heard, deaf := d.hear(ctx, wake)
		d.hears.Store(false)
		d.watches.unsaid()
		d.deaf.Store(deaf)
		switch {
		case heard:
			pause = 100 * time.Millisecond
		case deaf:
			pause = deafPause
		default:
			pause = min(2*pause, lostPause)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// hear listens as long as the connection lasts. heard says that notifications arrived, deaf that they do not arrive.
func (d *driver) hear(ctx context.Context, wake func(tokens []string)) (heard, deaf bool) {
	conn, err := d.connectListener(ctx)
	if err != nil {
		return false, false
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryLimit)
		defer cancel()
		_ = conn.Close(end)
	}()
	// A connection receives its own notification even through a pooler, so another connection sends the test.
	probe := crand.Text()
	if err := d.Call(ctx, d.Write, func(ctx context.Context, other sql.Conn) error {
		_, err := other.Exec(ctx, notify, d.channel, probe)
		return err
	}); err != nil {
		return false, false
	}
	for since := time.Now(); ; {
		limit := quietLimit
		if !heard {
			limit = probeLimit - time.Since(since)
		}
		wait, cancel := context.WithTimeout(ctx, limit)
		n, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil && n.Payload == probe:
			heard = true
			d.hears.Store(true)
			d.watches.kick(askAll)
		case err == nil && d.watches.take(n.Payload):
		case err == nil:
			wake(strings.Fields(n.Payload))
		case !quiet:
			return heard, false
		case !heard:
			return false, true
		default:
			try, cancel := context.WithTimeout(ctx, tryLimit)
			_, err := conn.Exec(try, `SELECT 1`, pgx.QueryExecModeExec)
			cancel()
			if err != nil {
				return heard, false
			}
		}
	}
}

// connectListener makes a connection that listens.
func (d *driver) connectListener(ctx context.Context) (*pgx.Conn, error) {
	c := d.pool.Config().ConnConfig
	limit := d.Dial
	if limit <= 0 {
		limit = tryLimit
	}
	ctx, cancel := sql.Bounded(ctx, limit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `LISTEN `+d.channel, pgx.QueryExecModeExec); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}
