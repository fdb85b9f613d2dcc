package render

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

func cartStorageOf(t *testing.T, spec string) *v1alpha1.CartStorage {
	t.Helper()
	cs := read[v1alpha1.CartStorage](t, "metadata: {name: shop, namespace: shop}")
	cs.Spec = *read[v1alpha1.CartStorageSpec](t, spec)
	return cs
}

const (
	redisA     = `{type: Redis, redis: {addresses: ["a:6379"]}}`
	redisB     = `{type: Redis, redis: {addresses: ["b:6379"]}}`
	redisC     = `{type: Redis, redis: {addresses: ["c:6379"]}}`
	postgresql = `{type: Database, database: {dialect: PostgreSQL, host: postgres, name: shop, credentialsSecretRef: {name: login}}}`
)

// The state of a move decides which backends the sidecars use. The state of another move does not count.
func TestMoveConfig(t *testing.T) {
	cs := cartStorageOf(t, "backend: "+postgresql+"\nkeyPrefix: new\nmoveFrom: {backend: "+redisA+", keyPrefix: old}")
	for _, r := range []struct {
		state                v1alpha1.MoveState
		id                   string
		backend, from, place string
	}{
		{v1alpha1.MoveWaiting, MoveID(cs), "Redis", "", "old"},
		{v1alpha1.MoveMoving, MoveID(cs), "Database", "Redis", "new"},
		{v1alpha1.MoveFinished, MoveID(cs), "Database", "", "new"},
		{v1alpha1.MoveFinished, "of another", "Database", "Redis", "new"},
		{v1alpha1.MoveWaiting, "of another", "Database", "Redis", "new"},
	} {
		cs.Status.Move = &v1alpha1.MoveStatus{State: r.state, ID: r.id}
		c := Config(cs, v1alpha1.LockingStatus{}, 1)
		from := ""
		if c.MoveFrom != nil {
			from = string(c.MoveFrom.Backend.Type)
		}
		if got := []string{string(c.Backend.Type), from, c.KeyPrefix}; !slices.Equal(got, []string{r.backend, r.from, r.place}) {
			t.Errorf("%s of %q: backend, former backend and prefix are %q", r.state, r.id, got)
		}
		data, err := config.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(data); err != nil {
			t.Errorf("%s: the sidecar refuses it: %v", r.state, err)
		}
		if Check(cs) != nil {
			t.Errorf("%s: %v", r.state, Check(cs))
		}
	}
	cs.Status.Move = nil
	cm, err := ConfigMap(cs, v1alpha1.LockingStatus{Enabled: true, Reason: "Configured"}, nil, 0)
	if err != nil || !Moves(cm) {
		t.Errorf("the ConfigMap does not say that carts move: %v", err)
	}
	cs.Spec.MoveFrom = nil
	if cm, err = ConfigMap(cs, v1alpha1.LockingStatus{Enabled: true, Reason: "Configured"}, nil, 0); err != nil || Moves(cm) || Moves(nil) {
		t.Errorf("a ConfigMap says that carts move: %v", err)
	}
}

// A configuration that no sidecar could run on is found whatever the status says.
func TestMoveIsChecked(t *testing.T) {
	cs := cartStorageOf(t, "backend: "+redisA+"\nmoveFrom: {backend: "+redisA+"}")
	cs.Status.Move = &v1alpha1.MoveStatus{State: v1alpha1.MoveFinished, ID: MoveID(cs)}
	if err := Check(cs); err == nil {
		t.Error("a move to where the carts are is accepted")
	}
}

