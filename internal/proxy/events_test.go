package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// event is one event of a stream, or how it ended.
type event struct {
	name string // "cart", "gone", "failure"; "comment" with its text as data, and "end"
	id   string
	data string // in the form of the HTTP front
	fail *reply
}

// short is "cart 1: a" for version 1 with the item a.
func (e event) short() string {
	var c struct {
		Version uint64
		Items   map[string]json.RawMessage
	}
	if e.fail != nil {
		return "failed " + e.fail.reason
	}
	if e.name == "comment" || e.name == "end" || json.Unmarshal([]byte(e.data), &c) != nil {
		return e.name + " " + e.data
	}
	text := fmt.Sprintf("%s %d:", e.name, c.Version)
	for _, id := range []string{"a", "b", "c", "big"} {
		if _, there := c.Items[id]; there {
			text += " " + id
		}
	}
	return text
}

// stream is a stream of events by either front.
type stream struct {
	t      *testing.T
	events chan event
	header http.Header // by HTTP, once there was an event
	leave  context.CancelFunc
}

func (w *world) watch(t *testing.T, front, lastEventID string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s := &stream{t: t, events: make(chan event, 1000), leave: cancel}
	if front == "grpc" {
		in, err := pb.NewCartServiceClient(w.conn).WatchCart(ctx, &pb.WatchCartRequest{Identifier: "u1", Instance: "default", LastEventId: lastEventID})
		if err != nil {
			t.Fatal(err)
		}
		go s.receive(in)
		return s
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+"/v1/carts/u1/default/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if s.header = resp.Header; resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		s.events <- event{fail: lineError(t, resp.StatusCode, text)}
		return s
	}
	go s.parse(resp.Body)
	return s
}

func (s *stream) receive(in grpc.ServerStreamingClient[pb.CartEvent]) {
	for {
		m, err := in.Recv()
		if err != nil {
			r := failed(s.t, err)
			s.events <- event{fail: &r}
			return
		}
		text, err := appendMessage(nil, m.Cart.ProtoReflect())
		if err != nil {
			s.t.Error(err)
		}
		name := "cart"
		if m.Gone {
			name = "gone"
		}
		s.events <- event{name: name, id: m.Cart.Etag, data: string(text)}
	}
}

// parse reads events as the specification of EventSource has it.
func (s *stream) parse(body io.Reader) {
	var e event
	for in := bufio.NewReaderSize(body, 4<<20); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			s.events <- event{name: "end"}
			return
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n":
			if e.data != "" {
				s.events <- e
			}
			e = event{}
		case field == "":
			s.events <- event{name: "comment", data: value}
		case field == "event":
			e.name = value
		case field == "id":
			e.id = value
		case field == "data":
			e.data += value
		default:
			s.t.Errorf("line %q", line)
		}
	}
}

func (s *stream) next() event {
	s.t.Helper()
	select {
	case e := <-s.events:
		return e
	case <-time.After(20 * time.Second):
		s.t.Fatal("no event")
	}
	return event{}
}

func (s *stream) want(want string) event {
	s.t.Helper()
	e := s.next()
	if got := e.short(); got != want {
		s.t.Fatalf("got %q, want %q", got, want)
	}
	return e
}

func (w *world) add(id string) reply {
	w.t.Helper()
	r := w.http(ask{rpc: "AddItem", body: `{"item":{"id":"` + id + `"}}`})
	if r.code != 0 {
		w.t.Fatal(r.message)
	}
	return r
}

