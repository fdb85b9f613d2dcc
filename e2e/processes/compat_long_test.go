//go:build compat && long

package processes

import "github.com/sidecart/sidecart/internal/testserver"

// mixedFleets are what two releases make histories on: every backend but the memory of one process. Without the build
// tag long there are fewer.
var mixedFleets = map[string]fleet{
	"redis":     {},
	"sqlite":    {sqlite: true},
	"postgres":  {database: testserver.StartPostgres},
	"mariadb":   {database: testserver.StartMariaDB},
	"memcached": {memcached: true},
	"dynamodb":  {dynamodb: true},
	"file":      {folder: true},
}
