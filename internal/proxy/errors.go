package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "sidecart.dev"

// Sentinels of this package.
var (
	// errForbidden is matched when the configuration does not allow a call.
	errForbidden = errors.New("forbidden by the configuration")
	// errForeign is matched when a web page of another site may have sent the request.
	errForeign = errors.New("a request of another site")
	// errMediaType is matched when the type or the encoding of a body is not supported.
	errMediaType = errors.New("unsupported media type")
	// errBusy is matched when there is no memory for one more request.
	errBusy = errors.New("too many requests are under way for the sidecar's memory")
	// errStreams is matched when there are too many streams already.
	errStreams = fmt.Errorf("%d streams are open, which is the most that are allowed", maxStreams)
	// errUnread is matched when a client does not read its events.
	errUnread = fmt.Errorf("an event was not read within %v", answerGrace)
	// errRequestTimeout is the cause of a context that ended with the sidecar's own request timeout.
	errRequestTimeout = errors.New("request timeout")
	// errNoRoute and errNoMethod are matched when an HTTP request names a path, or a method of it, that does not exist.
	errNoRoute  = errors.New("no such path")
	errNoMethod = errors.New("no such method here")
	// errSlowBody is matched when a request body did not arrive in time.
	errSlowBody = errors.New("the body did not arrive in time")
)

// kind is one kind of failure, as clients see it.
type kind struct {
	code   codes.Code
	reason string
	http   int
	// message is the text for clients if the error's own must not be shown.
	message string
	// retry says that the same request may succeed a little later.
	retry bool
}

// retryAfter is how long clients are asked to wait before they try again.
const retryAfter = time.Second

var (
	invalid      = kind{code: codes.InvalidArgument, reason: "INVALID", http: http.StatusBadRequest}
	tooLarge     = kind{code: codes.InvalidArgument, reason: "TOO_LARGE", http: http.StatusRequestEntityTooLarge}
	notFound     = kind{code: codes.NotFound, reason: "NOT_FOUND", http: http.StatusNotFound}
	conflict     = kind{code: codes.Aborted, reason: "CONFLICT", http: http.StatusConflict}
	lockTimeout  = kind{code: codes.Aborted, reason: "LOCK_TIMEOUT", http: http.StatusLocked, retry: true, message: "waited the whole wait time for a lock that somebody else holds"}
	lockLost     = kind{code: codes.FailedPrecondition, reason: "LOCK_LOST", http: http.StatusConflict, message: "the lease expired or was taken"}
	noLease      = kind{code: codes.NotFound, reason: "NOT_FOUND", http: http.StatusNotFound, message: "there is no such lease of this cart: it never was, was released, or is forgotten"}
	unsupported  = kind{code: codes.Unimplemented, reason: "UNSUPPORTED", http: http.StatusNotImplemented}
	unavailable  = kind{code: codes.Unavailable, reason: "BACKEND_UNAVAILABLE", http: http.StatusServiceUnavailable, retry: true, message: "the backend does not answer; a change that was asked for was made once or not at all"}
	noCheckouts  = kind{code: codes.Unavailable, reason: "BACKEND_UNAVAILABLE", http: http.StatusServiceUnavailable, retry: true, message: "the backend for checkouts does not answer; a checkout or settlement that was asked for was made once or not at all, and carts go on"}
	moved        = kind{code: codes.Unavailable, reason: "BACKEND_UNAVAILABLE", http: http.StatusServiceUnavailable, retry: true, message: "the cart has moved to another backend, and the configuration of this sidecar is older than that; nothing was changed"}
	shuttingDown = kind{code: codes.Unavailable, reason: "SHUTTING_DOWN", http: http.StatusServiceUnavailable, retry: true, message: "the sidecar is stopping"}
	damaged      = kind{code: codes.DataLoss, reason: "CORRUPT", http: http.StatusInternalServerError, message: "what the backend holds under this name is no cart"}
	forbidden    = kind{code: codes.PermissionDenied, reason: "FORBIDDEN", http: http.StatusForbidden}
	cancelled    = kind{code: codes.Canceled, reason: "CANCELLED", http: 499, message: "the client gave up"}
	deadline     = kind{code: codes.DeadlineExceeded, reason: "DEADLINE_EXCEEDED", http: http.StatusGatewayTimeout, message: "the client's own deadline has passed"}
	badMethod    = kind{code: codes.Unimplemented, reason: "UNSUPPORTED", http: http.StatusMethodNotAllowed}
	slowBody     = kind{code: codes.InvalidArgument, reason: "INVALID", http: http.StatusRequestTimeout}
	badMedia     = kind{code: codes.InvalidArgument, reason: "INVALID", http: http.StatusUnsupportedMediaType}
	busy         = kind{code: codes.ResourceExhausted, reason: "BUSY", http: http.StatusTooManyRequests, retry: true, message: "too many requests are under way for the sidecar's memory; nothing was changed"}
	manyStreams  = kind{code: codes.ResourceExhausted, reason: "TOO_MANY_STREAMS", http: http.StatusTooManyRequests, retry: true}
	unread       = kind{code: codes.ResourceExhausted, reason: "BUSY", http: http.StatusTooManyRequests, retry: true}
	keyReused    = kind{code: codes.InvalidArgument, reason: "IDEMPOTENCY_KEY_REUSED", http: http.StatusUnprocessableEntity}
	late         = kind{code: codes.ResourceExhausted, reason: "BUSY", http: http.StatusTooManyRequests, retry: true, message: "the sidecar did not get to it in time; nothing was changed"}
	emptyCart    = kind{code: codes.FailedPrecondition, reason: "EMPTY_CART", http: http.StatusConflict}
	settled      = kind{code: codes.Aborted, reason: "ALREADY_SETTLED", http: http.StatusConflict}
	internal     = kind{code: codes.Internal, reason: "INTERNAL", http: http.StatusInternalServerError, message: "internal error"}
)

