//go:build linux

package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// trace records what a cluster has on this machine, and the state of the machine besides.
type trace struct {
	dir        string
	namespaces map[string]bool // of its machines, "pid:[4026532…]"
	supervisor int
	machine    map[string]string // settings of the whole machine
}

// settings are settings of the machine that programs of a node try to change, and must not.
func settings() map[string]string {
	all := map[string]string{}
	for file := range tunables {
		value, err := os.ReadFile(file)
		all[file] = fmt.Sprint(string(value), err)
	}
	for _, dir := range []string{"/run/netns", "/var/log/containers", "/var/log/pods", "/var/lib/kubelet", "/var/lib/cni", "/run/containerd"} {
		entries, err := os.ReadDir(dir)
		all[dir] = fmt.Sprint(entries, err)
	}
	return all
}

// atFirst is how this machine was before any cluster of these tests.
var atFirst = settings()

func traces(t *testing.T, c *Cluster) trace {
	t.Helper()
	tr := trace{dir: c.dir, namespaces: map[string]bool{}, machine: atFirst}
	for machine, pid := range c.pids {
		for _, kind := range []string{"pid", "mnt", "net", "uts"} {
			ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			if err != nil {
				t.Fatalf("%s: %v", machine, err)
			}
			tr.namespaces[ns] = true
		}
	}
	for pid := range processes() {
		if args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline")); strings.HasSuffix(string(args), "\x00"+c.dir+"\x00") {
			_, _ = fmt.Sscan(pid, &tr.supervisor)
		}
	}
	if tr.supervisor == 0 {
		t.Fatal("no supervisor")
	}
	if found := tr.inhabitants(); len(found) < 10 {
		t.Fatalf("only %d processes in the machines: this test looks in the wrong place", len(found))
	}
	if cgroups := cgroupPaths(filepath.Base(c.dir) + "*"); len(cgroups) == 0 {
		t.Fatal("no cgroups: this test looks in the wrong place")
	}
	return tr
}

// processes are the namespaces of every process of this machine.
func processes() map[string][]string {
	all := map[string][]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		for _, kind := range []string{"pid", "mnt", "net", "uts"} {
			if ns, err := os.Readlink(filepath.Join(dir, "ns", kind)); err == nil {
				all[filepath.Base(dir)] = append(all[filepath.Base(dir)], ns)
			}
		}
	}
	return all
}

func (tr trace) inhabitants() (found []string) {
	for pid, namespaces := range processes() {
		for _, ns := range namespaces {
			if tr.namespaces[ns] {
				args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
				found = append(found, pid+" "+strings.ReplaceAll(string(args), "\x00", " "))
				break
			}
		}
	}
	return found
}

// running is an error if a process of the cluster is left.
func (tr trace) running() error {
	if found := tr.inhabitants(); len(found) > 0 {
		return fmt.Errorf("%d processes are left: %q", len(found), found)
	}
	if err := syscall.Kill(tr.supervisor, 0); err == nil {
		return errors.New("the supervisor is left")
	}
	return nil
}

// left is an error if anything of the cluster is left.
func (tr trace) left() error {
	errs := []error{tr.running()}
	if _, err := os.Stat(tr.dir); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("the folder %s is left", tr.dir))
	}
	if cgroups := cgroupPaths(filepath.Base(tr.dir) + "*"); len(cgroups) > 0 {
		errs = append(errs, fmt.Errorf("cgroups are left: %s", cgroups))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		errs = append(errs, err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, filepath.Base(tr.dir)) || strings.Contains(line, "kubelet") || strings.Contains(line, "nsfs") {
			errs = append(errs, fmt.Errorf("a mount is left: %s", line))
		}
	}
	if diff := cmp.Diff(tr.machine, settings()); diff != "" {
		errs = append(errs, fmt.Errorf("the machine is not as it was (-before +after):\n%s", diff))
	}
	return errors.Join(errs...)
}

// asOwner is set where this test program runs as the owner of a cluster that is killed.
const asOwner = "SIDECART_CLUSTER_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(asOwner) == "" {
		os.Exit(m.Run())
	}
	c, err := New(context.Background(), Options{Nodes: 1})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("owner of", c.Dir())
	select {} // until killed
}

// ownedElsewhere starts a cluster whose owner is another process.
func ownedElsewhere(t *testing.T) (*exec.Cmd, *Cluster) {
	t.Helper()
	if err := Possible(); elsewhere(err) {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self)
	owner.Env = append(os.Environ(), asOwner+"=yes")
	owner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	owner.Stderr = os.Stderr
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Process.Kill(); _ = owner.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if dir, ok := strings.CutPrefix(lines.Text(), "owner of "); ok {
			c, err := Attach(dir)
			if err != nil {
				t.Fatal(err)
			}
			return owner, c
		}
		t.Log(lines.Text())
	}
	t.Fatal("the owner ended without a cluster")
	return nil, nil
}

func TestKilledOwner(t *testing.T) {
	owner, c := ownedElsewhere(t)
	before := traces(t, c)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 25*time.Second, func(context.Context) error { return before.left() })
}

func TestKilledSupervisor(t *testing.T) {
	owner, c := ownedElsewhere(t)
	before := traces(t, c)
	if err := syscall.Kill(before.supervisor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	Eventually(t, 25*time.Second, func(context.Context) error { return before.running() })
	if _, err := os.Stat(c.dir); err != nil {
		t.Fatalf("nobody was there to remove it: %v", err)
	}
	sweep() // the next start does
	if err := before.left(); err != nil {
		t.Error(err)
	}
}