// A move is another one if its places change, and the same if only the way to them changes.
func TestMoveID(t *testing.T) {
	base := cartStorageOf(t, "backend: "+postgresql+"\nmoveFrom: {backend: "+redisA+"}")
	for _, r := range []struct {
		name, spec string
		same       bool
	}{
		{"a name of the same", "backend: " + postgresql + "\nmoveFrom: {backend: {type: Redis, redis: {addresses: [\"a.shop.svc:6379\"], credentialsSecretRef: {name: r}}}, keyPrefix: cart}", true},
		{"another limit", "backend: " + postgresql + "\nmoveFrom: {backend: " + redisA + "}\nlimits: {maxItems: 5}", true},
		{"from another", "backend: " + postgresql + "\nmoveFrom: {backend: " + redisB + "}", false},
		{"to another", "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + "}", false},
		{"another prefix", "backend: " + postgresql + "\nkeyPrefix: x\nmoveFrom: {backend: " + redisA + "}", false},
		{"from another prefix", "backend: " + postgresql + "\nmoveFrom: {backend: " + redisA + ", keyPrefix: x}", false},
		{"from a cluster", "backend: " + postgresql + "\nmoveFrom: {backend: {type: Redis, redis: {mode: Cluster, addresses: [\"a:6379\"]}}}", false},
		{"the other way", "backend: " + redisA + "\nmoveFrom: {backend: " + postgresql + "}", false},
		{"none", "backend: " + postgresql, false},
	} {
		if got := MoveID(cartStorageOf(t, r.spec)) == MoveID(base); got != r.same {
			t.Errorf("%s: the same move: %t, want %t", r.name, got, r.same)
		}
	}
}

// A change leaves behind the backend as it was, and the former one until all of its carts have moved.
func TestBehind(t *testing.T) {
	for _, r := range []struct {
		name, was, is string
		finished      bool
		want          []string
	}{
		{"no change", "backend: " + redisA, "backend: " + redisA, false, nil},
		{"without a move", "backend: " + redisA, "backend: " + redisB, false, []string{"Redis a:6379"}},
		{"a move", "backend: " + redisA, "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + "}", false, nil},
		{"a move of others", "backend: " + redisA, "backend: " + redisB + "\nmoveFrom: {backend: " + redisC + "}", false, []string{"Redis a:6379"}},
		{"a move of another prefix", "backend: " + redisA, "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + ", keyPrefix: x}", false, []string{"Redis a:6379"}},
		{"back", "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + "}", "backend: " + redisA + "\nmoveFrom: {backend: " + redisB + "}", false, nil},
		{"on to a third", "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + "}", "backend: " + redisC + "\nmoveFrom: {backend: " + redisB + "}", false, []string{"Redis a:6379"}},
		{"on to a third, after the end", "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + "}", "backend: " + redisC + "\nmoveFrom: {backend: " + redisB + "}", true, nil},
		{"the end", "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + "}", "backend: " + redisB, true, nil},
		{"an early end", "backend: " + redisB + "\nmoveFrom: {backend: " + redisA + "}", "backend: " + redisB, false, []string{"Redis a:6379"}},
	} {
		was := cartStorageOf(t, r.was)
		if r.finished {
			was.Status.Move = &v1alpha1.MoveStatus{State: v1alpha1.MoveFinished, ID: MoveID(was)}
		}
		var got []string
		for _, b := range Behind(was, cartStorageOf(t, r.is)) {
			got = append(got, Where(b))
		}
		if diff := cmp.Diff(r.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.name, diff)
		}
	}
}

// A pod that was created before its carts were to move lacks what the new backend needs. A pod that is created while
// they move has what both need, and is not outdated when the move has ended.
func TestMovePods(t *testing.T) {
	pod := func(cs *v1alpha1.CartStorage) *corev1.Pod {
		made, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, cs, PodOptions{Image: "sidecart"})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	before := cartStorageOf(t, "backend: "+redisA)
	cs := cartStorageOf(t, "backend: "+postgresql+"\nmoveFrom: {backend: "+redisA+"}")
	want := []string{"/etc/sidecart/secrets/login/password", "/etc/sidecart/secrets/login/username"}
	if got := Missing(pod(before), cs); !slices.Equal(got, want) {
		t.Errorf("a pod from before lacks %q, want %q", got, want)
	}
	now := pod(cs)
	if got := Missing(now, cs); len(got) > 0 {
		t.Errorf("a pod of now lacks %q", got)
	}
	cs.Status.Move = &v1alpha1.MoveStatus{State: v1alpha1.MoveFinished, ID: MoveID(cs)}
	if got := WantedOf(cs, PodOptions{Image: "sidecart"}).Outdated(now); len(got) > 0 {
		t.Errorf("after the move the pod is outdated by %q", got)
	}
}
