package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stopTime is how long requests in flight may take after the signal to stop.
const stopTime = 10 * time.Second

// catalogue is what the shop sells.
var catalogue = []item{
	{ID: "mug", Name: "Mug", Price: "19.90"},
	{ID: "teapot", Name: "Teapot", Price: "49.00"},
	{ID: "tray", Name: "Tray", Price: "32.50"},
	{ID: "spoon", Name: "Tea spoon", Price: "4.25"},
}

var (
	//go:embed page.html
	pageText string
	//go:embed page.js
	script []byte
)

var page = template.Must(template.New("page").Parse(pageText))

// view is what the page shows: the cart, or an order, or what went wrong.
type view struct {
	Catalogue []item
	Lines     []line
	Total     string
	Version   int64
	ETag      string
	Order     *order
	Trouble   string
	Host      string
}

// Key is the name of the request of one form on the page. A double click sends the form twice under one name, so the
// sidecar makes the change once.
func (view) Key() string { return rand.Text() }

// list fills in what is bought, sorted by name, and the sum.
func (v *view) list(items map[string]item) {
	total := new(big.Rat)
	for id, i := range items {
		i.ID = id
		sum := new(big.Rat)
		if price, ok := new(big.Rat).SetString(i.Price.String()); ok {
			sum.Mul(price, new(big.Rat).SetInt64(int64(i.Quantity)))
		}
		total.Add(total, sum)
		v.Lines = append(v.Lines, line{i, sum.FloatString(2)})
	}
	slices.SortFunc(v.Lines, func(a, b line) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	v.Total = total.FloatString(2)
}

type line struct {
	item
	Sum string
}

// shop serves the pages.
type shop struct {
	carts *carts
	host  string
	// stopping is done when the shop stops. Pages are then no longer told of changes.
	stopping context.Context
}

func runServe(ctx context.Context, carts *carts, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	address := flags.String("address", ":8080", "`host:port` to serve on")
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: (&shop{carts, host, ctx}).handler(), ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintf(stdout, "shop: serving on %s, carts at %s\n", listener.Addr(), carts.url)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Not ctx, which has ended: requests in flight are answered.
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	err = server.Shutdown(stopping)
	fmt.Fprintln(stdout, "shop: stopped")
	return err
}

func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		_, _ = w.Write(script)
	})
	mux.HandleFunc("GET /{$}", s.show)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /orders/{number}", s.showOrder)
	mux.HandleFunc("POST /items", s.change(func(ctx context.Context, shopper string, r *http.Request) (string, error) {
		i := slices.IndexFunc(catalogue, func(i item) bool { return i.ID == r.PostFormValue("id") })
		if i < 0 {
			return "", &problem{Reason: "NOT_FOUND", Message: "the shop does not sell this", status: http.StatusNotFound}
		}
		item := catalogue[i]
		item.Quantity = 1
		_, err := s.carts.add(ctx, r.PostFormValue("key"), shopper, item)
		return "/", err
	}))
	mux.HandleFunc("POST /items/{id}", s.change(func(ctx context.Context, shopper string, r *http.Request) (string, error) {
		delta, err := strconv.Atoi(r.PostFormValue("delta"))
		if err != nil {
			return "", &problem{Reason: "INVALID", Message: "delta must be a whole number", status: http.StatusBadRequest}
		}
		return "/", s.carts.change(ctx, r.PostFormValue("key"), shopper, r.PathValue("id"), delta)
	}))
	mux.HandleFunc("POST /items/{id}/remove", s.change(func(ctx context.Context, shopper string, r *http.Request) (string, error) {
		return "/", s.carts.remove(ctx, r.PostFormValue("key"), shopper, r.PathValue("id"))
	}))
	// The form's key is the number of the order: a double click makes one order.
	mux.HandleFunc("POST /orders", s.change(func(ctx context.Context, shopper string, r *http.Request) (string, error) {
		number := r.PostFormValue("key")
		if number == "" {
			number = rand.Text()
		}
		return "/orders/" + url.PathEscape(number), s.carts.checkout(ctx, shopper, number)
	}))
	// Here a shop would ask for the money first.
	mux.HandleFunc("POST /orders/{number}", s.change(func(ctx context.Context, shopper string, r *http.Request) (string, error) {
		number := r.PathValue("number")
		return "/orders/" + url.PathEscape(number), s.carts.settle(ctx, shopper, number, r.PostFormValue("outcome"))
	}))
	return http.NewCrossOriginProtection().Handler(mux)
}