// kinds maps sentinels. The first that matches decides.
var kinds = []struct {
	sentinel error
	kind     kind
}{
	{errMediaType, badMedia}, // before the sort of error that it wraps
	{cart.ErrInvalid, invalid},
	{cart.ErrTooLarge, tooLarge},
	{cart.ErrNotFound, notFound},
	{cart.ErrConflict, conflict},
	{lock.ErrDraining, shuttingDown},
	{lock.ErrBusy, late},
	{lock.ErrKeyReused, keyReused},
	{lock.ErrEmptyCart, emptyCart},
	{lock.ErrAlreadySettled, settled},
	{storage.ErrLockTimeout, lockTimeout},
	{storage.ErrLockLost, lockLost},
	{storage.ErrLockUnknown, noLease},
	{storage.ErrTooLarge, tooLarge},
	{storage.ErrUnsupported, unsupported},
	{storage.ErrCorrupt, damaged},
	{storage.ErrClosed, shuttingDown},
	{storage.ErrMoved, moved},          // before the sort of error that it wraps
	{lock.ErrNoCheckouts, noCheckouts}, // before the sort of error that it wraps
	{storage.ErrUnavailable, unavailable},
	{errForbidden, forbidden},
	{errNoRoute, notFound},
	{errNoMethod, badMethod},
	{errSlowBody, slowBody},
	{errForeign, forbidden},
	{errBusy, busy},
	{errStreams, manyStreams},
	{errUnread, unread},
}

// failure is an error as clients of every front see it. gRPC understands it as a status.
type failure struct {
	kind
	text     string
	metadata map[string]string
}

func (f *failure) Error() string { return f.reason + ": " + f.text }

// GRPCStatus makes grpc-go send the failure with its details.
func (f *failure) GRPCStatus() *status.Status {
	st := status.New(f.code, f.text)
	info := &errdetails.ErrorInfo{Reason: f.reason, Domain: errorDomain, Metadata: f.metadata}
	with, err := st.WithDetails(info)
	if f.retry {
		with, err = st.WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	}
	if err != nil { // only for a code that is OK
		return st
	}
	return with
}

