package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// checkTimeout is how long a sidecar has to answer all of the check.
const checkTimeout = 30 * time.Second

// check proves, from within a pod that the operator gave a sidecar, that this sidecar keeps carts: it puts one, reads
// it and removes it again. It is what `helm test` runs.
func check(ctx context.Context, url string, stdout io.Writer) error {
	if url == "" {
		return errors.New("SIDECART_HTTP_URL is not set: this pod was given no sidecar, so the webhook did not meet it; " +
			"see its label sidecart.dev/inject and the MutatingWebhookConfiguration")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	start := time.Now()
	// A name that nobody else uses, since the other carts of the CartStorage may be real ones.
	cart := url + "/v1/carts/sidecart-check-" + rand.Text() + "/default"
	if _, err := call(ctx, http.MethodPost, cart+"/items", `{"item": {"id": "check", "name": "Check", "price": 1, "quantity": 2}}`); err != nil {
		return err
	}
	read, err := call(ctx, http.MethodGet, cart, "")
	if err != nil {
		return err
	}
	var got struct {
		Items map[string]struct{ Quantity int }
	}
	if err := json.Unmarshal(read, &got); err != nil || got.Items["check"].Quantity != 2 {
		return fmt.Errorf("a cart with 2 of an item was put, and %s was read", bytes.TrimSpace(read))
	}
	if _, err := call(ctx, http.MethodDelete, cart, ""); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "the sidecar at %s keeps carts: one was put, read and removed in %s\n", url, time.Since(start).Round(time.Millisecond))
	return err
}

// call returns the body of the answer to one call, which must succeed.
func call(ctx context.Context, method, url, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(answer))
	}
	return answer, err
}
