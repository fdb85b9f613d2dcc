package render

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestDecideLocking(t *testing.T) {
	web := Workload{Kind: "Deployment", Name: "web", Replicas: 1, Pods: 1}
	with := func(change func(*Workload)) Topology {
		w := web
		change(&w)
		return Topology{Workloads: []Workload{w}}
	}
	admin := Workload{Kind: "Deployment", Name: "admin", Replicas: 1}
	idle := Workload{Kind: "Job", Name: "report"}
	for _, r := range []struct {
		name     string
		mode     v1alpha1.LockingMode
		topology Topology
		enabled  bool
		reason   string
		message  string
	}{
		{"configured on", v1alpha1.LockingEnabled, Topology{}, true, "Configured", "spec.locking.mode is Enabled"},
		{"configured off", v1alpha1.LockingDisabled, with(func(w *Workload) { w.Replicas = 9 }), false, "Configured", "spec.locking.mode is Disabled"},
		{"nobody", "Auto", Topology{}, false, "NoWorkloads", "no pod uses this CartStorage"},
		{"idle", "Auto", Topology{Workloads: []Workload{idle}}, false, "NoWorkloads", "no pod uses this CartStorage"},
		{"alone", "Auto", with(func(*Workload) {}), false, "SingleWriter", "Deployment web is the only writer and has one pod"},
		{"alone beside an idle one", "Auto", Topology{Workloads: []Workload{idle, web}}, false, "SingleWriter", "Deployment web is the only writer and has one pod"},
		{"unset mode is Auto", "", with(func(*Workload) {}), false, "SingleWriter", "Deployment web is the only writer and has one pod"},
		{"replicas", "Auto", with(func(w *Workload) { w.Replicas = 3 }), true, "MultipleReplicas", "Deployment web has 3 replicas"},
		{"replicas that do not live yet", "Auto", with(func(w *Workload) { w.Replicas, w.Pods = 2, 0 }), true, "MultipleReplicas", "Deployment web has 2 replicas"},
		{"autoscaler", "Auto", with(func(w *Workload) { w.Autoscaler, w.MaxReplicas = "HorizontalPodAutoscaler web", 10 }), true, "Autoscaler",
			"HorizontalPodAutoscaler web may scale Deployment web to 10 replicas"},
		{"autoscaler that has scaled to zero", "Auto", with(func(w *Workload) { w.Replicas, w.Pods, w.Autoscaler, w.MaxReplicas = 0, 0, "ScaledObject web", 2 }), true, "Autoscaler",
			"ScaledObject web may scale Deployment web to 2 replicas"},
		{"autoscaler up to one", "Auto", with(func(w *Workload) { w.Autoscaler, w.MaxReplicas = "ScaledObject web", 1 }), false, "SingleWriter",
			"Deployment web is the only writer and has one pod"},
		{"surge", "Auto", with(func(w *Workload) { w.Surge = 1 }), true, "RolloutSurge", "a rollout of Deployment web may run 2 pods at once"},
		{"surge of nothing", "Auto", with(func(w *Workload) { w.Surge, w.Replicas = 1, 0 }), false, "SingleWriter", "Deployment web is the only writer and has one pod"},
		{"unbounded", "Auto", Topology{Workloads: []Workload{{Kind: "DaemonSet", Name: "agent", Unbounded: true}}}, true, "UnboundedWorkload",
			"DaemonSet agent may run any number of pods"},
		{"several workloads", "Auto", Topology{Workloads: []Workload{admin, web}}, true, "MultipleWorkloads", "Deployment admin and Deployment web use this CartStorage"},
		{"many workloads", "Auto", Topology{Workloads: []Workload{admin, web, admin, web, admin}}, true, "MultipleWorkloads",
			"Deployment admin, Deployment web, Deployment admin and 2 more use this CartStorage"},
		{"one that was scaled down beside another", "Auto", Topology{Workloads: []Workload{{Kind: "Deployment", Name: "old", Pods: 1}, web}}, true, "MultipleWorkloads",
			"Deployment old and Deployment web use this CartStorage"},
		{"an ending pod", "Auto", with(func(w *Workload) { w.Pods = 2 }), true, "MultiplePods", "2 pods of Deployment web live, those that are ending included"},
		{"shared backend", "Auto", Topology{Workloads: []Workload{web}, Sharers: []string{"wishes"}}, true, "SharedBackend",
			"CartStorage wishes uses the same backend and keyPrefix"},
		{"shared backends", "Auto", Topology{Workloads: []Workload{web}, Sharers: []string{"b", "c"}}, true, "SharedBackend",
			"CartStorage b and CartStorage c use the same backend and keyPrefix"},
		{"a stranger", "Auto", Topology{Workloads: []Workload{web}, Strangers: 1}, true, "SharedBackend",
			"a CartStorage of another namespace uses the same backend and keyPrefix"},
		{"strangers", "Auto", Topology{Workloads: []Workload{web}, Sharers: []string{"b"}, Strangers: 2}, true, "SharedBackend",
			"CartStorage b and 2 CartStorages of other namespaces use the same backend and keyPrefix"},
		{"replicas explain best", "Auto", Topology{Workloads: []Workload{{Kind: "DaemonSet", Name: "a", Unbounded: true, Pods: 4}, {Kind: "Deployment", Name: "b", Replicas: 2}}, Sharers: []string{"x/y"}},
			true, "MultipleReplicas", "Deployment b has 2 replicas"},
	} {
		t.Run(r.name, func(t *testing.T) {
			got, recheck := DecideLocking(v1alpha1.Locking{Mode: r.mode}, r.topology, nil, noon)
			want := v1alpha1.LockingStatus{Enabled: r.enabled, Reason: r.reason, Message: r.message, Since: metav1.NewTime(noon)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if recheck != 0 {
				t.Errorf("recheck is %s, want none", recheck)
			}
		})
	}
}

// Locking goes on at once, and off only after one writer has been alone for some time. The time starts anew whenever a
// second writer appears.
func TestLockingOverTime(t *testing.T) {
	spec := v1alpha1.Locking{Mode: v1alpha1.LockingAuto, AutoDisableAfter: metav1.Duration{Duration: 5 * time.Minute}}
	one := Topology{Workloads: []Workload{{Kind: "Deployment", Name: "web", Replicas: 1, Pods: 1}}}
	three := Topology{Workloads: []Workload{{Kind: "Deployment", Name: "web", Replicas: 3, Pods: 3}}}
	var previous *v1alpha1.LockingStatus
	for _, step := range []struct {
		at       time.Duration
		topology Topology
		enabled  bool
		reason   string
		since    time.Duration
		recheck  time.Duration
	}{
		{0, one, false, "SingleWriter", 0, 0},
		{1 * time.Minute, three, true, "MultipleReplicas", 1 * time.Minute, 0},
		{2 * time.Minute, three, true, "MultipleReplicas", 1 * time.Minute, 0},
		{3 * time.Minute, one, true, "CoolingDown", 1 * time.Minute, 5 * time.Minute},
		{6 * time.Minute, one, true, "CoolingDown", 1 * time.Minute, 2 * time.Minute},
		{7 * time.Minute, three, true, "MultipleReplicas", 1 * time.Minute, 0},
		{8 * time.Minute, one, true, "CoolingDown", 1 * time.Minute, 5 * time.Minute},
		{13*time.Minute - 1, one, true, "CoolingDown", 1 * time.Minute, 1},
		{13 * time.Minute, one, false, "SingleWriter", 13 * time.Minute, 0},
		{14 * time.Minute, one, false, "SingleWriter", 13 * time.Minute, 0},
		{15 * time.Minute, three, true, "MultipleReplicas", 15 * time.Minute, 0},
		{16 * time.Minute, Topology{}, true, "CoolingDown", 15 * time.Minute, 5 * time.Minute},
		{21 * time.Minute, Topology{}, false, "NoWorkloads", 21 * time.Minute, 0},
	} {
		got, recheck := DecideLocking(spec, step.topology, previous, noon.Add(step.at))
		if got.Enabled != step.enabled || got.Reason != step.reason || !got.Since.Equal(&metav1.Time{Time: noon.Add(step.since)}) || recheck != step.recheck {
			t.Errorf("after %s: %+v, recheck %s; want %+v", step.at, got, recheck, step)
		}
		previous = &got
	}
}

func TestCoolingDownMessage(t *testing.T) {
	topology := Topology{Workloads: []Workload{{Kind: "Deployment", Name: "web", Replicas: 1}}}
	got, _ := DecideLocking(v1alpha1.Locking{}, topology, &v1alpha1.LockingStatus{Enabled: true}, noon)
	const want = "Deployment web is the only writer and has one pod since 2026-01-02T12:00:00Z; locking goes off after 5m of that"
	if got.Message != want {
		t.Errorf("message is %q, want %q", got.Message, want)
	}
}

// A clock that went back must not make the time alone longer than it should be.
func TestAloneInTheFuture(t *testing.T) {
	later := metav1.NewTime(noon.Add(time.Hour))
	previous := &v1alpha1.LockingStatus{Enabled: true, AloneSince: &later}
	_, recheck := DecideLocking(v1alpha1.Locking{}, Topology{}, previous, noon)
	if recheck != 5*time.Minute {
		t.Errorf("recheck is %s, want 5m", recheck)
	}
}

func TestWorkloadOf(t *testing.T) {
	deployment := func(spec string) runtime.Object {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: *read[appsv1.DeploymentSpec](t, spec)}
	}
	job := func(spec, status string) runtime.Object {
		return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: *read[batchv1.JobSpec](t, spec), Status: *read[batchv1.JobStatus](t, status)}
	}
	cron := func(spec string) runtime.Object {
		return &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: *read[batchv1.CronJobSpec](t, spec)}
	}
	pod := func(phase corev1.PodPhase) runtime.Object {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Status: corev1.PodStatus{Phase: phase}}
	}
	for _, r := range []struct {
		name   string
		object runtime.Object
		want   Workload
	}{
		{"deployment by default", deployment("{}"), Workload{Kind: "Deployment", Replicas: 1, Surge: 1}},
		{"deployment of three", deployment("{replicas: 3}"), Workload{Kind: "Deployment", Replicas: 3, Surge: 1}},
		{"deployment of none", deployment("{replicas: 0}"), Workload{Kind: "Deployment", Surge: 1}},
		{"percentage rounds up", deployment("{replicas: 5, strategy: {rollingUpdate: {maxSurge: 25%}}}"), Workload{Kind: "Deployment", Replicas: 5, Surge: 2}},
		{"no surge", deployment("{strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0}}}"), Workload{Kind: "Deployment", Replicas: 1}},
		{"no percent", deployment(`{strategy: {rollingUpdate: {maxSurge: "0%"}}}`), Workload{Kind: "Deployment", Replicas: 1}},
		{"surge of two", deployment("{strategy: {rollingUpdate: {maxSurge: 2}}}"), Workload{Kind: "Deployment", Replicas: 1, Surge: 2}},
		{"nonsense", deployment("{strategy: {rollingUpdate: {maxSurge: some}}}"), Workload{Kind: "Deployment", Replicas: 1, Surge: 1}},
		{"recreate", deployment("{strategy: {type: Recreate}}"), Workload{Kind: "Deployment", Replicas: 1}},
		{"stateful set", &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, Workload{Kind: "StatefulSet", Replicas: 1}},
		{"replica set", &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, Workload{Kind: "ReplicaSet", Replicas: 1}},
		{"replication controller", &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, Workload{Kind: "ReplicationController", Replicas: 1}},
		{"daemon set", &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, Workload{Kind: "DaemonSet", Unbounded: true}},
		{"job", job("{}", "{}"), Workload{Kind: "Job", Replicas: 1}},
		{"parallel job", job("{parallelism: 4, completions: 8}", "{}"), Workload{Kind: "Job", Replicas: 4}},
		{"parallel job with less to do", job("{parallelism: 4, completions: 1}", "{}"), Workload{Kind: "Job", Replicas: 1}},
		{"suspended job", job("{suspend: true, parallelism: 4}", "{}"), Workload{Kind: "Job"}},
		{"ended job", job("{parallelism: 4}", "{conditions: [{type: Complete, status: 'True'}]}"), Workload{Kind: "Job"}},
		{"failed job", job("{parallelism: 4}", "{conditions: [{type: Failed, status: 'True'}]}"), Workload{Kind: "Job"}},
		{"cron job", cron("{}"), Workload{Kind: "CronJob", Replicas: 1, Unbounded: true}},
		{"cron job, one at a time", cron("{concurrencyPolicy: Forbid, jobTemplate: {spec: {parallelism: 2}}}"), Workload{Kind: "CronJob", Replicas: 2}},
		{"suspended cron job", cron("{suspend: true}"), Workload{Kind: "CronJob"}},
		{"pod", pod(corev1.PodPending), Workload{Kind: "Pod", Replicas: 1}},
		{"ended pod", pod(corev1.PodSucceeded), Workload{Kind: "Pod"}},
		{"failed pod", pod(corev1.PodFailed), Workload{Kind: "Pod"}},
	} {
		t.Run(r.name, func(t *testing.T) {
			r.want.Name = "web"
			got, ok := WorkloadOf(r.object)
			if !ok {
				t.Fatal("not known")
			}
			if diff := cmp.Diff(r.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if w, ok := WorkloadOf(&corev1.Service{}); ok {
		t.Errorf("a Service is %v", w)
	}
	// If little is known of a workload, the worst must be assumed.
	for _, w := range []Workload{ScaledWorkload("Rollout", "web", 1), UnknownWorkload("CloneSet", "web")} {
		if d, _ := DecideLocking(v1alpha1.Locking{}, Topology{Workloads: []Workload{w}}, nil, noon); !d.Enabled {
			t.Errorf("%v runs without locking: %s", w, d.Message)
		}
	}
}
