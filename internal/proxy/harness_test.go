package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/middleware"
	"github.com/sidecart/sidecart/internal/testlog"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// world is a whole server with clients of both fronts.
type world struct {
	*Server
	t    *testing.T
	base string
	conn *grpc.ClientConn
	log  *testlog.Buffer
}

// realBackend is a coordinator over a store in memory.
func realBackend(t *testing.T) Backend {
	t.Helper()
	store := middleware.Measure(memory.New())
	t.Cleanup(func() { _ = store.Close() })
	o := lock.Options{WaitTimeout: 5 * time.Second, LeaseDuration: 5 * time.Second, TTL: time.Hour, CheckoutRetention: time.Hour, Limits: cart.DefaultLimits(), Reason: "Configured"}
	return Backend{
		Coordinator: lock.New(store, o), Ping: store.Ping, Name: "Memory", Mode: "auto", Generation: 7,
		Limits: o.Limits, RequestTimeout: 6 * time.Second, AllowFlush: true, AllowList: true,
	}
}

func start(t *testing.T, b Backend, set ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, log: new(testlog.Buffer)}
	o := Options{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", Admin: "127.0.0.1:0", Version: "test", Log: slog.New(slog.NewTextHandler(w.log, nil))}
	for _, f := range set {
		f(&o)
	}
	s, err := Start(o, b)
	if err != nil {
		t.Fatal(err)
	}
	w.Server, w.base = s, "http://"+s.Addr("http")
	w.conn, err = grpc.NewClient("passthrough:"+s.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(32<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.conn.Close()
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return w
}

// ask is one call, that can go by either front.
type ask struct {
	rpc string
	// params are the fields outside of the body, by their JSON name; identifier and instance are u1 and default where
	// they are not given.
	params map[string]string
	body   string
	// ifMatch and ifNoneMatch are headers over HTTP, fields over gRPC.
	ifMatch, ifNoneMatch string
	lease                string // likewise
	release              bool
	minimal              bool        // likewise: Prefer: return=minimal
	key                  string      // likewise: Idempotency-Key
	header               http.Header // over HTTP only
}

// reply is the answer, in the form of the HTTP front.
type reply struct {
	http    int // 0 by gRPC
	code    codes.Code
	reason  string
	message string
	meta    map[string]string
	body    string
	header  http.Header // over gRPC the metadata of the answer
	retry   bool        // over gRPC: a RetryInfo came with it
}

func method(t *testing.T, rpc string) protoreflect.MethodDescriptor {
	t.Helper()
	m := pb.File_sidecart_v1_service_proto.Services().ByName("CartService").Methods().ByName(protoreflect.Name(rpc))
	if m == nil {
		t.Fatalf("no rpc %q", rpc)
	}
	return m
}

// route is the HTTP method and path template of a call.
func route(m protoreflect.MethodDescriptor) (string, string) {
	rule := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	switch p := rule.Pattern.(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, p.Get
	case *annotations.HttpRule_Put:
		return http.MethodPut, p.Put
	case *annotations.HttpRule_Post:
		return http.MethodPost, p.Post
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, p.Delete
	}
	return "", ""
}

func (a *ask) param(name string) string {
	if v, ok := a.params[name]; ok {
		return v
	}
	switch name {
	case "identifier":
		return "u1"
	case "instance":
		return "default"
	}
	return ""
}

// percent escapes every byte that is not plainly a letter or digit.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
			continue
		}
		const hex = "0123456789ABCDEF"
		b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
	}
	return b.String()
}

