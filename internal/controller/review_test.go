package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// dryRun is what kubectl says to a change that it does not make.
func (w *world) dryRun(name, spec string) (message string, err error) {
	w.t.Helper()
	manifest := fmt.Sprintf("apiVersion: sidecart.dev/v1alpha1\nkind: CartStorage\nmetadata: {name: %s}\nspec:\n  %s\n", name, strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  "))
	stdout, stderr, err := w.cluster.TryKubectl(w.t, manifest, "apply", "--dry-run=server", "--namespace", w.namespace, "--filename", "-")
	return stdout + stderr, err
}

// reviewed waits until the API server knows the webhook.
func (w *world) reviewed() {
	w.t.Helper()
	w.eventually(func() string {
		if message, _ := w.dryRun("probe", "backend: {type: Memory}\nflush: Allow"); !strings.Contains(message, "flush: Allow lets") {
			return message
		}
		return ""
	})
}

// Warnings before a change say where carts stay and how many, what needs a restart, and what happens to locking.
func TestChangesAreToldBefore(t *testing.T) {
	w := newWorld(t)
	w.reviewed()
	cs := w.cartStorage("shop")
	w.deployment("web", "shop", 3)
	w.allUpdated("shop", 3)
	for _, name := range w.podNames() {
		w.nodes.sidecar(w.namespace, name, func(p *running) { p.carts = `{"generation": 1, "carts": 1204, "more": false}` })
	}
	address := string(cs.Spec.Backend.Redis.Addresses[0])
	port := fmt.Sprintf("sidecar: {ports: {admin: %d}}", w.nodes.port)
	to := func(address string) string {
		return fmt.Sprintf("backend: {type: Redis, redis: {addresses: [%q]}}\n", address)
	}
	same := to(address)
	const accept = "\norphanedCarts: Accept\n"
	for _, r := range []struct {
		name, spec string
		want       []string // in their order, and no others
	}{
		{"nothing", same + port, nil},
		{"another Redis", to("redis-b:6379") + port + accept, []string{"carts stay in Redis " + address + ": 1,204 seen under prefix cart; no sidecar will find them"}},
		{"the same Redis by another name", to(strings.Replace(address, ":", ".svc.cluster.local:", 1)) + port + accept,
			[]string{"orphanedCarts is still Accept: write Forbid, so that no later change leaves carts behind unasked"}},
		{"another prefix, in the older spelling", same + "keyPrefix: other\n" + port + "\norphanedCarts: Allow", []string{
			"carts stay in Redis " + address + ": 1,204 seen under prefix cart; no sidecar will find them",
			"orphanedCarts: Allow is the older spelling of Accept, and means the same",
		}},
		{"another type", "backend: {type: Memory, redis: null}\n" + port + accept, []string{
			"carts stay in Redis " + address + ": 1,204 seen under prefix cart; no sidecar will find them",
			"each pod will have carts of its own, and Deployment web has 3 replicas: backend Memory is not shared; write " + config.SharedNames() + " for several pods",
		}},
		{"image and resources", same + fmt.Sprintf("sidecar: {image: other, resources: {limits: {memory: 256Mi}}, ports: {admin: %d}}", w.nodes.port),
			[]string{"needs a restart of 3 pods (image, resources): until then they go on as they are"}},
		{"ports", same + "sidecar: {ports: {http: 8421, admin: 7422}}", []string{"needs a restart of 3 pods (ports): until then they go on as they are"}},
		{"a secret", strings.Replace(same, "]}", "], credentialsSecretRef: {name: auth}}", 1) + port, []string{"needs a restart of 3 pods (secrets): until then they go on as they are"}},
		{"locking", same + port + "\nlocking: {mode: Disabled}", []string{"locking becomes off, because spec.locking.mode is Disabled"}},
		{"a shorter life", same + port + "\nttl: 1h", []string{"carts live shorter, for 1h after their next change instead of 24h"}},
		{"a longer life", same + port + "\nttl: 48h", nil},
		{"flush", same + port + "\nflush: Allow", []string{"flush: Allow lets every app of these pods remove all carts at once"}},
	} {
		message, err := w.dryRun("shop", r.spec)
		if err != nil {
			t.Errorf("%s: %s", r.name, message)
			continue
		}
		var got []string
		for line := range strings.SplitSeq(message, "\n") {
			if text, ok := strings.CutPrefix(line, "Warning: "); ok && !strings.Contains(text, "last-applied-configuration") {
				got = append(got, text)
			}
		}
		if strings.Join(got, "\n") != strings.Join(r.want, "\n") {
			t.Errorf("%s: warnings are\n\t%s\nwant\n\t%s", r.name, strings.Join(got, "\n\t"), strings.Join(r.want, "\n\t"))
		}
	}
	if now := w.get("shop"); now.Generation != cs.Generation {
		t.Errorf("a dry run changed generation %d to %d", cs.Generation, now.Generation)
	}
	// Removed: who uses it, and where the carts are.
	_, message, err := w.cluster.TryKubectl(t, "", "delete", "cartstorage", "shop", "--namespace", w.namespace, "--dry-run=server")
	if err != nil || !strings.Contains(message, "3 pods use it: they go on with their last configuration") || !strings.Contains(message, "carts stay in Redis "+address+": 1,204 seen under prefix cart") {
		t.Errorf("delete: %v\n%s", err, message)
	}
	// There are more carts than were counted, or no sidecar counts.
	for answer, want := range map[string]string{
		`{"carts": 1000000, "more": true}`: "more than 1,000,000 seen under prefix cart",
		"no JSON":                          "how many under prefix cart is not known, since no sidecar says so",
		`{"carts": -1}`:                    "how many under prefix cart is not known",
		strings.Repeat(" ", 1<<20) + "{}":  "how many under prefix cart is not known",
	} {
		for _, name := range w.podNames() {
			w.nodes.sidecar(w.namespace, name, func(p *running) { p.carts = answer })
		}
		if message, err := w.dryRun("shop", to("redis-b:6379")+port+accept); err != nil || !strings.Contains(message, want) {
			t.Errorf("%.40s: %v, %s", answer, err, message)
		}
	}
	// Locking comes on for a second writer that has come meanwhile.
	w.cartStorage("alone")
	w.deployment("one", "alone", 1)
	one := w.settles("alone", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, v1alpha1.LockingReasonSingleWriter) })
	message, err = w.dryRun("alone", to(address)+port+accept)
	if err != nil || !strings.Contains(message, "locking becomes on, because CartStorage shop uses the same backend and keyPrefix") {
		t.Errorf("to the carts of another: %v, %s, of %v", err, message, one.Status.Locking)
	}
}

