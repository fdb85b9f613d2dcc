package controller

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admission "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/envtest"
)

// calls serves a guard over a handler that reads the body and waits.
func calls(t *testing.T, wait time.Duration, handler http.HandlerFunc) (url string) {
	t.Helper()
	g := newGuard(handler, nil)
	g.wait = wait
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return server.URL
}

// Calls under way are bounded by the memory that they take: more are told to come again, at once or after a moment.
func TestCallsAreBounded(t *testing.T) {
	const most = callBytes / callSmallest
	entered, leave := make(chan struct{}, 2*most), make(chan struct{})
	url := calls(t, 50*time.Millisecond, func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	})
	ended := make(chan error, most)
	for range most {
		go func() {
			resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
			if err == nil {
				err = resp.Body.Close()
			}
			ended <- err
		}()
	}
	for range most {
		<-entered
	}
	resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "too many calls are under way") {
		t.Errorf("the call above the limit: %s %s", resp.Status, body)
	}
	close(leave)
	for range most {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	resp, err = http.Post(url, "application/json", strings.NewReader("{}"))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("after they ended: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}

func TestCallsThatAreRefused(t *testing.T) {
	url := calls(t, time.Second, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	for _, r := range []struct {
		name   string
		body   io.Reader
		length int64
		code   int
		want   string
	}{
		{"a call", strings.NewReader("hello"), 5, 200, "hello"},
		{"the largest", bytes.NewReader(make([]byte, callLargest)), callLargest, 200, "\x00"},
		{"of unknown length", strings.NewReader("hello"), -1, 411, "say how long the body is"},
		{"too large", bytes.NewReader(make([]byte, callLargest+1)), callLargest + 1, 413, "the body has 3145729 bytes, and may have 3145728"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, r.body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = r.length
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != r.code || !strings.Contains(string(body), r.want) {
			t.Errorf("%s: %s %.80q, want %d and %q", r.name, resp.Status, body, r.code, r.want)
		}
	}
}

// A body that trickles in gives its place back.
func TestCallsThatTrickle(t *testing.T) {
	url := calls(t, time.Second, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called without a body") })
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("answer %.80q, error %v", answer, err)
	}
	if waited := time.Since(start); waited > callRead+5*time.Second {
		t.Errorf("it held its place for %s", waited)
	}
}

// If there are authorities for clients, only the API server is answered.
func TestWebhookClientCertificate(t *testing.T) {
	ca := envtest.Start(t).WebhookClientCA
	w := newWorld(t, func(o *Options) { o.Webhook.ClientCAFile = ca })
	w.cartStorage("shop")
	w.eventually(func() string { return message(w.c.Create(t.Context(), w.pod("web", "shop"), client.DryRunAll)) })

	stranger := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it is a stranger
	resp, err := stranger.Post(w.hook, "application/json", bytes.NewReader(w.review("shop")))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || bytes.Contains(body, []byte("redis")) {
		t.Errorf("a stranger is answered %s %s", resp.Status, body)
	}
	// Probes of the port do not fill the log, and a certificate of another authority is refused.
	other, err := issue([]string{"kube-apiserver"}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(other["tls.crt"], other["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	stranger.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}
	if resp, err := stranger.Post(w.hook, "application/json", bytes.NewReader(w.review("shop"))); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("a stranger with a certificate of its own is answered %s", resp.Status)
		}
	}
}

// If anybody is answered, a stranger learns the names of what a pod gets, but not where the carts are.
func TestWhatStrangersLearn(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop", fmt.Sprintf("backend: {type: Redis, redis: {addresses: [\"hidden.%s:6379\"], credentialsSecretRef: {name: redis-auth}}}", w.namespace))
	stranger := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	w.eventually(func() string {
		resp, err := stranger.Post(w.hook, "application/json", bytes.NewReader(w.review("shop")))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var answer admission.AdmissionReview
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Response == nil {
			t.Fatalf("answer %v, error %v", answer, err)
		}
		patch := answer.Response.Patch
		if !answer.Response.Allowed || !bytes.Contains(patch, []byte("redis-auth")) {
			return fmt.Sprintf("answer %v", answer.Response)
		}
		if bytes.Contains(patch, []byte("hidden")) || bytes.Contains(patch, []byte("6379")) {
			t.Errorf("the address of the backend is told: %s", patch)
		}
		return ""
	})
}

// review is what a stranger sends to learn of a CartStorage.
func (w *world) review(cartStorage string) []byte {
	w.t.Helper()
	pod := marshalled(w.t, w.pod("any", cartStorage))
	review := &admission.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}}
	review.Request = &admission.AdmissionRequest{UID: "1", Namespace: w.namespace, Operation: admission.Create, Object: runtime.RawExtension{Raw: pod}}
	return marshalled(w.t, review)
}

// absent are readers that find nothing, and count the requests.
type absent struct {
	client.Reader
	asked *int
}

func (a absent) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	*a.asked++
	return apierrors.NewNotFound(schema.GroupResource{Resource: "cartstorages"}, key.Name)
}

func (absent) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// The API server is asked seldom, whatever pods name, and the pods of one namespace do not use up the share of another.
func TestLookUpsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cached, live := 0, 0
		i := &Injector{client: absent{asked: &cached}, live: absent{asked: &live}, misses: misses{now: time.Now}}
		ask := func(namespace, name string) ctrladmission.Response {
			w := &world{t: t, namespace: namespace}
			pod := marshalled(t, w.pod("any", name))
			return i.Handle(t.Context(), ctrladmission.Request{AdmissionRequest: admission.AdmissionRequest{Namespace: namespace, Object: runtime.RawExtension{Raw: pod}}})
		}
		for range 1000 {
			if a := ask("shop", "gone"); a.Allowed || !strings.Contains(a.Result.Message, "there is no CartStorage gone") {
				t.Fatalf("answer %v", a)
			}
		}
		if live != 1 {
			t.Errorf("for one name, the API server was asked %d times", live)
		}
		for n := range 1000 {
			a := ask("shop", fmt.Sprintf("gone-%d", n))
			if busy := n >= mostAskedOne-1; a.Allowed || busy != (a.Result.Code == http.StatusTooManyRequests) {
				t.Fatalf("answer %d is %v", n, a)
			}
		}
		if live != mostAskedOne {
			t.Errorf("for the names of one namespace, the API server was asked %d times, want %d", live, mostAskedOne)
		}
		if a := ask("other", "gone"); a.Result.Code == http.StatusTooManyRequests {
			t.Errorf("another namespace is told %v", a)
		}
		for n := range 1000 {
			ask(fmt.Sprintf("ns-%d", n), "gone")
		}
		if live != mostAsked {
			t.Errorf("for the names of all namespaces, the API server was asked %d times, want %d", live, mostAsked)
		}
		time.Sleep(2 * time.Second)
		if a := ask("shop", "gone-7"); a.Result.Code == http.StatusTooManyRequests || live != mostAsked+1 {
			t.Errorf("two seconds later: %v, and the API server was asked %d times", a, live)
		}
		if len(i.misses.absent) != 1 || len(i.misses.by) != 1 {
			t.Errorf("%d names and %d namespaces are remembered", len(i.misses.absent), len(i.misses.by))
		}
		if cached == 0 {
			t.Error("the cache was not asked")
		}
	})
}