func TestEvents(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			w := start(t, realBackend(t))
			s := w.watch(t, front, "")
			s.want("cart 0:")
			w.add("a")
			e := s.want("cart 1: a")
			if r := w.http(ask{rpc: "GetCart"}); e.data != r.body || e.id != etagOf(t, r) {
				t.Errorf("got  %s %s\nwant %s", e.id, e.data, r.body)
			}
			if r := w.http(ask{rpc: "Forget"}); r.code != 0 {
				t.Fatal(r.message)
			}
			gone := s.want("gone 0:")
			if r := w.http(ask{rpc: "GetCart"}); gone.data != r.body || gone.id != etagOf(t, r) {
				t.Errorf("got  %s %s\nwant %s", gone.id, gone.data, r.body)
			}
			w.add("b")
			last := s.want("cart 1: b")
			again := w.watch(t, front, last.id) // who comes back with it is not shown it again
			if front == "http" {
				again.want("comment ")
			} else {
				until(t, "the stream", func() bool { return w.service.streams.Load() == 2 })
			}
			w.add("c")
			again.want("cart 2: b c")
			s.want("cart 2: b c")
			w.watch(t, front, gone.id).want("cart 2: b c")
			w.watch(t, front, "of another program").want("cart 2: b c")
			if front == "http" {
				for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Sidecart-Version": "0"} {
					if got := s.header.Get(name); got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
			}
			until(t, "the streams in the metric", func() bool { return strings.Contains(w.admin("/metrics"), "\nsidecart_streams_open 4\n") })
			s.leave()
			again.leave()
			until(t, "their end", func() bool { return w.service.streams.Load() == 2 })
		})
	}
}

func (w *world) admin(path string) string {
	w.t.Helper()
	resp, err := http.Get("http://" + w.Addr("admin") + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func TestEventsRefused(t *testing.T) {
	w := start(t, realBackend(t))
	const path = "/v1/carts/u1/default/events"
	for _, c := range []struct {
		method, path string
		header       http.Header
		http         int
		field        string
	}{
		{"GET", path + "?since=1", nil, 400, "?since"},
		{"GET", path, http.Header{"If-None-Match": {`"x"`}}, 400, "If-None-Match"},
		{"GET", path, http.Header{"If-Match": {`"x"`}}, 400, "If-Match"},
		{"GET", path, http.Header{"Idempotency-Key": {"x"}}, 400, "Idempotency-Key"},
		{"GET", "/v1/carts/" + strings.Repeat("x", 256) + "/default/events", nil, 400, "identifier"},
		{"POST", path, nil, 405, ""},
	} {
		if r := w.do(c.method, c.path, "", c.header); r.http != c.http || r.meta["field"] != c.field {
			t.Errorf("%s %s %v: %d %s", c.method, c.path, c.header, r.http, r.body)
		}
	}
	resp, err := http.Head(w.base + path)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET" {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	if n := w.service.streams.Load(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestTooManyEvents(t *testing.T) {
	w := start(t, realBackend(t))
	w.service.streams.Store(maxStreams - 1)
	for _, front := range []string{"http", "grpc"} {
		s := w.watch(t, front, "")
		s.want("cart 0:")
		for _, other := range []string{"http", "grpc"} {
			more := w.watch(t, other, "")
			e := more.want("failed TOO_MANY_STREAMS")
			if other == "http" && (e.fail.http != 429 || more.header.Get("Retry-After") != "1") || other == "grpc" && !e.fail.retry {
				t.Errorf("%s: %+v %v", other, e.fail, more.header)
			}
		}
		s.leave()
		until(t, "its end", func() bool { return w.service.streams.Load() == maxStreams-1 })
	}
}

// A stop ends streams, and waits for no client.
func TestEventsEndAtAStop(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			w := start(t, realBackend(t))
			s := w.watch(t, front, "")
			s.want("cart 0:")
			began := time.Now()
			if err := w.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if front == "http" {
				s.want("comment SHUTTING_DOWN")
				s.want("end ")
			} else {
				s.want("failed SHUTTING_DOWN")
			}
		})
	}
}

// A stream goes over a change of the backend, which it does not hold up, and shows what stands in the new one.
func TestEventsOnAnotherBackend(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			w := start(t, realBackend(t))
			w.add("a")
			s := w.watch(t, front, "")
			s.want("cart 1: a")
			for range 2 {
				old := w.service.backends.current.Load().Backend
				if err := w.Swap(realBackend(t)).Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.add("b")
				if err := old.Coordinator.(weighed).coordinator.(*lock.Coordinator).Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.want("gone 0:")
				s.want("cart 1: b")
			}
			w.add("c")
			s.want("cart 2: b c")
			// A backend that is closed, and that no other replaces, ends it.
			if err := w.service.backends.current.Load().Coordinator.(weighed).coordinator.(*lock.Coordinator).Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if front == "http" {
				s.want("comment SHUTTING_DOWN")
			} else {
				s.want("failed SHUTTING_DOWN")
			}
		})
	}
}

