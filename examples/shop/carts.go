package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// requestTimeout is longer than a sidecar waits for a lock (5 s) and for its backend, so that the sidecar can say what
// went wrong.
const requestTimeout = 15 * time.Second

// carts are those of the sidecar. It may be used by several goroutines.
type carts struct {
	url    string
	client *http.Client
}

func newCarts(url string) *carts {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // the sidecar is on this very host
	transport.MaxIdleConnsPerHost = 256
	transport.MaxIdleConns = 0
	return &carts{url: url, client: &http.Client{Timeout: requestTimeout, Transport: transport}}
}

// cart has the fields of a cart that the shop uses.
type cart struct {
	Version int64           `json:"version"`
	ETag    string          `json:"etag"`
	Items   map[string]item `json:"items"`
}

// item is one line of a cart. Price is the text of a JSON number, which the sidecar keeps as it is: 19.90 stays 19.90.
type item struct {
	ID       string      `json:"id"`
	Name     string      `json:"name,omitempty"`
	Price    json.Number `json:"price,omitempty"`
	Quantity int         `json:"quantity"`
}

// order has the fields of a checkout that the shop uses: a snapshot of the cart, for which the shopper is asked to pay.
type order struct {
	ID    string          `json:"id"`
	State string          `json:"state"`
	Items map[string]item `json:"items"`
}

// problem says why the sidecar did not do what it was asked to, or that there is no sidecar.
type problem struct {
	Reason     string `json:"reason"` // LOCK_TIMEOUT and so on, or one of the two below
	Message    string `json:"message"`
	status     int    // that of the answer; 502 without one
	retryAfter string
}

const (
	// unreachable: nobody took the connection, so nothing was changed.
	unreachable = "UNREACHABLE"
	// noAnswer: the request was sent and not answered, so the change may have been made.
	noAnswer = "NO_ANSWER"
)

func (p *problem) Error() string { return fmt.Sprintf("sidecar: %s: %s", p.Reason, p.Message) }

// uncertain says that the change may have been made all the same. The reasons that exclude it are those that Sidecart's
// API lists as "nothing was changed".
func (p *problem) uncertain() bool {
	switch p.Reason {
	case unreachable, "INVALID", "TOO_LARGE", "NOT_FOUND", "CONFLICT", "LOCK_TIMEOUT", "BUSY", "FORBIDDEN", "UNSUPPORTED",
		"IDEMPOTENCY_KEY_REUSED", "EMPTY_CART", "ALREADY_SETTLED":
		return false
	}
	return true
}

func cartPath(identifier string) string {
	return "/v1/carts/" + url.PathEscape(identifier) + "/default"
}

func (c *carts) get(ctx context.Context, identifier string) (cart, error) {
	var v cart
	raw, err := c.do(ctx, "", http.MethodGet, cartPath(identifier), nil)
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	return v, err
}

// add puts an item into the cart; if it is there already, its quantity grows. key is the name of this request, by which
// the sidecar recognises a repeat; "" for none.
func (c *carts) add(ctx context.Context, key, identifier string, i item) ([]byte, error) {
	return c.surely(ctx, key, http.MethodPost, cartPath(identifier)+"/items", map[string]item{"item": i})
}

// change adds delta to the quantity of an item. The item is removed if nothing is left of it.
func (c *carts) change(ctx context.Context, key, identifier, id string, delta int) error {
	path := cartPath(identifier) + "/items/" + url.PathEscape(id)
	_, err := c.surely(ctx, key, http.MethodPatch, path, map[string]int{"quantityDelta": delta})
	return err
}

func (c *carts) remove(ctx context.Context, key, identifier, id string) error {
	_, err := c.surely(ctx, key, http.MethodDelete, cartPath(identifier)+"/items/"+url.PathEscape(id), nil)
	return err
}

// checkout takes a snapshot of the cart for the order with this number, and changes nothing in it. The number makes a
// repeat harmless.
func (c *carts) checkout(ctx context.Context, identifier, number string) error {
	_, err := c.surely(ctx, number, http.MethodPost, cartPath(identifier)+":checkout", map[string]string{"checkoutId": number})
	return err
}

// settle takes exactly what was ordered from the cart, or gives the order up. A repeat changes nothing.
func (c *carts) settle(ctx context.Context, identifier, number, outcome string) error {
	body := map[string]string{"checkoutId": number, "outcome": outcome}
	_, err := c.surely(ctx, number+"/"+outcome, http.MethodPost, cartPath(identifier)+":settle", body)
	return err
}

func (c *carts) order(ctx context.Context, identifier, number string) (order, error) {
	var v order
	raw, err := c.do(ctx, "", http.MethodGet, cartPath(identifier)+"/checkouts/"+url.PathEscape(number), nil)
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	return v, err
}

// events opens the stream of events of a cart, from the event after the one that the browser had last on.
func (c *carts) events(ctx context.Context, identifier, last string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+cartPath(identifier)+"/events", nil)
	if err != nil {
		return nil, err
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	endless := http.Client{Transport: c.client.Transport} // a stream lasts as long as the page
	res, err := endless.Do(req)
	if err != nil {
		return nil, unanswered(err)
	}
	return res, nil
}

// attempts is how often a request with a key is sent before the shopper is told that its outcome is unknown.
const attempts = 3

// surely makes a change. If it has a key and nobody knows whether it was made, it is sent again: the sidecar makes a
// request with a key once, however often it comes.
func (c *carts) surely(ctx context.Context, key, method, path string, body any) (raw []byte, err error) {
	for i := range attempts {
		if i > 0 {
			select {
			case <-time.After(time.Duration(i) * 100 * time.Millisecond):
			case <-ctx.Done():
				return nil, err
			}
		}
		raw, err = c.do(ctx, key, method, path, body)
		var p *problem
		if key == "" || !errors.As(err, &p) || !p.uncertain() {
			break
		}
	}
	return raw, err
}

// do makes one request, once, under key unless that is "", and returns the body of a good answer. Every other result is
// a *problem.
func (c *carts) do(ctx context.Context, key, method, path string, body any) ([]byte, error) {
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, unanswered(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, unanswered(err)
	}
	if res.StatusCode == http.StatusOK {
		return raw, nil
	}
	p := &problem{status: res.StatusCode, retryAfter: res.Header.Get("Retry-After")}
	if json.Unmarshal(raw, p) != nil || p.Reason == "" {
		p.Reason, p.Message = fmt.Sprintf("HTTP_%d", res.StatusCode), string(raw[:min(len(raw), 200)])
	}
	return nil, p
}

func unanswered(err error) *problem {
	p := &problem{Reason: noAnswer, Message: err.Error(), status: http.StatusBadGateway}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		p.Reason = unreachable
	}
	return p
}
