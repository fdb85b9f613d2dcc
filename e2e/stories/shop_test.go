package stories

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// redis starts the Redis that config/samples/redis.yaml means, with its password and with every write in its file
// before it is answered. The file outlives the process and the container. It is in memory, since the stories are not
// about the speed of a busy disk.
func (s *story) redis() {
	s.Helper()
	s.redisCalled("redis")
}

// redisCalled is redis, and StatefulSet and Service have another name. The password is the same.
func (s *story) redisCalled(name string) {
	s.Helper()
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: redis-auth}
stringData: {password: correct-horse}
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
      securityContext: {runAsNonRoot: true, fsGroup: 999, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: redis
        image: redis:e2e
        imagePullPolicy: Never
        args: [--requirepass, correct-horse, --appendonly, "yes", --appendfsync, always, --dir, /data, --protected-mode, "no"]
        env: [{name: REDISCLI_AUTH, value: correct-horse}]
        readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
        resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {cpu: "1", memory: 512Mi}}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 6379}]}
`, name))
	s.kubectl("rollout", "status", "statefulset/"+name, "--timeout=90s")
}

// redisCLI asks the story's Redis.
func (s *story) redisCLI(args ...string) string {
	s.Helper()
	return strings.TrimSpace(s.kubectl(append([]string{"exec", "redis-0", "--", "redis-cli"}, args...)...))
}

// app is a shop in a Deployment.
type app struct {
	name     string
	storage  string // name of the CartStorage
	replicas int
	strategy string // YAML, of the Deployment; "" is Kubernetes' default
	load     string // flags of `shop load`; "" is none
	pod      string // YAML, more of the pod's spec, indented by six
}

// deploy applies the app's Deployment. Only its label is about Sidecart.
func (s *story) deploy(a app) {
	s.Helper()
	strategy, load := "", ""
	if a.strategy != "" {
		strategy = "  strategy: " + a.strategy + "\n"
	}
	if a.load != "" {
		load = fmt.Sprintf(container, "load", "load, "+a.load)
	}
	s.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  replicas: %[2]d
%[3]s  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s, sidecart.dev/inject: %[4]s}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 20
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
%[5]s      containers:
`, a.name, a.replicas, strategy, a.storage, a.pod) + fmt.Sprintf(container, "shop", "serve") + load)
}

const container = `      - name: %s
        image: sidecart/shop:` + thisVersion + `
        imagePullPolicy: Never
        args: [%s]
        resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {cpu: "1", memory: 64Mi}}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// scale is kubectl scale.
func (s *story) scale(name string, replicas int) {
	s.Helper()
	s.kubectl("scale", "deployment/"+name, fmt.Sprintf("--replicas=%d", replicas))
}

func (s *story) rolledOut(name string) {
	s.Helper()
	s.kubectl("rollout", "status", "deployment/"+name, "--timeout=90s")
}

// pods are those of an app that are not ending.
func (s *story) pods(name string) []corev1.Pod {
	s.Helper()
	var list corev1.PodList
	if err := s.get(s.Context(), &list, "pods", "-l", "app="+name); err != nil {
		s.Fatal(err)
	}
	var pods []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			pods = append(pods, p)
		}
	}
	return pods
}

// shop runs a command of the shop in one of its pods.
func (s *story) shop(pod string, args ...string) string {
	s.Helper()
	return s.kubectl(append([]string{"exec", pod, "-c", "shop", "--", "shop"}, args...)...)
}

// storage reads a CartStorage.
func (s *story) storage(ctx context.Context, name string) (*v1alpha1.CartStorage, error) {
	cs := new(v1alpha1.CartStorage)
	return cs, s.get(ctx, cs, "cartstorage", name)
}

// settles waits until a CartStorage is as it should be; should says what is missing, "" for nothing.
func (s *story) settles(name string, should func(cs *v1alpha1.CartStorage) string) *v1alpha1.CartStorage {
	s.Helper()
	var cs *v1alpha1.CartStorage
	s.eventually("CartStorage "+name, func(ctx context.Context) (err error) {
		if cs, err = s.storage(ctx, name); err != nil {
			return err
		}
		if missing := should(cs); missing != "" {
			return fmt.Errorf("%s; status: %+v", missing, cs.Status)
		}
		return nil
	})
	return cs
}

// updated says whether so many sidecars run the newest configuration.
func updated(cs *v1alpha1.CartStorage, sidecars int32) string {
	var have, want int32
	for _, w := range cs.Status.Workloads {
		have, want = have+w.Updated, want+w.Sidecars
	}
	if have != sidecars || want != sidecars {
		return fmt.Sprintf("%d of %d sidecars are updated, %d should be", have, want, sidecars)
	}
	return ""
}

// is says whether a condition is so; reason "" is any.
func is(cs *v1alpha1.CartStorage, kind, status, reason string) string {
	for _, c := range cs.Status.Conditions {
		if c.Type == kind {
			if string(c.Status) == status && (reason == "" || c.Reason == reason) {
				return ""
			}
			return fmt.Sprintf("%s is %s for %s: %s", kind, c.Status, c.Reason, c.Message)
		}
	}
	return kind + " is not there"
}

// both is the first of several that is missing.
func both(missing ...string) string {
	for _, m := range missing {
		if m != "" {
			return m
		}
	}
	return ""
}
