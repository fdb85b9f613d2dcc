package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// maxParts bounds the parts of a lease. A client that needs more can lock the whole cart.
const maxParts = 64

func (s *service) AcquireLease(ctx context.Context, r *pb.AcquireLeaseRequest) (*pb.LeaseGrant, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.LeaseGrant, error) {
		key, ask, err := leaseRequest(b, r)
		if err != nil {
			return nil, err
		}
		ask.Token = r.Lease
		if c := httpCallOf(ctx); c != nil {
			ask.Token, c.lease = c.lease, ""
		}
		if err := without(ctx, notOnLocks); err != nil {
			return nil, err
		}
		start := time.Now()
		l, err := b.Coordinator.AcquireLease(ctx, key, ask)
		s.metrics.waited(err, time.Since(start))
		if err != nil {
			return nil, err
		}
		tell(ctx, l.Cart)
		return grantAnswer(key, l), nil
	})
}

// notOnLocks is why most headers are refused where a lease is acquired.
const notOnLocks = "it is for calls that change a cart"

func (s *service) GetLease(ctx context.Context, r *pb.GetLeaseRequest) (*pb.Lease, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.Lease, error) {
		key, err := tokenOf(r)
		if err != nil {
			return nil, err
		}
		if err := without(ctx, "a lease has no etag"); err != nil {
			return nil, err
		}
		return leaseAnswer(b.Coordinator.Lease(ctx, key, r.Token))
	})
}

func (s *service) RenewLease(ctx context.Context, r *pb.RenewLeaseRequest) (*pb.Lease, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.Lease, error) {
		key, err := tokenOf(r)
		if err != nil {
			return nil, err
		}
		d, err := durationOf("leaseDuration", r.LeaseDuration, 0, lock.MinLeaseDuration, lock.MaxLeaseDuration)
		if err != nil {
			return nil, err
		}
		if err := without(ctx, notOnLocks); err != nil {
			return nil, err
		}
		return leaseAnswer(b.Coordinator.RenewLease(ctx, key, r.Token, d))
	})
}

func (s *service) ReleaseLease(ctx context.Context, r *pb.ReleaseLeaseRequest) (*pb.ReleaseLeaseResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.ReleaseLeaseResponse, error) {
		key, err := tokenOf(r)
		if err != nil {
			return nil, err
		}
		if err := without(ctx, notOnLocks); err != nil {
			return nil, err
		}
		return &pb.ReleaseLeaseResponse{}, b.Coordinator.ReleaseLease(ctx, key, r.Token)
	})
}

func (s *service) HoldLease(r *pb.HoldLeaseRequest, stream grpc.ServerStreamingServer[pb.LeaseGrant]) error {
	if f := s.hold(stream.Context(), r, stream.Send); f != nil {
		return f
	}
	return nil
}

// hold serves HoldLease for both fronts. The request timeout bounds only its wait.
func (s *service) hold(ctx context.Context, r *pb.HoldLeaseRequest, send func(*pb.LeaseGrant) error) *failure {
	start, front, method := time.Now(), frontOf(ctx), CallOf(ctx)
	l := s.backends.enter()
	leave := sync.OnceFunc(l.leave)
	defer leave()
	s.metrics.inFlight.Add(1)
	defer s.metrics.inFlight.Add(-1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.stopping:
			cancel(lock.ErrDraining)
		case <-ctx.Done():
		}
	}()

	key, ask, err := leaseRequest(&l.Backend, r)
	if err == nil {
		err = without(ctx, "the stream takes a lease of its own")
	}
	granted := false
	if err == nil {
		asked := time.Now()
		err = l.Coordinator.HoldLease(ctx, key, ask, func(l lock.Lease) error {
			if !granted {
				s.metrics.waited(nil, time.Since(asked))
			}
			granted = true
			// From here on the coordinator counts this call itself. If the call kept its backend for the life of the
			// lease, the swap of backends would have to wait.
			leave()
			if l.Cart != nil {
				tell(ctx, l.Cart)
			}
			return send(grantAnswer(key, l))
		})
		if !granted {
			s.metrics.waited(err, time.Since(asked))
		}
	}
	switch {
	case err == nil:
		s.metrics.observe(front, method, codes.OK, "", time.Since(start))
		return nil
	case errors.Is(context.Cause(ctx), lock.ErrDraining):
		err = lock.ErrDraining
	case granted && errors.Is(err, lock.ErrDraining):
		// Its backend was replaced: the lease does not protect what is served now.
		err = storage.ErrLockLost
	}
	return s.failed(ctx, front, method, start, err)
}

