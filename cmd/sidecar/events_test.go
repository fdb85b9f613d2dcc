package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sidecart/sidecart/internal/testserver"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// cartEvent is one event, as either front tells it.
type cartEvent struct {
	Gone    bool
	ETag    string
	ID      string
	Version uint64
	Items   string
}

// httpEvents are the events of the cart of u1 by HTTP.
func (s *sidecarUnderTest) httpEvents(ctx context.Context) <-chan cartEvent {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.http+"/v1/carts/u1/default/events", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	events := make(chan cartEvent, 100)
	go func() {
		defer close(events)
		defer resp.Body.Close()
		var e cartEvent
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			field, value, _ := strings.Cut(in.Text(), ": ")
			switch field {
			case "event":
				e = cartEvent{Gone: value == "gone"}
			case "id":
				e.ETag = value
			case "data":
				var c struct {
					ID      string
					Version uint64
					Items   json.RawMessage
				}
				if err := json.Unmarshal([]byte(value), &c); err != nil {
					s.t.Errorf("%s: %v", value, err)
				}
				e.ID, e.Version, e.Items = c.ID, c.Version, string(c.Items)
				events <- e
			}
		}
	}()
	return events
}

// grpcEvents are the same over gRPC.
func (s *sidecarUnderTest) grpcEvents(ctx context.Context) <-chan cartEvent {
	s.t.Helper()
	conn, err := grpc.NewClient(s.serving["grpc"].(string), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	stream, err := pb.NewCartServiceClient(conn).WatchCart(ctx, &pb.WatchCartRequest{Identifier: "u1", Instance: "default"})
	if err != nil {
		s.t.Fatal(err)
	}
	events := make(chan cartEvent, 100)
	go func() {
		defer close(events)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			events <- cartEvent{m.Gone, m.Cart.Etag, m.Cart.Id, m.Cart.Version, string(m.Cart.Items)}
		}
	}()
	return events
}

// Streams of both fronts stay open while the backend is gone, tell the latest when it is back, and go on, in the
// sidecar that makes a change and in another. Both fronts tell the same.
func TestEventsOutliveTheBackend(t *testing.T) {
	db := testserver.StartPostgres(t)
	flags := []string{"--backend=database", "--database-url=" + db.NewDatabase(t)}
	writer, reader := launch(t, flags...), launch(t, flags...)
	writer.ready(true)
	reader.ready(true)
	writer.mustPut("u1", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fronts := map[string]<-chan cartEvent{}
	for name, s := range map[string]*sidecarUnderTest{"of the writer": writer, "of another": reader} {
		fronts["HTTP "+name], fronts["gRPC "+name] = s.httpEvents(ctx), s.grpcEvents(ctx)
	}
	want := func(what string, reached func(cartEvent) bool) {
		t.Helper()
		var first *cartEvent
		for name, events := range fronts {
			for {
				select {
				case e, open := <-events:
					if !open {
						t.Fatalf("%s: the stream %s has ended", what, name)
					}
					if !reached(e) {
						continue
					}
					if first == nil {
						first = &e
					}
					if d := cmp.Diff(*first, e); d != "" {
						t.Errorf("%s: the streams differ (-one +that %s):\n%s", what, name, d)
					}
				case <-time.After(patience):
					t.Fatalf("%s: nothing comes by the stream %s", what, name)
				}
				break
			}
		}
	}
	has := func(quantity int) func(cartEvent) bool {
		return func(e cartEvent) bool { return strings.Contains(e.Items, fmt.Sprintf(`"quantity":%d`, quantity)) }
	}
	want("the first event", has(1))
	writer.mustPut("u1", 2)
	want("a change", has(2))
	for round := range 2 {
		db.Kill()
		reader.ready(false)
		writer.ready(false)
		db.Restart()
		reader.ready(true)
		writer.ready(true)
		writer.mustPut("u1", 3+round)
		want("a change after the outage", has(3+round))
	}
	if code, body, err := request(http.MethodDelete, writer.http+"/v1/carts/u1/default", ""); err != nil || code != http.StatusOK {
		t.Fatal(code, body, err)
	}
	want("the end", func(e cartEvent) bool { return e.Gone && e.Version == 0 && e.ID == "" })
	for name, events := range fronts {
		if len(events) > 0 {
			t.Errorf("after the end the stream %s tells %+v", name, <-events)
		}
	}
}
