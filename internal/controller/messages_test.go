package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// report is what a sidecar says that is well and runs configuration 3, but for change.
func report(change ...func(*Report)) *Report {
	r := &Report{Generation: 3}
	r.Config.State, r.Backend.Healthy, r.Backend.Warnings = "Accepted", true, []Warning{}
	for _, c := range change {
		c(r)
	}
	return r
}

// TestMessages has every message of every condition, word for word: people read them, and the manuals quote them.
func TestMessages(t *testing.T) {
	now := time.Now()
	pods := runningPods(3)
	running := func(i int, change ...func(*Report)) sidecar {
		return sidecar{pod: pods[i], present: true, report: report(change...), since: now.Add(-time.Hour)}
	}
	fine := []sidecar{running(0), running(1)}
	down := func(message string) func(*Report) {
		return func(r *Report) { r.Backend.Healthy, r.Backend.Message = false, message }
	}
	critical := func(healthy bool, message string) func(*Report) {
		return func(r *Report) { r.CriticalBackend = &CriticalReport{healthy, message} }
	}
	behind := func(r *Report) { r.Generation = 2 }
	refused := func(r *Report) {
		r.Generation, r.Config.State, r.Config.Message = 2, stateRejected, "locking.mode: no such value"
	}
	silent := func(i int, err string) sidecar { return sidecar{pod: pods[i], present: true, err: errors.New(err)} }
	type when func(*v1alpha1.CartStorage, *conclusion)
	const (
		reachable, accepted, effective, durable = v1alpha1.ConditionBackendReachable, v1alpha1.ConditionConfigAccepted, v1alpha1.ConditionLockingEffective, v1alpha1.ConditionBackendDurable
		ready, reconciling, stalled             = v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled
		allRun                                  = "True AllUpdated: all 2 sidecars run configuration 3"
		nobody                                  = "no pod uses this CartStorage"
		unasked                                 = "no sidecar has answered yet"
		noEndpoint                              = "dial tcp 10.0.0.7:6379: connect: connection refused"
		pgHow                                   = "criticalBackend: dial tcp 10.0.0.9:5432: i/o timeout"
	)
	for _, r := range []struct {
		name     string
		sidecars []sidecar
		when     when
		want     map[string]string // "Status Reason: message"; "" for a condition that is not there
	}{
		{"no pod", nil, nil, map[string]string{
			reachable: "Unknown NoWorkloads: " + nobody, accepted: "True NoWorkloads: " + nobody, durable: "Unknown NoWorkloads: " + nobody,
			effective: "True Effective: several replicas", ready: "True NoWorkloads: " + nobody + " yet", reconciling: "", stalled: "",
		}},
		{"all is well", fine, nil, map[string]string{
			reachable: "True Reachable: all 2 sidecars that answer reach the backend", accepted: "True Accepted: no sidecar refuses the configuration",
			durable: "True Durable: no sidecar has anything to say against how carts are kept", effective: "True Effective: several replicas",
			ready: allRun, reconciling: "", stalled: "",
		}},
		{"one is well", fine[:1], nil, map[string]string{
			reachable: "True Reachable: the sidecar reaches the backend", ready: "True AllUpdated: the sidecar runs configuration 3",
		}},
		{"one does not reach the backend", []sidecar{running(0), running(1, down(noEndpoint)), running(2, down("no such host"))}, nil, map[string]string{
			reachable:   "False Unreachable: 2 of 3 sidecars do not reach the backend; pod web-1: " + noEndpoint,
			ready:       "False Degraded: BackendReachable is False: 2 of 3 sidecars do not reach the backend; pod web-1: " + noEndpoint,
			reconciling: "True Degraded: BackendReachable is False: 2 of 3 sidecars do not reach the backend; pod web-1: " + noEndpoint, stalled: "",
		}},
		{"one does not say why", []sidecar{running(0, down(""))}, nil, map[string]string{
			reachable: "False Unreachable: 1 of 1 sidecars do not reach the backend; pod web-0: no answer",
		}},
		{"the backend for checkouts is down", []sidecar{running(0, critical(true, "")), running(1, critical(false, pgHow))}, nil, map[string]string{
			reachable: "True Reachable: all 2 sidecars that answer reach the backend; 1 of 2 refuse checkouts; pod web-1: " + pgHow,
			ready:     allRun, reconciling: "", stalled: "",
		}},
		{"it is down, and nobody knows why", []sidecar{running(0, critical(false, ""))}, nil, map[string]string{
			reachable: "True Reachable: the sidecar reaches the backend; 1 of 1 refuse checkouts; pod web-0: no answer",
		}},
		{"nobody has answered", []sidecar{{pod: pods[0], present: true}}, nil, map[string]string{
			reachable: "Unknown Unknown: " + unasked, accepted: "Unknown Unknown: " + unasked, durable: "Unknown Unknown: no sidecar has said yet how safe carts are",
			effective: "False RollingOut: 1 of 1 pods have not been told to lock yet",
			ready:     "False RollingOut: 1 of 1 sidecars do not run configuration 3; pod web-0: it has not been asked yet",
		}},
		{"one runs what was before", []sidecar{running(0), running(1, behind)}, nil, map[string]string{
			effective:   "False RollingOut: 1 of 2 pods have not been told to lock yet",
			ready:       "False RollingOut: 1 of 2 sidecars do not run configuration 3; pod web-1: it runs 2",
			reconciling: "True RollingOut: 1 of 2 sidecars do not run configuration 3; pod web-1: it runs 2", stalled: "",
		}},
		{"one refuses the configuration", []sidecar{running(0), running(1, refused)}, nil, map[string]string{
			accepted: "False ConfigRejected: 1 of 2 sidecars do not accept the configuration; pod web-1: it keeps configuration 2: locking.mode: no such value",
			ready:    "False Degraded: ConfigAccepted is False: 1 of 2 sidecars do not accept the configuration; pod web-1: it keeps configuration 2: locking.mode: no such value",
			stalled:  "True ConfigRejected: 1 of 2 sidecars do not accept the configuration; pod web-1: it keeps configuration 2: locking.mode: no such value", reconciling: "",
		}},
		{"one lacks what it names", []sidecar{running(0), {pod: pods[1], present: true, report: report(refused), lacks: []string{"Secret a", "Secret b"}}}, nil, map[string]string{
			accepted: "False ConfigRejected: 1 of 2 sidecars do not accept the configuration; pod web-1: the pod was made before the configuration named Secret a, Secret b: restart its workload",
		}},
		{"the image is not allowed", fine, func(_ *v1alpha1.CartStorage, c *conclusion) {
			c.image = errors.New("spec.sidecar.image: evil is not allowed")
		}, map[string]string{
			accepted: "False ImageNotAllowed: spec.sidecar.image: evil is not allowed; no new pod is given a sidecar",
			stalled:  "True ImageNotAllowed: spec.sidecar.image: evil is not allowed; no new pod is given a sidecar",
		}},
		{"there is no configuration", fine, func(_ *v1alpha1.CartStorage, c *conclusion) {
			c.stalled = errors.New("Secret shop has no key password")
		}, map[string]string{
			accepted: "False ConfigRejected: Secret shop has no key password", ready: "False RenderFailed: Secret shop has no key password",
			reachable: "Unknown RenderFailed: there is no configuration", effective: "Unknown RenderFailed: there is no configuration", durable: "Unknown RenderFailed: there is no configuration",
			stalled: "True ConfigRejected: Secret shop has no key password", reconciling: "",
		}},
		{"locking is not needed", fine[:1], func(cs *v1alpha1.CartStorage, _ *conclusion) {
			cs.Status.Locking.Enabled = false
		}, map[string]string{effective: "True NotNeeded: Deployment web is the only writer and has one pod"}},
		{"locking is disabled", fine, func(cs *v1alpha1.CartStorage, _ *conclusion) {
			cs.Status.Locking.Enabled, cs.Spec.Locking.Mode = false, v1alpha1.LockingDisabled
		}, map[string]string{
			effective: "False DisabledBySpec: several pods can write (Deployment web has 2 replicas) and spec.locking.mode is Disabled: no change is lost, but they meet and are computed again; write Auto to have them queue",
			ready:     "False Degraded: LockingEffective is False: several pods can write (Deployment web has 2 replicas) and spec.locking.mode is Disabled: no change is lost, but they meet and are computed again; write Auto to have them queue",
		}},
		{"the backend cannot lock", fine, func(cs *v1alpha1.CartStorage, _ *conclusion) { cs.Spec.Backend.Type = v1alpha1.BackendMemory }, map[string]string{
			effective: "False BackendCannotLock: several replicas, and backend Memory cannot lock across replicas: run one pod, or use Redis, Memcached, DynamoDB, Database (PostgreSQL) or Database (MySQL)",
		}},
		{"one has no sidecar", []sidecar{running(0), {pod: pods[1]}}, func(_ *v1alpha1.CartStorage, c *conclusion) { c.evicted = "; pod web-1 was evicted" }, map[string]string{
			ready:   "False SidecarMissing: 1 of 2 pods have no sidecar; pod web-1: it was made while the webhook was away, or its namespace is excluded: make it anew; pod web-1 was evicted",
			stalled: "True SidecarMissing: 1 of 2 pods have no sidecar; pod web-1: it was made while the webhook was away, or its namespace is excluded: make it anew; pod web-1 was evicted",
		}},
		{"it is made anew", []sidecar{running(0), {pod: pods[1]}}, func(cs *v1alpha1.CartStorage, _ *conclusion) {
			cs.Spec.Injection.OnMissing = v1alpha1.RecreateMissing
		}, map[string]string{
			reconciling: "True SidecarMissing: 1 of 2 pods have no sidecar; pod web-1: it was made while the webhook was away, or its namespace is excluded: make it anew", stalled: "",
		}},
		{"an owner has no end", fine, func(_ *v1alpha1.CartStorage, c *conclusion) { c.fleet.endless = "Widget web owns itself" }, map[string]string{
			ready:   "False EndlessOwners: Widget web owns itself; until then it may run any number of pods, and locking is on",
			stalled: "True EndlessOwners: Widget web owns itself; until then it may run any number of pods, and locking is on",
		}},
		{"one does not answer", []sidecar{running(0), silent(1, "connection refused")}, nil, map[string]string{
			ready: "False SidecarUnreachable: 1 of 2 sidecars do not answer the operator; pod web-1: connection refused",
		}},
		{"none does", []sidecar{silent(0, errNoAnswer.Error()), silent(1, errNoAnswer.Error())}, nil, map[string]string{
			ready: "False SidecarUnreachable: 2 of 2 sidecars do not answer the operator; pod web-0: " + errNoAnswer.Error() +
				"; a NetworkPolicy that denies ingress in namespace shop would do this: allow port 7422 of its pods from namespace sidecart-system",
		}},
		{"one does not run", []sidecar{running(0), {pod: pods[1], present: true, waiting: "ErrImagePull: not found", stuck: true}}, nil, map[string]string{
			ready: "False SidecarNotStarted: 1 of 2 sidecars do not run; pod web-1: ErrImagePull: not found",
		}},
		{"one starts", []sidecar{running(0), {pod: pods[1], present: true, waiting: "PodInitializing"}}, nil, map[string]string{
			ready: "False RollingOut: 1 of 2 sidecars are starting; pod web-1: PodInitializing",
		}},
		{"one has just started", []sidecar{running(0), {pod: pods[1], present: true, young: true, report: report(down("x"))}}, nil, map[string]string{
			ready: "False RollingOut: 1 of 2 sidecars are starting; pod web-1: it has just started",
		}},
		{"one is outdated", fine, func(_ *v1alpha1.CartStorage, c *conclusion) { c.old[1] = true }, map[string]string{
			ready: allRun + "; one is outdated, see status.workloads",
		}},
		{"all are", fine, func(_ *v1alpha1.CartStorage, c *conclusion) { c.old[0], c.old[1] = true, true }, map[string]string{
			ready: allRun + "; 2 are outdated, see status.workloads",
		}},
		{"a label is elsewhere", fine, func(_ *v1alpha1.CartStorage, c *conclusion) { c.fleet.misplaced = []string{"Deployment a"} }, map[string]string{
			ready: allRun + "; the label sidecart.dev/inject of Deployment a is on the workload itself, where nothing reads it: move it to the labels of its pod template",
		}},
		{"many are, and no pod is there", nil, func(_ *v1alpha1.CartStorage, c *conclusion) { c.fleet.misplaced = strings.Split("a b c d e f g", " ") }, map[string]string{
			ready: "True NoWorkloads: " + nobody + " yet; the label sidecart.dev/inject of a, b, c, d, e and 2 more is on the workload itself, where nothing reads it: move it to the labels of its pod template",
		}},
		{"a message is too long", []sidecar{running(0, down(strings.Repeat("é", 20_000)))}, nil, map[string]string{
			reachable: "False Unreachable: 1 of 1 sidecars do not reach the backend; pod web-0: " + strings.Repeat("é", (32768-3-len("1 of 1 sidecars do not reach the backend; pod web-0: "))/2) + "…",
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			cs := &v1alpha1.CartStorage{}
			cs.Spec.Backend.Type = v1alpha1.BackendRedis
			cs.Status.Locking = &v1alpha1.LockingStatus{Enabled: true, Reason: "MultipleReplicas", Message: "several replicas"}
			c := conclusionOf(now, r.sidecars...)
			c.generation = 3
			if r.when != nil {
				r.when(cs, c)
			}
			conclude(cs, c)
			got := map[string]string{}
			for kind := range r.want {
				if o := condition(cs, kind); o != nil {
					got[kind] = string(o.Status) + " " + o.Reason + ": " + o.Message
				} else {
					got[kind] = ""
				}
			}
			if d := cmp.Diff(r.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
