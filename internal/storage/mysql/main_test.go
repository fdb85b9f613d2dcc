package mysql_test

import (
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

func TestMain(m *testing.M) { testserver.Main(m) }
