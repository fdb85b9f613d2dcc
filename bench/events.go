package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	eventChanges = 100
	// eventPause is the pause between two changes, so that there are no more than a shopper makes.
	eventPause   = 20 * time.Millisecond
	manyStreams  = 1000
	streamsEach  = 250 // on one connection of gRPC
	idleTime     = 10 * time.Second
	eventTimeout = 10 * time.Second
)

// eventDelays are how long it takes from the call that changes a cart in one sidecar to the event in another.
type eventDelays struct {
	backend *backend
	took    []time.Duration
}

// measureEvents measures each backend.
func measureEvents(ctx context.Context, bed *testbed, o options, progress io.Writer) (all []eventDelays, err error) {
	for _, b := range backends {
		if len(o.only) > 0 && !slices.Contains(o.only, b.String()) {
			continue
		}
		fmt.Fprintln(progress, "events on", b)
		took, err := measureEventsOn(ctx, bed, b)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", b, err)
		}
		all = append(all, eventDelays{b, took})
	}
	return all, nil
}

func measureEventsOn(ctx context.Context, bed *testbed, b *backend) (took []time.Duration, err error) {
	stage := new(hostTB)
	defer stage.cleanup()
	dir := stage.TempDir()
	place := dir
	if b.start != nil {
		place = b.start(stage).place
	}
	var sidecars []pb.CartServiceClient
	for range 2 {
		if b.alone && len(sidecars) > 0 {
			sidecars = append(sidecars, sidecars[0])
			continue
		}
		p, err := bed.launch(ctx, "enabled", b.flags(place, dir))
		if err != nil {
			return nil, err
		}
		stage.Cleanup(p.stop)
		c, err := dialCarts(stage, p.grpc)
		if err != nil {
			return nil, err
		}
		sidecars = append(sidecars, c)
	}
	stream, err := sidecars[1].WatchCart(ctx, &pb.WatchCartRequest{Identifier: "watched", Instance: "default"})
	if err != nil {
		return nil, err
	}
	if _, err := stream.Recv(); err != nil {
		return nil, err
	}
	time.Sleep(time.Second) // the subscription
	for range eventChanges {
		began := time.Now()
		a, err := sidecars[0].AddItem(ctx, &pb.AddItemRequest{Identifier: "watched", Instance: "default", Item: []byte(`{"id":"sku-1"}`)})
		if status.Code(err) == codes.Unavailable {
			continue // the machine is too busy for the timeouts, which says nothing of events
		}
		if err != nil {
			return nil, err
		}
		for {
			e, err := stream.Recv()
			if err != nil {
				return nil, err
			}
			if e.Cart.Version >= a.Version {
				break
			}
		}
		took = append(took, time.Since(began))
		time.Sleep(eventPause)
	}
	return took, nil
}

func dialCarts(stage *hostTB, target string) (pb.CartServiceClient, error) {
	conn, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	stage.Cleanup(func() { _ = conn.Close() })
	return pb.NewCartServiceClient(conn), nil
}

// streamCosts is what a thousand streams of as many carts in Redis cost a sidecar.
type streamCosts struct {
	front        string
	idle, open   int64         // bytes that are resident
	quiet        time.Duration // processor time in a second in which nothing happens
	changed      time.Duration // processor time that one event costs the sidecar that sends it
	slowest, p50 time.Duration // of the events of one change of each cart
}

