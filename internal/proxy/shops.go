package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"math"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/proto/hipstershop"
	"github.com/sidecart/sidecart/proto/oteldemo"
)

// The cart services of two demo shops, over the same carts and verbs as the rest of the API. They differ only in the
// name of their package.

type hipsterFront struct {
	hipstershop.UnimplementedCartServiceServer
	*service
}

type otelFront struct {
	oteldemo.UnimplementedCartServiceServer
	*service
}

func (f hipsterFront) AddItem(ctx context.Context, r *hipstershop.AddItemRequest) (*hipstershop.Empty, error) {
	return shopAdd[hipstershop.Empty](ctx, f.service, r.GetUserId(), r.GetItem())
}

func (f otelFront) AddItem(ctx context.Context, r *oteldemo.AddItemRequest) (*oteldemo.Empty, error) {
	return shopAdd[oteldemo.Empty](ctx, f.service, r.GetUserId(), r.GetItem())
}

func (f hipsterFront) EmptyCart(ctx context.Context, r *hipstershop.EmptyCartRequest) (*hipstershop.Empty, error) {
	return shopEmpty[hipstershop.Empty](ctx, f.service, r.GetUserId())
}

func (f otelFront) EmptyCart(ctx context.Context, r *oteldemo.EmptyCartRequest) (*oteldemo.Empty, error) {
	return shopEmpty[oteldemo.Empty](ctx, f.service, r.GetUserId())
}

func (f hipsterFront) GetCart(ctx context.Context, r *hipstershop.GetCartRequest) (*hipstershop.Cart, error) {
	return shopGet(ctx, f.service, r.GetUserId(), func(items []cart.ItemQuantity) *hipstershop.Cart {
		c := &hipstershop.Cart{UserId: r.GetUserId()}
		for _, i := range items {
			c.Items = append(c.Items, &hipstershop.CartItem{ProductId: i.ID, Quantity: shopQuantity(i.Quantity)})
		}
		return c
	})
}

func (f otelFront) GetCart(ctx context.Context, r *oteldemo.GetCartRequest) (*oteldemo.Cart, error) {
	return shopGet(ctx, f.service, r.GetUserId(), func(items []cart.ItemQuantity) *oteldemo.Cart {
		c := &oteldemo.Cart{UserId: r.GetUserId()}
		for _, i := range items {
			c.Items = append(c.Items, &oteldemo.CartItem{ProductId: i.ID, Quantity: shopQuantity(i.Quantity)})
		}
		return c
	})
}

// shopQuantity cuts a quantity to the 32 bits of these shops.
func shopQuantity(q int64) int32 { return int32(min(q, math.MaxInt32)) }

// shopInstance names the one cart of a user that these shops know.
const shopInstance = "default"

func shopKey(user string) (cart.Key, error) {
	return cart.Key{Identifier: user, Instance: shopInstance}, cart.ValidateName("user_id", user)
}

// shopItem is an item of either shop.
type shopItem interface {
	GetProductId() string
	GetQuantity() int32
}

func shopAdd[Empty any](ctx context.Context, s *service, user string, item shopItem) (*Empty, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*Empty, error) {
		key, err := shopKey(user)
		if err != nil {
			return nil, err
		}
		if err := cart.ValidateName("item.product_id", item.GetProductId()); err != nil {
			return nil, err
		}
		text, err := json.Marshal(struct {
			ID       string `json:"id"`
			Quantity int32  `json:"quantity"`
		}{item.GetProductId(), item.GetQuantity()})
		if err != nil {
			return nil, err
		}
		verb, err := addItem("item", text, b.Limits)
		if err != nil {
			return nil, err
		}
		_, err = b.Coordinator.Change(ctx, key, lock.Change{Verb: verb, Scope: cart.PartItems})
		return new(Empty), err
	})
}

func shopGet[Cart any](ctx context.Context, s *service, user string, answer func([]cart.ItemQuantity) *Cart) (*Cart, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*Cart, error) {
		key, err := shopKey(user)
		if err != nil {
			return nil, err
		}
		c, err := b.Coordinator.Read(ctx, key)
		if err != nil {
			return nil, err
		}
		items := c.Quantities()
		s.seen.note(user, b.CheckoutWindow, items, c.PartETag(cart.PartItems))
		return answer(items), nil
	})
}

// shopEmpty removes all items, or those that a checkout has seen. Parts of a cart that these shops do not know stay.
func shopEmpty[Empty any](ctx context.Context, s *service, user string) (*Empty, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*Empty, error) {
		key, err := shopKey(user)
		if err != nil {
			return nil, err
		}
		ch := lock.Change{Verb: cart.Put{Items: new(cart.Object)}, Scope: cart.PartItems}
		took := func(error) {}
		if b.CheckoutWindow > 0 {
			if seen := s.seen.take(user); seen != nil {
				ch.Verb, took = cart.TakeItems{Items: seen.items}, seen.took
				if seen.unsure {
					ch.If.IfMatch = []string{seen.etag}
				}
			}
		}
		_, err = b.Coordinator.Change(ctx, key, ch)
		took(err)
		return new(Empty), err
	})
}

// unchanged reports whether an error says that nothing was changed.
func unchanged(err error) bool {
	for _, e := range []error{cart.ErrConflict, cart.ErrTooLarge, storage.ErrLockTimeout, lock.ErrBusy, errBusy} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
