package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/envtest"
	"github.com/sidecart/sidecart/internal/render"
)

// idle on a pod keeps the nodes from starting it.
const idle = "sidecart.dev/test-idle"

// nodes play the part of kubelets and sidecars: they start pods, each with its own address on loopback, refresh their
// configuration when they are stamped, and answer on /statusz.
type nodes struct {
	t      testing.TB
	c      client.WithWatch
	port   int
	server *http.Server
	cancel context.CancelFunc
	done   chan struct{}

	starting sync.WaitGroup
	slots    chan struct{}

	mu       sync.Mutex
	pods     map[string]*running // by namespace/name
	byIP     map[string]*running
	frozen   bool // volumes are not refreshed
	outage   bool // no backend answers
	requests int
}

// running is a pod with its sidecar.
type running struct {
	ip     string
	report Report
	change func(*Report) // what the test wants it to say
	silent bool
	carts  string // what it answers on /statusz/carts
}

var lastAddress struct {
	sync.Mutex
	n int
}

// nextAddress is an address of 127/8 that no other test binary uses.
func nextAddress() string {
	lastAddress.Lock()
	defer lastAddress.Unlock()
	lastAddress.n++
	n := lastAddress.n
	return fmt.Sprintf("127.%d.%d.%d", 20+os.Getpid()%200, n/250, n%250+1)
}

func newNodes(t testing.TB, cluster *envtest.Cluster) *nodes {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0") // every address of 127/8
	if err != nil {
		t.Fatal(err)
	}
	n := &nodes{
		t: t, c: asAdmin(t, cluster).(client.WithWatch), port: l.Addr().(*net.TCPAddr).Port,
		pods: map[string]*running{}, byIP: map[string]*running{}, done: make(chan struct{}), slots: make(chan struct{}, 16),
	}
	n.server = &http.Server{Handler: http.HandlerFunc(n.serve)}
	go func() { _ = n.server.Serve(l) }()
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	started := make(chan struct{})
	go n.run(ctx, started)
	<-started
	return n
}

func (n *nodes) stop() {
	n.cancel()
	<-n.done
	_ = n.server.Close()
}

func (n *nodes) run(ctx context.Context, started chan<- struct{}) {
	defer close(n.done)
	defer n.starting.Wait()
	for once := true; ctx.Err() == nil; once = false {
		var pods corev1.PodList
		if err := n.c.List(ctx, &pods, client.HasLabels{v1alpha1.InjectLabel}); err != nil {
			continue
		}
		for i := range pods.Items {
			n.see(ctx, &pods.Items[i])
		}
		// The API server ends a watch that is slow, or old.
		events, err := n.c.Watch(ctx, &corev1.PodList{}, client.HasLabels{v1alpha1.InjectLabel},
			&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: pods.ResourceVersion}})
		if err != nil {
			continue
		}
		if once {
			close(started)
		}
		for e := range events.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); !ok {
				break
			} else if e.Type == watch.Deleted {
				n.forget(pod)
			} else {
				n.see(ctx, pod)
			}
		}
		events.Stop()
	}
}

// see starts the pod, or refreshes its volume.
func (n *nodes) see(ctx context.Context, pod *corev1.Pod) {
	n.mu.Lock()
	p := n.pods[pod.Namespace+"/"+pod.Name]
	if p != nil && !n.frozen {
		p.report.Generation = generationOf(pod)
	}
	n.mu.Unlock()
	if p != nil || pod.Annotations[idle] != "" || pod.Status.PodIP != "" || pod.DeletionTimestamp != nil {
		return
	}
	p = n.admit(pod)
	n.starting.Go(func() {
		n.slots <- struct{}{}
		defer func() { <-n.slots }()
		if err := n.report(ctx, pod, p); err != nil && ctx.Err() == nil && client.IgnoreNotFound(err) != nil {
			n.t.Errorf("node: pod %s: %v", pod.Name, err)
		}
	})
}

// admit gives the pod an address and a sidecar.
func (n *nodes) admit(pod *corev1.Pod) *running {
	p := &running{ip: nextAddress()}
	p.report.Generation = generationOf(pod)
	p.report.Config.State = "Accepted"
	p.report.Backend.Healthy = true
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods[pod.Namespace+"/"+pod.Name], n.byIP[p.ip] = p, p
	return p
}

// report says in the pod's status that it runs.
func (n *nodes) report(ctx context.Context, pod *corev1.Pod, p *running) error {
	before := pod.DeepCopy()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP, pod.Status.PodIPs = p.ip, []corev1.PodIP{{IP: p.ip}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Status.InitContainerStatuses = nil
	if render.Injected(pod) {
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
			Name: render.ContainerName, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}}
	}
	return n.c.Status().Patch(ctx, pod, client.MergeFrom(before))
}

func generationOf(pod *corev1.Pod) int64 {
	g, _ := strconv.ParseInt(pod.Annotations[v1alpha1.GenerationAnnotation], 10, 64)
	return g
}

func (n *nodes) forget(pod *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := pod.Namespace + "/" + pod.Name
	if p := n.pods[key]; p != nil {
		delete(n.byIP, p.ip)
		delete(n.pods, key)
	}
}

func (n *nodes) serve(w http.ResponseWriter, r *http.Request) {
	ip := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr).IP.String()
	n.mu.Lock()
	n.requests++
	p := n.byIP[ip]
	if p == nil || p.silent || r.URL.Path != "/statusz/carts" && (r.URL.Path != "/statusz" || r.Header.Get("Accept") != "application/json") {
		n.mu.Unlock()
		http.Error(w, "no sidecar", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/statusz/carts" {
		carts := p.carts
		n.mu.Unlock()
		_, _ = io.WriteString(w, carts)
		return
	}
	report := p.report
	report.Backend.Healthy = report.Backend.Healthy && !n.outage
	if p.change != nil {
		p.change(&report)
	}
	n.mu.Unlock()
	_ = json.NewEncoder(w).Encode(report)
}

// says makes the sidecar of a pod report the truth as altered by change.
func (n *nodes) says(namespace, pod string, change func(*Report)) {
	n.t.Helper()
	n.sidecar(namespace, pod, func(p *running) { p.change = change })
}

func (n *nodes) sidecar(namespace, pod string, do func(*running)) {
	n.t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !n.do(namespace+"/"+pod, do) {
		select {
		case <-deadline.C:
			n.t.Fatalf("pod %s does not run", pod)
		case <-tick.C:
		}
	}
}

func (n *nodes) do(key string, do func(*running)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pods[key]
	if p != nil {
		do(p)
	}
	return p != nil
}

func (n *nodes) freeze(frozen bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen = frozen
}

// backends makes the backends of all sidecars available, or unavailable.
func (n *nodes) backends(there bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outage = !there
}

// asked is how often sidecars were asked.
func (n *nodes) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.requests
}
