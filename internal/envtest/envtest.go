package envtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// Cluster is a running API server, without nodes and without controllers: what is created stays as it is.
type Cluster struct {
	// Config connects as an administrator.
	Config *rest.Config
	// Client reads and writes without a cache. Its scheme knows Kubernetes' types and ours.
	Client client.Client
	// WebhookClientCA is a file with the authority of the certificate that the API server shows to webhooks.
	WebhookClientCA string

	kubectl    string
	kubeconfig string
	dir        string
	env        *envtest.Environment
	namespaces atomic.Int64
}

var shared struct {
	sync.Mutex
	cluster *Cluster
	err     error
}

// Main runs the tests of a package that uses [Start], and stops the cluster after them. It returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(envtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		return code
	}
	if err := shared.cluster.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "envtest: stop:", err)
		return max(code, 1)
	}
	return code
}

// Start returns the cluster of this test binary, and starts it at the first call. The binary must have a TestMain that
// calls [Main].
func Start(t testing.TB) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = start()
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// Namespace creates a namespace of its own for a test and returns its name.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test-%d", c.namespaces.Add(1))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := c.Client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return name
}

func start() (*Cluster, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	bin, err := binaries(root)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}

	existing := false
	env := &envtest.Environment{
		UseExistingCluster:    &existing, // never the one that USE_EXISTING_CLUSTER and a kubeconfig name
		BinaryAssetsDirectory: bin,
		CRDDirectoryPaths:     []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
		Scheme:                scheme,
		// The default of 20 s is short of a busy machine that runs other packages' servers.
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	env.ControlPlane.GetAPIServer().Path = filepath.Join(bin, "kube-apiserver")
	env.ControlPlane.Etcd = &envtest.Etcd{Path: filepath.Join(bin, "etcd")}
	dir, err := os.MkdirTemp("", "sidecart-envtest-")
	if err != nil {
		return nil, err
	}
	ca, admission, err := webhookClient(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	env.ControlPlane.GetAPIServer().Configure().Set("admission-control-config-file", admission)
	config, err := env.Start()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the API server: %w", err), env.Stop(), os.RemoveAll(dir))
	}
	c := &Cluster{Config: config, WebhookClientCA: ca, kubectl: filepath.Join(bin, "kubectl"), dir: dir, env: env}
	if err := c.connect(scheme); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	if err := c.awaitSchemas(); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// awaitSchemas waits until the API server publishes the schemas of the CRDs: kubectl explain reads them, and they come
// a moment after the resources.
func (c *Cluster) awaitSchemas() error {
	client, err := discovery.NewDiscoveryClientForConfig(c.Config)
	if err != nil {
		return err
	}
	ctx := context.Background()
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		paths, err := client.OpenAPIV3().Paths()
		return err == nil && paths["apis/"+v1alpha1.GroupVersion.String()] != nil, nil
	})
}

func (c *Cluster) connect(scheme *runtime.Scheme) (err error) {
	if c.Client, err = client.New(c.Config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	c.kubeconfig = filepath.Join(c.dir, "kubeconfig")
	return os.WriteFile(c.kubeconfig, c.env.KubeConfig, 0o600)
}

func (c *Cluster) stop() error {
	return errors.Join(c.env.Stop(), os.RemoveAll(c.dir))
}

// binaries is the folder with kube-apiserver, etcd and kubectl.
func binaries(root string) (string, error) {
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		k8s := os.Getenv("K8S_ROOT")
		if k8s == "" {
			cache, err := os.UserCacheDir()
			if err != nil {
				return "", err
			}
			k8s = filepath.Join(cache, "sidecart-cluster")
		}
		dir = filepath.Join(k8s, "bin")
	}
	var missing []string
	for _, name := range []string{"kube-apiserver", "etcd", "kubectl"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("no %s in %s: build them with\n\t%s envtest", strings.Join(missing, ", "), dir,
			filepath.Join(root, "e2e", "cluster", "build.sh"))
	}
	return dir, nil
}

// moduleRoot is the folder of go.mod, from the folder of the test upwards.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the test's folder")
		}
		dir = parent
	}
}
