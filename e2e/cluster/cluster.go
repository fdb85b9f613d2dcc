package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Options say what cluster to start. The zero value is one of two nodes.
type Options struct {
	// Nodes is how many nodes there are, named node1, node2 and so on. Default 2.
	Nodes int
	// GracePeriod is how long a silent node stays Ready. Default 20 s.
	GracePeriod time.Duration
	// ProxyMode is that of kube-proxy: nftables (the default) or iptables.
	ProxyMode string
	// Images are image archives that every node has from the start; see [Cluster.Load].
	Images []string
	// Detached makes the cluster outlive this process; see [Attach].
	Detached bool
}

// Cluster is a running Kubernetes cluster. It is safe for concurrent use.
type Cluster struct {
	dir        string
	options    Options
	supervisor *rpc.Client
	alive      io.Closer    // its end is the supervisor's signal to end; nil if attached
	exited     <-chan error // the supervisor's end; nil if attached
	config     *rest.Config
	client     kubernetes.Interface
	stop       func() error

	mu   sync.Mutex
	pids map[string]int // first process of each machine that runs
}

// Root is the folder with the programs: $K8S_ROOT, or sidecart-cluster in the user's cache. e2e/cluster/build.sh fills
// it.
func Root() string {
	if root := os.Getenv("K8S_ROOT"); root != "" {
		return root
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "sidecart-cluster"
	}
	return filepath.Join(cache, "sidecart-cluster")
}

// New starts a cluster and returns when its nodes are Ready and its DNS serves. When this process ends in any way, so
// does the cluster.
func New(ctx context.Context, options Options) (*Cluster, error) {
	if err := Possible(); err != nil {
		return nil, err
	}
	options.Nodes = cmp.Or(options.Nodes, 2)
	options.GracePeriod = cmp.Or(options.GracePeriod, 20*time.Second)
	options.ProxyMode = cmp.Or(options.ProxyMode, "nftables")
	if err := checkDisk(os.TempDir()); err != nil {
		return nil, err
	}
	sweep()
	dir, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, options: options, pids: map[string]int{}}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer lock.Close() // the supervisor has it by then
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if c.alive, c.exited, err = spawnSupervisor(dir, lock, options.Detached); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c.stop = sync.OnceValue(c.shutDown)
	if err := c.bringUp(ctx); err != nil {
		err = fmt.Errorf("start cluster: %w\n%s", err, c.logTails(15))
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Attach returns a detached cluster that is running, by its folder. [Cluster.Stop] stops it.
func Attach(dir string) (*Cluster, error) {
	c := &Cluster{dir: dir, pids: map[string]int{}}
	text, err := os.ReadFile(filepath.Join(dir, "options.json"))
	if err != nil {
		return nil, fmt.Errorf("no cluster in %s: %w", dir, err)
	}
	if err := json.Unmarshal(text, &c.options); err != nil {
		return nil, err
	}
	if c.supervisor, err = rpc.Dial("unix", filepath.Join(dir, "supervisor.sock")); err != nil {
		return nil, fmt.Errorf("the cluster in %s does not run: %w", dir, err)
	}
	if err := c.supervisor.Call("Supervisor.Machines", struct{}{}, &c.pids); err != nil {
		return nil, err
	}
	c.stop = sync.OnceValue(c.shutDown)
	return c, c.connect()
}

// prepare fills the folder.
func (c *Cluster) prepare() error {
	machines := []string{controlPlane}
	for n := range c.nodes() {
		machines = append(machines, nodeName(n))
	}
	for _, machine := range machines {
		for _, dir := range []string{"etc", "log", "var"} {
			if err := os.MkdirAll(c.folder(machine, dir), 0o755); err != nil {
				return err
			}
		}
	}
	text, err := json.Marshal(c.options)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.dir, "options.json"), text, 0o644); err != nil {
		return err
	}
	if err := c.certify(); err != nil {
		return err
	}
	for n := range c.nodes() {
		if err := c.configureNode(n); err != nil {
			return err
		}
	}
	return c.connect()
}

// meetSupervisor connects to the supervisor as soon as it listens.
func (c *Cluster) meetSupervisor(ctx context.Context) error {
	return Poll(ctx, func(context.Context) (err error) {
		c.supervisor, err = rpc.Dial("unix", filepath.Join(c.dir, "supervisor.sock"))
		return err
	}, func() error {
		select {
		case err := <-c.exited:
			return fmt.Errorf("the supervisor has ended: %w", err)
		default:
			return nil
		}
	})
}

// bringUp boots all machines at once, and starts on each what it has to wait for.
func (c *Cluster) bringUp(ctx context.Context) error {
	if err := c.meetSupervisor(ctx); err != nil {
		return err
	}
	if err := c.boot(ctx, controlPlane); err != nil {
		return err
	}
	if err := c.startEtcd(); err != nil {
		return err
	}
	if err := c.layWire(ctx); err != nil {
		return err
	}
	if err := c.launchAPIServer(); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	serving := make(chan struct{})
	work.Go(func() error {
		if err := c.waitForAPIServer(ctx); err != nil {
			return fmt.Errorf("API server: %w", err)
		}
		close(serving)
		if err := c.startControllers(); err != nil {
			return err
		}
		return c.applyDNS(ctx)
	})
	for n := range c.nodes() {
		work.Go(func() error {
			if err := c.bootNode(ctx, n); err != nil {
				return err
			}
			if err := c.load(ctx, n, append(systemImages(), c.options.Images...)...); err != nil {
				return err
			}
			select {
			case <-serving:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := c.startKubelet(n); err != nil {
				return err
			}
			if n == 1 {
				if err := c.startClientProxy(); err != nil {
					return err
				}
			}
			return c.waitForStarted(ctx, n, NodeReady)
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	return c.waitForDNS(context.WithoutCancel(ctx))
}

// Stop ends the cluster: when it returns, nothing of it is left. Further calls do nothing.
func (c *Cluster) Stop() error { return c.stop() }

func (c *Cluster) shutDown() error {
	if c.supervisor != nil {
		// The answer may not make it before the supervisor's end.
		_ = c.supervisor.Call("Supervisor.Shutdown", struct{}{}, nil)
		_ = c.supervisor.Close()
	}
	if c.alive != nil {
		_ = c.alive.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if c.exited != nil {
		select {
		case err := <-c.exited:
			if err != nil {
				log, _ := os.ReadFile(filepath.Join(c.dir, "supervisor.log"))
				return fmt.Errorf("stop cluster: %w: %s", err, log)
			}
		case <-ctx.Done():
			return fmt.Errorf("stop cluster: the supervisor goes on, see %s", c.dir)
		}
		return nil
	}
	return Poll(ctx, func(context.Context) error {
		if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there", c.dir)
		}
		return nil
	}, nil)
}

// Dir is the cluster's folder: logs, kubeconfig and the disks of its machines, each in the folder of its name. It is
// gone after Stop.
func (c *Cluster) Dir() string { return c.dir }

func (c *Cluster) folder(machine string, parts ...string) string {
	return filepath.Join(append([]string{c.dir, machine}, parts...)...)
}

// Kubeconfig is the path of an administrator's kubeconfig. Its server answers from inside the cluster's network only:
// to programs that [Cluster.Command] runs, and to clients of [Cluster.RESTConfig].
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// RESTConfig is an administrator's configuration for client-go in this process.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Client is an administrator's client.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

func (c *Cluster) connect() (err error) {
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return err
	}
	c.config.Dial = c.dialControlPlane
	c.config.QPS = -1 // no limit: its refusals would hide what a test waits for
	c.client, err = kubernetes.NewForConfig(c.config)
	return err
}
