package dynamodb

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// fault is what happens to a request on its way to the server.
type fault struct {
	// before is the answer, and the request is not passed on.
	before *reply
	// after is the answer instead of the server's, which is thrown away.
	after *reply
	// meanwhile runs between the server's answer and the client's.
	meanwhile func()
	// stalls says that the answer begins and does not end.
	stalls bool
}

// reply is an answer; one without a status cuts the connection.
type reply struct {
	status        int
	code, message string
}

var (
	cut       = &reply{}
	throttled = &reply{http.StatusBadRequest, "ProvisionedThroughputExceededException", "The level of configured provisioned throughput for the table was exceeded."}
	broken    = &reply{http.StatusInternalServerError, "InternalServerError", "Internal server error"}
)

// proxy is a way to a server on which requests go wrong.
type proxy struct {
	*httptest.Server
	target string

	mu sync.Mutex
	// fault says what happens to the n-th request of an operation, counted from 1.
	fault func(operation string, n int, body string) fault
	seen  map[string]int
	auth  string // the last Authorization header
}

func startProxy(t *testing.T, target string) *proxy {
	p := &proxy{target: target}
	p.inject(func(string, int, string) fault { return fault{} })
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

// inject sets what goes wrong, and counts anew.
func (p *proxy) inject(f func(operation string, n int, body string) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.seen = f, map[string]int{}
}

// first injects a fault into the first n requests of an operation.
func (p *proxy) first(n int, operation string, f fault) {
	p.inject(func(op string, i int, _ string) fault {
		if op == operation && i <= n {
			return f
		}
		return fault{}
	})
}

func (p *proxy) count(operation string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[operation]
}

func (p *proxy) authorization() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.auth
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	p.mu.Lock()
	p.seen[operation]++
	p.auth = r.Header.Get("Authorization")
	f := p.fault(operation, p.seen[operation], string(body))
	p.mu.Unlock()
	if f.before != nil {
		f.before.send(w)
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, p.target, bytes.NewReader(body))
	if err != nil {
		return
	}
	request.Header = r.Header.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		cut.send(w)
		return
	}
	defer func() { _ = response.Body.Close() }()
	if f.meanwhile != nil {
		f.meanwhile()
	}
	if f.after != nil {
		f.after.send(w)
		return
	}
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	if f.stalls {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	}
	_, _ = io.Copy(w, response.Body)
}

func (r *reply) send(w http.ResponseWriter) {
	if r.status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(r.status)
	if r.status == http.StatusOK {
		_, _ = io.WriteString(w, "{}")
		return
	}
	_, _ = fmt.Fprintf(w, `{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":%q}`, r.code, r.message)
}