// unexpected reports whether the cause must be logged, because clients are not told.
func (f *failure) unexpected() bool { return f.code == codes.Internal || f.code == codes.DataLoss }

// classify maps an error to what clients are told. ctx is that of the call.
func classify(ctx context.Context, err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	f = &failure{kind: kindOf(ctx, err)}
	if f.text = f.message; f.text == "" {
		f.text = err.Error()
	}
	if _, refused := storage.RefusalOf(err); refused && f.reason == unavailable.reason {
		f.text = "the backend refuses changes; one that was asked for was made once or not at all"
		if errors.Is(err, lock.ErrNoCheckouts) {
			f.text = "the backend for checkouts refuses changes; a checkout or settlement that was asked for was made once or not at all, and carts go on"
		}
	}
	var (
		bad   *cart.InvalidError
		stale *cart.ConflictError
		alien *foreign
	)
	switch {
	case errors.As(err, &bad):
		f.text = bad.Error()
		f.metadata = map[string]string{"field": bad.Field}
		if bad.TooLarge {
			f.metadata["limit"] = strconv.FormatInt(bad.Limit, 10)
			f.metadata["actual"] = strconv.FormatInt(bad.Actual, 10)
		}
	case errors.Is(err, lock.ErrKeyReused):
		f.metadata = map[string]string{"field": keyField(ctx)}
	case errors.As(err, &alien):
		f.metadata = map[string]string{"field": alien.field}
	case errors.As(err, &stale):
		f.text = stale.Error()
		f.metadata = map[string]string{
			"attemptedVersion": strconv.FormatUint(stale.Attempted, 10),
			"currentVersion":   strconv.FormatUint(stale.Current, 10),
		}
	}
	return f
}

func kindOf(ctx context.Context, err error) kind {
	for _, k := range kinds {
		if errors.Is(err, k.sentinel) {
			return k.kind
		}
	}
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return internal
	}
	switch {
	case errors.Is(context.Cause(ctx), errRequestTimeout):
		return unavailable
	case errors.Is(ctx.Err(), context.Canceled):
		return cancelled
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return deadline
	}
	return unavailable // one of the sidecar's own time limits has passed
}

// httpStatus is the status of a failure over HTTP; conditional says that the request had If-Match or If-None-Match.
func (f *failure) httpStatus(conditional bool) int {
	if conditional && f.reason == conflict.reason {
		return http.StatusPreconditionFailed
	}
	return f.http
}

// errorBody is a failure as JSON. Its fields are in the order in which they are served.
type errorBody struct {
	Code     codes.Code        `json:"code"`
	Message  string            `json:"message"`
	Reason   string            `json:"reason"`
	Metadata map[string]string `json:"metadata"`
	Details  []any             `json:"details"`
}

type errorInfoJSON struct {
	Type     string            `json:"@type"`
	Reason   string            `json:"reason"`
	Domain   string            `json:"domain"`
	Metadata map[string]string `json:"metadata"`
}

type retryInfoJSON struct {
	Type       string `json:"@type"`
	RetryDelay string `json:"retryDelay"`
}

func (f *failure) body() errorBody {
	meta := maps.Clone(f.metadata)
	if meta == nil {
		meta = map[string]string{}
	}
	b := errorBody{Code: f.code, Message: f.text, Reason: f.reason, Metadata: meta, Details: []any{
		errorInfoJSON{"type.googleapis.com/google.rpc.ErrorInfo", f.reason, errorDomain, meta},
	}}
	if f.retry {
		b.Details = append(b.Details, retryInfoJSON{"type.googleapis.com/google.rpc.RetryInfo", strconv.FormatFloat(retryAfter.Seconds(), 'f', -1, 64) + "s"})
	}
	return b
}

// json is the body of an answer.
func (f *failure) json() []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	_ = e.Encode(f.body()) // strings and numbers always encode
	return buf.Bytes()
}
