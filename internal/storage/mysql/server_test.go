package mysql_test

import (
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/storage/mysql"
	"github.com/sidecart/sidecart/internal/storage/sql/sqltest"
	"github.com/sidecart/sidecart/internal/testserver"
)

func TestServer(t *testing.T) {
	sqltest.Run(t, sqltest.Product{
		Start: testserver.StartMariaDB, Shared: testserver.SharedMariaDB, Open: mysql.Open, Sweep: mysql.Sweep, SweepAudit: mysql.SweepAudit,
		EndConnections: func(server *testserver.DatabaseServer, database string) error {
			ids, err := server.Query("", "SELECT id FROM information_schema.processlist WHERE db = '"+database+"'")
			if err != nil {
				return err
			}
			for _, id := range strings.Fields(ids) {
				_, _ = server.Query("", "KILL "+id) // or it has ended by itself
			}
			return nil
		},
		// Who may administrate writes all the same.
		ReadOnly: func(string) string {
			return "SET GLOBAL read_only = 1; REVOKE READ ONLY ADMIN ON *.* FROM CURRENT_USER"
		},
		MakeUser: func(database string) string {
			return "CREATE USER least; CREATE TABLE other (a int); GRANT SELECT ON " + database + ".other TO least"
		},
		Grant: func(database string) string {
			return strings.ReplaceAll("GRANT SELECT, INSERT, UPDATE, DELETE ON db.sidecart_carts TO least; GRANT SELECT ON db.sidecart_schema TO least; "+
				"GRANT SELECT, INSERT, DELETE ON db.sidecart_fences TO least", "db.", database+".")
		},
		Revoke: func(database, right string) string {
			return "REVOKE " + right + " ON " + database + ".sidecart_carts FROM least"
		},
		GrantAudit: func(database string) string {
			return "GRANT SELECT, INSERT, DELETE ON " + database + ".sidecart_audit TO least"
		},
		Plain:    "?tls=false",
		Abandons: true,
	})
}