// asksLease is a request for a lease.
type asksLease interface {
	keyed
	GetParts() []string
	GetWaitTimeout() *durationpb.Duration
	GetLeaseDuration() *durationpb.Duration
	GetHolder() string
}

func leaseRequest(b *Backend, r asksLease) (key cart.Key, ask lock.LeaseRequest, err error) {
	if key, err = keyOf(r); err != nil {
		return key, ask, err
	}
	if ask.Parts, err = partsOf("parts", r.GetParts()); err != nil {
		return key, ask, err
	}
	if ask.Wait, err = durationOf("waitTimeout", r.GetWaitTimeout(), -1, 0, b.RequestTimeout); err != nil {
		return key, ask, err
	}
	if ask.Duration, err = durationOf("leaseDuration", r.GetLeaseDuration(), 0, lock.MinLeaseDuration, lock.MaxLeaseDuration); err != nil {
		return key, ask, err
	}
	if ask.Holder = r.GetHolder(); ask.Holder != "" {
		err = cart.ValidateName("holder", ask.Holder)
	}
	return key, ask, err
}

// partsOf reads what to lock; no names mean the whole cart.
func partsOf(field string, names []string) ([]cart.Part, error) {
	if len(names) == 0 {
		return []cart.Part{cart.PartAll}, nil
	}
	if len(names) > maxParts {
		return nil, cart.Invalidf(field, "has %d parts, at most %d are allowed: leave it out to lock the whole cart", len(names), maxParts)
	}
	if len(names) == 1 && names[0] == string(cart.PartAll) {
		return []cart.Part{cart.PartAll}, nil
	}
	parts := make([]cart.Part, 0, len(names))
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		where := fmt.Sprintf("%s[%d]", field, i)
		if name == string(cart.PartAll) {
			return nil, cart.Invalidf(where, `"*" is the whole cart: it must stand alone`)
		}
		p, err := cart.ParsePart(where, name)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, cart.Invalidf(where, "%q is there twice", shown([]byte(name)))
		}
		seen[name] = true
		parts = append(parts, p)
	}
	return parts, nil
}

// durationOf reads a duration; it returns unset if d is nil.
func durationOf(field string, d *durationpb.Duration, unset, least, most time.Duration) (time.Duration, error) {
	if d == nil {
		return unset, nil
	}
	v := d.AsDuration()
	if d.CheckValid() != nil || v < least || v > most {
		return 0, cart.Invalidf(field, "must be between %s and %s, is %s", least, most, v)
	}
	return v, nil
}

// named is a request about one lease.
type named interface {
	keyed
	GetToken() string
}

func tokenOf(r named) (cart.Key, error) {
	key, err := keyOf(r)
	if err != nil {
		return key, err
	}
	return key, cart.ValidateName("token", r.GetToken())
}

// leaseOf reads under which lease a change is to be made, from the headers or the message.
func leaseOf(ctx context.Context, r changing) (token string, release bool, err error) {
	field, other := "release", "lease"
	token, release = r.GetLease(), r.GetRelease()
	if c := httpCallOf(ctx); c != nil {
		field, other, token = headerRelease, headerLease, c.lease
		switch c.release {
		case "", "false":
			release = false
		case "true":
			release = true
		default:
			return "", false, cart.Invalidf(field, `must be "true" or "false", not %q`, shown([]byte(c.release)))
		}
	}
	if release && token == "" {
		return "", false, cart.Invalidf(field, "gives back a lease, and none is named: set %s too", other)
	}
	return token, release, nil
}

func grantAnswer(key cart.Key, l lock.Lease) *pb.LeaseGrant {
	g := &pb.LeaseGrant{Token: l.Token, Fence: l.Fence, ExpiresAt: timeAnswer(l.Expires), Parts: partNames(l.Parts), Holder: l.Holder}
	if l.Cart != nil {
		g.Cart = cartAnswer(key, l.Cart)
	}
	return g
}

func leaseAnswer(l lock.Lease, err error) (*pb.Lease, error) {
	if err != nil {
		return nil, err
	}
	return &pb.Lease{Token: l.Token, Fence: l.Fence, ExpiresAt: timeAnswer(l.Expires), Parts: partNames(l.Parts), Holder: l.Holder}, nil
}

func partNames(parts []cart.Part) []string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = string(p)
	}
	return names
}
