package processes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sidecart/sidecart/internal/testserver"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	// podLimit is the memory limit of a sidecar's container by default, and goLimit what its environment says of it.
	podLimit = 128 << 20
	goLimit  = podLimit / 10 * 9
)

// crowded is a sidecar in the memory of a pod, with a client of each front.
type crowded struct {
	*sidecar
	http, admin, grpc string
	conn              *grpc.ClientConn
	carts             pb.CartServiceClient
}

// ready is a codec for requests that are encoded already. Encoding forty of 15 MiB at once takes a slow machine longer
// than the sidecar waits for them.
type ready struct{}

func (ready) Name() string { return protocodec.Name }

func (ready) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (ready) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

func crowdedSidecar(t *testing.T, args ...string) *crowded {
	t.Helper()
	c := &crowded{http: freeAddress(t), admin: freeAddress(t), grpc: freeAddress(t)}
	// The test is not about the disk of a busy machine.
	c.sidecar = prepare(t, append(args, "--http-address", c.http, "--admin-address", c.admin, "--grpc-address", c.grpc, "--read-timeout", "2s", "--write-timeout", "2s")...)
	c.env = []string{"GOMEMLIMIT=" + strconv.Itoa(goLimit)}
	c.run()
	conn, err := grpc.NewClient("passthrough:"+c.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(32<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c.conn, c.carts = conn, pb.NewCartServiceClient(conn)
	return c
}

// freeAddress is one on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// peak is the most memory that the process has had so far.
func (c *crowded) peak() int64 {
	c.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(raw), "VmHWM:")
	if !found {
		c.t.Fatal("the sidecar is gone")
	}
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return kib << 10
}

// answers counts how calls ended, by reason; "" is success.
type answers struct {
	mu sync.Mutex
	by map[string]int
}

func (a *answers) add(reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by[reason]++
}

// all runs n calls at once.
func (c *crowded) all(n int, call func(i int) string) map[string]int {
	a := &answers{by: map[string]int{}}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { a.add(call(i)) })
	}
	wg.Wait()
	return a.by
}

func (c *crowded) reason(err error) string {
	if err == nil {
		return ""
	}
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(*errdetails.ErrorInfo); ok {
			return d.Reason
		}
	}
	return err.Error()
}

// ask makes a request to the HTTP front, and returns the reason of the answer.
func (c *crowded) ask(method, path string, body []byte) string {
	req, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.http+path, bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	if resp.StatusCode == http.StatusOK {
		return ""
	}
	var e struct{ Reason string }
	if err := json.Unmarshal(text, &e); err != nil || e.Reason == "" {
		return fmt.Sprintf("%d: %s", resp.StatusCode, text)
	}
	if e.Reason == "BUSY" && resp.Header.Get("Retry-After") == "" {
		return "BUSY without Retry-After"
	}
	return e.Reason
}

// value is a JSON string of n bytes.
func value(n int) []byte { return []byte(`"` + strings.Repeat("v", n-2) + `"`) }

