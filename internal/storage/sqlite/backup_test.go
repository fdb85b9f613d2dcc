package sqlite_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// commandsAfter are those of the first console block behind a text of docs/configuration.md.
func commandsAfter(t *testing.T, text string) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), text)
	_, block, ok := strings.Cut(after, "```console\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !ok || !closed {
		t.Fatalf("docs/configuration.md shows no commands behind %q", text)
	}
	var commands []string
	for line := range strings.Lines(block) {
		commands = append(commands, strings.TrimPrefix(line, "$ "))
	}
	return strings.Join(commands, "")
}

func shell(t *testing.T, folder, commands string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", commands)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

// TestBackupAndRestore does what the documentation says: a backup that is made while carts change is one instant, holds
// up nobody, and after it was restored fences rise above those that were given since.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "carts.db")
	s := open(t, path, "cart")
	keys := []cart.Key{{Identifier: "a", Instance: "default"}, {Identifier: "b", Instance: "default"}}
	padding := strings.Repeat("x", 20_000)
	both := func(s *cell.Store, n int) error { // both carts change in one step
		commits := make([]storage.Commit, len(keys))
		for i, key := range keys {
			is, err := s.Load(t.Context(), key)
			if err != nil {
				return err
			}
			commits[i] = storage.Commit{
				Key: key, Expect: storage.Expect{ID: is.ID, Version: is.Version},
				Change: storage.Change{NewID: "id" + key.Identifier, Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Step: 1, Value: []byte(fmt.Sprintf(`{"n":%d,"x":%q}`, n, padding))}}},
				Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
			}
		}
		outs, err := s.Commit(t.Context(), commits...)
		if err == nil && outs[0].Status != storage.Committed {
			err = fmt.Errorf("%+v", outs)
		}
		return err
	}
	state := func(s *cell.Store) (all []string) {
		for _, key := range keys {
			c, err := s.Load(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			items, _, _ := strings.Cut(string(c.Items.Object.Bytes()), ",")
			all = append(all, fmt.Sprintf("%d %s", c.Version, items))
		}
		return all
	}
	if err := both(s, 0); err != nil {
		t.Fatal(err)
	}
	fence := mustLease(t, s, "before", time.Hour).Fence
	if err := s.Release(t.Context(), leased, "before"); err != nil {
		t.Fatal(err)
	}

	stop, changed := make(chan struct{}), make(chan error, 1)
	var n atomic.Int64
	go func() {
		for {
			select {
			case <-stop:
				changed <- nil
				return
			default:
			}
			if err := both(s, int(n.Add(1))); err != nil {
				changed <- fmt.Errorf("change %d: %w", n.Load(), err)
				return
			}
		}
	}()
	for met := false; !met; { // again where no change was made meanwhile
		before := n.Load()
		shell(t, folder, "rm -f backup.db\n"+commandsAfter(t, "**Back up**"))
		met = n.Load() >= before+2
	}
	close(stop)
	if err := <-changed; err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(folder, "backup.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info.Mode(), err)
	}
	for range 100 { // the backup knows of none of these
		g := mustLease(t, s, "since", time.Hour)
		fence = g.Fence
		if err := s.Release(t.Context(), leased, "since"); err != nil {
			t.Fatal(err)
		}
	}
	now := state(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	shell(t, folder, commandsAfter(t, "**Restore**"))
	s = open(t, path, "cart")
	was := state(s)
	if was[0] != was[1] || was[0] == "0 " || was[0] == now[0] {
		t.Errorf("restored %q, was %q: want one earlier instant of both", was, now)
	}
	if g := mustLease(t, s, "after", time.Hour); g.Fence <= fence {
		t.Errorf("fence %d after %d", g.Fence, fence)
	}
	if err := both(s, -1); err != nil {
		t.Errorf("a change after the restore: %v", err)
	}
}
