package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// controlPlane is the name of the machine with the API server.
const controlPlane = "control-plane"

// Programs of the control plane, by the names of their log files.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	kubeProxy         = "kube-proxy"
)

// etc is the path of a configuration file inside a machine.
func etc(name string) string { return machineDir + "/etc/" + name }

// certify writes all keys, certificates and kubeconfigs, each where only its machine sees it.
func (c *Cluster) certify() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	dir := c.folder(controlPlane, "etc")
	var errs []error
	write := func(path string, data []byte) { errs = append(errs, os.WriteFile(path, data, 0o600)) }
	keep := func(dir, name string, id identity, err error) { errs = append(errs, err, id.write(dir, name)) }
	kubeconfig := func(path, user string, groups ...string) {
		id, err := ca.client(user, groups...)
		errs = append(errs, err, ca.writeKubeconfig(path, id))
	}

	write(filepath.Join(dir, "ca.crt"), ca.pem)
	caKey, err := encodeKey(ca.key)
	errs = append(errs, err)
	write(filepath.Join(dir, "ca.key"), caKey)
	private, public, err := tokenKeys()
	errs = append(errs, err)
	write(filepath.Join(dir, "tokens.key"), private)
	write(filepath.Join(dir, "tokens.pub"), public)
	id, err := ca.server(apiServer, "localhost", "127.0.0.1", controlPlaneIP, firstService,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	keep(dir, "apiserver", id, err)
	id, err = ca.client("kube-apiserver-kubelet-client", "system:masters")
	keep(dir, "kubelet-client", id, err)
	id, err = ca.client("front-proxy-client")
	keep(dir, "front-proxy-client", id, err)
	kubeconfig(filepath.Join(dir, "controller-manager.kubeconfig"), "system:kube-controller-manager")
	kubeconfig(filepath.Join(dir, "scheduler.kubeconfig"), "system:kube-scheduler")
	kubeconfig(filepath.Join(dir, "proxy.kubeconfig"), "system:kube-proxy")
	kubeconfig(c.Kubeconfig(), "admin", "system:masters")

	for n := range c.nodes() {
		dir := c.folder(nodeName(n), "etc")
		write(filepath.Join(dir, "ca.crt"), ca.pem)
		id, err := ca.server(nodeName(n), nodeName(n), nodeIP(n), "127.0.0.1")
		keep(dir, "kubelet", id, err)
		kubeconfig(filepath.Join(dir, "kubelet.kubeconfig"), "system:node:"+nodeName(n), "system:nodes")
		kubeconfig(filepath.Join(dir, "proxy.kubeconfig"), "system:kube-proxy")
	}
	return errors.Join(errs...)
}

func (c *Cluster) startEtcd() error {
	return c.start(controlPlane, etcd, "etcd", "--data-dir=/var/lib/etcd",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=default=http://127.0.0.1:2380",
		"--unsafe-no-fsync", // the data are worth nothing after the machine that holds them
		"--log-level=warn")
}

// StartAPIServer starts the API server after a StopAPIServer and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.launchAPIServer(); err != nil {
		return err
	}
	return c.waitForAPIServer(ctx)
}

// StopAPIServer stops the API server, and it alone: running pods go on.
func (c *Cluster) StopAPIServer(ctx context.Context) error {
	return c.callMachine(ctx, controlPlane, "Stop", StopOrder{Name: apiServer, Patience: 5 * time.Second}, nil)
}

func (c *Cluster) launchAPIServer() error {
	return c.start(controlPlane, apiServer, "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", "--secure-port=6443", "--advertise-address="+controlPlaneIP,
		"--service-cluster-ip-range="+serviceCIDR,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--client-ca-file="+etc("ca.crt"),
		"--tls-cert-file="+etc("apiserver.crt"), "--tls-private-key-file="+etc("apiserver.key"),
		"--kubelet-client-certificate="+etc("kubelet-client.crt"), "--kubelet-client-key="+etc("kubelet-client.key"),
		"--kubelet-certificate-authority="+etc("ca.crt"), "--kubelet-preferred-address-types=InternalIP,Hostname",
		"--requestheader-client-ca-file="+etc("ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file="+etc("front-proxy-client.crt"), "--proxy-client-key-file="+etc("front-proxy-client.key"),
		"--enable-aggregator-routing=true",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+etc("tokens.pub"), "--service-account-signing-key-file="+etc("tokens.key"),
		"--shutdown-delay-duration=0s")
}

func (c *Cluster) waitForAPIServer(ctx context.Context) error {
	return Poll(ctx, func(ctx context.Context) error {
		return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}, func() error { return c.running(controlPlane, etcd, apiServer) })
}

func (c *Cluster) startControllers() error {
	manager := etc("controller-manager.kubeconfig")
	if err := c.start(controlPlane, controllerManager, "kube-controller-manager",
		"--kubeconfig="+manager, "--authentication-kubeconfig="+manager, "--authorization-kubeconfig="+manager,
		"--bind-address=127.0.0.1", "--service-account-private-key-file="+etc("tokens.key"), "--root-ca-file="+etc("ca.crt"),
		"--cluster-signing-cert-file="+etc("ca.crt"), "--cluster-signing-key-file="+etc("ca.key"),
		"--use-service-account-credentials=true", "--leader-elect=false",
		fmt.Sprintf("--node-monitor-grace-period=%s", c.options.GracePeriod)); err != nil {
		return err
	}
	config := etc("scheduler.kubeconfig")
	return c.start(controlPlane, scheduler, "kube-scheduler",
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--bind-address=127.0.0.1", "--leader-elect=false")
}

// startClientProxy makes Services reachable from the control plane's network, where the test's own connections come
// from. They do not need a node that is alive. The proxy must belong to a node, and the control plane is not one, so it
// uses the name of node 1.
func (c *Cluster) startClientProxy() error {
	return c.startProxy(controlPlane, nodeName(1), controlPlaneIP)
}
