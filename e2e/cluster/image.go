package cluster

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Image is a container image of files of this machine; no registry is needed. Pods that use it say imagePullPolicy
// Never or IfNotPresent.
type Image struct {
	// Name is what pods call it, such as "sidecart:e2e".
	Name string
	// Files are the paths in the image, by the paths here. Static programs run as they are.
	Files map[string]string
	// Libraries adds the shared libraries that the files need.
	Libraries bool
	// Dirs are empty folders that everybody may write to.
	Dirs []string
	// Entrypoint is the program, Cmd its default arguments.
	Entrypoint string
	Cmd        []string
	// User is the default user, "uid:gid"; root if empty.
	User string
}

// Build writes the image's archive, which Load takes.
func (i Image) Build(ctx context.Context, archive string) error {
	args := []string{"-t", i.Name, "-o", archive, "-entrypoint", i.Entrypoint, "-cmd", strings.Join(i.Cmd, ","), "-user", i.User}
	if i.Libraries {
		args = append(args, "-libs")
	}
	for _, dir := range i.Dirs {
		args = append(args, "-dir", dir)
	}
	for _, from := range slices.Sorted(maps.Keys(i.Files)) { // the same image each time
		args = append(args, from+":"+i.Files[from])
	}
	if _, err := output(exec.CommandContext(ctx, filepath.Join(Root(), "bin", "mkimage"), args...)); err != nil {
		return fmt.Errorf("build image %s: %w", i.Name, err)
	}
	return nil
}

// Redis is an image of Debian's redis-server and redis-cli, which runs as user 999 and writes every change to the
// folder /data at once (a volume's, if one is mounted there). The arguments of a container replace those that say so. A
// hostPath belongs to root: use an emptyDir, which outlives a KillNode too, or run as root.
func Redis(name string) Image {
	return Image{
		Name:       name,
		Files:      map[string]string{"/usr/bin/redis-server": "/usr/bin/redis-server", "/usr/bin/redis-cli": "/usr/bin/redis-cli"},
		Libraries:  true,
		Dirs:       []string{"/data", "/tmp"},
		Entrypoint: "/usr/bin/redis-server",
		Cmd:        []string{"--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--save", "", "--appendonly", "yes", "--appendfsync", "always"},
		User:       "999:999",
	}
}

func systemImages() []string {
	images, _ := filepath.Glob(filepath.Join(Root(), "img", "out", "*.tar"))
	return images
}

// Load gives image archives to all nodes that run. A node that is killed keeps its images.
func (c *Cluster) Load(ctx context.Context, archives ...string) error {
	work, ctx := errgroup.WithContext(ctx)
	for n := range c.nodes() {
		if c.pid(nodeName(n)) != 0 {
			work.Go(func() error { return c.load(ctx, n, archives...) })
		}
	}
	return work.Wait()
}

// load puts each archive into the node's folder, where its machine surely sees it.
func (c *Cluster) load(ctx context.Context, n int, archives ...string) error {
	for _, archive := range archives {
		copied, err := c.copyIn(nodeName(n), archive)
		if err == nil {
			err = c.callMachine(ctx, nodeName(n), "Run",
				Program{Args: []string{"ctr", "--namespace=k8s.io", "images", "import", machineDir + "/" + filepath.Base(copied)}}, new(string))
			_ = os.Remove(copied)
		}
		if err != nil {
			return fmt.Errorf("load %s on %s: %w", archive, nodeName(n), err)
		}
	}
	return nil
}

func (c *Cluster) copyIn(machine, path string) (string, error) {
	from, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer from.Close()
	to, err := os.CreateTemp(c.folder(machine), "image-*.tar")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	if closed := to.Close(); err == nil {
		err = closed
	}
	return to.Name(), err
}
