package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// The test binary is also the other processes of these tests: told so by the environment, it does its part on the
// folder that it is given.
const (
	childVar  = "FILE_TEST_CHILD"
	folderVar = "FILE_TEST_FOLDER"
)

func TestMain(m *testing.M) {
	var err error
	switch child := os.Getenv(childVar); child {
	case "":
		os.Exit(m.Run())
	case "endless":
		err = commitForEver(os.Getenv(folderVar))
	case "holder":
		err = holdForEver(os.Getenv(folderVar))
	default:
		err = count(os.Getenv(folderVar), child)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, folder, role string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childVar+"="+role, folderVar+"="+folder)
	cmd.Stderr = os.Stderr
	return cmd
}

// commitForEver changes carts on several goroutines, and writes "cart version" for each change that was acknowledged.
func commitForEver(folder string) error {
	s, err := Open(Config{Directory: folder, Prefix: "cart"})
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

// holdForEver takes the lock of a file, says so, and keeps it.
func holdForEver(folder string) error {
	d, err := openDriver(Config{Directory: folder, Prefix: "cart"})
	if err != nil {
		return err
	}
	if _, err := d.locks.lock(context.Background(), d.place(key)); err != nil {
		return err
	}
	fmt.Println("held")
	select {}
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
	folder := t.TempDir()
	acknowledged := map[string]uint64{}
	for round := range 4 {
		cmd := child(t, folder, "endless")
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
				_ = cmd.Process.Kill()
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}
		s := open(t, folder, "cart")
		for i, version := range acknowledged {
			key := cart.Key{Identifier: "crash", Instance: i}
			c := load(t, s, key)
			want := fmt.Sprintf(`{"n":%d}`, c.Version)
			if c.Version < version || string(c.Items.Object.Bytes()) != want || string(c.Conditions.Object.Bytes()) != want {
				t.Errorf("round %d: version %d was acknowledged, found %d with %s and %s",
					round, version, c.Version, c.Items.Object.Bytes(), c.Conditions.Object.Bytes())
			}
			if out, err := increment(s, key, c); err != nil || out.Status != storage.Committed { // its lock has ended too
				t.Errorf("a change after the kill: %+v, %v", out, err)
			}
		}
		_ = s.Close()
	}
	if len(acknowledged) != 4 {
		t.Fatalf("only %d writers were heard of", len(acknowledged))
	}
}

// TestFrozenProcess: a process that stops in the middle of a change holds up others for as long as the timeout says,
// and readers not at all; when it is killed, its lock ends.
func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	cmd := child(t, folder, "holder")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	hasty, err := Open(Config{Directory: folder, Prefix: "cart", Write: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer hasty.Close()
	if err := put(t.Context(), hasty, key, `{"a":1}`); !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, cell.ErrOutcomeUnknown) {
		t.Errorf("Commit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	patient := open(t, folder, "cart")
	if err := put(ctx, patient, key, `{"a":1}`); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit that was cancelled: %v", err)
	}
	if load(t, hasty, key).Exists() {
		t.Error("there is a cart")
	}
	mustPut(t, hasty, cart.Key{Identifier: "u2", Instance: "default"}, `{"a":1}`)
	_ = cmd.Process.Kill()
	mustPut(t, patient, key, `{"a":1}`)
}

const counts = 40

// count adds to a cart that all processes share, to one under a lock, and to its own.
func count(folder, name string) error {
	s, err := Open(Config{Directory: folder, Prefix: "cart"})
	if err != nil {
		return err
	}
	ctx := context.Background()
	// At once, since a lock must not end with another one of the same process.
	ended := make(chan error, 1)
	go func() { ended <- countOwn(s, name) }()
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
	if err := <-ended; err != nil {
		return err
	}
	return s.Close()
}

func countOwn(s *cell.Store, name string) error {
	own := cart.Key{Identifier: "count", Instance: name}
	for range counts {
		at, err := s.Load(context.Background(), own)
		if err != nil {
			return err
		}
		if out, err := increment(s, own, at); err != nil || out.Status != storage.Committed {
			return fmt.Errorf("own cart: %v, %w", out, err)
		}
	}
	return nil
}

// TestProcesses: five processes start at once on a folder that is not there yet, and nothing of what they write is
// lost.
func TestProcesses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir() + "/not/there"
	const processes = 5
	var cmds []*exec.Cmd
	for i := range processes {
		cmd := child(t, folder, fmt.Sprint("p", i))
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
	s := open(t, folder, "cart")
	want := map[string]uint64{"shared": processes * counts, "locked": processes * counts / 4}
	for i := range processes {
		want[fmt.Sprint("p", i)] = counts
	}
	for instance, n := range want {
		c := load(t, s, cart.Key{Identifier: "count", Instance: instance})
		if text := fmt.Sprintf(`{"n":%d}`, n); c.Version != n || string(c.Items.Object.Bytes()) != text {
			t.Errorf("%s: version %d with %s, want %d", instance, c.Version, c.Items.Object.Bytes(), n)
		}
	}
}