// Authorities that change are read again; a file that went bad leaves the last ones.
func TestClientCAsAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := t.TempDir() + "/ca.crt"
		write := func(text []byte) {
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		authority := func() []byte {
			data, err := issue([]string{"a"}, nil, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return data[caKey]
		}
		write([]byte("nonsense"))
		if _, err := newClientCAs(file); err == nil || !strings.Contains(err.Error(), "has no certificate in PEM") {
			t.Errorf("error is %v", err)
		}
		write(authority())
		c, err := newClientCAs(file)
		if err != nil {
			t.Fatal(err)
		}
		first := c.current()
		write(authority())
		if !c.current().Equal(first) {
			t.Error("it is read for each call")
		}
		time.Sleep(clientCAAge + time.Second)
		second := c.current()
		if second.Equal(first) {
			t.Error("it is not read again")
		}
		write([]byte("nonsense"))
		time.Sleep(clientCAAge + time.Second)
		if !c.current().Equal(second) {
			t.Error("a bad file replaced a good one")
		}
	})
}

// The cached part of an object is bounded, whatever its author wrote.
func TestCacheIsBounded(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	objects := []client.Object{}
	w := &world{t: t, namespace: "shop"}
	yes := true
	owner := []metav1.OwnerReference{{APIVersion: long, Kind: long, Name: long, UID: "1", Controller: &yes}, {APIVersion: "v1", Kind: "A", Name: long, UID: "2"}}
	pod := w.pod("web", "shop")
	pod.OwnerReferences = owner
	pod.Annotations = map[string]string{v1alpha1.InjectedAnnotation: long, v1alpha1.GenerationAnnotation: long, "a": long}
	hostile(pod, long)
	cs := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": long}, OwnerReferences: owner}}
	objects = append(objects, pod, cs, hostileConfigMap(long), hostileAutoscaler(long), hostileDeployment(long, owner))
	for _, o := range objects {
		var kept any
		var err error
		for kind, by := range cacheOptions(nil).ByObject {
			if fmt.Sprintf("%T", kind) == fmt.Sprintf("%T", o) && by.Transform != nil {
				kept, err = by.Transform(o)
			}
		}
		if err != nil || kept == nil {
			t.Fatalf("%T: %v %v", o, kept, err)
		}
		if n := len(marshalled(t, kept)); n > 16<<10 {
			t.Errorf("of a %T, %d bytes are kept", o, n)
		}
	}
}
