package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// Every sentinel of the rooms below has its place here, and a new one fails the test until it has.
func TestEverySentinelIsMapped(t *testing.T) {
	type want struct {
		code        codes.Code
		reason      string
		http        int
		conditional int // with If-Match
	}
	wanted := map[error]want{
		cart.ErrInvalid:        {codes.InvalidArgument, "INVALID", 400, 400},
		cart.ErrTooLarge:       {codes.InvalidArgument, "TOO_LARGE", 413, 413},
		cart.ErrNotFound:       {codes.NotFound, "NOT_FOUND", 404, 404},
		cart.ErrConflict:       {codes.Aborted, "CONFLICT", 409, 412},
		storage.ErrLockTimeout: {codes.Aborted, "LOCK_TIMEOUT", 423, 423},
		storage.ErrLockLost:    {codes.FailedPrecondition, "LOCK_LOST", 409, 409},
		lock.ErrDraining:       {codes.Unavailable, "SHUTTING_DOWN", 503, 503},
		lock.ErrKeyReused:      {codes.InvalidArgument, "IDEMPOTENCY_KEY_REUSED", 422, 422},
		lock.ErrEmptyCart:      {codes.FailedPrecondition, "EMPTY_CART", 409, 409},
		lock.ErrAlreadySettled: {codes.Aborted, "ALREADY_SETTLED", 409, 409},
		lock.ErrNoCheckouts:    {codes.Unavailable, "BACKEND_UNAVAILABLE", 503, 503},
		lock.ErrBusy:           {codes.ResourceExhausted, "BUSY", 429, 429},
		storage.ErrLockUnknown: {codes.NotFound, "NOT_FOUND", 404, 404},
		storage.ErrUnavailable: {codes.Unavailable, "BACKEND_UNAVAILABLE", 503, 503},
		storage.ErrUnsupported: {codes.Unimplemented, "UNSUPPORTED", 501, 501},
		storage.ErrTooLarge:    {codes.InvalidArgument, "TOO_LARGE", 413, 413},
		storage.ErrCorrupt:     {codes.DataLoss, "CORRUPT", 500, 500},
		storage.ErrClosed:      {codes.Unavailable, "SHUTTING_DOWN", 503, 503},
	}
	all := slices.Concat([]error{cart.ErrInvalid, cart.ErrTooLarge, cart.ErrNotFound, cart.ErrConflict}, storage.Errors, lock.Errors)
	for _, sentinel := range all {
		w, ok := wanted[sentinel]
		if !ok {
			t.Errorf("%q is not in this table", sentinel)
			continue
		}
		f := classify(t.Context(), fmt.Errorf("commit u1/default: %w", sentinel))
		got := want{f.code, f.reason, f.httpStatus(false), f.httpStatus(true)}
		if got != w {
			t.Errorf("%q: got %v, want %v", sentinel, got, w)
		}
		if f.retry != (got.http == 423 || got.http == 429 || got.http == 503) {
			t.Errorf("%q: retry is %t with status %d", sentinel, f.retry, got.http)
		}
	}
	if len(all) != len(wanted) {
		t.Errorf("%d sentinels, %d in this table", len(all), len(wanted))
	}
}