func (w *world) http(a ask) reply {
	w.t.Helper()
	m := method(w.t, a.rpc)
	verb, path := route(m)
	query := url.Values{}
	for i := range m.Input().Fields().Len() {
		f := m.Input().Fields().Get(i)
		path = strings.ReplaceAll(path, "{"+string(f.Name())+"}", percent(a.param(f.JSONName())))
		if v, given := a.params[f.JSONName()]; given && a.rpc == "ListCarts" {
			query.Set(f.JSONName(), v)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	h := a.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if a.ifMatch != "" {
		h.Set("If-Match", a.ifMatch)
	}
	if a.ifNoneMatch != "" {
		h.Set("If-None-Match", a.ifNoneMatch)
	}
	if a.lease != "" {
		h.Set("Sidecart-Lease", a.lease)
	}
	if a.release {
		h.Set("Sidecart-Release", "true")
	}
	if a.minimal {
		h.Set("Prefer", "return=minimal")
	}
	if a.key != "" {
		h.Set("Idempotency-Key", a.key)
	}
	return w.do(verb, path, a.body, h)
}

func (w *world) do(verb, path, body string, h http.Header) reply {
	w.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), verb, w.base+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if h != nil {
		req.Header = h
	}
	if _, given := req.Header["Content-Type"]; body != "" && !given {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	out := reply{http: resp.StatusCode, header: resp.Header, body: string(text)}
	if resp.StatusCode >= 400 {
		var e struct {
			Code     codes.Code
			Message  string
			Reason   string
			Metadata map[string]string
			Details  []struct {
				Type     string `json:"@type"`
				Reason   string
				Domain   string
				Metadata map[string]string
			}
		}
		if err := json.Unmarshal(text, &e); err != nil {
			w.t.Fatalf("%s %s: %d with a body that is no error: %v: %s", verb, path, resp.StatusCode, err, text)
		}
		if len(e.Details) == 0 || e.Details[0].Reason != e.Reason || e.Details[0].Domain != errorDomain {
			w.t.Errorf("%s %s: details do not repeat the reason: %s", verb, path, text)
		}
		out.code, out.reason, out.message, out.meta = e.Code, e.Reason, e.Message, e.Metadata
		out.retry = len(e.Details) > 1
	}
	return out
}

func (w *world) message(d protoreflect.MessageDescriptor) protoreflect.Message {
	w.t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		w.t.Fatal(err)
	}
	return mt.New()
}

// grpc makes the same call by the other front. The body must be an envelope that can be read.
func (w *world) grpc(a ask) reply {
	w.t.Helper()
	m := method(w.t, a.rpc)
	in, out := w.message(m.Input()), w.message(m.Output())
	if a.body != "" {
		if err := decodeBody([]byte(a.body), in); err != nil {
			w.t.Fatalf("%s: %v", a.rpc, err)
		}
	}
	for i := range m.Input().Fields().Len() {
		f := m.Input().Fields().Get(i)
		v := ""
		switch {
		case f.Name() == "if_match":
			v = a.ifMatch
		case f.Name() == "if_none_match":
			v = a.ifNoneMatch
		case f.Name() == "lease":
			v = a.lease
		case f.Name() == "release":
			in.Set(f, protoreflect.ValueOfBool(a.release))
			continue
		case f.Name() == "idempotency_key":
			v = a.key
		case f.Name() == "minimal":
			in.Set(f, protoreflect.ValueOfBool(a.minimal))
			continue
		case f.Kind() == protoreflect.Int32Kind:
			if n, given := a.params[f.JSONName()]; given {
				size, err := strconv.ParseInt(n, 10, 32)
				if err != nil {
					w.t.Fatal(err)
				}
				in.Set(f, protoreflect.ValueOfInt32(int32(size)))
			}
			continue
		case f.Name() == "idle_for":
			if text, given := a.params[f.JSONName()]; given {
				d, err := time.ParseDuration(text)
				if err != nil {
					w.t.Fatal(err)
				}
				in.Set(f, protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()))
			}
			continue
		case proto.GetExtension(f.Options(), pb.E_OutsideBody).(bool):
			v = a.param(f.JSONName())
		default:
			continue
		}
		in.Set(f, protoreflect.ValueOfString(v))
	}
	var md metadata.MD
	err := w.conn.Invoke(w.t.Context(), "/sidecart.v1.CartService/"+a.rpc, in.Interface(), out.Interface(), grpc.Header(&md))
	if err != nil {
		return failed(w.t, err)
	}
	text, err := appendMessage(nil, out)
	if err != nil {
		w.t.Fatal(err)
	}
	header := http.Header{}
	for name, values := range md {
		header[http.CanonicalHeaderKey(name)] = values
	}
	return reply{body: string(text), header: header}
}

func failed(t *testing.T, err error) reply {
	t.Helper()
	st := status.Convert(err)
	r := reply{code: st.Code(), message: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			r.reason, r.meta = d.Reason, d.Metadata
			if d.Domain != errorDomain {
				t.Errorf("domain %q", d.Domain)
			}
		case *errdetails.RetryInfo:
			r.retry = d.RetryDelay.AsDuration() > 0
		}
	}
	return r
}

var unsteady = regexp.MustCompile(`"(etag|id|cartId|createdAt|updatedAt|expiresAt|settledAt|token)":"[^"]+"|"fence":[0-9]+`)

// steady is a body without what is new each time. Ids of items are short and stay.
func steady(body string) string {
	return unsteady.ReplaceAllStringFunc(body, func(s string) string {
		name, value, _ := strings.Cut(s, ":")
		switch {
		case name == `"fence"`:
			return name + `:1`
		case name != `"id"`:
			return name + `:"…"`
		case len(value) == len(`"00000000-0000-0000-0000-000000000000"`):
			return name + `:"…"`
		}
		return s
	})
}

// eachFront runs a test once by each front, each with a world of its own.
func eachFront(t *testing.T, run func(t *testing.T, w *world, call func(ask) reply)) {
	t.Helper()
	t.Run("http", func(t *testing.T) {
		w := start(t, realBackend(t))
		run(t, w, w.http)
	})
	t.Run("grpc", func(t *testing.T) {
		w := start(t, realBackend(t))
		run(t, w, w.grpc)
	})
}

func etagOf(t *testing.T, r reply) string {
	t.Helper()
	var v struct{ Etag string }
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return v.Etag
}

// rawHTTP sends text as it is and reads one answer, after which the connection must be closed.
func rawHTTP(t *testing.T, w *world, text string) reply {
	t.Helper()
	c, err := net.Dial("tcp", w.Addr("http"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.WriteString(c, text) }() // the server may stop reading
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	var e struct{ Message, Reason string }
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection stays open")
	}
	return reply{http: resp.StatusCode, reason: e.Reason, message: e.Message}
}
