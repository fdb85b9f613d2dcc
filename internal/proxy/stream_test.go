package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// held is a stream of HoldLease by either front.
type held struct {
	// next is the next message in the form of the HTTP front, or the failure that ended it; io.EOF for an end without
	// one.
	next func() (string, *reply, error)
	// leave ends it as a client does that goes away.
	leave context.CancelFunc
}

func (w *world) hold(t *testing.T, front, body string) held {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	if front == "grpc" {
		in := &pb.HoldLeaseRequest{}
		if err := decodeBody([]byte(body), in.ProtoReflect()); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		in.Identifier, in.Instance = "u1", "default"
		stream, err := pb.NewCartServiceClient(w.conn).HoldLease(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return held{leave: cancel, next: func() (string, *reply, error) {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return "", nil, err
			}
			if err != nil {
				r := failed(t, err)
				return "", &r, nil
			}
			text, err := appendMessage(nil, m.ProtoReflect())
			return string(text), nil, err
		}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+"/v1/carts/u1/default/locks:hold", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	in := bufio.NewReader(resp.Body)
	return held{leave: cancel, next: func() (string, *reply, error) {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return "", lineError(t, resp.StatusCode, []byte(line)), nil
		}
		if got := resp.Header.Get("Content-Type"); got != contentLines {
			t.Errorf("Content-Type %s", got)
		}
		var v struct{ Result, Error json.RawMessage }
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if v.Error != nil {
			return "", lineError(t, 200, v.Error), nil
		}
		return string(v.Result), nil, nil
	}}
}

func lineError(t *testing.T, status int, text []byte) *reply {
	t.Helper()
	var e struct {
		Code            codes.Code
		Reason, Message string
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return &reply{http: status, code: e.Code, reason: e.Reason, message: e.Message}
}

func (h held) lease(t *testing.T) (token, text string) {
	t.Helper()
	text, f, err := h.next()
	if err != nil || f != nil {
		t.Fatalf("no lease: %v %+v", err, f)
	}
	return tokenIn(reply{body: text}), text
}

func TestHoldLease(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			w := start(t, realBackend(t))
			free := func() bool {
				r := w.grpc(ask{rpc: "AcquireLease", body: `{"waitTimeout":"0s"}`})
				if r.code != 0 {
					return false
				}
				return w.grpc(ask{rpc: "ReleaseLease", params: p{"token": tokenIn(r)}}).code == 0
			}
			t.Run("renews", func(t *testing.T) {
				h := w.hold(t, front, `{"parts":["items"],"leaseDuration":"300ms","holder":"me"}`)
				token, first := h.lease(t)
				if want := `{"token":"…","fence":1,"expiresAt":"…","parts":["items"],"holder":"me","cart":{"identifier":"u1",`; !strings.HasPrefix(steady(first), want) {
					t.Errorf("got  %s\nwant %s", steady(first), want)
				}
				for range 5 { // for longer than the lease lives
					if _, text := h.lease(t); steady(text) != `{"token":"…","fence":1,"expiresAt":"…","parts":["items"],"holder":"me","cart":null}` {
						t.Errorf("got %s", text)
					}
				}
				if r := w.http(ask{rpc: "AddItem", lease: token, body: `{"item":{"id":"a"}}`}); r.code != 0 {
					t.Errorf("under it: %s", r.message)
				}
				h.leave()
				until(t, "its release", free)
			})
			t.Run("is back at once when the client goes", func(t *testing.T) {
				h := w.hold(t, front, `{"leaseDuration":"1h"}`)
				h.lease(t)
				if free() {
					t.Fatal("not held")
				}
				h.leave()
				until(t, "its release", free)
			})
			t.Run("ends when it is released", func(t *testing.T) {
				h := w.hold(t, front, `{"leaseDuration":"1h"}`)
				token, _ := h.lease(t)
				if r := w.http(ask{rpc: "Clear", lease: token, release: true}); r.code != 0 {
					t.Fatal(r.message)
				}
				if text, f, err := h.next(); !errors.Is(err, io.EOF) {
					t.Errorf("got %q, %+v, %v", text, f, err)
				}
			})
			t.Run("waits in vain", func(t *testing.T) {
				h := w.hold(t, front, `{}`)
				h.lease(t)
				_, f, err := w.hold(t, front, `{"waitTimeout":"20ms"}`).next()
				if err != nil || f == nil || f.reason != "LOCK_TIMEOUT" || front == "http" && f.http != 423 {
					t.Errorf("got %+v, %v", f, err)
				}
				h.leave()
				until(t, "its release", free)
			})
			t.Run("bad requests", func(t *testing.T) {
				for _, body := range []string{`{"parts":["no"]}`, `{"waitTimeout":"7s"}`, `{"leaseDuration":"2h"}`} {
					if _, f, err := w.hold(t, front, body).next(); err != nil || f == nil || f.reason != "INVALID" || front == "http" && f.http != 400 {
						t.Errorf("%s: %+v, %v", body, f, err)
					}
				}
			})
			t.Run("is lost with its backend", func(t *testing.T) {
				old := w.service.backends.current.Load().Backend
				h := w.hold(t, front, `{"leaseDuration":"1h"}`)
				token, _ := h.lease(t)
				retired := w.Swap(realBackend(t))
				if err := retired.Wait(t.Context()); err != nil { // the stream does not hold it up
					t.Fatal(err)
				}
				if err := old.Coordinator.(weighed).coordinator.(*lock.Coordinator).Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, f, err := h.next(); err != nil || f == nil || f.reason != "LOCK_LOST" {
					t.Errorf("got %+v, %v", f, err)
				}
				if r := w.http(ask{rpc: "GetLease", params: p{"token": token}}); r.reason != "NOT_FOUND" {
					t.Errorf("on the new backend: %s", r.reason)
				}
			})
		})
	}
}

