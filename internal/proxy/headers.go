package proxy

import (
	"net/http"
	"regexp"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/sidecart/sidecart/internal/cart"
)

// A header that promises safety is honoured or refused, and never ignored, because the client relies on it. An empty
// header is a mistake of the client, such as an etag that it did not get. It must not be read as "without condition".

// Headers of the HTTP front.
const (
	headerLease   = "Sidecart-Lease"
	headerRelease = "Sidecart-Release"
	headerKey     = "Idempotency-Key"
)

// promise is a header that promises safety.
type promise struct {
	// name is in the form that net/http gives it.
	name string
	// instead is the field of a gRPC request with the same meaning, "" for none.
	instead string
	// changes and reads say why such calls refuse it; "" if they honour it.
	changes, reads string
	// once says that it must not be repeated.
	once bool
}

var promises = []promise{
	{name: "If-Match", instead: "if_match"},
	{name: "If-None-Match", instead: "if_none_match"},
	{name: headerLease, instead: "lease", reads: "is for calls that change a cart: a read neither needs nor takes a lease", once: true},
	{name: headerRelease, instead: "release", reads: "is not possible here: a read gives nothing back", once: true},
	{name: headerKey, instead: "idempotency_key", reads: "is for calls that change a cart: a read can be sent again without", once: true},
	{name: "If-Unmodified-Since", changes: byETag, reads: byETag},
	{name: "If-Modified-Since", changes: byETag},
	{name: "If-Range", changes: byETag, reads: "is not possible here: there are no ranges"},
	{name: "Content-Range", changes: "is not possible here: a document is replaced as a whole"},
}

const byETag = "is not kept here: preconditions are If-Match and If-None-Match, by etag"

// checkPromises refuses headers that the request could not honour.
func checkPromises(h http.Header, reads bool) error {
	for i := range promises {
		p := &promises[i]
		values, there := h[p.name]
		if !there {
			continue
		}
		why := p.changes
		if reads {
			why = p.reads
		}
		switch {
		case why != "":
			return cart.Invalidf(p.name, "%s", why)
		case p.once && len(values) > 1:
			return cart.Invalidf(p.name, "is there %d times: send it once", len(values))
		}
		for _, v := range values {
			if strings.Trim(v, " \t,") == "" {
				return cart.Invalidf(p.name, "is empty: leave it out, or give it a value")
			}
		}
	}
	return nil
}

// grpcTimeout is the form of Grpc-Timeout by the specification of gRPC over HTTP/2.
var grpcTimeout = regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)

// checkTimeout refuses a malformed Grpc-Timeout. A client may bound a call by it over HTTP too.
func checkTimeout(h http.Header) error {
	if v := h.Get("Grpc-Timeout"); v != "" && !grpcTimeout.MatchString(v) {
		return cart.Invalidf("Grpc-Timeout", "%q is no timeout: write up to 8 digits and a unit (H, M, S, m, u or n), for example 500m for 500 milliseconds", v)
	}
	return nil
}

// checkMetadata refuses metadata with the name of such a header. Over gRPC the promise is a field of the request, or
// does not exist, so the metadata would be ignored.
func checkMetadata(md metadata.MD) error {
	for i := range promises {
		p := &promises[i]
		name := promiseKeys[i]
		if _, there := md[name]; !there {
			continue
		}
		switch {
		case p.instead != "":
			return cart.Invalidf(name, "is not read from metadata: use the field %s of the request", p.instead)
		case p.changes != "":
			return cart.Invalidf(name, "%s", p.changes)
		}
	}
	return nil
}

// promiseKeys are the names of promises as metadata has them.
var promiseKeys = func() []string {
	keys := make([]string, len(promises))
	for i := range promises {
		keys[i] = strings.ToLower(promises[i].name)
	}
	return keys
}()