func TestContextErrors(t *testing.T) {
	cancelledCtx, cancel := context.WithCancel(t.Context())
	cancel()
	clientDeadline, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	ownDeadline, cancel := context.WithDeadlineCause(t.Context(), time.Now().Add(-time.Second), errRequestTimeout)
	defer cancel()
	for _, row := range []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"the client gave up", cancelledCtx, context.Canceled, "CANCELLED"},
		{"the client's deadline", clientDeadline, context.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		{"the sidecar's own request timeout", ownDeadline, context.DeadlineExceeded, "BACKEND_UNAVAILABLE"},
		{"a bound of the sidecar's own on one exchange", t.Context(), context.DeadlineExceeded, "BACKEND_UNAVAILABLE"},
		{"an error of nobody's, with the context ended", cancelledCtx, errors.New("x"), "INTERNAL"},
	} {
		if got := classify(row.ctx, fmt.Errorf("load: %w", row.err)).reason; got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// failing is a coordinator of which every call fails.
type failing struct {
	lock.Coordinator
	err error
}

func (f *failing) Read(context.Context, cart.Key) (*cart.Cart, error) { return nil, f.err }
func (f *failing) Change(context.Context, cart.Key, lock.Change) (lock.Result, error) {
	return lock.Result{}, f.err
}
func (f *failing) Forget(context.Context, cart.Key, lock.Change) (lock.Result, error) {
	return lock.Result{}, f.err
}
func (f *failing) ForgetAll(context.Context, string) (int, error)      { return 0, f.err }
func (f *failing) Instances(context.Context, string) ([]string, error) { return nil, f.err }
func (f *failing) AcquireLease(context.Context, cart.Key, lock.LeaseRequest) (lock.Lease, error) {
	return lock.Lease{}, f.err
}
func (f *failing) Lease(context.Context, cart.Key, string) (lock.Lease, error) {
	return lock.Lease{}, f.err
}
func (f *failing) RenewLease(context.Context, cart.Key, string, time.Duration) (lock.Lease, error) {
	return lock.Lease{}, f.err
}
func (f *failing) ReleaseLease(context.Context, cart.Key, string) error     { return f.err }
func (f *failing) Watch(context.Context, cart.Key, lock.WatchRequest) error { return f.err }

func (f *failing) HoldLease(context.Context, cart.Key, lock.LeaseRequest, func(lock.Lease) error) error {
	return f.err
}
func (f *failing) Flush(context.Context) error { return f.err }
func (f *failing) Status() lock.Status         { return lock.Status{} }
func (f *failing) HandOver(context.Context, cart.Key, cart.Key, cart.Strategy, lock.Change) (lock.Result, error) {
	return lock.Result{}, f.err
}

// What a coordinator says comes out of every call, by both fronts, as what it is.
func TestErrorsOfTheCoordinator(t *testing.T) {
	calls := []ask{
		{rpc: "GetCart"}, {rpc: "ListInstances"}, {rpc: "GetItems"}, {rpc: "GetConditions"}, {rpc: "GetMetadata"},
		{rpc: "GetMetadataValue", params: p{"key": "k"}}, {rpc: "PutCart", body: `{"items":{}}`}, items(`{}`), raw("AddItem", `{"item":{"id":"a"}}`),
		{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":1}`}, {rpc: "RemoveItem", params: p{"itemId": "a"}},
		raw("PutConditions", `{"conditions":{}}`), {rpc: "PutCondition", params: p{"name": "a"}, body: `{"condition":{}}`}, {rpc: "RemoveCondition", params: p{"name": "a"}},
		raw("PatchMetadata", `{"metadata":{"a":1}}`), {rpc: "ClearMetadata"}, {rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":1}`},
		{rpc: "RemoveMetadataValue", params: p{"key": "k"}}, raw("Batch", `{"operations":[{"removeItem":{"id":"a"}}]}`), {rpc: "Clear"}, {rpc: "Forget"},
		{rpc: "ForgetAll"}, raw("Swap", `{"toIdentifier":"u2"}`), raw("Merge", `{"toIdentifier":"u2","strategy":"replace"}`), {rpc: "Flush"},
		{rpc: "AcquireLease"}, {rpc: "GetLease", params: p{"token": "t"}}, {rpc: "RenewLease", params: p{"token": "t"}}, {rpc: "ReleaseLease", params: p{"token": "t"}},
	}
	for _, row := range []struct {
		err    error
		code   codes.Code
		reason string
		http   int
		text   string
	}{
		{fmt.Errorf("redis: %w", storage.ErrUnavailable), codes.Unavailable, "BACKEND_UNAVAILABLE", 503, "does not answer"},
		{storage.ErrLockTimeout, codes.Aborted, "LOCK_TIMEOUT", 423, "wait time"},
		{storage.ErrLockLost, codes.FailedPrecondition, "LOCK_LOST", 409, "lease"},
		{&cart.ConflictError{Attempted: 3, Current: 5, Problem: "items are at version 5, not 3"}, codes.Aborted, "CONFLICT", 409, "version 5"},
		{errors.New("secret of the driver"), codes.Internal, "INTERNAL", 500, "internal error"},
	} {
		t.Run(row.reason, func(t *testing.T) {
			b := realBackend(t)
			b.Coordinator = &failing{err: row.err}
			w := start(t, b)
			for _, a := range calls {
				for name, call := range map[string]func(ask) reply{"http": w.http, "grpc": w.grpc} {
					r := call(a)
					if r.code != row.code || r.reason != row.reason || !strings.Contains(r.message, row.text) {
						t.Errorf("%s by %s: %s %s: %s", a.rpc, name, r.code, r.reason, r.message)
					}
					retry := row.http == 423 || row.http == 503
					if r.retry != retry {
						t.Errorf("%s by %s: RetryInfo %t", a.rpc, name, r.retry)
					}
					if name == "grpc" {
						continue
					}
					if r.http != row.http || (r.header.Get("Retry-After") == "1") != retry {
						t.Errorf("%s: status %d, Retry-After %q", a.rpc, r.http, r.header.Get("Retry-After"))
					}
				}
			}
			if row.reason == "INTERNAL" {
				if err := w.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(w.log.String(), "secret of the driver"); n != 2*len(calls) {
					t.Errorf("the cause was logged %d times for %d calls", n, 2*len(calls))
				}
			}
		})
	}
}

func TestFlushIsForbiddenUnlessAllowed(t *testing.T) {
	b := realBackend(t)
	b.AllowFlush = false
	w := start(t, b)
	for _, call := range []func(ask) reply{w.http, w.grpc} {
		if r := call(items(`{"a":{}}`)); r.code != 0 {
			t.Fatal(r.message)
		}
		r := call(ask{rpc: "Flush"})
		if r.code != codes.PermissionDenied || r.reason != "FORBIDDEN" || r.http != 0 && r.http != http.StatusForbidden {
			t.Errorf("got %d %s %s", r.http, r.code, r.reason)
		}
		if r := call(ask{rpc: "GetItems"}); !strings.Contains(r.body, `"a"`) {
			t.Errorf("flushed all the same: %s", r.body)
		}
	}
}

// A call that the backend does not answer ends with the request timeout of the sidecar; one that its client gave up
// ends at once.
func TestRequestTimeout(t *testing.T) {
	b := realBackend(t)
	b.RequestTimeout = 20 * time.Millisecond
	b.Coordinator = &stuck{}
	w := start(t, b)
	for _, call := range []func(ask) reply{w.http, w.grpc} {
		if r := call(ask{rpc: "GetCart"}); r.reason != "BACKEND_UNAVAILABLE" {
			t.Errorf("got %s: %s", r.reason, r.message)
		}
	}
}

// stuck is a coordinator that answers no read before its context ends.
type stuck struct{ failing }

func (*stuck) Read(ctx context.Context, _ cart.Key) (*cart.Cart, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