// show shows the cart.
func (s *shop) show(w http.ResponseWriter, r *http.Request) {
	c, err := s.carts.get(r.Context(), s.shopper(w, r))
	if err != nil {
		s.fail(w, err)
		return
	}
	v := view{Version: c.Version, ETag: c.ETag}
	v.list(c.Items)
	s.render(w, http.StatusOK, v)
}

// showOrder shows an order: what is to be paid, or was.
func (s *shop) showOrder(w http.ResponseWriter, r *http.Request) {
	o, err := s.carts.order(r.Context(), s.shopper(w, r), r.PathValue("number"))
	if err != nil {
		s.fail(w, err)
		return
	}
	v := view{Order: &o}
	v.list(o.Items)
	s.render(w, http.StatusOK, v)
}

// events passes the events of the cart on to the page.
func (s *shop) events(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	res, err := s.carts.events(ctx, s.shopper(w, r), r.Header.Get("Last-Event-ID"))
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	h := w.Header()
	h.Set("Content-Type", res.Header.Get("Content-Type"))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(res.StatusCode)
	stream := http.NewResponseController(w)
	for part := make([]byte, 32<<10); ; {
		n, err := res.Body.Read(part)
		if _, gone := w.Write(part[:n]); gone != nil || stream.Flush() != nil || err != nil {
			return
		}
	}
}

// change is a handler that changes the cart and sends the browser to the page that do names.
func (s *shop) change(do func(context.Context, string, *http.Request) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 4096)
		next, err := do(r.Context(), s.shopper(w, r), r)
		if err != nil {
			s.fail(w, err)
			return
		}
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
}

var shopperName = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// shopper is the identifier of the cart: a random name that the browser keeps in a cookie.
func (s *shop) shopper(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie("shopper"); err == nil && shopperName.MatchString(c.Value) {
		return c.Value
	}
	name := rand.Text()
	http.SetCookie(w, &http.Cookie{Name: "shopper", Value: name, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 86400})
	return name
}

// words say to a shopper what went wrong.
var words = map[string]string{
	"LOCK_TIMEOUT":        "Your cart is busy just now, and nothing was changed. Please try again.",
	"BUSY":                "We are very busy just now, and nothing was changed. Please try again.",
	"BACKEND_UNAVAILABLE": "We cannot reach your cart just now. Please look at it in a moment, before you repeat what you did.",
	"SHUTTING_DOWN":       "We cannot reach your cart just now. Please look at it in a moment, before you repeat what you did.",
	unreachable:           "We cannot reach your cart just now, and nothing was changed. Please try again in a moment.",
	noAnswer:              "We do not know whether that worked. Please look at your cart before you repeat it.",
	"NOT_FOUND":           "That is not there (any more).",
	"INVALID":             "That is not possible.",
	"TOO_LARGE":           "Your cart is full.",
	"EMPTY_CART":          "There is nothing in your cart (any more).",
	"ALREADY_SETTLED":     "This order is settled already. Please look at it again.",
}

// fail answers with what went wrong, in plain words and with the status that the sidecar gave.
func (s *shop) fail(w http.ResponseWriter, err error) {
	status, text := http.StatusInternalServerError, "Something went wrong. Please look at your cart before you repeat what you did."
	var p *problem
	if errors.As(err, &p) {
		status = p.status
		if t, ok := words[p.Reason]; ok {
			text = t
		}
		if p.retryAfter != "" {
			w.Header().Set("Retry-After", p.retryAfter)
		}
	}
	fmt.Fprintln(os.Stderr, "shop:", err)
	s.render(w, status, view{Trouble: text})
}

func (s *shop) render(w http.ResponseWriter, status int, v view) {
	v.Catalogue, v.Host = catalogue, s.host
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		http.Error(w, "the page is broken", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w)
}
