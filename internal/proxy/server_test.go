package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestClientsMustBeOnLoopback(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.com:80", "127.0.0.1"} {
		for _, o := range []Options{{GRPC: address, Log: quiet()}, {HTTP: address, Log: quiet()}} {
			s, err := Start(o, realBackend(t))
			if err == nil {
				_ = s.Shutdown(t.Context())
				t.Fatalf("%q is served", address)
			}
			if !strings.Contains(err.Error(), address) {
				t.Errorf("%q: %v", address, err)
			}
		}
	}
}

// One front that cannot listen, and none serves.
func TestStartIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Start(Options{Socket: path, HTTP: taken.Addr().String(), Log: quiet()}, realBackend(t)); err == nil {
		t.Fatal("started on a port that is taken")
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket was left behind")
	}
}

func TestSocketServesBoth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cart.sock")
	w := start(t, realBackend(t), func(o *Options) { o.Socket = path })
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	doc, err := pb.NewCartServiceClient(conn).AddItem(t.Context(), &pb.AddItemRequest{Identifier: "u1", Instance: "default", Item: []byte(`{"id":"a"}`)})
	if err != nil || doc.Version != 1 {
		t.Fatalf("%v %v", doc, err)
	}
	dial := func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	defer client.CloseIdleConnections()
	for _, method := range []string{"GET", "PUT", "PATCH"} { // P is also how gRPC begins
		req, _ := http.NewRequestWithContext(t.Context(), method, "http://x/v1/carts/u1/default/metadata", strings.NewReader(`{"metadata":{}}`))
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", method, resp.Header)
		}
	}
	// The shortest request is shorter than the preface of gRPC.
	terse, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer terse.Close()
	_ = terse.SetDeadline(time.Now().Add(prefaceTimeout / 2))
	_, _ = terse.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	if answer, err := io.ReadAll(terse); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 404") {
		t.Errorf("%q, %v", answer, err)
	}
	// One who says the first letter of both and no more hinders nobody.
	dumb, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer dumb.Close()
	_, _ = dumb.Write([]byte("P"))
	if _, err := pb.NewCartServiceClient(conn).GetItems(t.Context(), &pb.GetItemsRequest{Identifier: "u1", Instance: "default"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Socket: path, Log: quiet()}, realBackend(t)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a socket that is served was taken over: %v", err)
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket was left behind")
	}
	_ = dumb.SetReadDeadline(time.Now().Add(prefaceTimeout / 2))
	if _, err := dumb.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection that said too little: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a crash
	_ = l.Close()
	start(t, realBackend(t), func(o *Options) { o.Socket = path })

	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Socket: file, Log: quiet()}, realBackend(t)); err == nil {
		t.Fatal("started in the place of a file")
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "data" {
		t.Errorf("the file is now %q, %v", got, err)
	}
}

// gate is a coordinator that holds reads up until it is opened.
type gate struct {
	failing
	entered chan struct{}
	open    chan struct{}
	version uint64
}

func newGate(version uint64) *gate {
	return &gate{entered: make(chan struct{}, 100), open: make(chan struct{}), version: version}
}

func (g *gate) Read(ctx context.Context, _ cart.Key) (*cart.Cart, error) {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return &cart.Cart{ID: "id", Version: g.version}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (g *gate) Status() lock.Status { return lock.Status{Locking: true, Reason: "MultipleReplicas"} }

// A swap fails no call: one under way ends on the old backend, which is in use until then, new ones go to the new.
func TestSwap(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			old, next := newGate(1), newGate(2)
			close(next.open)
			b := realBackend(t)
			b.Coordinator = old
			w := start(t, b)
			call := w.http
			if front == "grpc" {
				call = w.grpc
			}
			answer := make(chan reply, 1)
			go func() { answer <- call(ask{rpc: "GetCart"}) }()
			<-old.entered
			b.Coordinator, b.Generation = next, 8
			retired := w.Swap(b)
			if r := call(ask{rpc: "GetCart"}); !strings.Contains(r.body, `"version":2`) {
				t.Fatalf("a new call met the old backend: %s", r.body)
			}
			// Longer than a ping that is under way may use it as well.
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := retired.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("the old backend is called unused with a call on it: %v", err)
			}
			close(old.open)
			if r := <-answer; !strings.Contains(r.body, `"version":1`) {
				t.Errorf("the call under way: %d %s %s", r.http, r.message, r.body)
			}
			if err := retired.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Swaps under load lose no call and use no backend after its Wait.
func TestSwapUnderLoad(t *testing.T) {
	var l backends
	l.swap(Backend{})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				b := l.enter()
				if b.calls.Load() < 1 {
					t.Error("a call on an empty backend")
				}
				b.leave()
			}
		})
	}
	for range 2000 {
		old := l.swap(Backend{})
		if err := old.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if old.backend.enter() {
			t.Fatal("a call entered after Wait")
		}
	}
	stop()
	wg.Wait()
}

