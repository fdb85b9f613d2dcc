package file

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

var local = storagetest.Local{
	Open: func(path string, wait time.Duration) (storage.Store, error) { return Open(localConfig(path, wait)) },
	Hold: func(path string, key cart.Key) error {
		d, err := openDriver(localConfig(path, 0))
		if err == nil {
			_, err = d.locks.lock(context.Background(), d.place(key))
		}
		return err
	},
	Whole: func(t *testing.T, path string) {
		for _, file := range filesIn(t, path) {
			if filepath.Base(file) == "lock" {
				continue
			}
			if _, exists, err := cartAt(file, time.Now()); !exists || err != nil || !strings.HasSuffix(file, suffix) {
				t.Errorf("%s: %v", file, err)
			}
		}
	},
	Full:    "no space left on device",
	Unknown: cell.ErrOutcomeUnknown,
}

// localConfig is for a folder that is not there at first, nor those above it.
func localConfig(path string, wait time.Duration) Config {
	return Config{Directory: filepath.Join(path, "not", "there"), Prefix: "cart", Write: wait}
}

func TestMain(m *testing.M) { os.Exit(local.Main(m)) }

func TestProcesses(t *testing.T) { local.Processes(t) }
