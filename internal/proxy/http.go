package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sidecart/sidecart/docs"
	"github.com/sidecart/sidecart/internal/cart"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const contentJSON = "application/json"

// gateway serves the HTTP API. It calls the handlers in process.
//
// There is no net/http.ServeMux in front of it: that would clean paths, and here "..", "//" and encoded slashes are
// valid in names.
type gateway struct {
	service *service
	mux     *runtime.ServeMux
	// grpcAddress is where gRPC is served, for errors to gRPC clients that connect here.
	grpcAddress func() string
}

func newGateway(s *service, grpcAddress func() string) (*gateway, error) {
	g := &gateway{service: s, grpcAddress: grpcAddress}
	g.mux = runtime.NewServeMux(
		// The gateway decodes a whole path segment in every mode but the legacy one; UnescapingModeAllCharacters would
		// also split segments at %2F, so that a name could not hold a slash.
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptReserved),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, codec{}),
		runtime.WithErrorHandler(g.serveError),
		runtime.WithRoutingErrorHandler(g.serveRoutingError),
		runtime.WithForwardResponseOption(setHeaders),
		runtime.WithMiddlewares(g.probe),
		runtime.WithDisablePathLengthFallback(), // this also disables the override of methods by a header
		runtime.WithWriteContentLength(),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(context.Context, *http.Request) metadata.MD { return nil }),
	)
	if err := pb.RegisterCartServiceHandlerServer(context.Background(), g.mux, s); err != nil {
		return nil, err
	}
	// In process the gateway has no streams. Handlers that are registered last are matched first.
	return g, errors.Join(
		g.mux.HandlePath(http.MethodPost, "/v1/carts/{identifier}/{instance}/locks:hold", g.serveHold),
		g.mux.HandlePath(http.MethodGet, "/v1/carts/{identifier}/{instance}/events", g.serveEvents),
	)
}

// ServeHTTP implements [http.Handler].
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/openapi.json" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		serveOpenAPI(w)
		return
	}
	c := &httpCall{
		ifMatch:     strings.Join(r.Header.Values("If-Match"), ", "),
		ifNoneMatch: strings.Join(r.Header.Values("If-None-Match"), ", "),
		lease:       strings.Join(r.Header.Values(headerLease), ", "),
		release:     strings.Join(r.Header.Values(headerRelease), ", "),
		key:         strings.Join(r.Header.Values(headerKey), ", "),
		minimal:     prefersMinimal(r.Header.Values("Prefer")),
		reads:       r.Method == http.MethodGet || r.Method == http.MethodHead,
	}
	l := g.service.backends.peek()
	most, timeout := l.maxBodyBytes(), l.RequestTimeout+bodyGrace
	a := &admission{budget: l.budget}
	defer a.release()
	r = r.WithContext(context.WithValue(context.WithValue(r.Context(), httpCallKey{}, c), admissionKey{}, a))
	if c.head = r.Method == http.MethodHead; c.head { // net/http drops the body
		r.Method = http.MethodGet
	}
	// The body, the call, and the answer to a client that reads slowly.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2*timeout + answerGrace))
	body := &requestBody{}
	err := checkPromises(r.Header, c.reads)
	if err == nil {
		err = checkTimeout(r.Header)
	}
	if err == nil && r.URL.RawQuery != "" {
		if r.Method == http.MethodGet && r.URL.Path == listPath {
			r, err = takeQuery(r, c)
		} else {
			name, _, _ := strings.Cut(r.URL.RawQuery, "=")
			err = cart.Invalidf("?"+shown([]byte(name)), "there are no query parameters here: preconditions are headers")
		}
	}
	if err == nil {
		body, err = g.readBody(w, r, a, most, timeout)
	}
	r.Body = body
	if err != nil {
		if r.ContentLength != 0 { // do not wait for the rest of the body
			w.Header().Set("Connection", "close")
		}
		g.refuse(w, r, err)
		return
	}
	g.mux.ServeHTTP(w, r)
}

func serveOpenAPI(w http.ResponseWriter) {
	w.Header().Set("Content-Type", contentJSON)
	_, _ = w.Write(docs.OpenAPI)
}

// codec is the JSON of the API for the gateway.
type codec struct{}

var _ runtime.Marshaler = codec{}

func (codec) ContentType(any) string { return contentJSON }

func (codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", v)
	}
	return appendMessage(nil, m.ProtoReflect())
}

func (codec) Unmarshal(text []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", v)
	}
	return decodeBody(text, m.ProtoReflect())
}

func (c codec) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, ok := r.(*requestBody)
		if !ok {
			return fmt.Errorf("%T is no body that was read", r)
		}
		err := c.Unmarshal(body.text, v)
		if !errors.Is(err, io.EOF) {
			body.err = err
		}
		return err
	})
}

func (c codec) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := c.Marshal(v)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
}

