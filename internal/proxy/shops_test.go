package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
	"github.com/sidecart/sidecart/proto/hipstershop"
	"github.com/sidecart/sidecart/proto/oteldemo"
)

// both are the clients of the two shops, of which the second calls what the first has for messages.
func both(w *world) map[string]hipstershop.CartServiceClient {
	return map[string]hipstershop.CartServiceClient{"hipstershop": hipstershop.NewCartServiceClient(w.conn), "oteldemo": otel{oteldemo.NewCartServiceClient(w.conn)}}
}

// TestShopsFromNode calls both services with a client of another language, which knows their names and numbers.
func TestShopsFromNode(t *testing.T) {
	for _, shop := range []string{"hipstershop", "oteldemo"} {
		t.Run(shop, func(t *testing.T) {
			b := realBackend(t)
			b.CheckoutWindow = time.Minute
			w := start(t, b)
			script := []struct{ call, want string }{
				{`["GetCart", {"user_id": "u1"}]`, `{"items":[],"user_id":"u1"}`},
				{`["AddItem", {"user_id": "u1", "item": {"product_id": "OLJCESPC7Z", "quantity": 2}}]`, `{}`},
				{`["AddItem", {"user_id": "u1", "item": {"product_id": "mug", "quantity": 1}}]`, `{}`},
				{`["AddItem", {"user_id": "u1", "item": {"product_id": "OLJCESPC7Z", "quantity": 3}}]`, `{}`},
				{`["GetCart", {"user_id": "u1"}]`, `{"items":[{"product_id":"OLJCESPC7Z","quantity":5},{"product_id":"mug","quantity":1}],"user_id":"u1"}`},
				{`["AddItem", {"user_id": "u1", "item": {"product_id": "mug", "quantity": 4}}]`, `{}`},
				{`["EmptyCart", {"user_id": "u1"}]`, `{}`},
				{`["GetCart", {"user_id": "u1"}]`, `{"items":[{"product_id":"mug","quantity":4}],"user_id":"u1"}`},
				{`["EmptyCart", {"user_id": "u1"}]`, `{}`},
				{`["GetCart", {"user_id": "u1"}]`, `{"items":[],"user_id":"u1"}`},
				{`["AddItem", {"user_id": "u1", "item": {"product_id": "mug", "quantity": 0}}]`, `{"code":3,"details":"item.quantity: must be a whole number from 1 to 10000, not 0"}`},
				{`["AddItem", {"user_id": "u1", "item": {"product_id": "mug", "quantity": -1}}]`, `{"code":3,"details":"item.quantity: must be a whole number from 1 to 10000, not -1"}`},
				{`["AddItem", {"user_id": "u1", "item": {"product_id": "mug", "quantity": 10001}}]`, `{"code":3,"details":"item.quantity: must be a whole number from 1 to 10000, not 10001"}`},
				{`["AddItem", {"user_id": "u1", "item": {"quantity": 1}}]`, `{"code":3,"details":"item.product_id: must not be empty"}`},
				{`["AddItem", {"user_id": "u1"}]`, `{"code":3,"details":"item.product_id: must not be empty"}`},
				{`["AddItem", {"item": {"product_id": "mug", "quantity": 1}}]`, `{"code":3,"details":"user_id: must not be empty"}`},
				{`["GetCart", {}]`, `{"code":3,"details":"user_id: must not be empty"}`},
				{`["EmptyCart", {}]`, `{"code":3,"details":"user_id: must not be empty"}`},
				{`["GetCart", {"user_id": "u1"}]`, `{"items":[],"user_id":"u1"}`},
			}
			var calls, want []string
			for _, row := range script {
				calls, want = append(calls, row.call), append(want, row.want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", "testdata/shop.js", "../../proto/"+shop+"/cart.proto", shop, w.Addr("grpc"))
			cmd.Env = append(os.Environ(), "NODE_PATH="+testserver.GRPCJS(t))
			cmd.Stdin = strings.NewReader(strings.Join(calls, "\n"))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, stderr.Bytes())
			}
			if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// otel is the client of the one shop in the messages of the other.
type otel struct{ oteldemo.CartServiceClient }

func (o otel) AddItem(ctx context.Context, r *hipstershop.AddItemRequest, _ ...grpc.CallOption) (*hipstershop.Empty, error) {
	_, err := o.CartServiceClient.AddItem(ctx, &oteldemo.AddItemRequest{UserId: r.UserId, Item: &oteldemo.CartItem{ProductId: r.Item.ProductId, Quantity: r.Item.Quantity}})
	return &hipstershop.Empty{}, err
}

func (o otel) EmptyCart(ctx context.Context, r *hipstershop.EmptyCartRequest, _ ...grpc.CallOption) (*hipstershop.Empty, error) {
	_, err := o.CartServiceClient.EmptyCart(ctx, &oteldemo.EmptyCartRequest{UserId: r.UserId})
	return &hipstershop.Empty{}, err
}

func (o otel) GetCart(ctx context.Context, r *hipstershop.GetCartRequest, _ ...grpc.CallOption) (*hipstershop.Cart, error) {
	c, err := o.CartServiceClient.GetCart(ctx, &oteldemo.GetCartRequest{UserId: r.UserId})
	answer := &hipstershop.Cart{UserId: c.GetUserId()}
	for _, i := range c.GetItems() {
		answer.Items = append(answer.Items, &hipstershop.CartItem{ProductId: i.ProductId, Quantity: i.Quantity})
	}
	return answer, err
}

// shopper calls a shop for one user and fails the test on errors.
type shopper struct {
	t    *testing.T
	shop hipstershop.CartServiceClient
	user string
}

func (s shopper) add(product string, quantity int32) {
	s.t.Helper()
	if _, err := s.shop.AddItem(s.t.Context(), &hipstershop.AddItemRequest{UserId: s.user, Item: &hipstershop.CartItem{ProductId: product, Quantity: quantity}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s shopper) empty() error {
	_, err := s.shop.EmptyCart(s.t.Context(), &hipstershop.EmptyCartRequest{UserId: s.user})
	return err
}

// get is "mug 2, cap 1".
func (s shopper) get() string {
	s.t.Helper()
	c, err := s.shop.GetCart(s.t.Context(), &hipstershop.GetCartRequest{UserId: s.user})
	if err != nil || c.UserId != s.user {
		s.t.Fatalf("%v, %v", c, err)
	}
	var items []string
	for _, i := range c.Items {
		items = append(items, fmt.Sprint(i.ProductId, " ", i.Quantity))
	}
	return strings.Join(items, ", ")
}

// EmptyCart at the end of a checkout takes what the checkout saw, where that is configured, and all items otherwise.
// The carts are those of the rest of the API, whose other documents stay.
func TestShopCheckout(t *testing.T) {
	for _, window := range []time.Duration{0, time.Minute} {
		b := realBackend(t)
		b.CheckoutWindow = window
		w := start(t, b)
		for name, shop := range both(w) {
			s := shopper{t, shop, name}
			must := func(what, got, want string) {
				t.Helper()
				if got != want {
					t.Fatalf("%s, window %s: %s: %q, want %q", name, window, what, got, want)
				}
			}
			if r := w.grpc(ask{rpc: "Batch", params: p{"identifier": name}, body: `{"operations":[{"putItems":{"items":{"mug":{"name":"Mug","quantity":"2"},"pen":{}}}},{"putMetadata":{"key":"note","value":1}}]}`}); r.code != 0 {
				t.Fatal(r.message)
			}
			must("a cart of the API", s.get(), "mug 2, pen 1")
			s.add("mug", 1)
			s.add("cap", 1)
			if err := s.empty(); err != nil {
				t.Fatal(err)
			}
			want := map[time.Duration]string{0: "{}", time.Minute: `{"mug":{"name":"Mug","quantity":1,"id":"mug"},"cap":{"id":"cap","quantity":1}}`}[window]
			r := w.grpc(ask{rpc: "GetItems", params: p{"identifier": name}})
			if !strings.HasPrefix(r.body, `{"items":`+want+`,`) {
				t.Errorf("%s, window %s: %s", name, window, r.body)
			}
			s.add("cap", 2)
			if err := s.empty(); err != nil { // a checkout that calls twice
				t.Fatal(err)
			}
			must("after a second one", s.get(), map[time.Duration]string{0: "", time.Minute: "mug 1, cap 3"}[window])
			if err := s.empty(); err != nil {
				t.Fatal(err)
			}
			must("after the next checkout", s.get(), "")
			if r := w.grpc(ask{rpc: "GetMetadata", params: p{"identifier": name}}); !strings.Contains(r.body, `"note":1`) {
				t.Errorf("%s: %s", name, r.body)
			}
			other := shopper{t, shop, name + "-other"}
			other.add("mug", 1)
			if err := other.empty(); err != nil { // no GetCart before
				t.Fatal(err)
			}
			must("without a GetCart", other.get(), "")
		}
	}
}

// losing is a coordinator that loses answers, with or without the change.
type losing struct {
	Coordinator
	mu   sync.Mutex
	lose error
	made bool
}

func (l *losing) Change(ctx context.Context, key cart.Key, ch lock.Change) (lock.Result, error) {
	l.mu.Lock()
	err, made := l.lose, l.made
	l.lose = nil
	l.mu.Unlock()
	if err != nil && !made {
		return lock.Result{}, err
	}
	r, changed := l.Coordinator.Change(ctx, key, ch)
	return r, errors.Join(changed, err)
}

// A checkout whose EmptyCart was not answered may try again: nothing is taken twice, whether the first was made or not.
func TestShopCheckoutTriesAgain(t *testing.T) {
	lost := fmt.Errorf("commit: %w", storage.ErrUnavailable)
	for name, tc := range map[string]struct {
		lose  error
		made  bool
		add   bool // meanwhile
		again codes.Code
		left  string
	}{
		"not made":                     {lose: lost, again: codes.OK, left: ""},
		"made":                         {lose: lost, made: true, again: codes.Aborted, left: ""},
		"made, and more added":         {lose: lost, made: true, add: true, again: codes.Aborted, left: "mug 1"},
		"not made, and more added":     {lose: lost, add: true, again: codes.Aborted, left: "mug 3"},
		"held off by a lock":           {lose: storage.ErrLockTimeout, again: codes.OK, left: ""},
		"held off, and more was added": {lose: storage.ErrLockTimeout, add: true, again: codes.OK, left: "mug 1"},
	} {
		t.Run(name, func(t *testing.T) {
			b := realBackend(t)
			b.CheckoutWindow = time.Minute
			l := &losing{Coordinator: b.Coordinator}
			b.Coordinator = l
			w := start(t, b)
			s := shopper{t, both(w)["hipstershop"], "u1"}
			s.add("mug", 2)
			s.get()
			l.mu.Lock()
			l.lose, l.made = tc.lose, tc.made
			l.mu.Unlock()
			if err := s.empty(); err == nil {
				t.Fatal("the answer was not lost")
			}
			if tc.add {
				s.add("mug", 1)
			}
			if err := s.empty(); status.Code(err) != tc.again {
				t.Errorf("again: %v, want %s", err, tc.again)
			}
			if got := s.get(); got != tc.left {
				t.Errorf("left are %q, want %q", got, tc.left)
			}
		})
	}
}

// What was seen is forgotten after the window, and when it becomes too much, the oldest first.
func TestSeenCartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &seenCarts{}
		items := []cart.ItemQuantity{{ID: "mug", Quantity: 1}}
		s.note("u1", time.Minute, items, "e")
		time.Sleep(time.Minute)
		if s.take("u1") == nil {
			t.Error("forgotten before its time")
		}
		time.Sleep(time.Nanosecond)
		if s.take("u1") != nil {
			t.Error("kept after its time")
		}
		for range 100_000 { // one user alone
			s.note("u2", time.Minute, items, "e")
		}
		if len(s.of) != 1 || s.order.Len() != 1 || s.size > 1000 {
			t.Errorf("%d of one user, %d bytes", s.order.Len(), s.size)
		}
		large := make([]cart.ItemQuantity, 1000)
		for i := range large {
			large[i].ID = strings.Repeat("x", 255)
		}
		for i := range 100 {
			s.note(fmt.Sprint("large", i), time.Minute, large, "e")
		}
		if s.size > mostSeen || s.take("u2") != nil || s.take("large99") == nil || len(s.of) != s.order.Len() {
			t.Errorf("%d bytes of %d users, u2 %v", s.size, len(s.of), s.take("u2"))
		}
		s.note("u1", 0, items, "e")
		if s.size != 0 || len(s.of) != 0 {
			t.Errorf("%d bytes are kept where nothing is remembered", s.size)
		}
	})
}
