package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	contentEvents     = "text/event-stream"
	headerLastEventID = "Last-Event-ID"
)

// WatchCart implements the call of that name.
func (s *service) WatchCart(r *pb.WatchCartRequest, stream grpc.ServerStreamingServer[pb.CartEvent]) error {
	if f := s.watch(stream.Context(), r, stream.Send, nil); f != nil {
		return f
	}
	return nil
}

// watch serves WatchCart for both fronts. It continues after a change of the backend: what the client saw last decides
// what it is shown from there. No timeout bounds it.
func (s *service) watch(ctx context.Context, r *pb.WatchCartRequest, send func(*pb.CartEvent) error, beat func() error) *failure {
	start, front, method := time.Now(), frontOf(ctx), CallOf(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.stopping:
			cancel(lock.ErrDraining)
		case <-ctx.Done():
		}
	}()
	key, err := keyOf(r)
	if err == nil {
		err = without(ctx, "a stream shows whatever there is")
	}
	seen := &lock.Sight{ETag: r.LastEventId}
	told := false
	show := func(v lock.Sighting) error {
		if !told {
			told = true
			tell(ctx, v.Cart)
		}
		err := send(&pb.CartEvent{Cart: cartAnswer(key, v.Cart), Gone: v.Gone})
		if err == nil {
			s.metrics.events.Inc()
		}
		return err
	}
	for last := Coordinator(nil); err == nil; {
		l := s.backends.enter()
		leave := sync.OnceFunc(l.leave)
		if l.Coordinator == last { // it ended and was not replaced
			err = lock.ErrDraining
		} else {
			last = l.Coordinator
			// From Began on the coordinator counts this call itself, as in hold.
			err = last.Watch(ctx, key, lock.WatchRequest{Seen: seen, Began: leave, Timeout: l.RequestTimeout, Show: show, Beat: beat})
			if errors.Is(err, lock.ErrDraining) && context.Cause(ctx) == nil {
				err = nil // its backend was replaced
			}
		}
		leave()
	}
	if errors.Is(context.Cause(ctx), lock.ErrDraining) {
		err = lock.ErrDraining
	}
	if errors.Is(err, context.Canceled) { // a client that goes away is the ordinary end
		s.metrics.observe(front, method, codes.OK, "", time.Since(start))
		return classify(ctx, err)
	}
	return s.failed(ctx, front, method, start, err)
}

// serveEvents serves WatchCart over HTTP.
func (g *gateway) serveEvents(w http.ResponseWriter, r *http.Request, params map[string]string) {
	ctx, err := runtime.AnnotateIncomingContext(r.Context(), g.mux, r, pb.CartService_WatchCart_FullMethodName)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	r = r.WithContext(ctx)
	call := httpCallOf(ctx)
	if call.head {
		w.Header().Set("Allow", http.MethodGet)
		g.refuse(w, r, fmt.Errorf("%w: HEAD has no events, only GET", errNoMethod))
		return
	}
	if err := g.service.openStream(); err != nil {
		g.refuse(w, r, err)
		return
	}
	defer g.service.streams.Add(-1)
	defer lasts(ctx)()
	out := &lines{w: w, rc: http.NewResponseController(w), contentType: contentEvents}
	in := &pb.WatchCartRequest{Identifier: params["identifier"], Instance: params["instance"], LastEventId: r.Header.Get(headerLastEventID)}
	f := g.service.watch(ctx, in, func(e *pb.CartEvent) error {
		name := "cart"
		if e.Gone {
			name = "gone"
		}
		text := fmt.Appendf(nil, "event: %s\nid: %s\ndata: ", name, e.Cart.Etag)
		text, err := appendMessage(text, e.Cart.ProtoReflect())
		if err != nil {
			return err
		}
		if a := admissionOf(ctx); a != nil {
			a.work.shrink(2 * int64(len(text)))
		}
		if !out.begun {
			setIdentity(w.Header(), call)
		}
		return out.write(append(text, '\n'))
	}, func() error { return out.write([]byte(":\n")) })
	switch {
	case f.kind == cancelled:
	case !out.begun:
		writeFailure(w, r, f)
	case f.reason == shuttingDown.reason: // a client asks again by itself
		_ = out.write([]byte(": " + f.reason + "\n"))
	default:
		_ = out.write(append(append([]byte("event: failure\ndata: "), f.json()...), '\n'))
	}
}
