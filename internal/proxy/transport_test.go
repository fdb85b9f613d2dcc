package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	gzipcodec "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// What net/http refuses before any handler is asked is told in JSON as well.
func TestUnreadableRequestsAreAnsweredInJSON(t *testing.T) {
	w := start(t, realBackend(t))
	for name, row := range map[string]struct {
		text   string
		status int
		says   string
	}{
		"bad escape in the path":      {"GET /v1/carts/%zz/default HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "percent"},
		"half an escape":              {"GET /v1/carts/u1/a%2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "percent"},
		"a space in the path":         {"GET /v1/carts/u 1/default HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "request"},
		"no host":                     {"GET /v1/carts/u1/default HTTP/1.1\r\n\r\n", 400, "Host"},
		"a header without a name":     {"GET / HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n", 400, "header"},
		"no HTTP":                     {"\x16\x03\x01 this is no line of HTTP\r\n\r\n", 400, "HTTP"},
		"an old version":              {"GET / HTTP/3.1\r\nHost: localhost\r\n\r\n", 505, "HTTP/1.1"},
		"headers over the limit":      {"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", maxHeaderBytes+8<<10) + "\r\n\r\n", 431, "32768 bytes"},
		"many headers over the limit": {"GET / HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X: y\r\n", 10000) + "\r\n", 431, "32768 bytes"},
		"an encoding that is none":    {"POST /v1/carts/u1/default:clear HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "chunked"},
		"an expectation that is none": {"POST /v1/carts/u1/default:clear HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\nContent-Length: 2\r\n\r\n{}", 417, "100-continue"},
		"two lengths":                 {"POST /v1/carts/u1/default:clear HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "request"},
	} {
		t.Run(name, func(t *testing.T) {
			r := rawHTTP(t, w, row.text)
			if r.http != row.status || r.reason != "INVALID" || !strings.Contains(r.message, row.says) {
				t.Errorf("got %d %s: %s", r.http, r.reason, r.message)
			}
		})
	}
	// After good requests on the same connection too.
	c := dialHTTP(t, w)
	for range 2 {
		c.send("GET /v1/carts/u1/default HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if status, body := c.answer(); status != 200 || !strings.Contains(body, `"version":0`) {
			t.Fatalf("%d %s", status, body)
		}
	}
	c.send("GET /v1/carts/%zz/default HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if status, body := c.answer(); status != 400 || !strings.Contains(body, `"reason":"INVALID"`) {
		t.Errorf("%d %s", status, body)
	}
}

// A body that is asked for with 100-continue is asked for, unless it is refused before it comes.
func TestExpectContinue(t *testing.T) {
	w := start(t, realBackend(t))
	c := dialHTTP(t, w)
	head := "PUT /v1/carts/u1/default/items HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 19\r\n"
	c.send(head + "Content-Type: application/json\r\n\r\n")
	if line, err := c.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q %v", line, err)
	}
	_, _ = c.in.ReadString('\n')
	c.send(`{"items":{"a":{}}} `)
	if status, body := c.answer(); status != 200 || !strings.Contains(body, `"version":1`) {
		t.Fatalf("%d %s", status, body)
	}
	c.send(head + "Content-Type: text/plain\r\n\r\n")
	if status, body := c.answer(); status != 415 || !strings.Contains(body, `"field":"Content-Type"`) {
		t.Errorf("%d %s", status, body)
	}
}

// HTTP/2 without TLS is served as HTTP/1.1 is, and gRPC is told where to go.
func TestHTTP2OnTheHTTPPort(t *testing.T) {
	w := start(t, realBackend(t))
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	h2c := &http.Client{Transport: tr}
	ask := func(method, path, body, contentType string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, w.base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		resp, err := h2c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(text)
	}
	if resp, body := ask("PUT", "/v1/carts/u1/default/items", `{"items":{"a":{}}}`, "application/json"); resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || !strings.Contains(body, `"version":1`) {
		t.Errorf("%d %s %s", resp.StatusCode, resp.Proto, body)
	}
	if resp, body := ask("PUT", "/v1/carts/u1/default/items", strings.Repeat(" ", 3<<20), "application/json"); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := ask("GET", "/v1/carts/u1/default", "", ""); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"a"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := ask("POST", "/sidecart.v1.CartService/GetCart", "\x00\x00\x00\x00\x00", "application/grpc"); resp.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(body, w.Addr("grpc")) {
		t.Errorf("gRPC: %d %s", resp.StatusCode, body)
	}
}

// A client that closes its side after the body is answered as one that does not.
func TestHalfClosedRequest(t *testing.T) {
	w := start(t, slowBackend(t, 300*time.Millisecond))
	c := dialHTTP(t, w)
	body := `{"item":{"id":"a"}}`
	c.send(fmt.Sprintf("POST /v1/carts/u1/default/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if status, body := c.answer(); status != 200 || !strings.Contains(body, `"version":1`) {
		t.Errorf("%d %s", status, body)
	}
}

// A deadline of the client's own holds for changes over HTTP too.
func TestOwnDeadline(t *testing.T) {
	w := start(t, slowBackend(t, time.Minute))
	began := time.Now()
	r := w.http(ask{rpc: "AddItem", body: `{"item":{"id":"a"}}`, header: http.Header{"Grpc-Timeout": {"50m"}}})
	if r.reason != "DEADLINE_EXCEEDED" || r.http != 504 || time.Since(began) > leaveGrace {
		t.Errorf("%d %s after %s: %s", r.http, r.reason, time.Since(began), r.message)
	}
}

// slow is a store behind a slow network.
func slowBackend(t *testing.T, d time.Duration) Backend {
	b := realBackend(t)
	b.Coordinator = slowCoordinator{b.Coordinator, d}
	return b
}

func gzipConn(t *testing.T, w *world) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:"+w.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.UseCompressor(gzipcodec.Name)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Clients of other languages compress.
func TestGzipOverGRPC(t *testing.T) {
	w := start(t, realBackend(t))
	carts := pb.NewCartServiceClient(gzipConn(t, w))
	doc, err := carts.AddItem(t.Context(), &pb.AddItemRequest{Identifier: "u1", Instance: "default", Item: []byte(`{"id":"a","name":"` + strings.Repeat("x", 100_000) + `"}`)})
	if err != nil || doc.Version != 1 {
		t.Fatalf("%v %v", doc.GetVersion(), err)
	}
	_, err = carts.AddItem(t.Context(), &pb.AddItemRequest{Identifier: "u1", Instance: "default", Item: []byte(`{"id":"a","name":"` + strings.Repeat("x", 1<<20) + `"}`)})
	if r := failed(t, err); r.reason != "TOO_LARGE" || r.code != codes.InvalidArgument {
		t.Errorf("an item over the limit: %d %s %s", r.code, r.reason, r.message)
	}
	hold, err := carts.HoldLease(t.Context(), &pb.HoldLeaseRequest{Identifier: "u1", Instance: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if grant, err := hold.Recv(); err != nil || len(grant.Cart.Items) < 100_000 {
		t.Errorf("%v", err)
	}
	// A little that becomes much is refused before it has.
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 8 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	for name, row := range map[string]struct {
		text   []byte
		reason string
	}{
		"a bomb":  {bomb.Bytes(), "TOO_LARGE"},
		"no gzip": {[]byte("this is not compressed"), "INVALID"},
		"cut off": {bomb.Bytes()[:100], "INVALID"},
	} {
		r := rawGRPC(t, w, "/sidecart.v1.CartService/GetCart", "gzip", 1, row.text)
		if r.reason != row.reason || r.code != codes.InvalidArgument {
			t.Errorf("%s: %d %s %s", name, r.code, r.reason, r.message)
		}
	}
}

// rawGRPC makes a call whose message is text, sent as it is.
func rawGRPC(t *testing.T, w *world, method, encoding string, flag byte, text []byte) reply {
	t.Helper()
	message := append([]byte{flag}, binary.BigEndian.AppendUint32(nil, uint32(len(text)))...)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.Addr("grpc")+method, bytes.NewReader(append(message, text...)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	if encoding != "" {
		req.Header.Set("Grpc-Encoding", encoding)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return trailerFailure(t, resp)
}

// A message over the limit is told as such, with both numbers, also where it is far over.
func TestMessagesOverTheLimit(t *testing.T) {
	w := start(t, realBackend(t))
	for _, mib := range []int{3, 15, 31} {
		_, err := pb.NewCartServiceClient(w.conn).PutItems(t.Context(), &pb.PutItemsRequest{Identifier: "u1", Instance: "default", Items: make([]byte, mib<<20)})
		r := failed(t, err)
		if r.code != codes.InvalidArgument || r.reason != "TOO_LARGE" || r.meta["field"] != "request" || r.meta["limit"] != "2162688" || !strings.HasPrefix(r.meta["actual"], fmt.Sprint(mib << 20)[:2]) {
			t.Errorf("%d MiB: %d %s %v %s", mib, r.code, r.reason, r.meta, r.message)
		}
	}
	h := w.do("PUT", "/v1/carts/u1/default/items", strings.Repeat(" ", 2162689), nil)
	if h.http != 413 || h.reason != "TOO_LARGE" || h.meta["limit"] != "2162688" || h.meta["actual"] != "2162689" {
		t.Errorf("%d %s %v", h.http, h.reason, h.meta)
	}
	if r := w.grpc(ask{rpc: "GetCart"}); r.code != 0 {
		t.Errorf("afterwards: %s", r.message)
	}
}

// Both of the addresses that localhost means are served.
func TestBothLoopbacks(t *testing.T) {
	w := start(t, realBackend(t))
	for _, front := range []string{"http", "grpc", "admin"} {
		_, port, _ := net.SplitHostPort(w.Addr(front))
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if err != nil {
				t.Errorf("%s on %s: %v", front, host, err)
				continue
			}
			_ = c.Close()
		}
	}
	_, port, _ := net.SplitHostPort(w.Addr("http"))
	resp, err := http.Get("http://[::1]:" + port + "/v1/carts/u1/default")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", resp, err)
	}
	_ = resp.Body.Close()
	// One that is taken is no reason not to serve the other, and one that was not asked for is left alone.
	taken, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ = net.SplitHostPort(taken.Addr().String())
	other := start(t, realBackend(t), func(o *Options) { o.HTTP = "127.0.0.1:" + port })
	if !strings.Contains(other.log.String(), "not served on [::1] too") {
		t.Errorf("log: %s", other.log)
	}
	six := start(t, realBackend(t), func(o *Options) { o.HTTP = "[::1]:0" })
	_, port, _ = net.SplitHostPort(six.Addr("http"))
	if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
		_ = c.Close()
		t.Error("[::1] was asked for, and 127.0.0.1 is served too")
	}
}

// slowCoordinator reads the cart of each change after a while, unless the call was given up.
type slowCoordinator struct {
	Coordinator
	d time.Duration
}

func (s slowCoordinator) pass(ctx context.Context) error {
	select {
	case <-time.After(s.d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slowCoordinator) Change(ctx context.Context, key cart.Key, ch lock.Change) (lock.Result, error) {
	if err := s.pass(ctx); err != nil {
		return lock.Result{}, err
	}
	return s.Coordinator.Change(ctx, key, ch)
}

// rawConn speaks HTTP/1 by hand.
type rawConn struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func dialHTTP(t *testing.T, w *world) *rawConn {
	t.Helper()
	c, err := net.Dial("tcp", w.Addr("http"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &rawConn{c, t, bufio.NewReader(c)}
}

func (c *rawConn) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawConn) answer() (int, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// trailerFailure is the status of a call that was made without a client of gRPC.
func trailerFailure(t *testing.T, resp *http.Response) reply {
	t.Helper()
	details := resp.Trailer.Get("Grpc-Status-Details-Bin")
	if details == "" { // without a message the trailers are the headers
		details = resp.Header.Get("Grpc-Status-Details-Bin")
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "="))
	if err != nil {
		t.Fatal(err)
	}
	var st rpcstatus.Status
	if err := proto.Unmarshal(raw, &st); err != nil {
		t.Fatal(err)
	}
	return failed(t, status.FromProto(&st).Err())
}
