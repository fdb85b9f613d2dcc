//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
)

// pod is a Redis on a node, and its Service.
func pod(name string, node int) string {
	return strings.NewReplacer("NAME", name, "NODE", nodeName(node)).Replace(`
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  nodeSelector: {kubernetes.io/hostname: NODE}
  terminationGracePeriodSeconds: 1
  containers:
  - name: redis
    image: redis:e2e
    imagePullPolicy: Never
    readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
    securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{port: 6379}]}
`)
}

// redis runs a command of the client in a pod, against a host, until it answers so.
func redis(t *testing.T, c *Cluster, in, host, want string, command ...string) {
	t.Helper()
	Eventually(t, 30*time.Second, func(ctx context.Context) error {
		got, err := c.Kubectl(ctx, append([]string{"exec", in, "--", "redis-cli", "-h", host}, command...)...)
		if err == nil && strings.TrimSpace(got) != want {
			err = fmt.Errorf("%s in %s: %s answers %q, not %q", command, in, host, got, want)
		}
		return err
	})
}

// ping is an error unless a Redis answers at the address, as seen by a client outside.
func ping(ctx context.Context, c *Cluster, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := c.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	answer := make([]byte, 7)
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	if _, err := conn.Read(answer); err != nil {
		return err
	}
	if string(answer) != "+PONG\r\n" {
		return fmt.Errorf("answered %q", answer)
	}
	return nil
}

func TestCluster(t *testing.T) {
	started := time.Now()
	c := Start(t, Options{})
	t.Logf("started in %v", time.Since(started).Round(time.Millisecond))
	ctx := t.Context()
	address := map[string]string{} // of each Service, by its name

	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow() // each goes on from the one before it
		}
	}
	step("programs of one release", func(t *testing.T) {
		server, err := c.Client().Discovery().ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		v, err := version.ParseSemantic(server.GitVersion)
		if err != nil {
			t.Fatal(err)
		}
		for n := range c.nodes() {
			node, err := c.Client().CoreV1().Nodes().Get(ctx, nodeName(n), getOptions)
			if err != nil {
				t.Fatal(err)
			}
			if got := node.Status.NodeInfo.KubeletVersion; got != "v"+v.String() {
				t.Errorf("kubelet of %s is %s, API server %s", node.Name, got, v)
			}
		}
	})
	step("pods run", func(t *testing.T) {
		archive := filepath.Join(t.TempDir(), "redis.tar")
		if err := Redis("redis:e2e").Build(ctx, archive); err != nil {
			t.Fatal(err)
		}
		if err := c.Load(ctx, archive); err != nil {
			t.Fatal(err)
		}
		c.MustApply(t, pod("one", 1)+"---"+pod("two", 2))
		c.MustKubectl(t, "wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s")
		for _, name := range []string{"one", "two"} {
			service, err := c.Client().CoreV1().Services("default").Get(ctx, name, getOptions)
			if err != nil {
				t.Fatal(err)
			}
			address[name] = net.JoinHostPort(service.Spec.ClusterIP, "6379")
			Eventually(t, 10*time.Second, func(ctx context.Context) error { return ping(ctx, c, address[name]) })
		}
	})
	step("names and Services work across nodes", func(t *testing.T) {
		redis(t, c, "one", "two.default.svc.cluster.local", "OK", "SET", "who", "two")
		redis(t, c, "two", "one", "OK", "SET", "who", "one")
		redis(t, c, "one", "two", "two", "GET", "who")
		redis(t, c, "two", "one", "one", "GET", "who")
	})
	step("clients in this process reach Services", func(t *testing.T) {
		two, err := c.Client().CoreV1().Pods("default").Get(ctx, "two", getOptions)
		if err != nil {
			t.Fatal(err)
		}
		pod := net.JoinHostPort(two.Status.PodIP, "6379")
		for _, to := range []string{"one.default:6379", "two.default.svc.cluster.local:6379", address["two"], pod} {
			Eventually(t, 10*time.Second, func(ctx context.Context) error { return ping(ctx, c, to) })
		}
	})
	step("helm", func(t *testing.T) {
		if out := c.MustHelm(t, "list", "--all-namespaces", "--output=json"); strings.TrimSpace(out) != "[]" {
			t.Errorf("releases: %s", out)
		}
	})
	step("pods go on without an API server", func(t *testing.T) {
		if err := c.StopAPIServer(ctx); err != nil {
			t.Fatal(err)
		}
		if out, err := c.Kubectl(ctx, "get", "nodes", "--request-timeout=2s"); err == nil {
			t.Errorf("there is still an API server: %s", out)
		}
		if err := ping(ctx, c, "two.default:6379"); err != nil {
			t.Error(err)
		}
		if err := c.StartAPIServer(within(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
		redis(t, c, "one", "two", "two", "GET", "who")
	})
	step("a killed node is missed, and comes back with its disk", func(t *testing.T) {
		if err := c.KillNode(ctx, 2); err != nil {
			t.Fatal(err)
		}
		if err := ping(ctx, c, address["two"]); err == nil {
			t.Error("a pod of the killed node answers")
		}
		if err := ping(ctx, c, address["one"]); err != nil {
			t.Errorf("the other node: %v", err)
		}
		if err := c.WaitForNode(within(t, 40*time.Second), 2, NodeNotReady); err != nil {
			t.Fatal(err)
		}
		if err := c.StartNode(within(t, 40*time.Second), 2); err != nil {
			t.Fatal(err)
		}
		c.MustKubectl(t, "wait", "--for=condition=Ready", "pod/two", "--timeout=60s")
		redis(t, c, "one", "two", "two", "GET", "who")
	})
	step("a partitioned node is missed, and goes on", func(t *testing.T) {
		if err := c.Partition(ctx, 2); err != nil {
			t.Fatal(err)
		}
		if err := ping(ctx, c, address["two"]); err == nil {
			t.Error("a pod of the partitioned node answers")
		}
		if err := c.WaitForNode(within(t, 40*time.Second), 2, NodeNotReady); err != nil {
			t.Fatal(err)
		}
		if err := c.running(nodeName(2), kubelet, containerd, kubeProxy); err != nil {
			t.Error(err)
		}
		if err := c.Heal(ctx, 2); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitForNode(within(t, 40*time.Second), 2, NodeReady); err != nil {
			t.Fatal(err)
		}
		redis(t, c, "one", "two", "two", "GET", "who")
	})
	step("stops, and leaves nothing", func(t *testing.T) {
		before := traces(t, c)
		stopped := time.Now()
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		t.Logf("stopped in %v", time.Since(stopped).Round(time.Millisecond))
		if err := before.left(); err != nil {
			t.Error(err)
		}
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, errors.New("took too long"))
	t.Cleanup(cancel)
	return ctx
}
