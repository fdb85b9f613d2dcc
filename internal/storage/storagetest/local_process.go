package storagetest

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
)

// Parts of processes. Any other is the name of one that counts.
const (
	partEndless = "endless"
	partHolder  = "holder"
)

// increment is a change after which items and conditions hold the version of the cart.
func increment(key cart.Key, at *cart.Cart) storage.Commit {
	text := fmt.Sprintf(`{"n":%d}`, at.Version+1)
	c := change(key, at, items(text), conditions(text))
	c.Locks.Parts = []cart.Part{cart.PartAll}
	return c
}

// commit makes one commit.
func commit(ctx context.Context, s storage.Store, c storage.Commit) (storage.Outcome, error) {
	outs, err := s.Commit(ctx, c)
	if err != nil {
		return storage.Outcome{}, err
	}
	return outs[0], nil
}

// commitForEver changes carts on several goroutines, and writes "cart version" for each change that was acknowledged.
// At the acknowledgement of that number it kills itself, unless mortal is 0.
func (l Local) commitForEver(path string, mortal int) error {
	s, err := l.Open(path, patience)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	acknowledged := 0
	failed := make(chan error)
	for i := range crashers {
		go func() {
			key := crashing(strconv.Itoa(i))
			for {
				at, err := s.Load(context.Background(), key)
				if err != nil {
					failed <- err
					return
				}
				out, err := commit(context.Background(), s, increment(key, at))
				if err != nil || out.Status != storage.Committed { // nobody else changes the cart
					failed <- fmt.Errorf("change %d of cart %s: status %d, error %v", at.Version+1, key, out.Status, err)
					return
				}
				mu.Lock()
				fmt.Println(i, out.Base+1)
				if acknowledged++; acknowledged == mortal {
					failed <- syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

// crashers is how many goroutines change carts in a process that is killed, each its own cart.
const crashers = 4

func crashing(i string) cart.Key { return cart.Key{Identifier: "crash", Instance: i} }

// testKill: a process is killed in the middle of changes. Every change that was acknowledged before is there, whole,
// and the locks of the process are free.
func (l Local) testKill(t *testing.T, path string) {
	acknowledged := map[string]uint64{}
	for round := range 6 {
		killAfter(t, path, 100+37*round, round%2 == 0, acknowledged)
		s := l.open(t, path, patience)
		for i, version := range acknowledged {
			key := crashing(i)
			c := s.load(key)
			if want := fmt.Sprintf(`{"n":%d}`, c.Version); c.Version < version || contentOf(c).Items != want || contentOf(c).Conditions != want {
				t.Errorf("round %d: version %d was acknowledged, found %d with %s and %s",
					round, version, c.Version, contentOf(c).Items, contentOf(c).Conditions)
			}
			out, err := commit(t.Context(), s.store, increment(key, c))
			if err != nil || out.Status != storage.Committed {
				t.Errorf("a change after the kill: %+v, %v", out, err)
			}
			acknowledged[i] = out.Base + 1
		}
		_ = s.store.Close()
	}
	if len(acknowledged) != crashers {
		t.Fatalf("only %d writers were heard of", len(acknowledged))
	}
	l.Whole(t, path)
}

// killAfter starts a process that commits for ever, has it killed after some changes, and notes which were
// acknowledged. The signal of another process comes at any instant. That of the process itself comes at the instant of
// an acknowledgement, so that a change which is acknowledged too early is lost.
func killAfter(t *testing.T, path string, changes int, byItself bool, acknowledged map[string]uint64) {
	t.Helper()
	cmd := process(t, partEndless, path)
	if byItself {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", mortalVar, changes))
	}
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
		if n == changes && !byItself {
			_ = cmd.Process.Kill() // SIGKILL: nothing is flushed
		}
	}
	err = cmd.Wait()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() {
		t.Fatalf("the process was not killed, but ended by itself: %v", err)
	}
}

// holdForEver locks a cart, says so, and keeps the lock.
func (l Local) holdForEver(path string) error {
	if err := l.Hold(path, key); err != nil {
		return err
	}
	fmt.Println("held")
	select {}
}

// testFrozen: a process that stops in the middle of a change delays the changes of others for as long as their bound
// allows, and no reads. When it is killed, its lock ends.
func (l Local) testFrozen(t *testing.T, path string) {
	const short = 50 * time.Millisecond
	hasty, patient := l.open(t, path, short), l.open(t, path, patience)
	cmd := process(t, partHolder, path)
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
	late := func(key cart.Key) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := commit(ctx, hasty.store, increment(key, hasty.load(key)))
		if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, l.Unknown) {
			t.Errorf("Commit of %q: %v", key, err)
		}
		if ctx.Err() != nil {
			t.Errorf("Commit of %q took %v, and may wait for %v only", key, patience, short)
		}
	}
	late(key)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := commit(ctx, patient.store, increment(key, patient.load(key))); !errors.Is(err, context.Canceled) || errors.Is(err, l.Unknown) {
		t.Errorf("Commit that was cancelled: %v", err)
	}
	hasty.missing("what could not be made", hasty.load(key))
	other := cart.Key{Identifier: "u2", Instance: "default"}
	if l.HoldsAll != "" {
		late(other)
		hasty.missing("what could not be made", hasty.load(other))
	} else {
		hasty.put(other, items(`{"a":1}`))
		l.open(t, path, short).put(other, items(`{"a":2}`))
	}
	_ = cmd.Process.Kill()
	patient.put(key, items(`{"a":1}`))
	patient.put(other, items(`{"a":3}`))
}

// counts is how often each process adds to its own cart and to the one that all share.
const counts = 40

func counted(instance string) cart.Key { return cart.Key{Identifier: "count", Instance: instance} }

// count adds to a cart that all processes share, to one under a lock, and at the same time to its own: a lock of a
// process must not end with another one of the same process.
func (l Local) count(path, name string) error {
	s, err := l.Open(path, patience)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- countOwn(s, name) }()
	if err := errors.Join(countShared(s), countLocked(s, name), <-ended); err != nil {
		return err
	}
	return s.Close()
}

func countOwn(s storage.Store, name string) error {
	for range counts {
		at, err := s.Load(context.Background(), counted(name))
		if err != nil {
			return err
		}
		if out, err := commit(context.Background(), s, increment(counted(name), at)); err != nil || out.Status != storage.Committed {
			return fmt.Errorf("own cart: %v, %w", out, err)
		}
	}
	return nil
}

func countShared(s storage.Store) error {
	for n := 0; n < counts; {
		at, err := s.Load(context.Background(), counted("shared"))
		if err != nil {
			return err
		}
		out, err := commit(context.Background(), s, increment(counted("shared"), at))
		if err != nil {
			return err
		}
		if out.Status == storage.Committed {
			n++
		}
	}
	return nil
}

func countLocked(s storage.Store, name string) error {
	key := counted("locked")
	for n := range counts / 4 {
		token := fmt.Sprintf("%016s%06d", name, n)
		g, err := s.(storage.Locker).Acquire(context.Background(), key, claim(token, cart.PartAll), false)
		if err != nil {
			return err
		}
		out, err := commit(context.Background(), s, increment(key, g.Cart)) // without a token: it is locked
		if err != nil || out.Status != storage.Locked {
			return fmt.Errorf("commit without the token: %v, %w", out, err)
		}
		c := increment(key, g.Cart)
		c.Expect.Version = 0 // the lock alone protects it
		c.Locks.Token, c.Locks.MustHold, c.Locks.Release = token, true, true
		if out, err = commit(context.Background(), s, c); err != nil || out.Status != storage.Committed {
			return fmt.Errorf("commit under the lock: %v, %w", out, err)
		}
	}
	return nil
}

// testCount: five processes start at once where no data are yet, and nothing of what they write is lost.
func (l Local) testCount(t *testing.T, path string) {
	const processes = 5
	var cmds []*exec.Cmd
	for i := range processes {
		cmd := process(t, fmt.Sprint("p", i), path)
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
	s := l.open(t, path, patience)
	want := map[string]uint64{"shared": processes * counts, "locked": processes * counts / 4}
	for i := range processes {
		want[fmt.Sprint("p", i)] = counts
	}
	for instance, n := range want {
		c := s.load(counted(instance))
		text := fmt.Sprintf(`{"n":%d}`, n)
		if c.Version != n || contentOf(c).Items != text || contentOf(c).Conditions != text {
			t.Errorf("%s: version %d with %s and %s, want %d", instance, c.Version, contentOf(c).Items, contentOf(c).Conditions, n)
		}
	}
}
