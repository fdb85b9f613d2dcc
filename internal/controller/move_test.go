package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// quick are settings of a CartStorage whose calls are short, so that a move ends soon after all has been told.
const quick = "locking: {timeout: 1s}\ntimeouts: {request: 1s}\norphanedCarts: Move"

// toPostgreSQL changes the backend as a person does, who writes only the new one.
func toPostgreSQL(cs *v1alpha1.CartStorage) {
	cs.Spec.Backend = v1alpha1.Backend{Type: v1alpha1.BackendDatabase, Database: &v1alpha1.DatabaseBackend{
		Dialect: v1alpha1.PostgreSQL, Host: "postgres", Name: "shop",
		CredentialsSecretRef: &v1alpha1.DatabaseCredentials{Name: "login"},
	}}
}

// moves waits for a state of the move, of which the message has some text.
func (w *world) moves(name string, state v1alpha1.MoveState, message string) *v1alpha1.CartStorage {
	w.t.Helper()
	return w.settles(name, func(cs *v1alpha1.CartStorage) string {
		if m := cs.Status.Move; m == nil || m.State != state || !strings.Contains(m.Message, message) {
			return fmt.Sprintf("the move is not %s with %q", state, message)
		}
		return ""
	})
}

// backendsOf are the types that the configuration names: the backend, and the former one.
func (w *world) backendsOf(name string) string {
	c := w.config(name)
	if c.MoveFrom == nil {
		return string(c.Backend.Type)
	}
	return fmt.Sprintf("%s from %s", c.Backend.Type, c.MoveFrom.Backend.Type)
}