// Without an operator CartStorages are still written, and the rules that keep carts hold.
func TestRulesHoldWithoutTheOperator(t *testing.T) {
	w := newWorld(t)
	w.reviewed()
	w.cartStorage("shop")
	w.stop()
	if message, err := w.dryRun("shop", "backend: {type: Redis, redis: {addresses: [\"b:1\"]}}"); err == nil || !strings.Contains(message, "no address of redis.addresses stays") {
		t.Errorf("%v: %s", err, message)
	}
	message, err := w.dryRun("shop", "backend: {type: Redis, redis: {addresses: [\"b:1\"]}}\norphanedCarts: Accept")
	if err != nil || regexp.MustCompile(`(?m)^Warning: carts`).MatchString(message) {
		t.Errorf("%v: %s", err, message)
	}
}

// silentCounter never answers.
type silentCounter struct{}

func (silentCounter) Fetch(ctx context.Context, _ *corev1.Pod) (Report, error) {
	<-ctx.Done()
	return Report{}, ctx.Err()
}

func (silentCounter) Count(ctx context.Context, _ *corev1.Pod) (CartCount, error) {
	<-ctx.Done()
	return CartCount{}, ctx.Err()
}

// A review ends in time, even if a sidecar does not answer.
func TestReviewEnds(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Fetcher = silentCounter{} })
	w.reviewed()
	w.cartStorage("shop")
	w.deployment("web", "shop", 1)
	w.eventually(func() string {
		if pod := w.getPod("web-1-1"); pod.Status.PodIP == "" {
			return "no address"
		}
		return ""
	})
	w.eventually(func() string {
		start := time.Now()
		message, err := w.dryRun("shop", "backend: {type: Redis, redis: {addresses: [\"b:1\"]}}\norphanedCarts: Accept")
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("kubectl took %s", took)
		}
		if err != nil || !strings.Contains(message, "how many under prefix cart is not known") {
			return fmt.Sprintf("%v: %s", err, message)
		}
		return ""
	})
}

// The review also refuses a CartStorage that no sidecar could run on. One that exists already stays writable.
func TestReviewRefuses(t *testing.T) {
	w := newWorld(t)
	v := &Reviewer{r: &Reconciler{client: w.c, live: w.c, census: newCensus(silentCounter{}, time.Minute), now: time.Now}}
	storage := func(spec string) runtime.RawExtension {
		cs := &v1alpha1.CartStorage{}
		cs.Namespace, cs.Name = w.namespace, "shop"
		cs.Spec = *read[v1alpha1.CartStorageSpec](t, spec)
		raw, err := json.Marshal(cs)
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: raw}
	}
	ask := func(op admissionv1.Operation, was, is runtime.RawExtension) admission.Response {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return v.Handle(ctx, admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: op, OldObject: was, Object: is, Namespace: w.namespace}})
	}
	memory := storage("backend: {type: Memory}")
	// A dialect that the API server's rules accept and no sidecar has, as with a newer CRD.
	critical := storage("{backend: {type: Memory}, criticalBackend: {type: Database, database: {dialect: Oracle, host: db, name: carts}}}")
	const says = "criticalBackend.database.dialect: Oracle is not built into this version"
	if r := ask(admissionv1.Create, runtime.RawExtension{}, critical); r.Allowed || !strings.Contains(r.Result.Message, says) {
		t.Errorf("create: %+v", r)
	}
	if r := ask(admissionv1.Update, memory, critical); r.Allowed || !strings.Contains(r.Result.Message, says) {
		t.Errorf("change: %+v", r)
	}
	if r := ask(admissionv1.Update, critical, critical); !r.Allowed || !strings.Contains(strings.Join(r.Warnings, "\n"), says) {
		t.Errorf("as before: %+v", r)
	}
	v.namespaces = []string{"another"}
	if r := ask(admissionv1.Create, runtime.RawExtension{}, memory); !r.Allowed || !strings.Contains(strings.Join(r.Warnings, "\n"), "this operator does not keep namespace "+w.namespace) {
		t.Errorf("in a namespace of others: %+v", r)
	}
	v.namespaces = nil
	if r := ask(admissionv1.Update, runtime.RawExtension{}, runtime.RawExtension{Raw: []byte("{")}); r.Allowed || r.Result.Code != 400 {
		t.Errorf("no JSON: %+v", r)
	}
}