// Shutdown lets calls under way end, by both fronts, and takes no new connection.
func TestShutdown(t *testing.T) {
	g := newGate(1)
	b := realBackend(t)
	b.Coordinator = g
	w := start(t, b)
	watch, err := healthpb.NewHealthClient(w.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	await(t, watch, healthpb.HealthCheckResponse_SERVING)
	answers := make(chan reply, 2)
	go func() { answers <- w.http(ask{rpc: "GetCart"}) }()
	go func() { answers <- w.grpc(ask{rpc: "GetCart"}) }()
	<-g.entered
	<-g.entered
	ended := make(chan error, 1)
	go func() { ended <- w.Shutdown(t.Context()) }()
	await(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	for _, front := range []string{"http", "grpc"} {
		for range 500 { // listeners close a moment after readiness ends
			c, err := net.Dial("tcp", w.Addr(front))
			if err != nil {
				break
			}
			_ = c.Close()
		}
		if c, err := net.Dial("tcp", w.Addr(front)); err == nil {
			_ = c.Close()
			t.Errorf("%s takes new connections", front)
		}
	}
	if r := admin(t, w, "/readyz", ""); r.http != 503 || !strings.Contains(r.body, "stopping") {
		t.Errorf("readyz: %d %s", r.http, r.body)
	}
	select {
	case err := <-ended:
		t.Fatalf("Shutdown returned with two calls under way: %v", err)
	default:
	}
	close(g.open)
	for range 2 {
		if r := <-answers; !strings.Contains(r.body, `"version":1`) {
			t.Errorf("a call under way: %d %s %s", r.http, r.message, r.body)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A call that does not end is cut off with the context of Shutdown.
func TestShutdownIsBounded(t *testing.T) {
	g := newGate(1)
	b := realBackend(t)
	b.Coordinator = g
	w := start(t, b)
	failed := make(chan error, 1)
	go func() {
		_, err := pb.NewCartServiceClient(w.conn).GetCart(t.Context(), &pb.GetCartRequest{Identifier: "u", Instance: "d"})
		failed <- err
	}()
	<-g.entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := w.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the call was answered")
	}
}

// await reads statuses until one is wanted.
func await(t *testing.T, watch healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for {
		r, err := watch.Recv()
		if err != nil {
			t.Fatalf("%s did not come: %v", want, err)
		}
		if r.Status == want {
			return
		}
	}
}

func admin(t *testing.T, w *world, path, accept string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.Addr("admin")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{http: resp.StatusCode, header: resp.Header, body: string(body)}
}

func TestHealthFollowsTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu      sync.Mutex
			err     = errors.New("connection refused")
			changes []bool
		)
		answer := func(e error) {
			mu.Lock()
			defer mu.Unlock()
			err = e
		}
		var l backends
		l.swap(Backend{Name: "Redis", RequestTimeout: time.Minute, Ping: func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return err
		}})
		h := newPulse(&l, quiet(), func(ready bool) { changes = append(changes, ready) })
		ctx, stop := context.WithCancel(t.Context())
		if ok, why := h.ready(); ok || why == "" {
			t.Error("ready before it was asked")
		}
		go h.run(ctx)
		synctest.Wait()
		if ok, why := h.ready(); ok || !strings.Contains(why, "connection refused") {
			t.Errorf("ready %t: %s", ok, why)
		}
		rests := func(want bool, d time.Duration) {
			t.Helper()
			time.Sleep(d) // in the bubble's time
			synctest.Wait()
			if ok, _ := h.ready(); ok != want {
				t.Errorf("ready is %t", ok)
			}
		}
		answer(nil)
		rests(false, pingInterval) // one answer is luck
		rests(true, pingInterval)
		answer(errors.New("gone"))
		rests(true, 2*pingInterval) // two lost answers are bad luck
		rests(false, pingInterval)
		answer(nil)
		rests(true, 2*pingInterval)
		if fmt.Sprint(changes) != "[true false true]" {
			t.Errorf("told of %v", changes)
		}
		// A failed call has the backend asked at once, but not once for each.
		answer(errors.New("gone"))
		time.Sleep(pingPause)
		h.suspect()
		time.Sleep(pingPause)
		h.suspect()
		time.Sleep(pingPause)
		h.suspect()
		synctest.Wait()
		if ok, _ := h.ready(); ok {
			t.Error("three failed calls and three failed pings later it is ready")
		}
		h.stop()
		if ok, why := h.ready(); ok || !strings.Contains(why, "stopping") {
			t.Errorf("ready %t: %s", ok, why)
		}
		stop()
		synctest.Wait()
	})
}