// The whole life of a move: it waits for pods that cannot take part, begins by itself, reports its progress, and ends
// by itself, but not as long as a sidecar may write to the former backend alone.
func TestMove(t *testing.T) {
	w := newWorld(t)
	w.reviewed()
	cs := w.cartStorage("shop", quick)
	from := "Redis " + string(cs.Spec.Backend.Redis.Addresses[0])
	app := w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)

	update(w, "shop", &v1alpha1.CartStorage{}, toPostgreSQL)
	cs = w.moves("shop", v1alpha1.MoveWaiting, "2 of 2 pods were made before the new backend was named, and the move waits for them; pod web-1-1 lacks /etc/sidecart/secrets/login/password")
	if m := cs.Spec.MoveFrom; m == nil || m.Backend.Type != v1alpha1.BackendRedis || m.KeyPrefix != "cart" {
		t.Fatalf("the operator wrote %+v as moveFrom", m)
	}
	if m := cs.Status.Move; m.From != from+" under prefix cart" || m.To != "database shop of PostgreSQL postgres under prefix cart" {
		t.Errorf("it moves from %q to %q", m.From, m.To)
	}
	if got := w.backendsOf("shop"); got != "Redis" {
		t.Errorf("while the move waits, the sidecars use %s", got)
	}
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Outdated != 2 || len(cs.Status.Workloads) != 1 || !strings.Contains(cs.Status.Workloads[0].Message, "secrets changed since its pods were made; kubectl rollout restart deployment/web") {
			return "the pods are not told to be outdated"
		}
		return ""
	})

	// One pod is made anew, and then the other.
	app.makePods(1)
	app.makePods(2)
	w.moves("shop", v1alpha1.MoveWaiting, "1 of 2 pods were made before")
	first := app.pods[0]
	app.pods = app.pods[1:]
	w.end(first)
	app.makePods(2)
	w.moves("shop", v1alpha1.MoveMoving, "carts move")
	if got := w.backendsOf("shop"); got != "Database from Redis" {
		t.Errorf("while carts move, the sidecars use %s", got)
	}

	// The walk of one sidecar finds nothing left again and again, while the other says that it runs the configuration
	// before.
	walks := func(carried uint64, left int64, message string) func(r *Report) {
		return func(r *Report) {
			age := 0.0
			r.Move = &MoveReport{State: "Moving", Walking: true, Carried: carried, Left: left, Message: message}
			if left == 0 {
				r.Move.State, r.Move.CleanSeconds = "Done", &age
			}
		}
	}
	w.nodes.says(w.namespace, app.pods[0], walks(1000, 3, "carts are left: locks are held on them"))
	w.nodes.says(w.namespace, app.pods[1], func(r *Report) { r.Move = &MoveReport{State: "Moving", Carried: 204} })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if m := cs.Status.Move; m.Carried != 1204 || m.Left != 3 || m.ToldSince == nil || m.Message != "carts are left: locks are held on them" {
			return "the status of the move is not as it should be"
		}
		return ""
	})
	w.nodes.says(w.namespace, app.pods[0], walks(1003, 0, ""))
	w.nodes.says(w.namespace, app.pods[1], func(r *Report) { r.Generation-- })
	cs = w.moves("shop", v1alpha1.MoveMoving, "1 of 2 sidecars have not been told to move carts; pod "+app.pods[1])
	if cs.Status.Move.ToldSince != nil {
		t.Error("all sidecars have been told, the status says")
	}

	// A walk that began before all had been told proves nothing.
	w.nodes.says(w.namespace, app.pods[1], nil)
	old := time.Now()
	w.nodes.says(w.namespace, app.pods[0], func(r *Report) {
		walks(1003, 0, "")(r)
		age := time.Since(old).Seconds()
		r.Move.CleanSeconds = &age
	})
	cs = w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if m := cs.Status.Move; m == nil || m.ToldSince == nil || time.Since(m.ToldSince.Time) < 6*time.Second {
			return "it has not been told for six seconds"
		}
		return ""
	})
	if m := cs.Status.Move; m.State != v1alpha1.MoveMoving || m.Message != "nothing is left: one more walk looks for what came meanwhile" {
		t.Errorf("an old walk ended the move: %+v", m)
	}
	w.nodes.says(w.namespace, app.pods[0], walks(1003, 0, ""))
	w.moves("shop", v1alpha1.MoveFinished, "all carts have moved: remove moveFrom, and switch "+from+" under prefix cart off after that")
	w.eventually(func() string {
		if got := w.backendsOf("shop"); got != "Database" {
			return "after the move the sidecars use " + got
		}
		return ""
	})
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Outdated > 0 {
			return "pods are outdated"
		}
		return is(cs, "Ready", "True", "AllUpdated")
	})
	for _, want := range []string{
		"Warning carts are to move from " + from + " under prefix cart to database shop of PostgreSQL postgres under prefix cart: 2 of 2 pods",
		"Normal carts move from " + from,
		"Normal all carts have moved from " + from,
	} {
		if n := len(slices.DeleteFunc(w.events(t), func(e string) bool { return !strings.HasPrefix(e, want) })); n != 1 {
			t.Errorf("%d events say %q: %q", n, want, w.events(t))
		}
	}

	// The status is the memory. Without it the move is made again, and finds nothing.
	w.forgetMove("shop")
	w.moves("shop", v1alpha1.MoveFinished, "")

	// moveFrom can go now, and with it the status of the move.
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.MoveFrom = nil })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Move != nil || cs.Spec.MoveFrom != nil {
			return "the move is not forgotten"
		}
		return ""
	})
}

// forgetMove loses the status of the move, as a restored CartStorage does.
func (w *world) forgetMove(name string) {
	w.t.Helper()
	cs := w.get(name)
	before := cs.DeepCopy()
	cs.Status.Move = nil
	if err := w.c.Status().Patch(w.t.Context(), cs, client.MergeFrom(before)); err != nil {
		w.t.Fatal(err)
	}
	update(w, name, &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems++ })
}

// A move that has begun does not wait again if the status was lost: only a sidecar that knows both backends finds the
// carts that have moved.
func TestMoveIsNotBegunTwice(t *testing.T) {
	w := newWorld(t)
	w.reviewed()
	w.cartStorage("shop", quick)
	app := w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) {
		cs.Spec.Backend.Redis.Addresses = []v1alpha1.Address{"redis-b:6379"}
	})
	w.moves("shop", v1alpha1.MoveMoving, "") // no pod lacks anything
	// A pod that lacks what the former backend needs from now on.
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) {
		cs.Spec.Backend.Redis.CredentialsSecretRef = &v1alpha1.RedisCredentials{Name: "redis-b"}
	})
	w.forgetMove("shop")
	w.moves("shop", v1alpha1.MoveMoving, "")
	if got := w.backendsOf("shop"); got != "Redis from Redis" {
		t.Errorf("the sidecars use %s", got)
	}

	// Without pods nothing moves.
	app.makePods(0)
	w.moves("shop", v1alpha1.MoveMoving, "no pod runs: carts move when one does")
}

