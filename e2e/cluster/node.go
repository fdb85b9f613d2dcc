package cluster

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed files
var files embed.FS

var templates = template.Must(template.ParseFS(files, "files/*.tmpl"))

// Programs of a node, by the names of their log files.
const (
	containerd = "containerd"
	kubelet    = "kubelet"
)

func nodeName(n int) string { return fmt.Sprintf("node%d", n) }

// nodes are the numbers of the nodes, from 1.
func (c *Cluster) nodes() iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := 1; n <= c.options.Nodes && yield(n); n++ {
		}
	}
}

// configureNode writes what the node's programs read.
func (c *Cluster) configureNode(n int) error {
	for _, name := range []string{"containerd.toml", "kubelet.yaml", "10-bridge.conflist"} {
		if err := c.render(nodeName(n), name, map[string]any{
			"Name":       nodeName(n),
			"PodCIDR":    nodePodCIDR(n),
			"DNSService": dnsService,
			"Etc":        machineDir + "/etc",
			"Programs":   programsDir,
			"CgroupRoot": "/" + cgroupName(c.dir, nodeName(n)),
		}); err != nil {
			return err
		}
	}
	return os.WriteFile(c.folder(nodeName(n), "etc", "resolv.conf"), nil, 0o644)
}

func (c *Cluster) render(machine, name string, data any) error {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name+".tmpl", data); err != nil {
		return err
	}
	return os.WriteFile(c.folder(machine, "etc", name), b.Bytes(), 0o644)
}

// bootNode starts the node's machine with a network and a containerd that answers.
func (c *Cluster) bootNode(ctx context.Context, n int) error {
	name := nodeName(n)
	if err := c.boot(ctx, name); err != nil {
		return err
	}
	if err := c.plugIn(ctx, n); err != nil {
		return err
	}
	if err := c.callMachine(ctx, name, "Run", Program{Args: []string{"sysctl", "-qw", "net.ipv4.ip_forward=1"}}, new(string)); err != nil {
		return err
	}
	if err := c.start(name, containerd, "containerd", "--config="+etc("containerd.toml")); err != nil {
		return err
	}
	return Poll(ctx, func(ctx context.Context) error {
		return c.callMachine(ctx, name, "Run", Program{Args: []string{"ctr", "version"}}, new(string))
	}, func() error { return c.running(name, containerd) })
}

// startKubelet starts what needs the API server.
func (c *Cluster) startKubelet(n int) error {
	name := nodeName(n)
	if err := c.start(name, kubelet, "kubelet", "--config="+etc("kubelet.yaml"), "--kubeconfig="+etc("kubelet.kubeconfig"),
		"--hostname-override="+name, "--node-ip="+nodeIP(n), "--node-labels=topology.kubernetes.io/zone=zone"+fmt.Sprint(n), "--v=2"); err != nil {
		return err
	}
	return c.startProxy(name, name, nodeIP(n))
}

func (c *Cluster) startProxy(machine, node, ip string) error {
	if err := c.render(machine, "kube-proxy.yaml", map[string]any{
		"Name": node, "IP": ip, "PodCIDR": podCIDR, "Mode": c.options.ProxyMode, "Etc": machineDir + "/etc",
	}); err != nil {
		return err
	}
	return c.start(machine, kubeProxy, "kube-proxy", "--config="+etc("kube-proxy.yaml"), "--v=2")
}

// KillNode pulls the plug of a node. Its programs and containers end at once, without telling others, and its address
// does not answer. Its disk stays.
func (c *Cluster) KillNode(ctx context.Context, n int) error {
	if err := c.halt(ctx, nodeName(n)); err != nil {
		return err
	}
	// The kernel would take the cable away a moment later, perhaps in the way of the next.
	if err := ip(ctx, c.pid(controlPlane), "link del "+cable(n)); err != nil && c.hasCable(n) {
		return err
	}
	return nil
}

func (c *Cluster) hasCable(n int) bool {
	var exists bool
	_ = inNetwork(c.pid(controlPlane), func() error {
		_, err := os.Stat(filepath.Join("/proc/thread-self/net/dev_snmp6", cable(n)))
		exists = err == nil
		return nil
	})
	return exists
}

// StartNode starts a node that was killed, with its disk as it was left, and waits until it is Ready again.
func (c *Cluster) StartNode(ctx context.Context, n int) error {
	since := time.Now()
	if err := c.bootNode(ctx, n); err != nil {
		return err
	}
	if err := c.startKubelet(n); err != nil {
		return err
	}
	return c.waitForStarted(ctx, n, func(ready corev1.NodeCondition) bool {
		// Ready may still be true from before. Heartbeats are given in whole seconds.
		return NodeReady(ready) && ready.LastHeartbeatTime.After(since.Truncate(time.Second))
	})
}

// WaitForNode waits until the Ready condition of a node is as it should be.
func (c *Cluster) WaitForNode(ctx context.Context, n int, should func(ready corev1.NodeCondition) bool) error {
	return c.waitForNode(ctx, n, should, nil)
}

// waitForStarted is WaitForNode, but gives up when the kubelet does.
func (c *Cluster) waitForStarted(ctx context.Context, n int, should func(ready corev1.NodeCondition) bool) error {
	return c.waitForNode(ctx, n, should, func() error { return c.running(nodeName(n), kubelet) })
}

func (c *Cluster) waitForNode(ctx context.Context, n int, should func(ready corev1.NodeCondition) bool, hopeless func() error) error {
	return Poll(ctx, func(ctx context.Context) error {
		node, err := c.client.CoreV1().Nodes().Get(ctx, nodeName(n), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("%s did not register", nodeName(n))
		}
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				if should(condition) {
					return nil
				}
				return fmt.Errorf("%s: Ready is %s since %s: %s", node.Name, condition.Status, condition.LastTransitionTime, condition.Message)
			}
		}
		return fmt.Errorf("%s has no Ready condition", node.Name)
	}, hopeless)
}

// NodeReady is a condition for WaitForNode.
func NodeReady(ready corev1.NodeCondition) bool { return ready.Status == corev1.ConditionTrue }

// NodeNotReady is the condition of a killed or partitioned node after the grace period.
func NodeNotReady(ready corev1.NodeCondition) bool { return ready.Status != corev1.ConditionTrue }
