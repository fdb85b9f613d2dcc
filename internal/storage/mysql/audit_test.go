package mysql

import (
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/storage/sql/sqltest"
	"github.com/sidecart/sidecart/internal/testserver"
)

func TestQuickerMaker(t *testing.T) {
	t.Parallel()
	server := testserver.SharedMariaDB(t)
	url := server.NewDatabase(t)
	d := newDriver(t, url)
	d.Audit = sql.Audit{Retention: time.Hour, Who: "pod"}
	sqltest.QuickerMaker(t, d, server, testserver.DatabaseOf(url))
}

func TestAuditBatches(t *testing.T) {
	t.Parallel()
	server := testserver.SharedMariaDB(t)
	url := server.NewDatabase(t)
	d := newDriver(t, url)
	d.Audit = sql.Audit{Retention: time.Hour, Who: "pod"}
	sqltest.AuditBatches(t, d, server, testserver.DatabaseOf(url), lockAudit, strings.Replace(unlockAudit, "; DO", "SELECT", 1))
}