// What may change while carts move, and after that.
func TestChangesDuringAMove(t *testing.T) {
	w := newWorld(t)
	w.reviewed()
	address := "redis." + w.namespace + ":6379"
	port := fmt.Sprintf("sidecar: {ports: {admin: %d}}\n", w.nodes.port) + quick
	to := func(address string) string {
		return fmt.Sprintf("backend: {type: Redis, redis: {addresses: [%q]}}\n", address) + port
	}
	apply := func(spec string) (string, error) {
		manifest := fmt.Sprintf("apiVersion: sidecart.dev/v1alpha1\nkind: CartStorage\nmetadata: {name: shop}\nspec:\n  %s\n", strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  "))
		_, message, err := w.cluster.TryKubectl(t, manifest, "apply", "--server-side", "--namespace", w.namespace, "--filename", "-")
		return message, err
	}
	if message, err := apply(to(address)); err != nil {
		t.Fatal(message)
	}
	w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	for _, name := range w.podNames() {
		w.nodes.sidecar(w.namespace, name, func(p *running) { p.carts = `{"carts": 1204}` })
	}
	dry := func(spec string, refused bool, want string) {
		t.Helper()
		message, err := w.dryRun("shop", spec)
		if (err != nil) != refused || !strings.Contains(message, want) {
			t.Errorf("refused: %t, want %t with %q:\n%s", err != nil, refused, want, message)
		}
	}
	dry(to("b:1"), false, "Warning: carts move from Redis "+address+" to Redis b:1: 1,204 seen under prefix cart; see status.move")
	dry(to(address)+"\nkeyPrefix: shop", false, "carts move from Redis "+address+" to Redis "+address+": 1,204 seen under prefix cart")
	dry("backend: {type: Memory, redis: null}\n"+port, true, "carts do not move from or to backend Memory or File")
	dry(strings.Replace(to("b:1"), "Move", "Forbid", 1), true, "no address of redis.addresses stays")

	for range 2 { // a tool applies what it knows again and again, and moveFrom stays
		if message, err := apply(to("b:1")); err != nil {
			t.Fatal(message)
		}
		cs := w.moves("shop", v1alpha1.MoveMoving, "")
		if m := cs.Spec.MoveFrom; m == nil || string(m.Backend.Redis.Addresses[0]) != address {
			t.Fatalf("moveFrom is %+v", m)
		}
	}
	const still = "carts still move here from moveFrom"
	dry(to("c:1"), true, still)
	dry("keyPrefix: other\n"+to("b:1"), true, still)
	dry(to(address), false, "carts move from Redis b:1 to Redis "+address)
	dry("backend: {type: Redis, redis: {addresses: [\"b:1\"], database: 0, minReplicas: 1}}\n"+port, false, "")
	dry(strings.Replace(to("b:1"), "Move", "Accept", 1)+"\nmoveFrom: null", false, "carts stay in Redis "+address+": how many under prefix cart is not known")

	// Back: the carts that have moved move back, and the former backend is now the other one.
	if message, err := apply(to(address)); err != nil {
		t.Fatal(message)
	}
	cs := w.moves("shop", v1alpha1.MoveMoving, "")
	if m := cs.Status.Move; m.From != "Redis b:1 under prefix cart" || string(cs.Spec.MoveFrom.Backend.Redis.Addresses[0]) != "b:1" {
		t.Errorf("it moves from %s, and moveFrom is %+v", m.From, cs.Spec.MoveFrom)
	}
	for _, name := range w.podNames() {
		w.nodes.says(w.namespace, name, func(r *Report) {
			age := 0.0
			r.Move = &MoveReport{State: "Done", Walking: true, CleanSeconds: &age}
		})
	}
	w.moves("shop", v1alpha1.MoveFinished, "")

	// After that, on to a third.
	dry(to("c:1"), false, "carts move from Redis "+address+" to Redis c:1")
	w.stop()
	if _, err := w.dryRun("shop", to("c:1")); err == nil {
		t.Error("without the operator carts are left behind")
	}
}
