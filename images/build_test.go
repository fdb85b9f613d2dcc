package images

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const version = "v1.2.3-test"

// epoch is the time that the images must bear.
var epoch = time.Unix(1_700_000_000, 0).UTC()

// programs are the images, by the last part of their name.
var programs = map[string]string{"sidecar": "./cmd/sidecar", "operator": "./cmd/operator", "shop": "./examples/shop"}

// scratch holds everything that the tests share.
var scratch string

func TestMain(m *testing.M) {
	code := func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "sidecart-images-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(scratch)
		return m.Run()
	}()
	os.Exit(code)
}

// checkout is the folder of the module.
func checkout() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	return filepath.Dir(strings.TrimSpace(string(out))), err
}

// copySources copies what git would commit, so that tests do not see what others change meanwhile, to a folder of the
// name given. Times and rights differ from those of the checkout, as they do on another machine.
func copySources(name string) (string, error) {
	root, err := checkout()
	if err != nil {
		return "", err
	}
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	target := filepath.Join(scratch, name)
	for file := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(root, file))
		if os.IsNotExist(err) {
			continue // removed, and not yet committed
		}
		if err != nil {
			return "", err
		}
		to := filepath.Join(target, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			return "", err
		}
	}
	return target, nil
}

// run runs the tool of the copy in root.
func run(root string, args ...string) (string, error) {
	cmd := exec.Command("go", append([]string{"-C", "tools/images", "run", ".", "--root", root}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix()))
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("images %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// sources is the copy that the tests share.
var sources = sync.OnceValues(func() (string, error) { return copySources("a") })

// built is the folder with the archives of all programs for linux/amd64.
var built = sync.OnceValues(func() (string, error) {
	root, err := sources()
	if err != nil {
		return "", err
	}
	out := filepath.Join(root, "dist")
	_, err = run(root, "--out", out, "--version", version)
	return out, err
})

func must[T any](t *testing.T, f func() (T, error)) T {
	t.Helper()
	v, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// tree is every file under a folder by its path.
func tree(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	root := os.DirFS(folder)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[name], err = fs.ReadFile(root, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
