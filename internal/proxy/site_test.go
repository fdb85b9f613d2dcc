package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

func TestLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true, "localhost.": true, "localhost:7421": true, "localhost.:1": true,
		"127.0.0.1": true, "127.0.0.1:7421": true, "127.9.8.7:80": true, "[::1]": true, "[::1]:7421": true, "::1": true, "[::ffff:127.0.0.1]:1": true,
		"": false, ":7421": false, "evil.example": false, "evil.example:7421": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false,
		"127.0.0.1:7421@evil.example": false, "127.0.0.1:80.evil.example": false, "localhost:evil": false, "evil.localhost": false, "10.0.0.1": false,
		"0.0.0.0:7421": false, "[::]:7421": false, "[fe80::1%lo]:1": false, "[::1": false, "2130706433": false, "127.1": false, "localhost..": false, "127.0.0.1:123456": false,
	} {
		if got := loopbackHost(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
}

// sent is what a browser adds to a request.
type sent struct {
	name    string
	host    string // "" for the true one
	header  http.Header
	refused string // the field, "" for a request that is served
}

var sites = []sent{
	{name: "no browser"},
	{name: "localhost", host: "localhost"},
	{name: "IPv6", host: "[::1]:7421"},
	{name: "a page of this machine", header: http.Header{"Origin": {"http://localhost:3000"}, "Sec-Fetch-Site": {"same-site"}}},
	{name: "the same origin", header: http.Header{"Origin": {"https://127.0.0.1"}, "Sec-Fetch-Site": {"same-origin"}}},
	{name: "typed into the bar", header: http.Header{"Sec-Fetch-Site": {"none"}}},
	{name: "a rebound name", host: "rebound.example", refused: "Host"},
	{name: "a rebound name with our port", host: "rebound.example:7421", refused: "Host"},
	{name: "a rebound name, same origin", host: "rebound.example", header: http.Header{"Origin": {"http://rebound.example"}, "Sec-Fetch-Site": {"same-origin"}}, refused: "Host"},
	{name: "an address that is not loopback", host: "192.0.2.1", refused: "Host"},
	{name: "another site", header: http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}, refused: "Origin"},
	{name: "another site, an old browser", header: http.Header{"Origin": {"http://evil.example"}}, refused: "Origin"},
	{name: "a sandboxed page", header: http.Header{"Origin": {"null"}}, refused: "Origin"},
	{name: "an empty origin", header: http.Header{"Origin": {""}}, refused: "Origin"},
	{name: "an extension", header: http.Header{"Origin": {"moz-extension://localhost"}}, refused: "Origin"},
	{name: "two origins", header: http.Header{"Origin": {"http://localhost", "http://evil.example"}}, refused: "Origin"},
	{name: "an image of another site", header: http.Header{"Sec-Fetch-Site": {"cross-site"}}, refused: "Sec-Fetch-Site"},
	{name: "user in the origin", header: http.Header{"Origin": {"http://localhost@evil.example"}}, refused: "Origin"},
}

