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

// requestBody is a body that was read. It carries the error of its decoding past the gateway, which keeps only the text
// of one.
type requestBody struct {
	bytes.Reader
	text []byte
	err  error
}

func (*requestBody) Close() error { return nil }

// bodyGrace is how much longer than a call a body may take to arrive.
const bodyGrace = time.Second

// answerGrace is how long an answer may take to be read.
const answerGrace = 30 * time.Second

// firstRead is how much memory a body is given before any of it has come.
const firstRead = 4 << 10

// readBody reads the whole body, of at most most bytes and within timeout, when there is memory for it.
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
	_ = rc.SetReadDeadline(time.Now().Add(timeout)) // a writer that has none is a test's
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

// checkContent refuses a body that is not said to be JSON. That is more than order: what a web page may send to another
// site without being asked first is never application/json.
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

// leaveGrace is how long a change is still served after its client has closed the connection, or its side of it, which
// looks the same. A change that need not wait takes less than that, so it is made on every backend alike. A change that
// waits for a lock does not wait much longer for a client that gave up.
const leaveGrace = 2 * time.Second

// whileServed is ctx, which ends only a while after ctx itself. A deadline that the client named stays as it is.
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
