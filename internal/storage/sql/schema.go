package sql

import (
	"fmt"

	"github.com/sidecart/sidecart/internal/storage"
)

// Tables is the [Schema] of a database server: its statements for that, and how it runs them.
type Tables struct {
	// Find counts the tables named sidecart_schema, and Create makes that table.
	Find, Create string
	// Query reads the version and needs from sidecart_schema, and Save adds a version and needs.
	Query, Save string

	// Row runs a query of one row.
	Row func(query string, into ...any) error
	// Run runs statements; with arguments it is one statement.
	Run func(statements string, args ...any) error
}

// Version implements [Schema].
func (t Tables) Version() (version, needs int, err error) {
	var found int
	if err := t.Row(t.Find, &found); err != nil || found == 0 {
		return 0, 0, err
	}
	err = t.Row(t.Query, &version, &needs)
	return version, needs, err
}

// Apply implements [Schema].
func (t Tables) Apply(version, needs int, statements string) error {
	if version == 1 {
		statements = t.Create + ";\n" + statements
	}
	if err := t.Run(statements); err != nil {
		return err
	}
	return t.Run(t.Save, int64(version), int64(needs))
}

// Rights are the rights that an account needs, in the words of the database.
type Rights struct {
	// Account is the database's word for an account: a role, a user.
	Account string
	// Create is the right to make the tables.
	Create string
	// Fences is the right to use the counter of fences.
	Fences string
}

// Missing is the error if an account may not make or change the tables. words are the server's, and cause is its
// refusal.
func (r Rights) Missing(words string, cause error) error {
	advice := fmt.Sprintf("sidecart has to make or change its tables, and the %[1]s may not: start one sidecar with a %[1]s that may %[2]s, "+
		"and grant this one SELECT, INSERT, UPDATE and DELETE on sidecart_carts, SELECT on sidecart_schema, %[3]s on sidecart_fences, "+
		"and for an audit trail SELECT, INSERT and DELETE on sidecart_audit", r.Account, r.Create, r.Fences)
	return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: words + ": " + advice}, cause)
}
