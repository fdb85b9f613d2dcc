package stories

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// told is how long a change may take to reach every sidecar. A second or two is usual; without a stamp on the pods,
// kubelets take 54 to 72 s.
const told = 20 * time.Second

// TestChangeUnderLoad changes a CartStorage that three pods use: each change is in force in all of them within seconds,
// no container restarts, and no request fails.
func TestChangeUnderLoad(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.redisCalled("redis-b")
	s.apply(s.sample("redis.yaml"))
	account := s.keepAccount("web")
	s.deploy(app{name: "web", storage: "redis", replicas: 3, load: "--carts=20, --clients=4, --rate=200, --items=50, --prefix=change"})
	s.rolledOut("web")
	s.settled(3)
	account.acknowledges(500)
	containers := s.containers("web")

	// Somebody else holds the lock of a cart, so that adding to it shows how long a sidecar waits.
	s.redisCLI("SET", "lock.cart.held.default.items", "aaaaaaaaaaaaaaaaaaaaaasomebody", "PX", "600000")
	if waits := s.waits(s.pods("web")[0].Name); waits < 5*time.Second {
		t.Errorf("a sidecar waits %s for a lock, want the default of 5s", waits)
	}
	// Requests may take longer than any wait. Otherwise their end would be measured.
	lock := s.change(`{"locking":{"timeout":"1s"},"timeouts":{"request":"10s"}}`, 3)
	for _, pod := range s.pods("web") {
		if waits := s.waits(pod.Name); waits < time.Second || waits > 4*time.Second {
			t.Errorf("the sidecar of %s waits %s for a lock, want 1s", pod.Name, waits)
		}
	}

	day, hour := 24*60*60, 60*60
	if shortest, longest := s.ttls("redis-0"); shortest <= hour || longest > day {
		t.Errorf("carts live for %d to %d s, want the default of %d", shortest, longest, day)
	}
	ttl := s.change(`{"ttl":"1h"}`, 3)
	for range 5 { // each cart is written by each sidecar many times between two looks
		account.acknowledges(500)
		if shortest, longest := s.ttls("redis-0"); shortest < hour-60 || longest > hour {
			t.Errorf("carts live for %d to %d s, want %d", shortest, longest, hour)
		}
	}

	s.refusesPatch(`{"backend":{"redis":{"addresses":["redis-b:6379"]}}}`, "no address of redis.addresses stays")
	if told := s.wouldChange(`{"orphanedCarts":"Accept","backend":{"redis":{"addresses":["redis-b:6379"]}}}`); !strings.Contains(told, "carts stay in Redis redis:6379: 20 seen under prefix cart") {
		t.Errorf("a dry run of the change says\n%s", told)
	}
	backend := s.change(`{"orphanedCarts":"Accept","backend":{"redis":{"addresses":["redis-b:6379"]}}}`, 3)
	account.acknowledges(1000)
	left := s.quantities("redis-0")
	account.acknowledges(1000)
	if diff := cmp.Diff(left, s.quantities("redis-0")); diff != "" {
		t.Errorf("carts are still written to the first Redis:\n%s", diff)
	}
	if diff := cmp.Diff(containers, s.containers("web")); diff != "" {
		t.Errorf("containers are not those that they were (-before +after):\n%s", diff)
	}

	account.finish("web")
	moved := s.quantities("redis-b-0")
	v := account.compare(func(cart string) int64 { return left[cart] + moved[cart] })
	account.flawless(v, 5000)
	sum, _ := account.sum()
	t.Logf("from kubectl patch to 3 of 3 sidecars, without a restart: lock timeout %s, ttl %s, backend %s; %d adds (%d in the first Redis, %d in the second), %d failed, %d lost, slowest %.2f s",
		round(lock), round(ttl), round(backend), v.Acknowledged, total(left), total(moved), v.Attempted-v.Acknowledged, v.Lost, sum.SlowestS)
	if total(left) == 0 || total(moved) == 0 {
		t.Error("both should have carts")
	}
}