func TestAdmin(t *testing.T) {
	b := realBackend(t)
	b.Place, b.Prefix, b.TTL = "redis:6379", "cart", 24*time.Hour
	w := start(t, b, func(o *Options) { o.Pod, o.Namespace, o.CartStorage = "web-1", "shop", "carts" })
	watch, err := healthpb.NewHealthClient(w.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "sidecart.v1.CartService"})
	if err != nil {
		t.Fatal(err)
	}
	await(t, watch, healthpb.HealthCheckResponse_SERVING)
	for _, path := range []string{"/livez", "/readyz"} {
		if r := admin(t, w, path, ""); r.http != 200 || r.body != "ok\n" {
			t.Errorf("%s: %d %s", path, r.http, r.body)
		}
	}
	w.http(items(`{"a":{}}`))
	w.grpc(items(`{"a":{"quantity":0}}`))
	w.http(raw("PutItems", `{`))
	metrics := admin(t, w, "/metrics", "").body
	for _, line := range []string{
		`sidecart_requests_total{code="OK",front="http",method="PutItems",reason=""} 1`,
		`sidecart_requests_total{code="InvalidArgument",front="grpc",method="PutItems",reason="INVALID"} 1`,
		`sidecart_requests_total{code="InvalidArgument",front="http",method="PutItems",reason="INVALID"} 1`,
		`sidecart_request_duration_seconds_count{front="http",method="PutItems"} 2`,
		`sidecart_changes_total 1`,
		`sidecart_commits_total 1`,
		`sidecart_locking_enabled{reason="Configured"} 0`,
		`sidecart_backend_up{backend="Memory"} 1`,
		`sidecart_in_flight_requests 0`,
		`sidecart_queue_length 0`,
		`sidecart_leases_held 0`,
		`sidecart_config_generation 7`,
		`sidecart_build_info{goversion="`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	w.SetConfig("ConfigRejected", "ttl: must be <positive>")
	r := admin(t, w, "/statusz", "application/json")
	var got struct {
		Generation int64
		Config     struct{ State, Message string }
		Backend    struct {
			Type    string
			Healthy bool
		}
		Locking struct {
			Mode, Reason string
			Enabled      bool
		}
		Queues, Leases []any
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	if s := fmt.Sprintf("%+v", got); s != "{Generation:7 Config:{State:ConfigRejected Message:ttl: must be <positive>} Backend:{Type:Memory Healthy:true} Locking:{Mode:auto Reason:Configured Enabled:false} Queues:[] Leases:[]}" {
		t.Errorf("status: %s", s)
	}
	var more struct {
		Owner    struct{ Pod, Namespace, CartStorage string }
		Backend  struct{ Place, Prefix, TTL string }
		Counters struct {
			ChangesPerSecond float64
			Errors           map[string]int
		}
	}
	if err := json.Unmarshal([]byte(r.body), &more); err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%+v", more); !strings.HasPrefix(s, "{Owner:{Pod:web-1 Namespace:shop CartStorage:carts} Backend:{Place:redis:6379 Prefix:cart TTL:24h} Counters:{ChangesPerSecond:") ||
		!strings.HasSuffix(s, " Errors:map[INVALID:2]}}") || more.Counters.ChangesPerSecond <= 0 {
		t.Errorf("status: %s", s)
	}
	page := admin(t, w, "/statusz", "text/html")
	for _, text := range []string{"Memory answers", "ConfigRejected", "ttl: must be &lt;positive&gt;", "Nothing waits.", "No lease that was taken here is held.",
		"Pod web-1 in namespace shop, configured by CartStorage carts", "At redis:6379", "Prefix cart. A cart lives 24h from its last change.", "<td>INVALID</td>"} {
		if !strings.Contains(page.body, text) {
			t.Errorf("the page lacks %q: %s", text, page.body)
		}
	}
}

func TestReflection(t *testing.T) {
	w := start(t, realBackend(t))
	stream, err := reflectionpb.NewServerReflectionClient(w.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil || !strings.Contains(r.String(), "sidecart.v1.CartService") {
		t.Errorf("%v %v", r, err)
	}
}