// setHeaders sets the headers of an answer: its etag, the cart that it is about, and the preference that it follows. It
// answers 304 to a read of what the client has already.
func setHeaders(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	c := httpCallOf(ctx)
	setIdentity(w.Header(), c)
	setReplayed(w.Header(), c)
	if c != nil && c.applied {
		w.Header().Set(headerApplied, "return=minimal")
	}
	a, ok := m.(interface {
		GetEtag() string
		GetVersion() uint64
	})
	if !ok || a.GetEtag() == "" {
		return nil
	}
	w.Header().Set("ETag", strconv.Quote(a.GetEtag()))
	if c == nil || c.ifNoneMatch == "" || !c.reads || !listsETag(c.ifNoneMatch, a.GetEtag(), a.GetVersion() > 0) {
		return nil
	}
	w.Header().Del("Content-Type")
	w.WriteHeader(http.StatusNotModified) // net/http discards what is written after it
	return nil
}

// listsETag reports whether the value of If-None-Match names an etag. Weak etags count, by RFC 9110 for reads, and "*"
// stands for everything that exists.
func listsETag(list, etag string, there bool) bool {
	for given := range strings.SplitSeq(list, ",") {
		given = strings.TrimSpace(given)
		if given == "*" && there || strings.Trim(strings.TrimPrefix(given, "W/"), `"`) == etag {
			return true
		}
	}
	return false
}

// probeKey is in the context of a request that only asks which methods its path has.
type probeKey struct{}

// probe ends such a request before its handler.
func (g *gateway) probe(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		if found, ok := r.Context().Value(probeKey{}).(*bool); ok {
			*found = true
			return
		}
		next(w, r, params)
	}
}

// allowed lists the methods that the path of r has.
func (g *gateway) allowed(r *http.Request) (methods []string) {
	for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		found := false
		ask := r.Clone(context.WithValue(r.Context(), probeKey{}, &found))
		ask.Method = m
		g.mux.ServeHTTP(nowhere{}, ask)
		if found {
			methods = append(methods, m)
		}
	}
	return methods
}

// nowhere is a response that is thrown away.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) WriteHeader(int)             {}

func (g *gateway) serveRoutingError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	if ctx.Value(probeKey{}) != nil {
		return
	}
	if field := emptyName(r.URL.EscapedPath()); field != "" {
		g.refuse(w, r, cart.ValidateName(field, ""))
		return
	}
	path := shown([]byte(withoutToken(r.URL.EscapedPath())))
	switch code {
	case http.StatusMethodNotAllowed:
		methods := strings.Join(g.allowed(r), ", ")
		w.Header().Set("Allow", methods)
		g.refuse(w, r, fmt.Errorf("%w: %s does not take %s, only %s", errNoMethod, path, r.Method, methods))
	case http.StatusNotFound:
		g.refuse(w, r, fmt.Errorf("%w: %s; /openapi.json lists those that are there", errNoRoute, path))
	default:
		g.refuse(w, r, cart.Invalidf("path", "%s is no path", path))
	}
}

// emptyName returns the field that is empty if a path ends where a name should be, and "" for other paths.
func emptyName(path string) string {
	rest, ok := strings.CutPrefix(path, "/v1/carts/")
	if !ok || rest != "" && !strings.HasSuffix(rest, "/") {
		return ""
	}
	if rest == "" {
		return "identifier"
	}
	if s := strings.Split(rest, "/"); len(s) == 4 { // u1/default/items/
		return map[string]string{"items": "itemId", "conditions": "name", "metadata": "key", "locks": "token", "checkouts": "checkoutId"}[s[2]]
	}
	return ""
}

// withoutToken returns a path for the text of an error, without a lease's token.
func withoutToken(path string) string {
	before, _, found := strings.Cut(path, "/locks/")
	if !found {
		return path
	}
	return before + "/locks/…"
}

// serveError is the gateway's error handler. It serves errors of handlers, which are counted already, and of the
// gateway itself.
func (g *gateway) serveError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	var f *failure
	if errors.As(err, &f) {
		writeFailure(w, r, f)
		return
	}
	var malformed runtime.MalformedSequenceError
	if b, ok := r.Body.(*requestBody); ok && b.err != nil {
		err = b.err
	} else if errors.As(err, &malformed) {
		err = cart.Invalidf("path", "%v", malformed)
	}
	g.refuse(w, r.WithContext(ctx), err)
}

// refuse answers a request that did not get as far as a handler.
func (g *gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	f := classify(ctx, err)
	method := CallOf(ctx)
	g.service.metrics.observe(frontHTTP, method, f.code, f.reason, 0)
	g.service.report(ctx, method, f, err)
	writeFailure(w, r, f)
}

func writeFailure(w http.ResponseWriter, r *http.Request, f *failure) {
	h := w.Header()
	h.Set("Content-Type", contentJSON)
	for _, name := range []string{"ETag", headerCartID, headerVersion, headerApplied, headerReplayed, headerChange} {
		h.Del(name)
	}
	if f.retry {
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(retryAfter.Seconds())))))
	}
	conditional := r.Header.Get("If-Match") != "" || r.Header.Get("If-None-Match") != ""
	body := f.json()
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.httpStatus(conditional))
	_, _ = w.Write(body)
}
