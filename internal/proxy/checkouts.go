package proxy

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	// openCheckout is how long a checkout is open by default. The shortest and the longest duration that a client may
	// ask for follow.
	openCheckout     = time.Hour
	shortestCheckout = 10 * time.Millisecond
	longestCheckout  = 720 * time.Hour
	// maxAttributeBytes bounds the attributes of a checkout. They are stored in a column that is too small for
	// documents.
	maxAttributeBytes = 16 << 10
	// mostMessage is the largest message that gRPC clients accept by default, less room for headers.
	mostMessage = 4<<20 - 64<<10
)

func (s *service) Checkout(ctx context.Context, r *pb.CheckoutRequest) (*pb.CheckoutResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.CheckoutResponse, error) {
		key, ch, err := demand(ctx, r, cart.PartAll)
		if err != nil {
			return nil, err
		}
		ask := lock.CheckoutRequest{ID: r.CheckoutId, Change: ch}
		if ask.ID != "" {
			if err := cart.ValidateName("checkoutId", ask.ID); err != nil {
				return nil, err
			}
		}
		if ask.ExpiresIn, err = checkoutDuration("expiresIn", r.ExpiresIn); err != nil {
			return nil, err
		}
		if ask.Attributes, err = attributes("attributes", r.Attributes); err != nil {
			return nil, err
		}
		res, err := b.Coordinator.Checkout(ctx, key, ask)
		if err != nil {
			return nil, err
		}
		answer := &pb.CheckoutResponse{Checkout: checkoutAnswer(res.Checkout), Cart: cartAnswer(res.Key, res.Cart)}
		fit(answer, answer.Cart)
		return answered(ctx, r, lock.Result{Cart: res.Cart, Repeat: res.Repeat}, answer), nil
	})
}

func (s *service) Settle(ctx context.Context, r *pb.SettleRequest) (*pb.SettleResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.SettleResponse, error) {
		key, ch, err := demand(ctx, r, cart.PartAll)
		if err != nil {
			return nil, err
		}
		if err := cart.ValidateName("checkoutId", r.CheckoutId); err != nil {
			return nil, err
		}
		outcome, err := cart.ParseOutcome("outcome", r.Outcome)
		if err != nil {
			return nil, err
		}
		res, err := b.Coordinator.Settle(ctx, key, r.CheckoutId, outcome, ch)
		if err != nil {
			return nil, err
		}
		answer := &pb.SettleResponse{Settled: res.Settled, Checkout: checkoutAnswer(res.Checkout), Cart: cartAnswer(res.Key, res.Cart)}
		fit(answer, answer.Cart)
		return answered(ctx, r, lock.Result{Cart: res.Cart, Repeat: res.Repeat}, answer), nil
	})
}

func (s *service) GetCheckout(ctx context.Context, r *pb.GetCheckoutRequest) (*pb.Checkout, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.Checkout, error) {
		key, err := ofCheckouts(ctx, r)
		if err != nil {
			return nil, err
		}
		if err := cart.ValidateName("checkoutId", r.CheckoutId); err != nil {
			return nil, err
		}
		k, err := b.Coordinator.GetCheckout(ctx, key, r.CheckoutId)
		if err != nil {
			return nil, err
		}
		return checkoutAnswer(k), nil
	})
}

func (s *service) ListCheckouts(ctx context.Context, r *pb.ListCheckoutsRequest) (*pb.ListCheckoutsResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.ListCheckoutsResponse, error) {
		key, err := ofCheckouts(ctx, r)
		if err != nil {
			return nil, err
		}
		answer, size := &pb.ListCheckoutsResponse{}, 0
		err = b.Coordinator.ListCheckouts(ctx, key, func(k *lock.Checkout) error {
			one := checkoutAnswer(k)
			if n := proto.Size(one); size+n <= maxAnswerBytes {
				size += n
			} else {
				leaveOut(one.ProtoReflect())
				size += proto.Size(one)
			}
			answer.Checkouts = append(answer.Checkouts, one)
			return nil
		})
		return answer, err
	})
}

// ofCheckouts is the cart that a read of checkouts names. A checkout has no etag.
func ofCheckouts(ctx context.Context, r keyed) (cart.Key, error) {
	key, err := keyOf(r)
	if err == nil {
		err = without(ctx, "a checkout has no etag")
	}
	return key, err
}

// checkoutDuration reads how long a checkout is open.
func checkoutDuration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return openCheckout, nil
	}
	v := d.AsDuration()
	if d.CheckValid() != nil || v < shortestCheckout || v > longestCheckout {
		return 0, cart.Invalidf(field, "must be from %s to %d hours", shortestCheckout, int(longestCheckout.Hours()))
	}
	return v, nil
}

// attributes reads the attributes of a checkout, nil for none.
func attributes(field string, raw []byte) ([]byte, error) {
	if raw == nil {
		return nil, nil
	}
	if n := len(raw); n > maxAttributeBytes {
		return nil, cart.TooLargef(field, maxAttributeBytes, int64(n), "are %d bytes, at most %d are allowed", n, maxAttributeBytes)
	}
	o, err := cart.ParseObject(field, raw)
	return o.Bytes(), err
}

// fit leaves out the documents of the cart if the answer would be larger than clients accept.
func fit(answer proto.Message, c *pb.Cart) {
	if proto.Size(answer) > mostMessage {
		leaveOut(c.ProtoReflect())
	}
}

func checkoutAnswer(k *lock.Checkout) *pb.Checkout {
	a := &pb.Checkout{
		Id:         k.ID,
		State:      k.State(time.Now()),
		CartId:     k.CartID,
		Version:    k.Cart.Version,
		Items:      k.Cart.Items.Object.Bytes(),
		Conditions: k.Cart.Conditions.Object.Bytes(),
		Metadata:   k.Cart.MetadataObject(),
		Attributes: k.Attributes,
		CreatedAt:  timeAnswer(k.CreatedAt),
		ExpiresAt:  timeAnswer(k.ExpiresAt),
		SettledAt:  timeAnswer(k.SettledAt),
	}
	if len(a.Attributes) == 0 {
		a.Attributes = []byte("{}")
	}
	return a
}
