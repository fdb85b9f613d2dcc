package main

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// browser is a shopper at a shop.
type browser struct {
	t      *testing.T
	at     string
	client *http.Client
}

func browse(t *testing.T, address string) *browser {
	jar, _ := cookiejar.New(nil)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t, "http://" + address, &http.Client{Jar: jar, Transport: transport, Timeout: deadline}}
}

// see loads the page and checks that it is well formed; it is XML, too.
func (b *browser) see(want int) string {
	b.t.Helper()
	res, text := do(b.t, b.client, http.MethodGet, b.at+"/", "")
	b.check(res, text, want)
	return text
}

func (b *browser) post(path string, form url.Values, want int) (*http.Response, string) {
	b.t.Helper()
	res, text := do(b.t, b.client, http.MethodPost, b.at+path, form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	b.check(res, text, want)
	return res, text
}

func (b *browser) check(res *http.Response, text string, want int) {
	b.t.Helper()
	if res.StatusCode != want {
		b.t.Errorf("%s %s: %d, want %d: %s", res.Request.Method, res.Request.URL.Path, res.StatusCode, want, text)
	}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			b.t.Errorf("the page is not well formed: %v\n%s", err, text)
			return
		}
	}
}

func (b *browser) shopper() string {
	b.t.Helper()
	u, _ := url.Parse(b.at)
	for _, c := range b.client.Jar.Cookies(u) {
		return c.Value
	}
	b.t.Fatal("no cookie")
	return ""
}

func contains(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

func TestShopping(t *testing.T) {
	_, sidecar := startSidecar(t, "--backend", "memory")
	address, _ := startShop(t, sidecar)
	b := browse(t, address)
	contains(t, b.see(200), "It is empty.", "Tea spoon", "4.25")

	_, text := b.post("/items", url.Values{"id": {"mug"}}, 200) // and back to the cart
	contains(t, text, "19.90")
	_, text = b.post("/items", url.Values{"id": {"mug"}}, 200)
	contains(t, text, "39.80", "version 2")
	_, text = b.post("/items", url.Values{"id": {"spoon"}}, 200)
	contains(t, text, "44.05")
	_, text = b.post("/items/mug", url.Values{"delta": {"-1"}}, 200)
	contains(t, text, "24.15")
	_, text = b.post("/items/spoon/remove", nil, 200)
	if strings.Contains(text, "24.15") {
		t.Errorf("the spoon is still there: %s", text)
	}
	if other := browse(t, address).see(200); !strings.Contains(other, "It is empty.") {
		t.Errorf("another shopper sees %s", other)
	}
	contains(t, b.see(200), "19.90")
	for range 2 { // one form, sent twice
		_, text = b.post("/items", url.Values{"id": {"tray"}, "key": {"click-1"}}, 200)
		contains(t, text, "52.40")
	}

	// An order takes what it saw, and nothing else; one form sent twice makes one order.
	for range 2 {
		_, text = b.post("/orders", url.Values{"key": {"order-1"}}, 200)
		contains(t, text, "Your order", "52.40", "/orders/order-1")
	}
	b.post("/items", url.Values{"id": {"spoon"}}, 200)
	for range 2 {
		_, text = b.post("/orders/order-1", url.Values{"outcome": {"ORDERED"}}, 200)
		contains(t, text, "Thank you", "52.40")
	}
	contains(t, b.see(200), "Tea spoon", `Total</th><td class="number">4.25`)
	_, text = b.post("/orders/order-1", url.Values{"outcome": {"CANCELLED"}}, 409)
	contains(t, text, "settled already")
	_, text = b.post("/orders", url.Values{"key": {"order-2"}}, 200)
	contains(t, text, "/orders/order-2")
	_, text = b.post("/orders/order-2", url.Values{"outcome": {"CANCELLED"}}, 200)
	contains(t, text, "You cancelled", "4.25")
	contains(t, b.see(200), "4.25")
	b.post("/items/spoon/remove", nil, 200)
	_, text = b.post("/orders", nil, 409)
	contains(t, text, "nothing in your cart")

	// The contents of the cart are not trusted.
	if _, err := newCarts(sidecar).add(t.Context(), "", b.shopper(), item{ID: "x", Name: "<script>alert(1)</script>", Price: "1", Quantity: 1}); err != nil {
		t.Fatal(err)
	}
	contains(t, b.see(200), "&lt;script&gt;")

	b.post("/items", url.Values{"id": {"car"}}, 404)
	b.post("/items/mug", url.Values{"delta": {"many"}}, 400)
	if res, _ := do(t, b.client, http.MethodPost, b.at+"/orders", "", "Sec-Fetch-Site", "cross-site"); res.StatusCode != http.StatusForbidden {
		t.Errorf("another site may check out: %d", res.StatusCode)
	}
	if res, text := do(t, b.client, http.MethodGet, b.at+"/healthz", ""); res.StatusCode != http.StatusOK || text != "ok\n" {
		t.Errorf("healthz: %d %q", res.StatusCode, text)
	}
}

// Each thing that can go wrong has its own words and status.
func TestTrouble(t *testing.T) {
	redis := testserver.StartRedis(t)
	process, sidecar := startSidecar(t, "--backend", "redis", "--redis-address", redis.Addr, "--wait-timeout", "100ms",
		"--dial-timeout", "200ms", "--read-timeout", "200ms", "--request-timeout", "1s")
	address, _ := startShop(t, sidecar)
	b := browse(t, address)
	b.see(200)
	mug := url.Values{"id": {"mug"}}

	lock := "lock.cart." + b.shopper() + ".default.items"
	if _, err := redis.Do("SET", lock, "0123456789012345678901", "PX", "60000"); err != nil {
		t.Fatal(err)
	}
	res, text := b.post("/items", mug, http.StatusLocked)
	contains(t, text, "Your cart is busy", `role="alert"`)
	if res.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After with a lock timeout")
	}
	contains(t, b.see(200), "It is empty.") // reading does not wait
	if _, err := redis.Do("DEL", lock); err != nil {
		t.Fatal(err)
	}
	_, text = b.post("/items", mug, 200)
	contains(t, text, "version 1")

	redis.Stop()
	_, text = b.post("/items", mug, http.StatusServiceUnavailable)
	contains(t, text, "cannot reach your cart")
	contains(t, b.see(http.StatusServiceUnavailable), "cannot reach your cart", "What we have")

	process.end(killed)
	contains(t, b.see(http.StatusBadGateway), "cannot reach your cart")
	if res, _ := do(t, b.client, http.MethodGet, b.at+"/healthz", ""); res.StatusCode != http.StatusOK {
		t.Errorf("healthz without a sidecar: %d", res.StatusCode)
	}
}

// A request that is under way when the shop is told to stop is answered.
func TestGracefulStop(t *testing.T) {
	_, sidecar := startSidecar(t, "--backend", "memory")
	address, stop := startShop(t, sidecar)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /items HTTP/1.1\r\nHost: shop\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n")
	answer := bufio.NewReader(conn)
	if line, err := answer.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q %v", line, err) // with it, the handler waits for the body
	}
	if _, err := answer.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for refused := false; !refused; {
		select {
		case <-tick.C:
			c, err := net.Dial("tcp", address)
			if refused = err != nil; !refused {
				c.Close()
			}
		case err := <-stopped:
			t.Fatalf("it stopped with a request under way: %v", err)
		case <-t.Context().Done():
			t.Fatal("it goes on listening")
		}
	}
	fmt.Fprint(conn, "id=mug")
	res, err := http.ReadResponse(answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		t.Errorf("%d", res.StatusCode)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
