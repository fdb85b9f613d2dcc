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
	// Name is the name that pods use, such as "sidecart:e2e".
	Name string
	// Files are the paths in the image, by the paths on this machine. A folder stands for all files in it. Static
	// programs need nothing else.
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
// folder /data at once (a volume's, if one is mounted there). The arguments of a container replace these settings. A
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

// Memcached is an image of Debian's memcached, which runs as user 999.
func Memcached(name string) Image {
	return Image{
		Name:       name,
		Files:      map[string]string{"/usr/bin/memcached": "/usr/bin/memcached"},
		Libraries:  true,
		Entrypoint: "/usr/bin/memcached",
		User:       "999:999",
	}
}

// Postgres is an image of Debian's PostgreSQL server, which runs as user 65534. In an empty folder /data it makes a
// database "shop" that user "shop" owns, with the password in the environment variable PASSWORD. The socket is in
// /data.
func Postgres(name string) (Image, error) {
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(programs) == 0 {
		return Image{}, fmt.Errorf("image %s: no PostgreSQL server is installed: apt-get install postgresql", name)
	}
	slices.Sort(programs)
	bin := programs[len(programs)-1]
	version := filepath.Base(filepath.Dir(bin))
	// initdb wants its user to have a name; nobody has one everywhere.
	files := map[string]string{"/bin/sh": "/bin/sh", "/etc/passwd": "/etc/passwd", "/usr/share/zoneinfo": "/usr/share/zoneinfo"}
	lib := filepath.Join(filepath.Dir(bin), "lib")
	for _, path := range []string{bin + "/postgres", bin + "/initdb", lib + "/plpgsql.so", lib + "/dict_snowball.so", "/usr/share/postgresql/" + version} {
		files[path] = path
	}
	// The server makes everything in single-user mode, before anybody can connect.
	begin := fmt.Sprintf(`set -eu
cd /data; data=/data/db
if [ ! -s $data/PG_VERSION ]; then
  echo "$PASSWORD" >password
  %[1]s/initdb -D $data -U shop --pwfile=password -A scram-sha-256 -E UTF8 --locale=C >/dev/null
  echo 'CREATE DATABASE shop' | %[1]s/postgres --single -D $data postgres >/dev/null
  echo 'host all all all scram-sha-256' >>$data/pg_hba.conf
fi
exec %[1]s/postgres -D $data -c listen_addresses=* -c unix_socket_directories=/data`, bin)
	return Image{
		Name: name, Files: files, Libraries: true, Dirs: []string{"/data"},
		Entrypoint: "/bin/sh", Cmd: []string{"-c", begin}, User: "65534:65534",
	}, nil
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

// load puts each archive into the node's folder, which its machine can always see.
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
