package postgres_test

import (
	"testing"

	"github.com/sidecart/sidecart/internal/storage/postgres"
	"github.com/sidecart/sidecart/internal/storage/sql/sqltest"
	"github.com/sidecart/sidecart/internal/testserver"
)

func TestServer(t *testing.T) {
	sqltest.Run(t, sqltest.Product{
		Start: testserver.StartPostgres, Shared: testserver.SharedPostgres, Open: postgres.Open, Sweep: postgres.Sweep, SweepAudit: postgres.SweepAudit,
		EndConnections: func(server *testserver.DatabaseServer, database string) error {
			_, err := server.Query("", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
			return err
		},
		ReadOnly: func(database string) string {
			return "ALTER DATABASE " + database + " SET default_transaction_read_only = on"
		},
		MakeUser: func(string) string { return "CREATE ROLE least LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC" },
		Grant: func(string) string {
			return "GRANT SELECT, INSERT, UPDATE, DELETE ON sidecart_carts TO least; GRANT SELECT ON sidecart_schema TO least; " +
				"GRANT USAGE ON SEQUENCE sidecart_fences TO least"
		},
		Revoke:     func(_, right string) string { return "REVOKE " + right + " ON sidecart_carts FROM least" },
		GrantAudit: func(string) string { return "GRANT SELECT, INSERT, DELETE ON sidecart_audit TO least" },
		Plain:      "?sslmode=disable&pool_max_conns=1",
	})
}
