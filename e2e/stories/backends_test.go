package stories

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// TestPostgres keeps carts in PostgreSQL under load, and kills a sidecar and then the server. Nothing that was
// acknowledged is lost.
func TestPostgres(t *testing.T) {
	s := tellStory(t)
	s.server("postgres", 5432, `
        image: postgres:e2e
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: postgres-auth, key: password}}}]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Secret
metadata: {name: postgres-auth}
stringData: {username: shop, password: correct-horse}
`)
	account := s.loaded("postgres")
	web := s.pods("web")
	s.crash(&web[0], "sidecart")
	account.acknowledges(300)
	s.restarted("postgres", func() { account.acknowledges(300) })
	s.settles("postgres", func(cs *v1alpha1.CartStorage) string {
		return both(is(cs, "Ready", "True", ""), is(cs, "BackendDurable", "True", ""))
	})
	account.judge("web")
}

// TestMemcached keeps carts in Memcached under load, kills a sidecar, and loses nothing. Then it restarts Memcached:
// the carts are gone, which the CartStorage has said beforehand, and the shops go on with new ones.
func TestMemcached(t *testing.T) {
	s := tellStory(t)
	s.server("memcached", 11211, `
        image: memcached:e2e
        args: [-m, "64"]
`)
	account := s.loaded("memcached")
	web := s.pods("web")
	s.crash(&web[0], "sidecart")
	account.acknowledges(300)
	account.judge("web")
	s.settles("memcached", func(cs *v1alpha1.CartStorage) string { return is(cs, "BackendDurable", "False", "") })

	judge := s.pods("judge")[0]
	if err := buy(t.Context(), &judge); err != nil {
		t.Fatal(err)
	}
	s.restarted("memcached", func() {
		s.eventually("a shop to sell again", func(ctx context.Context) error { return buy(ctx, &judge) })
	})
	s.settles("memcached", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "") })
}

// server starts a backend of one pod by the name that config/samples has for it. The container is YAML, from its image
// on.
func (s *story) server(name string, port int, container string) {
	s.Helper()
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: %[2]d}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s}
spec:
  serviceName: %[1]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node1}
      terminationGracePeriodSeconds: 5
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, fsGroup: 65534, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: %[1]s
        imagePullPolicy: Never
        readinessProbe: {tcpSocket: {port: %[2]d}, periodSeconds: 1}
        resources: {requests: {cpu: 20m, memory: 32Mi}, limits: {cpu: "1", memory: 512Mi}}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}%[3]s`,
		name, port, container))
	s.kubectl("rollout", "status", "statefulset/"+name, "--timeout=90s")
}

// loaded applies the sample of that name and has three replicas add to carts in it, with locks.
func (s *story) loaded(sample string) *account {
	s.Helper()
	s.apply(s.sample(sample + ".yaml"))
	account := s.keepAccount("web")
	s.deploy(app{name: "web", storage: sample, replicas: 3, load: "--carts=10, --clients=4, --rate=60, --items=50, --prefix=" + sample})
	s.settles(sample, func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 3), is(cs, "Ready", "True", "AllUpdated"), is(cs, "BackendReachable", "True", ""), is(cs, "LockingEffective", "True", ""), locking(cs, true, "MultipleReplicas"))
	})
	s.rolledOut("web")
	account.acknowledges(500)
	return account
}

// restarted kills a server's process and waits until the kubelet has started another, and then until all is well.
func (s *story) restarted(name string, well func()) {
	s.Helper()
	var pod corev1.Pod
	if err := s.get(s.Context(), &pod, "pod", name+"-0"); err != nil {
		s.Fatal(err)
	}
	before := pod.Status.ContainerStatuses[0].RestartCount
	s.crash(&pod, name)
	s.eventually(name+" to be back", func(ctx context.Context) error {
		if err := s.get(ctx, &pod, "pod", name+"-0"); err != nil {
			return err
		}
		if c := pod.Status.ContainerStatuses[0]; c.RestartCount == before || !c.Ready {
			return fmt.Errorf("it was restarted %d times, before %d; ready: %t", c.RestartCount, before, c.Ready)
		}
		return nil
	})
	well()
}