func measureStreams(ctx context.Context, bed *testbed, front string) (c streamCosts, err error) {
	c.front = front
	stage := new(hostTB)
	defer stage.cleanup()
	var ps []*sidecarProcess
	for range 2 {
		p, err := bed.startSidecar(ctx, bed.redis, "enabled")
		if err != nil {
			return c, err
		}
		stage.Cleanup(p.stop)
		ps = append(ps, p)
	}
	watching := ps[1].cmd.Process.Pid
	if c.idle, err = residentBytes(watching); err != nil {
		return c, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan error, 4*manyStreams)
	if err := openStreams(ctx, stage, ps[1], front, events); err != nil {
		return c, err
	}
	time.Sleep(settle)
	before, err := processorTime(watching)
	if err != nil {
		return c, err
	}
	time.Sleep(idleTime)
	after, err := processorTime(watching)
	if err != nil {
		return c, err
	}
	c.quiet = (after - before) / (idleTime / time.Second)
	writer, err := dialCarts(stage, ps[0].grpc)
	if err != nil {
		return c, err
	}
	var took []time.Duration
	for i := range manyStreams {
		began := time.Now()
		if _, err := writer.AddItem(ctx, &pb.AddItemRequest{Identifier: streamCart(front, i), Instance: "default", Item: []byte(`{"id":"sku-1"}`)}); err != nil {
			return c, err
		}
		if err := oneEvent(events); err != nil {
			return c, err
		}
		took = append(took, time.Since(began))
	}
	c.p50, c.slowest = quantile(took, .5), quantile(took, .99)
	end, err := processorTime(watching)
	if err != nil {
		return c, err
	}
	c.changed = (end - after) / manyStreams
	c.open, err = residentBytes(watching)
	return c, err
}

func streamCart(front string, i int) string { return front + "-" + strconv.Itoa(i) }

func oneEvent(events <-chan error) error {
	select {
	case err := <-events:
		return err
	case <-time.After(eventTimeout):
		return errors.New("an event did not come")
	}
}

// openStreams opens the streams, each once the one before has had its first event, as shoppers come. What comes on them
// later goes to events.
func openStreams(ctx context.Context, stage *hostTB, p *sidecarProcess, front string, events chan error) error {
	var carts pb.CartServiceClient
	client := &http.Client{Transport: &http.Transport{}}
	for i := range manyStreams {
		if front == "HTTP/1.1" {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.args[slices.Index(p.args, "--http-address")+1]+"/v1/carts/"+url.PathEscape(streamCart(front, i))+"/default/events", nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req) //nolint:bodyclose // readEvents closes it
			if err != nil {
				return err
			}
			go readEvents(resp, events)
			if err := oneEvent(events); err != nil {
				return err
			}
			continue
		}
		if i%streamsEach == 0 {
			var err error
			if carts, err = dialCarts(stage, p.grpc); err != nil {
				return err
			}
		}
		s, err := carts.WatchCart(ctx, &pb.WatchCartRequest{Identifier: streamCart(front, i), Instance: "default"})
		if err != nil {
			return err
		}
		go func() {
			for {
				_, err := s.Recv()
				events <- err
				if err != nil {
					return
				}
			}
		}()
		if err := oneEvent(events); err != nil {
			return err
		}
	}
	return nil
}

func readEvents(resp *http.Response, events chan<- error) {
	defer resp.Body.Close()
	buf := make([]byte, 4<<10) // an event of these carts fits, and is written at once
	for {
		n, err := resp.Body.Read(buf)
		if err == nil && !strings.HasPrefix(string(buf[:n]), "event: ") {
			continue
		}
		events <- err
		if err != nil {
			return
		}
	}
}

// writeEvents writes the tables.
func writeEvents(w *page, bed *testbed, delays []eventDelays, costs []streamCosts) {
	fmt.Fprintf(w, "Load of the machine before: %s.\n", bed.load)
	showEvents(w, delays)
	fmt.Fprintf(w, "\n| backend | p50 | p99 |\n|---|---|---|\n")
	for _, d := range delays {
		fmt.Fprintf(w, "| %v | %s | %s |\n", d.backend, rounded(quantile(d.took, .5)), rounded(quantile(d.took, .99)))
	}
	fmt.Fprintf(w, "\n| 1,000 streams over | memory, each | processor, nothing happens | processor, an event | p50 | p99 |\n|---|---|---|---|---|---|\n")
	for _, c := range costs {
		fmt.Fprintf(w, "| %s | %d KiB | %.1f %% of one | %s | %s | %s |\n", c.front, (c.open-c.idle)/manyStreams>>10, 100*c.quiet.Seconds(), rounded(c.changed), rounded(c.p50), rounded(c.slowest))
	}
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
