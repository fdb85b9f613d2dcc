// Package cluster runs a real Kubernetes cluster on one Linux machine, for tests and for looking around by hand
// (./cmd): an API server with its etcd, and nodes with kubelet, containerd, runc and kube-proxy, of programs that
// build.sh builds from Go modules.
//
// Each node, and the control plane, is a machine: a first process with a process, mount, host name and network
// namespace of its own, and a folder for its disk. So the kernel does the clearing up. To pull a machine's plug is to
// kill its first process: every program, container and mount in it is gone at that instant, and its folder stays, as
// after a power cut. A supervisor process owns the machines and watches a pipe to the process that asked for them; when
// that ends, however it ends, so do they. Nothing of a cluster is visible outside: no address, port, mount or sysctl.
// What is (the folder and the cgroups) bears the cluster's name, which no other run has.
//
// It needs Linux and root. [Start] skips elsewhere and says how to run it.
//
//	func TestShop(t *testing.T) {
//		c := cluster.Start(t, cluster.Options{})
//		redis := filepath.Join(t.TempDir(), "redis.tar")
//		if err := cluster.Redis("redis:e2e").Build(t.Context(), redis); err != nil { … }
//		if err := c.Load(t.Context(), redis); err != nil { … }
//		c.MustApply(t, manifest)
//		c.MustKubectl(t, "rollout", "status", "deployment/shop", "--timeout=60s")
//		resp, err := c.HTTPClient().Get("http://shop.default.svc.cluster.local:8080/")
//		…
//		c.KillNode(t.Context(), 2)
//	}
//
// It may import client-go and no room of the product; tests bring those.
package cluster
