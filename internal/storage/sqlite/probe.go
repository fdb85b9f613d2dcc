package sqlite

import (
	"context"
	"crypto/rand"
	"strings"
	"time"
)

// A probe is a row like that of a cart, under a prefix that no configuration can have. It is long enough to need a page
// of its own. A shorter one would fit into pages that SQLite already has, even on a full disk.
const (
	probePrefix = "%probe"
	probeBytes  = 8 << 10
	// probeLife is how long a row lasts whose probe broke off. Then the purge removes it.
	probeLife = time.Minute
)

const (
	// removable_at lets the purge remove the row, as it removes expired carts.
	saveProbe = `
		INSERT INTO sidecart_carts (prefix, identifier, instance, version, items_version, conditions_version, removable_at, items, conditions)
		VALUES (?1, ?2, '', 0, 0, 0, ?3, ?4, '{}')`
	removeProbe = `
		DELETE FROM sidecart_carts WHERE prefix = ?1 AND identifier = ?2`
)

// Probe implements [cell.Prober]. It stores a row and deletes it, each as durably as a cart.
func (d *driver) Probe(ctx context.Context) error {
	name := rand.Text() // other processes probe the same file
	err := d.writer(ctx, func(w *writer) error {
		return w.exec(saveProbe, probePrefix, name, time.Now().Add(probeLife), strings.Repeat("x", probeBytes))
	})
	if err != nil {
		return err
	}
	return d.writer(ctx, func(w *writer) error { return w.exec(removeProbe, probePrefix, name) })
}
