package proxy

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// service has the handlers behind both fronts. gRPC's interceptors do not run for calls of the gateway, so [call] does
// what every call needs.
type service struct {
	pb.UnimplementedCartServiceServer

	backends backends
	metrics  *metrics
	log      *slog.Logger
	// streams counts the lasting streams.
	streams atomic.Int64
	// callFailed is called when the backend did not do what a call asked for.
	callFailed func(error)
	// stopping is closed when the sidecar begins to stop.
	stopping <-chan struct{}
	// seen is what the demo shops' checkouts have read.
	seen seenCarts
}

// httpCall is what the HTTP front knows about a call beyond its request message.
type httpCall struct {
	ifMatch, ifNoneMatch string
	lease, release       string               // Sidecart-Lease, Sidecart-Release
	minimal              bool                 // Prefer: return=minimal
	key                  string               // Idempotency-Key
	list                 *pb.ListCartsRequest // the query of a list; nil for none
	reads, head          bool                 // GET or HEAD; HEAD

	// Set by the handler, for the headers of the answer.
	about   *identity // nil if the answer is about no cart
	applied bool      // the documents are left out
	repeat  lock.Repeat
}

type httpCallKey struct{}

// httpCallOf is nil for a call that came by gRPC.
func httpCallOf(ctx context.Context) *httpCall {
	c, _ := ctx.Value(httpCallKey{}).(*httpCall)
	return c
}

// call runs one call on the current backend. It limits its time, maps its error and counts it.
func call[R any](ctx context.Context, s *service, run func(context.Context, *Backend) (R, error)) (R, error) {
	start, front, method := time.Now(), frontOf(ctx), CallOf(ctx)
	l := s.backends.enter()
	defer l.leave()
	s.metrics.inFlight.Add(1)
	defer s.metrics.inFlight.Add(-1)

	if c := httpCallOf(ctx); c != nil && !c.reads {
		served, stop := whileServed(ctx)
		defer stop()
		ctx = served
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.RequestTimeout, errRequestTimeout)
	defer cancel()
	answer, err := run(ctx, &l.Backend)
	if err == nil {
		s.metrics.observe(front, method, codes.OK, "", time.Since(start))
		return answer, nil
	}
	var none R
	return none, s.failed(ctx, front, method, start, err)
}

// frontOf is the front by which a call came.
func frontOf(ctx context.Context) front {
	if httpCallOf(ctx) != nil {
		return frontHTTP
	}
	return frontGRPC
}

// CallOf returns the name of a context's call, such as "AddItem", for logs, metrics and the audit trail. It is the last
// part of the front's name for it.
func CallOf(ctx context.Context) string {
	name, ok := runtime.RPCMethod(ctx) // first, since the gateway has a transport for gRPC too, without a name
	if !ok {
		name, ok = grpc.Method(ctx)
	}
	if !ok {
		return unknownMethod
	}
	return shortName(name)
}

// shortName is the method of "/package.Service/Method".
func shortName(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }

// failed turns an error into the answer for the client, and counts it.
func (s *service) failed(ctx context.Context, by front, method string, start time.Time, err error) *failure {
	f := classify(ctx, err)
	s.metrics.observe(by, method, f.code, f.reason, time.Since(start))
	s.report(ctx, method, f, err)
	return f
}

// report logs what clients are not told. If the backend did not answer or refused, it has the backend probed.
func (s *service) report(ctx context.Context, method string, f *failure, err error) {
	switch {
	case f.unexpected():
		s.log.ErrorContext(ctx, "call failed", "method", method, "reason", f.reason, "error", err)
	case f.reason == unavailable.reason:
		s.log.DebugContext(ctx, "backend did not do it", "method", method, "error", err)
		s.callFailed(err) // which warns
	}
}

// keyed is a request about one cart.
type keyed interface {
	GetIdentifier() string
	GetInstance() string
}

// changing is a request that changes one cart.
type changing interface {
	keyed
	GetIfMatch() string
	GetIfNoneMatch() string
	GetLease() string
	GetRelease() bool
	GetMinimal() bool
	GetIdempotencyKey() string
}

func keyOf(r keyed) (cart.Key, error) {
	k := cart.Key{Identifier: r.GetIdentifier(), Instance: r.GetInstance()}
	if err := k.Validate(); err != nil {
		return k, err
	}
	if r, ok := r.(interface{ GetKey() string }); ok {
		return k, cart.ValidateName("key", r.GetKey())
	}
	return k, nil
}

// unconditional refuses the preconditions and the lease of a call that cannot honour them. To ignore one would change
// what the client wanted to protect.
func unconditional(ctx context.Context) error { return without(ctx, "the call is about many carts") }

// without refuses the headers that a call cannot honour.
func without(ctx context.Context, why string) error {
	c := httpCallOf(ctx)
	if c == nil {
		return nil
	}
	for _, h := range []struct{ name, value string }{
		{"If-Match", c.ifMatch}, {"If-None-Match", c.ifNoneMatch}, {headerLease, c.lease}, {headerRelease, c.release}, {headerKey, c.key},
	} {
		if h.value != "" {
			return cart.Invalidf(h.name, "is not possible here: %s", why)
		}
	}
	return nil
}

// preconditionOf reads what a change demands, from the headers or the message.
func preconditionOf(ctx context.Context, r changing) (cart.Precondition, error) {
	if c := httpCallOf(ctx); c != nil {
		return cart.ParsePrecondition(c.ifMatch, c.ifNoneMatch)
	}
	return cart.ParsePrecondition(r.GetIfMatch(), r.GetIfNoneMatch())
}

// read serves a read of scope.
func read[R any](ctx context.Context, s *service, r keyed, scope cart.Part, answer func(cart.Key, *cart.Cart) R) (R, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (none R, err error) {
		key, err := keyOf(r)
		if err != nil {
			return none, err
		}
		c, err := b.Coordinator.Read(ctx, key)
		if err != nil {
			return none, err
		}
		if h := httpCallOf(ctx); h != nil && h.ifMatch != "" {
			p, err := cart.ParsePrecondition(h.ifMatch, "")
			if err == nil {
				err = p.Check(c, scope)
			}
			if err != nil {
				return none, err
			}
		}
		tell(ctx, c)
		return answer(key, c), nil
	})
}

// change serves a change of scope; verb makes the change from the request.
func change[R proto.Message](ctx context.Context, s *service, r changing, scope cart.Part, verb func(cart.Limits) (cart.Verb, error), answer func(cart.Key, *cart.Cart) R) (R, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (none R, err error) {
		key, ch, err := demand(ctx, r, scope)
		if err != nil {
			return none, err
		}
		if ch.Verb, err = verb(b.Limits); err != nil {
			return none, err
		}
		res, err := b.Coordinator.Change(ctx, key, ch)
		if err != nil {
			return none, err
		}
		return answered(ctx, r, res, answer(key, res.Cart)), nil
	})
}

// demand reads which cart a change is about and what must hold for it.
func demand(ctx context.Context, r changing, scope cart.Part) (cart.Key, lock.Change, error) {
	key, err := keyOf(r)
	if err != nil {
		return cart.Key{}, lock.Change{}, err
	}
	p, err := preconditionOf(ctx, r)
	if err != nil {
		return cart.Key{}, lock.Change{}, err
	}
	token, release, err := leaseOf(ctx, r)
	if err != nil {
		return cart.Key{}, lock.Change{}, err
	}
	request, err := requestOf(ctx, r)
	return key, lock.Change{If: p, Scope: scope, Lease: token, Release: release, Request: request}, err
}
