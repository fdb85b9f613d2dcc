package stories

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

const (
	// requestTimeout is the default of timeouts.request.
	requestTimeout = 6 * time.Second
	// resumed is how soon after its backend's return a sidecar should have an add acknowledged.
	resumed = 2 * time.Second
)

// TestRedisRestarts takes Redis away under load, in three ways. Its disk stays, as an append-only file with every
// change. Requests are told so in time, go on as soon as it is back, and nothing that was acknowledged is lost.
func TestRedisRestarts(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	account := s.keepAccount("web")
	s.deploy(app{name: "web", storage: "redis", replicas: 3, load: "--carts=10, --clients=4, --rate=100, --items=50, --prefix=restart"})
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 3), is(cs, "Ready", "True", ""), locking(cs, true, "MultipleReplicas"))
	})
	s.rolledOut("web")
	account.acknowledges(1000)
	web := s.pods("web")
	var redis corev1.Pod
	for _, away := range []struct {
		what string
		do   func()
	}{
		{"killed", func() { s.crash(&redis, "redis") }},
		// The kubelet lets it wait for 10 s, since it is the second time.
		{"shut down", func() { s.task(&redis, "redis", "kill", "--signal=SIGTERM") }},
		// Its connections stay, and nothing answers.
		{"frozen for 10 s", func() {
			s.task(&redis, "redis", "pause")
			defer s.task(&redis, "redis", "resume")
			<-time.After(10 * time.Second) // the length of the outage is what is tested
		}},
	} {
		if err := s.get(t.Context(), &redis, "pod", "redis-0"); err != nil {
			t.Fatal(err)
		}
		before, _ := account.sum()
		restarts := redis.Status.ContainerStatuses[0].RestartCount
		address := net.JoinHostPort(strings.TrimSpace(s.kubectl("get", "service", "redis", "-o", "jsonpath={.spec.clusterIP}")), "6379")
		server := s.observe(func(ctx context.Context) error { return ping(ctx, 1, net.JoinHostPort(redis.Status.PodIP, "6379")) })
		var services, shops []*observed
		for _, pod := range web {
			services = append(services, s.observe(func(ctx context.Context) error { return ping(ctx, nodeOf(&pod), address) }))
			shops = append(shops, s.observe(func(ctx context.Context) error { return buy(ctx, &pod) }))
		}
		began := time.Now()
		away.do()
		up := server.back().Sub(began)
		var reachable, slowest, later time.Duration // the longest of all pods
		for i, shop := range shops {
			back := services[i].back()
			reachable = max(reachable, back.Sub(began))
			later = max(later, shop.back().Sub(back))
			slowest = max(slowest, shop.slowest)
		}
		account.acknowledges(1000)
		now, _ := account.sum()
		failed := now.Failed["BACKEND_UNAVAILABLE"] - before.Failed["BACKEND_UNAVAILABLE"]
		t.Logf("redis %s: away for %s, for its clients %s; %d adds were told BACKEND_UNAVAILABLE, the slowest request took %s; sidecars served again %s at most after it was reachable",
			away.what, rounded(up), rounded(reachable), failed, rounded(slowest), rounded(later))
		if failed == 0 {
			t.Errorf("redis %s: no add has failed", away.what)
		}
		if slowest >= requestTimeout {
			t.Errorf("redis %s: a request took %s, %s is the most", away.what, slowest, requestTimeout)
		}
		if later > resumed {
			t.Errorf("redis %s: a sidecar served again %s after it was reachable, %s is the most", away.what, later, resumed)
		}
		if err := s.get(t.Context(), &redis, "pod", "redis-0"); err != nil {
			t.Fatal(err)
		}
		if now := redis.Status.ContainerStatuses[0].RestartCount; (now > restarts) == strings.HasPrefix(away.what, "frozen") {
			t.Errorf("redis %s: it was restarted %d times, %d before", away.what, now, restarts)
		}
	}
	v := account.judge("web")
	for reason := range v.Failed {
		if reason != "BACKEND_UNAVAILABLE" {
			t.Errorf("adds failed for %s", reason)
		}
	}
	if now, _ := account.sum(); now.SlowestS >= requestTimeout.Seconds() {
		t.Errorf("an add took %.2f s, %s is the most", now.SlowestS, requestTimeout)
	}
	if v.Unfinished > 0 {
		t.Errorf("%d runs were cut off", v.Unfinished)
	}
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// observed is the result of asking something for a sign of life again and again.
type observed struct {
	s       *story
	done    chan struct{}
	at      time.Time     // when it was back: the first of many good answers without a bad one between them
	slowest time.Duration // answer of any kind
}

// observe asks until there was a bad answer and, after it, only good ones.
func (s *story) observe(ask func(ctx context.Context) error) *observed {
	ctx, cancel := context.WithCancel(s.Context())
	o := &observed{s: s, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		const enough = 20
		failed, good := false, 0
		for ticker := time.NewTicker(20 * time.Millisecond); good < enough && ctx.Err() == nil; <-ticker.C {
			began := time.Now()
			err := ask(ctx)
			o.slowest = max(o.slowest, time.Since(began))
			switch {
			case err != nil:
				failed, good = true, 0
			case failed:
				if good++; good == 1 {
					o.at = time.Now()
				}
			}
		}
	}()
	s.Cleanup(func() { cancel(); <-o.done })
	return o
}

// back waits until it is, and returns when it was.
func (o *observed) back() time.Time {
	o.s.Helper()
	select {
	case <-o.done:
	case <-time.After(soon):
		o.s.Fatal("it has not been away, or did not come back")
	}
	return o.at
}

// ping is an error unless a Redis answers at the address, as seen from a node.
func ping(ctx context.Context, node int, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	conn, err := world.DialFrom(ctx, node, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := fmt.Fprint(conn, "AUTH correct-horse\r\nPING\r\n"); err != nil {
		return err
	}
	answers := bufio.NewReader(conn)
	for {
		line, err := answers.ReadString('\n')
		switch {
		case err != nil:
			return err
		case line == "+PONG\r\n":
			return nil
		case !strings.HasPrefix(line, "+"):
			return errors.New(line)
		}
	}
}