// TestWrongChange makes changes of a CartStorage that cannot work. Sidecars go on with what they have, and the status
// says which ones and why. As soon as the resource is right again, so is everything else.
func TestWrongChange(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	account := s.keepAccount("web")
	s.deploy(app{name: "web", storage: "redis", replicas: 3, load: "--carts=10, --clients=4, --rate=100, --items=50, --prefix=wrong"})
	s.rolledOut("web")
	s.settled(3)
	containers := s.containers("web")

	s.refuses(s.sample("redis.yaml")+"  timeouts: {request: 2s}\n",
		"timeouts.request must not be shorter than the wait for a lock, or requests end before their lock can come: write 5s or more")
	account.acknowledges(300)

	for _, wrong := range []struct{ what, spec, right, says string }{
		{"an address where nobody is", `{"orphanedCarts":"Accept","backend":{"redis":{"addresses":["nowhere:6379"]}}}`, `{"orphanedCarts":"Accept","backend":{"redis":{"addresses":["redis:6379"]}}}`, "Redis nowhere:6379 does not answer"},
		{"a Secret that is not there", `{"backend":{"redis":{"credentialsSecretRef":{"name":"other-auth"}}}}`, `{"backend":{"redis":{"credentialsSecretRef":{"name":"redis-auth"}}}}`, "other-auth"},
	} {
		seen := s.watch("redis", func() { s.patch(wrong.spec) }, func(cs *v1alpha1.CartStorage) string {
			return both(current(cs), refusal(cs, wrong.says, 3), is(cs, "Ready", "False", v1alpha1.ReasonDegraded))
		})
		if row := strings.Fields(s.kubectl("get", "cartstorage", "redis", "--no-headers")); len(row) < 6 || row[4] != "0/3" || row[5] != "False" {
			t.Errorf("kubectl get shows %q, want sidecars 0/3 and ready False", row)
		}
		wide := s.kubectl("get", "cartstorage", "redis", "-o", "wide")
		if !strings.Contains(wide, wrong.says) {
			t.Errorf("kubectl get -o wide does not say %q:\n%s", wrong.says, wide)
		}
		t.Log("\n" + wide)
		account.acknowledges(1000)
		s.settles("redis", func(cs *v1alpha1.CartStorage) string { return refusal(cs, wrong.says, 3) }) // still

		healed := s.change(wrong.right, 3)
		s.settled(3)
		account.acknowledges(300)
		t.Logf("%s: every sidecar refuses it and the status says so after %s; once repaired, 3 of 3 are right after %s", wrong.what, round(seen), round(healed))
	}
	if diff := cmp.Diff(containers, s.containers("web")); diff != "" {
		t.Errorf("containers are not those that they were (-before +after):\n%s", diff)
	}
	account.judgeFlawless("web", 2500)
}

// TestSecretComesLate names a Secret that does not exist yet: the status says so, and creating the Secret is enough.
func TestSecretComesLate(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(strings.ReplaceAll(s.sample("redis.yaml"), "redis-auth", "late-auth"))
	s.deploy(app{name: "web", storage: "redis", replicas: 2})
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(is(cs, "Ready", "False", v1alpha1.ReasonSidecarNotStarted), says(cs, "Ready", `secret "late-auth" not found`), says(cs, "Ready", "pod web-"))
	})
	t.Log("\n" + s.kubectl("get", "cartstorage", "-o", "wide"))
	took := s.watch("redis", func() { s.kubectl("create", "secret", "generic", "late-auth", "--from-literal=password=correct-horse") },
		func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 2), is(cs, "Ready", "True", "")) })
	t.Logf("from kubectl create secret to 2 of 2 sidecars: %s", round(took))
}

// patch changes the spec of the CartStorage redis.
func (s *story) patch(spec string) {
	s.Helper()
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":`+spec+`}`)
}