// ask sends a request with a Host of its own.
func (s *sent) ask(t *testing.T, client *http.Client, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if s.header != nil {
		req.Header = s.header.Clone()
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Host = s.host
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// A web page neither changes a cart nor reads anything, whichever way it takes.
func TestForeignSitesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	w := start(t, realBackend(t), func(o *Options) { o.Socket = path })
	h2c := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	h2c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer h2c.CloseIdleConnections()
	socket := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	defer socket.CloseIdleConnections()

	before := w.grpc(ask{rpc: "GetCart"}).body
	for _, s := range sites {
		for _, c := range []struct {
			name, method, url, body string
			client                  *http.Client
		}{
			{"a change", "POST", w.base + "/v1/carts/u1/default/items", `{"item":{"id":"a"}}`, http.DefaultClient},
			{"a change over HTTP/2", "POST", w.base + "/v1/carts/u1/default:clear", "", h2c},
			{"a read", "GET", w.base + "/v1/carts/u1/default", "", http.DefaultClient},
			{"no path", "GET", w.base + "/nothing", "", http.DefaultClient},
			{"the document", "GET", w.base + "/openapi.json", "", http.DefaultClient},
			{"the status", "GET", "http://" + w.Addr("admin") + "/statusz", "", http.DefaultClient},
			{"the metrics", "GET", "http://" + w.Addr("admin") + "/metrics", "", http.DefaultClient},
		} {
			status, body := s.ask(t, c.client, c.method, c.url, c.body)
			if s.refused == "" {
				if status == 403 {
					t.Errorf("%s, %s: %d %s", s.name, c.name, status, body)
				}
				continue
			}
			if status != 403 || !strings.Contains(body, `"reason":"FORBIDDEN"`) || !strings.Contains(body, `"field":"`+s.refused+`"`) {
				t.Errorf("%s, %s: %d %.200s", s.name, c.name, status, body)
			}
		}
		// No browser can reach the socket.
		if status, body := s.ask(t, socket, "GET", "http://cart/v1/carts/u2/default", ""); status != 200 {
			t.Errorf("%s, by the socket: %d %s", s.name, status, body)
		}
		if s.refused == "" {
			w.grpc(ask{rpc: "Forget"})
		} else if after := w.grpc(ask{rpc: "GetCart"}).body; after != before {
			t.Fatalf("%s changed the cart: %s", s.name, after)
		}
	}
	if m := admin(t, w, "/metrics", "").body; !strings.Contains(m, `reason="FORBIDDEN"`) {
		t.Error("refusals are not counted")
	}
}

// An HTTP/1.1 request must say which host it asks for, and one that says none is not let in.
func TestNoHost(t *testing.T) {
	w := start(t, realBackend(t))
	for request, want := range map[string]int{
		"GET /v1/carts/u1/default HTTP/1.1\r\nHost:\r\n\r\n":                                     403,
		"GET /v1/carts/u1/default HTTP/1.1\r\n\r\n":                                              400,
		"GET /v1/carts/u1/default HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n":     400,
		"GET http://evil.example/v1/carts/u1/default HTTP/1.1\r\nHost: localhost\r\n\r\n":        403,
		"GET http://localhost/v1/carts/u1/default HTTP/1.1\r\nHost: localhost\r\n\r\n":           200,
		"GET /v1/carts/u1/default HTTP/1.0\r\n\r\n":                                              403,
		"GET /v1/carts/u1/default HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n": 200,
	} {
		c, err := net.Dial("tcp", w.Addr("http"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%q: %v", request, err)
		}
		if resp.StatusCode != want || resp.Header.Get("Content-Type") != contentJSON {
			t.Errorf("%q: %d %v", request, resp.StatusCode, resp.Header)
		}
		_ = c.Close()
	}
}

// gRPC as a browser's or a misled program's: by the name in :authority, and by metadata.
func TestForeignAuthorities(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	w := start(t, realBackend(t), func(o *Options) { o.Socket = path })
	dial := func(target, authority string) *grpc.ClientConn {
		t.Helper()
		o := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
		if authority != "" {
			o = append(o, grpc.WithAuthority(authority))
		}
		c, err := grpc.NewClient(target, o...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	_, port, _ := net.SplitHostPort(w.Addr("grpc"))
	for _, row := range []struct {
		name, target, authority string
		md                      []string
		field                   string // "" for a call that is served
	}{
		{name: "plain", target: "passthrough:" + w.Addr("grpc")},
		{name: "by name", target: "dns:localhost:" + port},
		{name: "a foreign name", target: "passthrough:" + w.Addr("grpc"), authority: "rebound.example", field: ":authority"},
		{name: "a short name", target: "passthrough:" + w.Addr("grpc"), authority: "cart", field: ":authority"},
		{name: "any name by the socket", target: "unix:" + path, authority: "rebound.example"},
		{name: "the socket", target: "unix:" + path, md: []string{"origin", "https://evil.example"}},
		{name: "an origin", target: "passthrough:" + w.Addr("grpc"), md: []string{"origin", "https://evil.example"}, field: "origin"},
		{name: "an origin of this machine", target: "passthrough:" + w.Addr("grpc"), md: []string{"origin", "http://localhost:3000"}},
		{name: "cross-site", target: "passthrough:" + w.Addr("grpc"), md: []string{"sec-fetch-site", "cross-site"}, field: "sec-fetch-site"},
	} {
		conn := dial(row.target, row.authority)
		ctx := metadata.AppendToOutgoingContext(t.Context(), row.md...)
		_, err := pb.NewCartServiceClient(conn).Clear(ctx, &pb.ClearRequest{Identifier: "u1", Instance: "default"})
		_, herr := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		for what, err := range map[string]error{"a change": err, "health": herr} {
			if row.field == "" {
				if err != nil {
					t.Errorf("%s, %s: %v", row.name, what, err)
				}
				continue
			}
			if r := failed(t, err); r.code != codes.PermissionDenied || r.reason != "FORBIDDEN" || r.meta["field"] != row.field {
				t.Errorf("%s, %s: %d %s %v: %s", row.name, what, r.code, r.reason, r.meta, r.message)
			}
		}
	}
}

// What over gRPC is a field of the request is not read from metadata, and so it is refused there.
func TestPromisesInMetadata(t *testing.T) {
	w := start(t, realBackend(t))
	for key, instead := range map[string]string{
		"if-match": "if_match", "if-none-match": "if_none_match", "sidecart-lease": "field lease", "sidecart-release": "field release",
		"idempotency-key": "field idempotency_key", "if-unmodified-since": "not kept",
	} {
		for _, value := range []string{"", "x"} {
			ctx := metadata.AppendToOutgoingContext(t.Context(), key, value)
			_, err := pb.NewCartServiceClient(w.conn).AddItem(ctx, &pb.AddItemRequest{Identifier: "u1", Instance: "default", Item: []byte(`{"id":"a"}`)})
			if r := failed(t, err); r.code != codes.InvalidArgument || r.reason != "INVALID" || r.meta["field"] != key || !strings.Contains(r.message, instead) {
				t.Errorf("%s: %q: %d %s %v: %s", key, value, r.code, r.reason, r.meta, r.message)
			}
		}
	}
	if r := w.grpc(ask{rpc: "GetCart"}); !strings.Contains(r.body, `"version":0`) {
		t.Errorf("a refused call changed the cart: %s", r.body)
	}
}

// A program of another place, by a browser or not, learns from the admin port neither whose carts are waited for nor
// who holds them.
func TestStatusNamesNobodyAfar(t *testing.T) {
	w := start(t, realBackend(t), func(o *Options) { o.Admin = ":0" })
	_, port, _ := net.SplitHostPort(w.Addr("admin"))
	afar := ""
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			afar = net.JoinHostPort(n.IP.String(), port)
		}
	}
	if afar == "" {
		t.Fatal("this machine has no address but loopback, from which nothing can be asked")
	}
	if r := w.http(ask{rpc: "AcquireLease", params: p{"identifier": "secret-session"}, body: `{"holder":"secret-holder"}`}); r.code != 0 {
		t.Fatal(r.message)
	}
	waiting := make(chan reply, 3)
	for range cap(waiting) {
		go func() {
			waiting <- w.http(ask{rpc: "AcquireLease", params: p{"identifier": "secret-session"}, body: `{"waitTimeout":"3s"}`})
		}()
	}
	ask := func(host, accept string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/statusz", nil)
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
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", host, resp.StatusCode, body, err)
		}
		return string(body)
	}
	until(t, "the queue", func() bool { return strings.Contains(ask("127.0.0.1:"+port, "application/json"), `"queues":[{`) })
	for _, accept := range []string{"application/json", "text/html"} {
		near, far := ask("127.0.0.1:"+port, accept), ask(afar, accept)
		for _, secret := range []string{"secret-session", "secret-holder"} {
			if !strings.Contains(near, secret) {
				t.Errorf("%s over loopback lacks %s: %s", accept, secret, near)
			}
			if strings.Contains(far, secret) {
				t.Errorf("%s from afar shows %s: %s", accept, secret, far)
			}
		}
	}
	if far := ask(afar, "application/json"); !strings.Contains(far, `"queues":[],"leases":[],"counters":{`) || !strings.Contains(far, `"leasesHeld":1,`) || strings.Contains(far, `"waiting":0,`) {
		t.Errorf("from afar: %s", far)
	}
	for range cap(waiting) {
		<-waiting
	}
}