// Streams of large carts have memory only while an event is written: not while they wait, and not for as long as a
// client does not read.
func TestEventsOfLargeCarts(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			b := realBackend(t)
			b.MemoryBytes = baseMemory + 64<<20
			w := start(t, b)
			large := func(n int) {
				t.Helper()
				body := `{"items":{"big":{"id":"big","n":` + strconv.Itoa(n) + `,"x":"` + strings.Repeat("x", 900<<10) + `"}}}`
				if r := w.http(ask{rpc: "PutItems", body: body}); r.code != 0 {
					t.Fatal(r.message)
				}
			}
			large(0)
			streams := make([]*stream, 20)
			for i := range streams {
				streams[i] = w.watch(t, front, "")
			}
			budget := w.service.backends.current.Load().budget
			free := func() bool {
				for _, p := range []*pool{&budget.small, &budget.bodies, &budget.work, &budget.leased, &budget.unseen} {
					if !p.TryAcquire(p.size) {
						return false
					}
					p.Release(p.size)
				}
				return true
			}
			for _, s := range streams {
				s.want("cart 1: big")
			}
			until(t, "memory of all streams comes back", free)
			large(1)
			for _, s := range streams {
				s.want("cart 2: big")
			}
			until(t, "memory of all streams comes back", free)
		})
	}
}

// A client that does not read what it watches is shown the latest when it reads again, and keeps from the others no
// more than what one event of it has.
func TestEventsThatAreNotRead(t *testing.T) {
	b := realBackend(t)
	b.MemoryBytes = baseMemory + 64<<20
	w := start(t, b)
	put := func(n int) {
		t.Helper()
		body := fmt.Sprintf(`{"items":{"big":{"id":"big","n":%d,"x":%q}}}`, n, strings.Repeat("x", 900<<10))
		if r := w.http(ask{rpc: "PutItems", body: body}); r.code != 0 {
			t.Fatal(r.message)
		}
	}
	put(0)
	var sleepers []grpc.ServerStreamingClient[pb.CartEvent]
	for range 3 {
		s, err := pb.NewCartServiceClient(w.conn).WatchCart(t.Context(), &pb.WatchCartRequest{Identifier: "u1", Instance: "default"})
		if err != nil {
			t.Fatal(err)
		}
		sleepers = append(sleepers, s)
	}
	awake := w.watch(t, "http", "")
	awake.want("cart 1: big")
	const last = 30
	for n := 1; n <= last; n++ {
		put(n)
		if r := w.http(ask{rpc: "GetCart"}); r.http != 200 {
			t.Fatalf("a read: %d %s", r.http, r.body)
		}
	}
	for e := awake.next(); !strings.Contains(e.data, `"n":30,`); e = awake.next() {
		continue
	}
	for _, s := range sleepers {
		events := 0
		for m := new(pb.CartEvent); m.GetCart().GetVersion() != last+1; events++ {
			var err error
			if m, err = s.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		if events > 5 {
			t.Errorf("a client that slept was sent %d events", events)
		}
	}
}

// deadlines is an answer that notes the deadlines of its writing.
type deadlines struct {
	http.ResponseWriter
	bytes.Buffer
	set []time.Time
}

func (d *deadlines) Header() http.Header                { return http.Header{} }
func (d *deadlines) Write(p []byte) (int, error)        { return d.Buffer.Write(p) }
func (d *deadlines) Flush()                             {}
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

// The time to write a line does not end a stream that has nothing to say for longer.
func TestLinesHaveNoDeadlineBetween(t *testing.T) {
	d := &deadlines{}
	l := &lines{w: d, rc: http.NewResponseController(d), contentType: contentEvents}
	if err := errors.Join(l.write([]byte("a")), l.write([]byte("b"))); err != nil {
		t.Fatal(err)
	}
	if len(d.set) != 4 || d.set[0].IsZero() || !d.set[1].IsZero() || d.set[2].IsZero() || !d.set[3].IsZero() {
		t.Errorf("deadlines %v", d.set)
	}
	if d.String() != "a\nb\n" {
		t.Errorf("written is %q", d.String())
	}
}