// A sidecar in a pod of the default size survives whatever its neighbours send, answers each request with its result,
// and goes on serving.
func TestMemoryIsBounded(t *testing.T) {
	backends := map[string]func(t *testing.T) []string{
		"redis": func(t *testing.T) []string {
			return []string{"--backend", "redis", "--redis-address", testserver.StartRedis(t).Addr}
		},
		"sqlite": func(t *testing.T) []string {
			return []string{"--backend", "database", "--database-url", "sqlite:" + filepath.Join(t.TempDir(), "carts.db")}
		},
	}
	for _, name := range bounded() {
		t.Run(name, func(t *testing.T) {
			c := crowdedSidecar(t, backends[name](t)...)
			t.Logf("idle: %d MiB", c.peak()>>20)
			item := func(n int) []byte { return append(append([]byte(`{"id":"a","name":`), value(n)...), '}') }
			huge, err := proto.Marshal(&pb.PutItemsRequest{Identifier: "u", Instance: "default", Items: make([]byte, 15<<20)})
			if err != nil {
				t.Fatal(err)
			}
			big := []int{0, 1} // documents of a large cart, below its limit
			for _, step := range []struct {
				name string
				n    int
				call func(i int) string
				may  string // the reasons that may be given
			}{
				{"small changes", 200, func(i int) string {
					_, err := c.carts.AddItem(t.Context(), &pb.AddItemRequest{Identifier: "u" + strconv.Itoa(i), Instance: "default", Item: item(100)})
					return c.reason(err)
				}, ""},
				{"changes that are compressed", 50, func(i int) string {
					_, err := c.carts.AddItem(t.Context(), &pb.AddItemRequest{Identifier: "z" + strconv.Itoa(i), Instance: "default", Item: item(10_000)}, grpc.UseCompressor(gzip.Name))
					return c.reason(err)
				}, ""},
				{"40 messages of 15 MiB", 40, func(int) string {
					return c.reason(c.conn.Invoke(t.Context(), pb.CartService_PutItems_FullMethodName, huge, &pb.ItemsDocument{}, grpc.ForceCodecV2(ready{})))
				}, "TOO_LARGE"},
				{"64 puts of 1 MB by gRPC", 64, func(i int) string {
					_, err := c.carts.PutMetadataValue(t.Context(), &pb.PutMetadataValueRequest{Identifier: "g" + strconv.Itoa(i), Instance: "default", Key: "k", Value: value(1_000_000)})
					return c.reason(err)
				}, "BUSY"},
				{"64 puts of 1 MB by HTTP", 64, func(i int) string {
					return c.ask("PUT", "/v1/carts/h"+strconv.Itoa(i)+"/default/metadata/k", append(append([]byte(`{"value":`), value(1_000_000)...), '}'))
				}, "BUSY"},
				{"large carts are made", 64, func(i int) string {
					for _, k := range big {
						for {
							_, err := c.carts.PutMetadataValue(t.Context(), &pb.PutMetadataValueRequest{Identifier: "l" + strconv.Itoa(i), Instance: "default", Key: strconv.Itoa(k), Value: value(1_000_000)})
							if r := c.reason(err); r != "BUSY" {
								if r != "" {
									return r
								}
								break
							}
						}
					}
					return ""
				}, ""},
				{"64 reads of large carts by gRPC", 64, func(i int) string {
					_, err := c.carts.GetCart(t.Context(), &pb.GetCartRequest{Identifier: "l" + strconv.Itoa(i), Instance: "default"})
					return c.reason(err)
				}, "BUSY"},
				{"64 reads of large carts by HTTP", 64, func(i int) string {
					return c.ask("GET", "/v1/carts/l"+strconv.Itoa(i)+"/default", nil)
				}, "BUSY"},
				{"64 reads of one large cart", 64, func(int) string {
					_, err := c.carts.GetCart(t.Context(), &pb.GetCartRequest{Identifier: "l0", Instance: "default"})
					return c.reason(err)
				}, "BUSY"},
				{"64 small changes of large carts", 64, func(i int) string {
					_, err := c.carts.AddItem(t.Context(), &pb.AddItemRequest{Identifier: "l" + strconv.Itoa(i), Instance: "default", Item: item(100)})
					return c.reason(err)
				}, "BUSY"},
			} {
				began := time.Now()
				by := c.all(step.n, step.call)
				t.Logf("%s: %v in %s, peak %d MiB", step.name, by, time.Since(began).Round(time.Millisecond), c.peak()>>20)
				for reason := range by {
					if reason != "" && reason != step.may {
						t.Errorf("%s: %q", step.name, reason)
					}
				}
			}
			c.slowReaders()
			t.Logf("slow readers: peak %d MiB", c.peak()>>20)
			c.halfSent(c.admin, "GET /statusz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Filler: "+strings.Repeat("x", 4000))
			t.Logf("half-sent to admin: peak %d MiB", c.peak()>>20)
			c.halfSent(c.http, "PUT /v1/carts/u/default/items HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Filler: "+strings.Repeat("x", 4000))
			t.Logf("half-sent to HTTP: peak %d MiB", c.peak()>>20)
			if got := c.peak(); got >= podLimit {
				t.Errorf("the process had %d MiB, and the pod has %d", got>>20, podLimit>>20)
			}
			if _, err := c.carts.AddItem(t.Context(), &pb.AddItemRequest{Identifier: "after", Instance: "default", Item: []byte(`{"id":"a"}`)}); err != nil {
				t.Errorf("an ordinary change afterwards: %v", err)
			}
		})
	}
}

// slowReaders ask for large carts and do not read the answers.
func (c *crowded) slowReaders() {
	c.t.Helper()
	var conns []net.Conn
	for i := range 64 {
		conn, err := net.Dial("tcp", c.http)
		if err != nil {
			c.t.Fatal(err)
		}
		conns = append(conns, conn)
		_, _ = fmt.Fprintf(conn, "GET /v1/carts/l%d/default HTTP/1.1\r\nHost: localhost\r\n\r\n", i)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	conn, err := grpc.NewClient("passthrough:"+c.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range 64 {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/sidecart.v1.CartService/GetCart")
		if err == nil {
			err = stream.SendMsg(&pb.GetCartRequest{Identifier: "l" + strconv.Itoa(i), Instance: "default"})
		}
		if err == nil {
			err = stream.CloseSend()
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	// A small change meanwhile is made at once.
	if _, err := c.carts.AddItem(ctx, &pb.AddItemRequest{Identifier: "meanwhile", Instance: "default", Item: []byte(`{"id":"a"}`)}); err != nil {
		c.t.Errorf("a small change beside slow readers: %v", err)
	}
	for _, conn := range conns[:8] { // those that are served at all
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			c.t.Logf("a slow reader: %v", err)
		}
	}
	cancel()
	_ = conn.Close()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// halfSent opens 5,000 connections that each send half a request; meanwhile probes are answered.
func (c *crowded) halfSent(address, text string) {
	c.t.Helper()
	before := c.peak()
	stop, done := make(chan struct{}), make(chan struct{})
	probes := 0
	var failed []string
	go func() {
		defer close(done)
		client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for {
			for _, path := range []string{"/livez", "/readyz"} {
				resp, err := client.Get("http://" + c.admin + path)
				probes++
				if err != nil {
					failed = append(failed, err.Error())
					continue
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					failed = append(failed, fmt.Sprintf("%s: %d %s", path, resp.StatusCode, body))
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	var conns []net.Conn
	for range 5000 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			c.t.Fatal(err)
		}
		conns = append(conns, conn)
		_, _ = io.WriteString(conn, text)
	}
	close(stop)
	<-done
	if len(failed) > 0 {
		c.t.Errorf("%d of %d probes failed beside half-sent requests: %q", len(failed), probes, failed)
	}
	if grown := c.peak() - before; grown > 24<<20 {
		c.t.Errorf("half-sent requests cost %d MiB", grown>>20)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}
