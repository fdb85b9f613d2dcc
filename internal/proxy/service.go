package proxy

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// service is the handlers behind both fronts. Interceptors of gRPC do not run for
// calls of the gateway, so that what every call needs is in [call].
type service struct {
	pb.UnimplementedCartServiceServer

	lanes   lanes
	metrics *metrics
	log     *slog.Logger
	// suspect is told that the backend did not answer.
	suspect func()
}

// httpCall is what the HTTP front knows of a call and a request message does
// not.
type httpCall struct {
	ifMatch, ifNoneMatch string
	reads                bool   // GET or HEAD
	method               string // the name of the call, once it is known
}

type httpCallKey struct{}

// httpCallOf is nil for a call that came by gRPC.
func httpCallOf(ctx context.Context) *httpCall {
	c, _ := ctx.Value(httpCallKey{}).(*httpCall)
	return c
}

// call runs one call on the current backend: it bounds its time, maps its error
// and counts it.
func call[R any](ctx context.Context, s *service, method string, run func(context.Context, *Backend) (R, error)) (R, error) {
	start := time.Now()
	front := frontGRPC
	if httpCallOf(ctx) != nil {
		front = frontHTTP
	}
	l := s.lanes.enter()
	defer l.leave()
	s.metrics.inFlight.Add(1)
	defer s.metrics.inFlight.Add(-1)

	ctx, cancel := context.WithTimeoutCause(ctx, l.RequestTimeout, errRequestTimeout)
	defer cancel()
	answer, err := run(ctx, &l.Backend)
	if err == nil {
		s.metrics.observe(front, method, codes.OK, "", time.Since(start))
		return answer, nil
	}
	f := classify(ctx, err)
	s.metrics.observe(front, method, f.code, f.reason, time.Since(start))
	s.report(ctx, method, f, err)
	var none R
	return none, f
}

// report logs what clients are not told, and has the backend looked at when it
// did not answer.
func (s *service) report(ctx context.Context, method string, f *failure, err error) {
	switch {
	case f.unexpected():
		s.log.ErrorContext(ctx, "call failed", "method", method, "reason", f.reason, "error", err)
	case f.reason == unavailable.reason:
		s.log.DebugContext(ctx, "backend does not answer", "method", method, "error", err)
		s.suspect()
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

// unconditional refuses the preconditions of a call that cannot keep them: to
// ignore one would change what the client wanted to protect.
func unconditional(ctx context.Context) error {
	switch c := httpCallOf(ctx); {
	case c != nil && c.ifMatch != "":
		return cart.Invalidf("If-Match", "is not possible here: the call is about many carts")
	case c != nil && c.ifNoneMatch != "":
		return cart.Invalidf("If-None-Match", "is not possible here: the call is about many carts")
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
func read[R any](ctx context.Context, s *service, method string, r keyed, scope cart.Part, answer func(cart.Key, *cart.Cart) R) (R, error) {
	return call(ctx, s, method, func(ctx context.Context, b *Backend) (none R, err error) {
		key, err := keyOf(r)
		if err != nil {
			return none, err
		}
		c, err := b.Engine.Read(ctx, key)
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
		return answer(key, c), nil
	})
}

// change serves a change of scope; verb makes it of the request.
func change[R any](ctx context.Context, s *service, method string, r changing, scope cart.Part, verb func(cart.Limits) (cart.Verb, error), answer func(cart.Key, *cart.Cart) R) (R, error) {
	return call(ctx, s, method, func(ctx context.Context, b *Backend) (none R, err error) {
		key, ch, err := demand(ctx, r, scope)
		if err != nil {
			return none, err
		}
		if ch.Verb, err = verb(b.Limits); err != nil {
			return none, err
		}
		res, err := b.Engine.Change(ctx, key, ch)
		if err != nil {
			return none, err
		}
		return answer(key, res.Cart), nil
	})
}

// demand reads which cart a change is about and what it demands of it.
func demand(ctx context.Context, r changing, scope cart.Part) (cart.Key, lock.Change, error) {
	key, err := keyOf(r)
	if err != nil {
		return cart.Key{}, lock.Change{}, err
	}
	p, err := preconditionOf(ctx, r)
	return key, lock.Change{If: p, Scope: scope}, err
}
