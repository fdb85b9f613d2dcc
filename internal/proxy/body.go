package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// requestBody is a body that was read. It carries the error of its decoding past the gateway, which would keep only the
// error's text.
type requestBody struct {
	bytes.Reader
	text []byte
	err  error
}

func (*requestBody) Close() error { return nil }

// bodyGrace is added to a call's timeout for the arrival of its body.
const bodyGrace = time.Second

// answerGrace is how long an answer may take to be read.
const answerGrace = 30 * time.Second

// firstRead is how much memory a body gets before any of it has arrived.
const firstRead = 4 << 10

// readBody waits for memory and then reads the whole body, of at most most bytes, within timeout.
func (g *gateway) readBody(w http.ResponseWriter, r *http.Request, a *admission, most int64, timeout time.Duration) (*requestBody, error) {
	body := &requestBody{}
	ctx, budget := r.Context(), a.budget
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return body, budget.admit(ctx, a, 0)
	}
	length := r.ContentLength
	switch {
	case length > most:
		return body, overLimit(bodyField, length, most)
	case length < 0: // it is not known
		length = most
	default:
		if err := checkContent(r.Header, g.grpcAddress); err != nil {
			return body, err
		}
	}
	if err := budget.admit(ctx, a, length); err != nil {
		return body, err
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(timeout)) // only a test's writer has no deadline
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, firstRead)) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, most))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return body, overLimit(bodyField, over.Limit+1, most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return body, fmt.Errorf("%s: %w: %s", bodyField, errSlowBody, timeout)
	case err != nil:
		return body, cart.Invalidf(bodyField, "broke off: %v", err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	body.text = buf.Bytes()
	body.Reset(body.text)
	a.arrived(int64(len(body.text)))
	if len(body.text) == 0 || r.ContentLength > 0 {
		return body, nil
	}
	return body, checkContent(r.Header, g.grpcAddress)
}

// checkContent refuses a body whose content type is not JSON. This also protects: a web page cannot send
// application/json to another site without a preflight request.
func checkContent(h http.Header, grpcAddress func() string) error {
	refused := func(header, format string, args ...any) error {
		return fmt.Errorf("%w: %w", errMediaType, cart.Invalidf(header, format, args...))
	}
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return refused("Content-Encoding", "%q is not understood: send the body as it is", shown([]byte(e)))
	}
	given := h.Get("Content-Type")
	switch {
	case given == "":
		return refused("Content-Type", "is missing: a body is %s", contentJSON)
	case strings.HasPrefix(given, "application/grpc"):
		return refused("Content-Type", "%q is for gRPC, which is served on %s: this is HTTP and JSON", shown([]byte(given)), grpcAddress())
	}
	media, params, err := mime.ParseMediaType(given)
	charset := strings.ToLower(params["charset"])
	if err != nil || media != contentJSON || !slices.Contains([]string{"", "utf-8", "utf8", "us-ascii"}, charset) {
		return refused("Content-Type", "must be %s in UTF-8, not %q", contentJSON, shown([]byte(given)))
	}
	return nil
}

// leaveGrace is how long a change is still served after its client has closed the connection. A client that closed only
// its side looks the same. A change that need not wait takes less time than this, so it is made on every backend alike.
// A change that waits for a lock stops soon after its client gave up.
const leaveGrace = 2 * time.Second

// whileServed returns a context that ends leaveGrace after ctx is cancelled. A deadline that the client named stays as
// it is.
func whileServed(ctx context.Context) (context.Context, context.CancelFunc) {
	served, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if d, ok := ctx.Deadline(); ok {
		served, cancel = context.WithDeadline(context.WithoutCancel(ctx), d)
	}
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(leaveGrace)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-served.Done():
		}
	})
	return served, func() { stop(); cancel() }
}
