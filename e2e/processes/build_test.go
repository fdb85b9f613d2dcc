package processes

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

// variant is a way to build the sidecar. The zero value is the program as it is.
type variant struct {
	// race turns the race detector on.
	race bool
	// clock makes the wall clock differ from the machine's by SHIFT seconds of the environment.
	clock bool
	// mutation changes the sources.
	mutation string
	// before is the release before this one, from the sources in -compat.tree.
	before bool
}

var compatTree = flag.String("compat.tree", "", "the `folder` with the sources of the release before this one")

// mutations are wrong programs, by name: what is replaced in which file of the module. Each text to be replaced is
// there once, or the build fails.
var mutations = map[string][]replacement{
	"the version is not checked": {
		{"internal/storage/redis/commit.lua", "    if is ~= m.versions[i] then\n", "    if false then\n"},
		{"internal/storage/redis/quick.lua", "good = good and (got[7 + i] or '0') == ARGV[at_versions + i - 1]", "good = good"},
	},
	"the token is not checked": {
		{"internal/storage/redis/commit.lua", "if m.lease and not holds_any(m) then", "if false then"},
	},
	"an idempotency key is ignored": {
		{"internal/lock/requests.go", "\tcase r.Key == \"\" || i < 0:\n", "\tcase true || r.Key == \"\" || i < 0:\n"},
	},
	"the key of another request is accepted": {
		{"internal/lock/requests.go", "\tcase known[i].Sum != r.Sum:\n", "\tcase false:\n"},
	},
	"a checkout is settled twice": {
		{"internal/cart/checkouts.go", "\tif i < 0 || list[i].Outcome != \"\" {\n", "\tif i < 0 {\n"},
		{"internal/lock/settle.go", "\tcase found.Outcome != \"\":\n\t\treturn s.done", "\tcase false:\n\t\treturn s.done"},
		{"internal/lock/settle.go", "\tcase at.entry.Outcome != \"\":\n", "\tcase false:\n"},
	},
	"a settlement drops what was added meanwhile": {
		{"internal/cart/items.go", "\t\tif has <= taken.Quantity {\n", "\t\tif true || has <= taken.Quantity {\n"},
	},
	"the cart is read before the lock": {
		{"internal/lock/serve.go", "\ts := &serving{batch: b, c: c, q: q, own: b.view != nil, fresh: b.view != nil}\n", "\tfresh := b.view != nil\n\tb.view = nil\n\ts := &serving{batch: b, c: c, q: q, fresh: fresh}\n"},
		{"internal/lock/plan.go", "\tk.Change.Writes = writes(d, view.Version)\n", "\tk.Change.Writes = writes(d, view.Version)\n\tif b.token != \"\" {\n\t\tk.Expect.Parts = nil\n\t}\n"},
	},
}

type replacement struct{ file, old, new string }

var builds struct {
	mu    sync.Mutex
	dir   string
	paths map[variant]string
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(builds.dir)
	testserver.CloseShared()
	os.Exit(code)
}

// binary builds a variant once and returns its path.
func (v variant) binary() (string, error) {
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if path, ok := builds.paths[v]; ok {
		return path, nil
	}
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "sidecart-processes-")
		if err != nil {
			return "", err
		}
		builds.dir, builds.paths = dir, map[variant]string{}
	}
	path := filepath.Join(builds.dir, fmt.Sprintf("sidecar%d", len(builds.paths)))
	args := []string{"build", "-ldflags=-s -w", "-o", path} // what a debugger needs takes longest to link
	if v.race {
		args = append(args, "-race")
	}
	overlay, err := v.overlay(path)
	if err != nil {
		return "", err
	}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	build := exec.Command("go", append(args, "github.com/sidecart/sidecart/cmd/sidecar")...)
	if v.before {
		if *compatTree == "" {
			return "", errors.New("there are no sources of the release before this one: run make compat")
		}
		build.Dir = *compatTree
	}
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the sidecar: %w\n%s", err, out)
	}
	builds.paths[v] = path
	return path, nil
}

// overlay writes the changed files of a variant below dir and returns the list that go build takes, "" if none is
// changed.
func (v variant) overlay(dir string) (string, error) {
	var changes []replacement
	if v.clock {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return "", err
		}
		file := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
		for _, c := range wrongClock {
			changes = append(changes, replacement{file, c.old, c.new})
		}
	}
	if v.mutation != "" {
		if mutations[v.mutation] == nil {
			return "", fmt.Errorf("no mutation is called %q", v.mutation)
		}
		root, err := filepath.Abs(filepath.Join("..", ".."))
		if err != nil {
			return "", err
		}
		for _, c := range mutations[v.mutation] {
			changes = append(changes, replacement{filepath.Join(root, c.file), c.old, c.new})
		}
	}
	if len(changes) == 0 {
		return "", nil
	}
	texts := map[string]string{}
	for _, c := range changes {
		if _, ok := texts[c.file]; !ok {
			source, err := os.ReadFile(c.file)
			if err != nil {
				return "", err
			}
			texts[c.file] = string(source)
		}
		if n := strings.Count(texts[c.file], c.old); n != 1 {
			return "", fmt.Errorf("%s has %q %d times, not once", c.file, c.old, n)
		}
		texts[c.file] = strings.Replace(texts[c.file], c.old, c.new, 1)
	}
	list := struct{ Replace map[string]string }{map[string]string{}}
	for file, text := range texts {
		list.Replace[file] = fmt.Sprintf("%s-%d-%s", dir, len(list.Replace), filepath.Base(file))
		if err := os.WriteFile(list.Replace[file], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	path := dir + "-overlay.json"
	return path, os.WriteFile(path, raw, 0o600)
}

// wrongClock changes the standard library so that time.Now is off by SHIFT seconds. What it measures with, its
// monotonic clock, stays right, as in a machine whose date is wrong.
var wrongClock = []replacement{
	{old: "\t\"math/bits\"\n", new: "\t\"math/bits\"\n\t\"syscall\"\n"},
	{old: "\tsec, nsec, mono := runtimeNow()\n", new: "\tsec, nsec, mono := runtimeNow()\n\tsec += clockShift\n"},
	{old: "// Now returns the current local time.\n", new: `var clockShift = func() (n int64) {
	s, _ := syscall.Getenv("SHIFT")
	sign := int64(1)
	for _, c := range []byte(s) {
		if c == '-' {
			sign = -1
		} else {
			n = n*10 + int64(c-'0')
		}
	}
	return sign * n
}()

// Now returns the current local time.
`},
}
