package stories

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// TestPostgres keeps carts in PostgreSQL under load, and kills a sidecar and then the server. Nothing that was
// acknowledged is lost.
func TestPostgres(t *testing.T) {
	s := tellStory(t)
	s.postgres()
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

// TestMove moves carts from Redis to PostgreSQL while three pods add to them. The user knows only the resource: he
// changes the backend, restarts the pods as the status asks him to, and waits. A sidecar is killed meanwhile. At the
// end Redis is switched off, and nothing that was acknowledged is lost.
func TestMove(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.postgres()
	account := s.loaded("redis")
	const change = `{"orphanedCarts":"Move","backend":{"type":"Database","redis":null,"database":{"dialect":"PostgreSQL","host":"postgres","name":"shop","credentialsSecretRef":{"name":"postgres-auth"}}}}`
	if told := s.wouldChange(change); !strings.Contains(told, "carts move from Redis redis:6379 to database shop of PostgreSQL postgres: 10 seen under prefix cart") {
		t.Errorf("a dry run of the change says\n%s", told)
	}
	s.patch(change)
	moves := func(state v1alpha1.MoveState) *v1alpha1.CartStorage {
		t.Helper()
		return s.settles("redis", func(cs *v1alpha1.CartStorage) string {
			if m := cs.Status.Move; m == nil || m.State != state {
				return "the move is not " + string(state)
			}
			return current(cs)
		})
	}
	if m := moves(v1alpha1.MoveWaiting).Status.Move; !strings.Contains(m.Message, "/etc/sidecart/secrets/postgres-auth/password") || !strings.HasSuffix(m.Message, "restart its workload") {
		t.Errorf("the move waits: %s", m.Message)
	}
	account.acknowledges(300)

	s.kubectl("rollout", "restart", "deployment/web")
	s.rolledOut("web")
	moves(v1alpha1.MoveMoving)
	began := time.Now()
	web := s.pods("web")
	s.crash(&web[0], "sidecart")
	account.acknowledges(300)
	moves(v1alpha1.MoveFinished)
	took := time.Since(began)
	t.Log("\n" + s.kubectl("get", "cartstorage", "redis", "-o", "wide"))

	s.patch(`{"moveFrom":null}`)
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(current(cs), updated(cs, 3)) })
	s.kubectl("scale", "statefulset/redis", "--replicas=0")
	account.acknowledges(300)
	v := account.judge("web")
	t.Logf("moved in %s; %d adds, %d failed", round(took), v.Acknowledged, v.Attempted-v.Acknowledged)
}

// TestMemcached keeps carts in Memcached under load, kills a sidecar, and loses nothing. Then it restarts Memcached:
// the carts are gone, as the CartStorage has warned, and the shops go on with new ones.
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

// postgres starts the PostgreSQL that config/samples/postgres.yaml means, with its password.
func (s *story) postgres() {
	s.Helper()
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
}

// server starts a backend of one pod under the name that config/samples uses for it. container is YAML, beginning with
// the image.
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

// loaded applies the sample of that name and lets three replicas add to carts in it, with locks.
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
