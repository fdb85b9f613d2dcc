package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
)

// The test binary is also the other processes of these tests: told so by the environment, it does its part on the file
// that it is given.
const (
	childVar = "SQL_TEST_CHILD"
	pathVar  = "SQL_TEST_PATH"
)

func TestMain(m *testing.M) {
	var err error
	switch child := os.Getenv(childVar); child {
	case "":
		os.Exit(m.Run())
	case "endless":
		err = commitForEver(os.Getenv(pathVar))
	default:
		err = count(os.Getenv(pathVar), child)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, path, role string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childVar+"="+role, pathVar+"="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

func openIn(path string) (*cell.Store, error) {
	const patience = 20 * time.Second // many processes, few processors
	return sqlite.Open(context.Background(), sqlite.Config{URL: "sqlite:" + path, Prefix: "cart", Dial: patience, Read: patience, Write: patience})
}

// commitForEver changes carts on several goroutines, and writes "cart version" for each change that was acknowledged.
func commitForEver(path string) error {
	s, err := openIn(path)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failed := make(chan error)
	for i := range 4 {
		go func() {
			key := cart.Key{Identifier: "crash", Instance: strconv.Itoa(i)}
			for {
				at, err := s.Load(context.Background(), key)
				if err != nil {
					failed <- err
					return
				}
				out, err := increment(s, key, at)
				if err != nil || out.Status != storage.Committed {
					failed <- fmt.Errorf("%v, %w", out, err)
					return
				}
				mu.Lock()
				fmt.Println(i, out.Base+1)
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

func increment(s *cell.Store, key cart.Key, at *cart.Cart) (storage.Outcome, error) {
	text := fmt.Appendf(nil, `{"n":%d}`, at.Version+1)
	outs, err := s.Commit(context.Background(), storage.Commit{
		Key: key, Expect: storage.Expect{ID: at.ID, Version: at.Version},
		Change: storage.Change{NewID: "id", Steps: 1, Writes: []storage.Write{
			{Part: cart.PartItems, Value: text, Step: 1},
			{Part: cart.PartConditions, Value: text, Step: 1},
		}},
		Locks: storage.Locks{Parts: []cart.Part{cart.PartAll}},
	})
	if err != nil {
		return storage.Outcome{}, err
	}
	return outs[0], nil
}

// TestKill: every change that was acknowledged before the process was killed in the middle of others is there, whole.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	acknowledged := map[string]uint64{}
	for round := range 4 {
		cmd := child(t, path, "endless")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var i string
			var version uint64
			if _, err := fmt.Sscan(lines.Text(), &i, &version); err != nil {
				break // cut off by the end of the process
			}
			acknowledged[i] = version
			if n == 100+37*round {
				_ = cmd.Process.Kill() // SIGKILL: nothing is flushed
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}

		s := open(t, path, "cart")
		for i, version := range acknowledged {
			c, err := s.Load(t.Context(), cart.Key{Identifier: "crash", Instance: i})
			if err != nil {
				t.Fatalf("Load: %v", err)
			}
			want := fmt.Sprintf(`{"n":%d}`, c.Version)
			if c.Version < version || string(c.Items.Object.Bytes()) != want || string(c.Conditions.Object.Bytes()) != want {
				t.Errorf("round %d: version %d was acknowledged, found %d with %s and %s",
					round, version, c.Version, c.Items.Object.Bytes(), c.Conditions.Object.Bytes())
			}
		}
		_ = s.Close()
	}
	if len(acknowledged) != 4 {
		t.Fatalf("only %d writers were heard of", len(acknowledged))
	}
	conn := raw(t, path)
	defer conn.Close()
	stmt, _, err := conn.Prepare(`PRAGMA integrity_check`)
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	if !stmt.Step() || stmt.ColumnText(0) != "ok" {
		t.Errorf("integrity check: %s", stmt.ColumnText(0))
	}
}

const counts = 40

// count adds to a cart that all processes share, to one under a lock, and to its own.
func count(path, name string) error {
	s, err := openIn(path)
	if err != nil {
		return err
	}
	ctx := context.Background()
	key := cart.Key{Identifier: "count", Instance: "shared"}
	for n := 0; n < counts; {
		at, err := s.Load(ctx, key)
		if err != nil {
			return err
		}
		out, err := increment(s, key, at)
		if err != nil {
			return err
		}
		if out.Status == storage.Committed {
			n++
		}
	}
	for n := range counts / 4 {
		token := fmt.Sprintf("%016s%06d", name, n)
		key := cart.Key{Identifier: "count", Instance: "locked"}
		g, err := s.Acquire(ctx, key, storage.Claim{Token: token, Parts: []cart.Part{cart.PartAll}, Duration: 30 * time.Second}, false)
		if err != nil {
			return err
		}
		at := g.Cart
		out, err := increment(s, key, at) // without a token: it is locked
		if err != nil || out.Status != storage.Locked {
			return fmt.Errorf("commit without the token: %v, %w", out, err)
		}
		text := fmt.Appendf(nil, `{"n":%d}`, at.Version+1)
		outs, err := s.Commit(ctx, storage.Commit{ // the version is not expected: the lock alone protects it
			Key: key, Expect: storage.Expect{ID: at.ID},
			Change: storage.Change{NewID: "id", Steps: 1, Writes: []storage.Write{{Part: cart.PartItems, Value: text, Step: 1}}},
			Locks:  storage.Locks{Parts: []cart.Part{cart.PartAll}, Token: token, MustHold: true, Release: true},
		})
		if err != nil || outs[0].Status != storage.Committed {
			return fmt.Errorf("commit under the lock: %v, %w", outs, err)
		}
	}
	own := cart.Key{Identifier: "count", Instance: name}
	for range counts {
		at, err := s.Load(ctx, own)
		if err != nil {
			return err
		}
		if out, err := increment(s, own, at); err != nil || out.Status != storage.Committed {
			return fmt.Errorf("own cart: %v, %w", out, err)
		}
	}
	return s.Close()
}

// TestProcesses: five processes start at once on a file that is not there yet, and nothing of what they write is lost.
func TestProcesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	const processes = 5
	var cmds []*exec.Cmd
	for i := range processes {
		cmd := child(t, path, fmt.Sprint("p", i))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	s := open(t, path, "cart")
	want := map[string]uint64{"shared": processes * counts, "locked": processes * counts / 4}
	for i := range processes {
		want[fmt.Sprint("p", i)] = counts
	}
	for instance, n := range want {
		c, err := s.Load(t.Context(), cart.Key{Identifier: "count", Instance: instance})
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		if text := fmt.Sprintf(`{"n":%d}`, n); c.Version != n || string(c.Items.Object.Bytes()) != text {
			t.Errorf("%s: version %d with %s, want %d", instance, c.Version, c.Items.Object.Bytes(), n)
		}
	}
}

// raw opens the file as any other program would.
func raw(t *testing.T, path string) *sqlite3.Conn {
	t.Helper()
	conn, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
