package sql

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Audit says whether to keep an audit trail. The zero value keeps none.
type Audit struct {
	// Retention is how long its lines are kept; 0 for no trail.
	Retention time.Duration
	// Who names this sidecar in the trail.
	Who string
}

// Line is a row of the audit trail.
type Line struct {
	// Key is the name of the cart.
	Key cart.Key
	storage.Audited
}

// OfCheckout returns the columns that only the line of a checkout has. attributes is nil for none.
func (l *Line) OfCheckout() (id string, attributes *string) {
	k := l.Checkout
	switch {
	case k == nil:
		return "", nil
	case k.Attributes == "":
		return k.ID, nil
	}
	return k.ID, &k.Attributes
}

// AuditColumns are the columns of a [Line]. They follow those that are the same in all lines of a transaction: the
// time, the prefix and who. The order is that of Line.Values.
const AuditColumns = "identifier, instance, cart_id, part, from_version, to_version, kind, call_name, checkout_id, attributes"

// auditBatch is how many lines are removed at once. They are few enough that nobody waits for them, and enough to keep
// up with a thousand changes in a second.
const auditBatch = 500

// Audits implements [storage.Auditor].
func (s *Server) Audits() bool { return s.Audit.Retention > 0 }

// lines returns the audit lines of a transaction's changes; none if no trail is kept.
func (s *Server) lines(changes []Change) (lines []Line) {
	if !s.Audits() {
		return nil
	}
	for _, c := range changes {
		for _, a := range c.Record.Audited {
			key := c.Key
			if a.Checkout != nil {
				key = a.Checkout.Key
			}
			lines = append(lines, Line{key, a})
		}
	}
	return lines
}

// probeLine is a line that no client's change writes.
var probeLine = []Line{{Audited: storage.Audited{Call: "Ping", Kind: storage.ChangeAltered, Part: cart.PartAll}}}

// Prove implements [cell.Prover]: rows could be changed, and a line of the trail written. It is taken back.
func (s *Server) Prove(ctx context.Context) error {
	if s.statements.Prove != "" {
		if _, err := s.change(ctx, true, s.statements.Prove); err != nil {
			return err
		}
	}
	if !s.Audits() {
		return nil
	}
	return s.Call(ctx, s.Write, func(ctx context.Context, conn Conn) error {
		defer s.rollback(conn)
		if _, err := s.dialect.Lock(ctx, conn, nil, nil); err != nil {
			return err
		}
		return s.dialect.WriteLines(ctx, conn, time.Now(), probeLine)
	})
}

// auditFlush records that all carts are about to be removed. The removal takes many transactions and writes no line for
// each cart.
func (s *Server) auditFlush(ctx context.Context) error {
	if !s.Audits() {
		return nil
	}
	return s.Call(ctx, s.Write, func(ctx context.Context, conn Conn) error {
		var us int64
		if err := get(ctx, conn, []any{&us}, s.statements.Time); err != nil {
			return err
		}
		line := Line{Audited: storage.Audited{Call: "Flush", Kind: storage.ChangeFlushed, Part: cart.PartAll}}
		return s.dialect.WriteLines(ctx, conn, time.UnixMicro(us).UTC(), []Line{line})
	})
}

// SweepAudit removes lines of this prefix that are older than the retention, by the server's clock. Only one store of a
// database does this at a time.
func (s *Server) SweepAudit(ctx context.Context) {
	Sweep(ctx, auditBatch, func(ctx context.Context) (removed int64, err error) {
		err = s.Call(ctx, s.Write, func(ctx context.Context, conn Conn) error {
			removed, err = s.dialect.RemoveLines(ctx, conn, s.Audit.Retention, auditBatch)
			return err
		})
		return removed, err
	})
}
