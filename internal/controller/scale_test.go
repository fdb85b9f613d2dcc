package controller

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// parallel does n things, some at once.
func parallel(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	work := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range work {
				if err := do(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
}

func reconciles(t *testing.T) (n float64) {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "controller_runtime_reconcile_total" {
			continue
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetValue() == "cartstorage" {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// requests counts the requests of this process to the API server, and those of them that write.
func requests(t *testing.T) (all, writes float64) {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "rest_client_requests_total" {
			continue
		}
		for _, m := range f.Metric {
			all += m.GetCounter().GetValue()
			for _, l := range m.Label {
				if l.GetName() == "method" && l.GetValue() != "GET" {
					writes += m.GetCounter().GetValue()
				}
			}
		}
	}
	return all, writes
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

var quietRounds = flag.Int("scale.rounds", quietTimes, "how often each sidecar is asked while nothing happens; an hour has 240 rounds")

// Many CartStorages with 10 pods each: how long, how often, how much.
func TestManyCartStorages(t *testing.T) {
	const storages, each = manyStorages, 10
	w := newWorld(t, func(o *Options) { o.Resync = 15 * time.Second }) // as by default
	empty := heap()
	start := time.Now()
	parallel(t, storages, func(i int) error {
		cs := &v1alpha1.CartStorage{}
		cs.Namespace, cs.Name = w.namespace, fmt.Sprintf("shop-%d", i)
		cs.Spec = *read[v1alpha1.CartStorageSpec](t, fmt.Sprintf("{backend: {type: Redis, redis: {addresses: [\"redis-%d:6379\"]}}, sidecar: {ports: {admin: %d}}}", i, w.nodes.port))
		return w.c.Create(t.Context(), cs)
	})
	parallel(t, storages*each, func(i int) error {
		for {
			err := w.c.Create(t.Context(), w.pod(fmt.Sprintf("web-%d-%d", i%storages, i/storages), fmt.Sprintf("shop-%d", i%storages)))
			// The webhook does not know of a CartStorage yet, and says so, as it would to the controller of a
			// ReplicaSet.
			if err == nil || !strings.HasSuffix(err.Error(), "try again") {
				return err
			}
		}
	})
	t.Logf("%d CartStorages and %d pods created through the webhook in %s", storages, storages*each, since(start))
	allReady := func(after time.Time) {
		t.Helper()
		for i := range storages { // one after another, to leave the machine to the operator
			w.within(2*time.Minute, func() string {
				cs := w.get(fmt.Sprintf("shop-%d", i))
				if complaint := is(cs, "Ready", "True", "AllUpdated"); complaint != "" || cs.Status.Sidecars != fmt.Sprintf("%d/%d", each, each) {
					return fmt.Sprintf("%s: %s, sidecars %s", cs.Name, complaint, cs.Status.Sidecars)
				}
				return ""
			})
		}
		t.Logf("all Ready after %s", since(after))
	}
	allReady(start)
	t.Logf("%.0f reconciles in all, %.1f per pod; heap %.1f MiB more than empty, the test's own nodes included", reconciles(t), reconciles(t)/storages/each, heap()-empty)

	quietAndOutage(t, w, storages, each)

	before := reconciles(t)
	start = time.Now()
	update(w, "shop-7", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems = 12 })
	w.allUpdated("shop-7", each)
	t.Logf("one change reaches %d pods in %s", each, since(start))

	start = time.Now()
	parallel(t, storages, func(i int) error {
		cs := &v1alpha1.CartStorage{}
		cs.Namespace, cs.Name = w.namespace, fmt.Sprintf("shop-%d", i)
		return w.c.Patch(context.Background(), cs, client.RawPatch("application/merge-patch+json", []byte(`{"spec": {"limits": {"maxItems": 13}}}`)))
	})
	allReady(start)
	// A change costs only its own rounds, including the stamps of its pods.
	if per := (reconciles(t) - before) / (storages + 1); per > 4*each {
		t.Errorf("a change costs %.1f reconciles, want less than %d", per, 4*each)
	} else {
		t.Logf("%.1f reconciles per change of a CartStorage with %d pods, resyncs included", per, each)
	}
	if more := heap() - empty; more > 128 {
		t.Errorf("the heap has grown by %.0f MiB", more)
	}
	var pods corev1.PodList
	if err := w.c.List(t.Context(), &pods, client.InNamespace(w.namespace)); err != nil || len(pods.Items) != storages*each {
		t.Errorf("%d pods, error %v", len(pods.Items), err)
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Millisecond) }

// quietAndOutage measures how much the operator asks while nothing happens, and how soon it says that no backend
// answers.
func quietAndOutage(t *testing.T, w *world, storages, each int) {
	t.Helper()
	rounds := func(n int) {
		t.Helper()
		want := w.nodes.asked() + n*storages*each
		w.within(time.Minute+time.Duration(n)*time.Minute, func() string {
			if asked := w.nodes.asked(); asked < want {
				return fmt.Sprintf("%d questions are missing", want-asked)
			}
			return ""
		})
	}
	// New sidecars are asked more often at first, and a configuration that has proved good is written once more.
	rounds(int(changeLasts/askLatest) + 1)
	quiet := *quietRounds
	// A sidecar that a busy machine lets answer too late is told of, and that is a write. What writes by itself does so
	// in every try.
	for tries := 3; tries > 0; tries-- {
		all, writes := requests(t)
		start := time.Now()
		rounds(quiet)
		nowAll, nowWrites := requests(t)
		t.Logf("quiet: each of %d sidecars was asked %d times in %s; %.1f requests per second to the API server, %.0f writes", storages*each, quiet, since(start), (nowAll-all)/time.Since(start).Seconds(), nowWrites-writes)
		if nowWrites == writes {
			break
		}
		if tries == 1 {
			t.Errorf("%.0f writes while nothing happened, want none", nowWrites-writes)
		}
	}

	told := func(status metav1.ConditionStatus, there bool) {
		t.Helper()
		// A watch, to leave the machine to the operator.
		watch, err := w.nodes.c.Watch(t.Context(), &v1alpha1.CartStorageList{}, client.InNamespace(w.namespace))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
		_, writes := requests(t)
		start := time.Now()
		w.nodes.backends(there)
		missing := map[string]bool{}
		for i := range storages {
			missing[fmt.Sprintf("shop-%d", i)] = true
		}
		late := time.NewTimer(2 * time.Minute)
		defer late.Stop()
		for len(missing) > 0 {
			select {
			case e := <-watch.ResultChan():
				cs, ok := e.Object.(*v1alpha1.CartStorage)
				if !ok {
					t.Fatalf("the watch ended with %d statuses missing", len(missing))
				}
				if c := condition(cs, "BackendReachable"); c != nil && c.Status == status {
					delete(missing, cs.Name)
				}
			case <-late.C:
				t.Fatalf("%d statuses are missing", len(missing))
			}
		}
		took := time.Since(start)
		_, nowWrites := requests(t)
		t.Logf("BackendReachable is %s everywhere after %s; %.1f writes per second meanwhile", status, took.Round(10*time.Millisecond), (nowWrites-writes)/took.Seconds())
		if took > 15*time.Second {
			t.Errorf("BackendReachable is %s everywhere after %s, want 15s at most", status, took)
		}
	}
	told("False", false)
	told("True", true)
}