// refusesPatch wants the API server to refuse a change of the CartStorage redis, and to say why.
func (s *story) refusesPatch(spec, why string) {
	s.Helper()
	out, err := world.Kubectl(s.Context(), "-n", s.namespace, "patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":`+spec+`}`)
	if err == nil || !strings.Contains(err.Error(), why) {
		s.Errorf("kubectl patch: %v, want a refusal that says %q:\n%s", err, why, out)
	}
}

// wouldChange is the whole output of kubectl for a dry run of a change of the CartStorage redis.
func (s *story) wouldChange(spec string) string {
	s.Helper()
	cmd := world.Command(s.Context(), "kubectl", "-n", s.namespace, "patch", "cartstorage", "redis", "--dry-run=server", "--type=merge", "-p", `{"spec":`+spec+`}`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Errorf("kubectl patch --dry-run=server: %v", err)
	}
	s.Logf("kubectl patch --dry-run=server\n%s", out)
	return string(out)
}

// change patches the CartStorage redis and measures how long it takes until all sidecars, which are so many, run on it.
func (s *story) change(spec string, sidecars int32) time.Duration {
	s.Helper()
	before, err := s.storage(s.Context(), "redis")
	if err != nil {
		s.Fatal(err)
	}
	took := s.watch("redis", func() { s.patch(spec) }, func(cs *v1alpha1.CartStorage) string {
		if cs.Generation == before.Generation {
			return "the spec has not changed"
		}
		return both(current(cs), updated(cs, sidecars))
	})
	if took > told {
		s.Errorf("%s took %s to reach %d sidecars, want %s at most", spec, round(took), sidecars, told)
	}
	return took
}

// refuses applies a manifest that the API server must refuse, and checks the reason.
func (s *story) refuses(manifest, why string) {
	s.Helper()
	cmd := world.Command(s.Context(), "kubectl", "-n", s.namespace, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte(why)) {
		s.Errorf("kubectl apply: %v, want a refusal that says %q:\n%s", err, why, out)
	}
	s.Logf("kubectl apply\n%s", out)
}

// current says whether the status is about the spec as it is.
func current(cs *v1alpha1.CartStorage) string {
	if cs.Status.ObservedGeneration != cs.Generation {
		return fmt.Sprintf("the status is about generation %d, the spec is %d", cs.Status.ObservedGeneration, cs.Generation)
	}
	return ""
}

// refusal says whether so many sidecars refuse the configuration, and the status names one of the pods and the reason.
func refusal(cs *v1alpha1.CartStorage, reason string, sidecars int) string {
	return both(is(cs, "ConfigAccepted", "False", v1alpha1.ReasonRejected),
		says(cs, "ConfigAccepted", fmt.Sprintf("%d of %d sidecars do not accept the configuration; pod web-", sidecars, sidecars)), says(cs, "ConfigAccepted", reason))
}

// says tells whether the message of a condition contains a text.
func says(cs *v1alpha1.CartStorage, kind, text string) string {
	for _, c := range cs.Status.Conditions {
		if c.Type == kind && strings.Contains(c.Message, text) {
			return ""
		}
	}
	return fmt.Sprintf("%s does not say %q", kind, text)
}

// containers are the ids of all containers of an app, by pod and name, with the number of their restarts.
func (s *story) containers(name string) map[string]string {
	s.Helper()
	ids := map[string]string{}
	for _, p := range s.pods(name) {
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			ids[p.Name+"/"+c.Name] = fmt.Sprintf("%s, restarts: %d", c.ContainerID, c.RestartCount)
		}
	}
	return ids
}

// waits is how long a pod's sidecar waits for a lock that somebody else holds.
func (s *story) waits(pod string) time.Duration {
	s.Helper()
	began := time.Now()
	out, err := world.Kubectl(s.Context(), "-n", s.namespace, "exec", pod, "-c", "shop", "--", "shop", "add", "held", "mug")
	if err == nil || !strings.Contains(err.Error(), "LOCK_TIMEOUT") {
		s.Fatalf("shop add of a locked cart: %v, want LOCK_TIMEOUT\n%s", err, out)
	}
	return time.Since(began)
}

// ask sends commands to a Redis and returns the answers, a line each.
func (s *story) ask(pod string, commands []string) []string {
	s.Helper()
	cmd := world.Command(s.Context(), "kubectl", "-n", s.namespace, "exec", "-i", pod, "--", "redis-cli")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	out, err := cmd.Output()
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if err != nil || len(lines) != len(commands) {
		s.Fatalf("redis-cli: %v, %d answers to %d commands\n%s", err, len(lines), len(commands), out)
	}
	return lines
}

// changeCarts are the names of the carts of TestChangeUnderLoad.
func changeCarts() (carts []string) {
	for n := range 20 {
		carts = append(carts, fmt.Sprintf("change-%d", n))
	}
	return carts
}

// ttls are the shortest and the longest life of the carts in a Redis, in seconds.
func (s *story) ttls(pod string) (shortest, longest int) {
	s.Helper()
	var commands []string
	for _, cart := range changeCarts() {
		commands = append(commands, "TTL cart."+cart+".default")
	}
	var lives []int
	for _, line := range s.ask(pod, commands) {
		n, err := strconv.Atoi(line)
		if err != nil {
			s.Fatalf("TTL: %q", line)
		}
		lives = append(lives, n)
	}
	return slices.Min(lives), slices.Max(lives)
}

// quantities are how much is in each cart in a Redis.
func (s *story) quantities(pod string) map[string]int64 {
	s.Helper()
	var commands []string
	for _, cart := range changeCarts() {
		commands = append(commands, "HGET cart."+cart+".default items")
	}
	found := map[string]int64{}
	for n, line := range s.ask(pod, commands) {
		var items map[string]struct{ Quantity int64 }
		if line == "" {
			continue // no such cart
		}
		if err := json.Unmarshal([]byte(line), &items); err != nil {
			s.Fatalf("%s: %v: %s", commands[n], err, line)
		}
		for _, i := range items {
			found[changeCarts()[n]] += i.Quantity
		}
	}
	return found
}

// compare does the same as `shop check`, for carts that are not all in one backend: found is how much is in a cart.
func (a *account) compare(found func(cart string) int64) verdict {
	a.s.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	v := verdict{Runs: len(a.lines), Failed: map[string]int64{}}
	acknowledged, uncertain := map[string]int64{}, map[string]int64{}
	for run, line := range a.lines {
		var t struct{ Carts map[string]tally }
		if err := json.Unmarshal([]byte(line), &t); err != nil {
			a.s.Fatal(err)
		}
		for cart, c := range t.Carts {
			acknowledged[cart] += c.Acknowledged
			uncertain[cart] += c.Uncertain
		}
		for reason, n := range a.tally[run].Failed {
			v.Failed[reason] += n
		}
		v.Attempted += a.tally[run].Attempted
		if !a.tally[run].Done {
			v.Unfinished++
		}
	}
	for cart, n := range acknowledged {
		there := found(cart)
		v.Acknowledged += n
		v.Found += there
		v.Lost += max(0, n-there)
		v.Excess += max(0, there-n-uncertain[cart])
	}
	if v.Lost != 0 || v.Excess != 0 {
		a.s.Errorf("%d acknowledged adds are lost, %d are in the carts that nobody made", v.Lost, v.Excess)
	}
	return v
}

func total(quantities map[string]int64) (sum int64) {
	for n := range maps.Values(quantities) {
		sum += n
	}
	return sum
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// settled is for stories whose CartStorage is redis: so many sidecars, and all is well.
func (s *story) settled(sidecars int32) {
	s.Helper()
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(current(cs), updated(cs, sidecars), is(cs, "Ready", "True", ""))
	})
}