// A stop gives back what streams hold, and does not wait for their clients.
func TestShutdownReleasesHeldLeases(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			b := realBackend(t)
			w := start(t, b)
			h := w.hold(t, front, `{"leaseDuration":"1h"}`)
			h.lease(t)
			ended := make(chan error, 1)
			go func() { ended <- w.Shutdown(t.Context()) }()
			if _, f, err := h.next(); err != nil || f == nil || f.reason != "SHUTTING_DOWN" {
				t.Errorf("got %+v, %v", f, err)
			}
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if s := b.Coordinator.Status(); s.Stats.LeasesHeld != 0 {
				t.Errorf("%d leases are held", s.Stats.LeasesHeld)
			}
		})
	}
}

func TestHoldLeaseThatCannotBeRead(t *testing.T) {
	w := start(t, realBackend(t))
	stream, err := w.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/sidecart.v1.CartService/HoldLease", grpc.ForceCodec(rawBytes{}))
	if err != nil {
		t.Fatal(err)
	}
	in, out := []byte("\xFF\xFF"), []byte{}
	if err := errors.Join(stream.SendMsg(&in), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if r := failed(t, stream.RecvMsg(&out)); r.reason != "INVALID" || r.meta["field"] != "request" {
		t.Errorf("by gRPC: %d %s %s", r.code, r.reason, r.message)
	}
	for body, field := range map[string]string{`{"parts":1}`: "parts", `{`: "body", `{"token":"x"}`: "token"} {
		if r := w.do("POST", "/v1/carts/u1/default/locks:hold", body, nil); r.http != 400 || r.meta["field"] != field {
			t.Errorf("%s: %d %s", body, r.http, r.body)
		}
	}
	if r := w.do("POST", "/v1/carts/u1/default/locks:hold", "", http.Header{"Sidecart-Lease": {"x"}}); r.http != 400 {
		t.Errorf("with a lease: %d %s", r.http, r.body)
	}
}
