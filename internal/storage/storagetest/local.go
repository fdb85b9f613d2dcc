package storagetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Local is a backend whose data are files of one machine, at a path that several of its processes open. It is tested by
// [Local.Processes] and FullDisk, on top of [Run].
//
// The test binary is also the other processes, so TestMain calls [Local.Main].
type Local struct {
	// Open opens the store at path, and makes its data if they are not there. A change waits for other processes no
	// longer than wait.
	Open func(path string, wait time.Duration) (storage.Store, error)
	// Hold locks what a change of the cart locks in the store at path. It never unlocks it.
	Hold func(path string, key cart.Key) error
	// HoldsAll is the reason why a change of one cart locks all carts; "" if it locks its own cart alone.
	HoldsAll string
	// Whole fails the test if the data at path are damaged, or if something else was left behind there. Processes were
	// killed while they changed carts, and each of these carts was changed once more since.
	Whole func(t *testing.T, path string)
	// Full is what the refusal of a change says when the disk is full.
	Full string
	// Fits is the size in bytes of the largest new cart that finds room on a full disk, in space that the store has
	// already.
	Fits int
	// ReadsBeats is the reason why a sign of life only reads; "" if it writes and thus fails on a full disk.
	ReadsBeats string
	// Unknown is below the error of a change that may have been made.
	Unknown error
}

// By these variables the environment tells a process its part, the path of the data, and at which acknowledgement it
// kills itself.
const (
	partVar   = "STORAGETEST_PART"
	pathVar   = "STORAGETEST_PATH"
	mortalVar = "STORAGETEST_MORTAL"
)

// Main runs the tests, or plays the part of another process if the environment says so. It returns the exit code.
func (l Local) Main(m *testing.M) int {
	part, path := os.Getenv(partVar), os.Getenv(pathVar)
	var err error
	switch part {
	case "":
		return m.Run()
	case partEndless:
		mortal, _ := strconv.Atoi(os.Getenv(mortalVar))
		err = l.commitForEver(path, mortal)
	case partHolder:
		err = l.holdForEver(path)
	default:
		err = l.count(path, part)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is another process that plays a part. It is not started yet.
func process(t *testing.T, part, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), partVar+"="+part, pathVar+"="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// open opens a store that is closed at the end of the test.
func (l Local) open(t *testing.T, path string, wait time.Duration) *subject {
	t.Helper()
	s, err := l.Open(path, wait)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &subject{T: t, ctx: t.Context(), store: s}
}

// Processes tests what other processes do: they work at once, are killed, and stop.
func (l Local) Processes(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, path string){
		"Count": l.testCount, "Kill": l.testKill, "Frozen": l.testFrozen,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, filepath.Join(t.TempDir(), "carts"))
		})
	}
}
