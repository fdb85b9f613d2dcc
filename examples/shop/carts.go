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

// requestTimeout is longer than a sidecar waits for a lock (5 s) and for its backend, so that it is the sidecar that
// says what went wrong.
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

// cart is what the shop looks at in a cart.
type cart struct {
	Version int64           `json:"version"`
	Items   map[string]item `json:"items"`
}

// item is one line of a cart. Price is the text of a JSON number, which the sidecar keeps as it is: 19.90 stays 19.90.
type item struct {
	ID       string      `json:"id"`
	Name     string      `json:"name,omitempty"`
	Price    json.Number `json:"price,omitempty"`
	Quantity int         `json:"quantity"`
}

// problem is what the sidecar, or the want of one, said instead of doing what it was asked to.
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
	case unreachable, "INVALID", "TOO_LARGE", "NOT_FOUND", "CONFLICT", "LOCK_TIMEOUT", "BUSY", "FORBIDDEN", "UNSUPPORTED":
		return false
	}
	return true
}

func cartPath(identifier string) string {
	return "/v1/carts/" + url.PathEscape(identifier) + "/default"
}

func (c *carts) get(ctx context.Context, identifier string) (cart, error) {
	var v cart
	raw, err := c.do(ctx, http.MethodGet, cartPath(identifier), nil)
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	return v, err
}

// add puts an item into the cart; one that is there gets more by its quantity.
func (c *carts) add(ctx context.Context, identifier string, i item) ([]byte, error) {
	return c.do(ctx, http.MethodPost, cartPath(identifier)+"/items", map[string]item{"item": i})
}

// change adds delta to the quantity of an item, which goes when nothing is left of it.
func (c *carts) change(ctx context.Context, identifier, id string, delta int) error {
	_, err := c.do(ctx, http.MethodPatch, cartPath(identifier)+"/items/"+url.PathEscape(id), map[string]int{"quantityDelta": delta})
	return err
}

func (c *carts) remove(ctx context.Context, identifier, id string) error {
	_, err := c.do(ctx, http.MethodDelete, cartPath(identifier)+"/items/"+url.PathEscape(id), nil)
	return err
}

func (c *carts) clear(ctx context.Context, identifier string) error {
	_, err := c.do(ctx, http.MethodPost, cartPath(identifier)+":clear", nil)
	return err
}

// do makes one request, once, and returns the body of a good answer. Any other end is a *problem.
func (c *carts) do(ctx context.Context, method, path string, body any) ([]byte, error) {
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
