package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/internal/render"
)

// Report is the part of a sidecar's /statusz that the operator reads. Any process in the pod can answer in its place,
// so a [Fetcher] and [Report.tame] bound what is kept.
type Report struct {
	// Generation is that of the configuration that it runs.
	Generation int64 `json:"generation"`
	Config     struct {
		// State is Accepted or ConfigRejected.
		State   string `json:"state"`
		Message string `json:"message"`
	} `json:"config"`
	Backend struct {
		Healthy bool   `json:"healthy"`
		Message string `json:"message"`
		// Warnings say how safe carts are there, the gravest first; nil if that is not known.
		Warnings []Warning `json:"warnings"`
	} `json:"backend"`
	// CriticalBackend is the backend for checkouts; nil if they are beside the carts.
	CriticalBackend *CriticalReport `json:"criticalBackend,omitempty"`
	// Move is how far the move of carts to the backend is, as this sidecar knows it; nil if no carts move.
	Move *MoveReport `json:"move,omitempty"`

	// heard is when it was given.
	heard time.Time
}

// CriticalReport is what one sidecar knows of the backend for checkouts.
type CriticalReport struct {
	Healthy bool   `json:"healthy"`
	Message string `json:"message,omitempty"`
}

// MoveReport is what one sidecar knows of a move.
type MoveReport struct {
	// State is Moving or Done.
	State string `json:"state"`
	// Walking says that this sidecar moves the carts that nobody changes. Only it knows what is left.
	Walking bool `json:"walking"`
	// Carried is how many carts it has moved since it started.
	Carried uint64 `json:"carried"`
	// Left is how many its last walk could not move.
	Left int64 `json:"left"`
	// CleanSeconds is how long ago its last walk began that left nothing; nil for none.
	CleanSeconds *float64 `json:"cleanSeconds,omitempty"`
	Message      string   `json:"message,omitempty"`
}

// tame makes every text of the report fit for a status.
func (r *Report) tame() {
	r.Config.State, r.Config.Message, r.Backend.Message = tame(r.Config.State), tame(r.Config.Message), tame(r.Backend.Message)
	r.Backend.Warnings = tameWarnings(r.Backend.Warnings)
	if b := r.CriticalBackend; b != nil {
		b.Message = tame(b.Message)
	}
	if m := r.Move; m != nil {
		m.State, m.Message = tame(m.State), tame(m.Message)
		m.Carried, m.Left = min(m.Carried, mostCarts), max(0, min(m.Left, mostCarts))
	}
}

// mostCarts is more than any backend has.
const mostCarts = 1 << 40

// Warning is one thing that makes carts less safe than they could be.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Fetcher asks the sidecar of a pod for its report. It is called concurrently.
type Fetcher interface {
	Fetch(ctx context.Context, pod *corev1.Pod) (Report, error)
}

const (
	// maxReport is more bytes than a status page has.
	maxReport = 64 << 10
	// maxReportHeaders is more bytes than the headers of a sidecar have.
	maxReportHeaders = 16 << 10
)

// HTTPFetcher asks sidecars at the address of their pod.
type HTTPFetcher struct {
	client   http.Client
	counting http.Client // see Count: a count takes a sidecar up to a second
}

// NewHTTPFetcher waits for an answer for at most timeout.
func NewHTTPFetcher(timeout time.Duration) *HTTPFetcher {
	client := http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy:             nil,  // a proxy may not reach pods
			DisableKeepAlives: true, // thousands of pods are asked, and each seldom
			// No decompression, so a small answer cannot grow here.
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxReportHeaders,
		},
		// A process in a pod must not redirect the operator.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	counting := client
	counting.Timeout = timeout + countTimeout
	return &HTTPFetcher{client: client, counting: counting}
}

// Fetch implements [Fetcher].
func (f *HTTPFetcher) Fetch(ctx context.Context, pod *corev1.Pod) (r Report, err error) {
	defer func() { err = withoutAddresses(err) }()
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(adminPort(pod)))), Path: "/statusz"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return r, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := f.client.Do(req)
	if err != nil {
		return r, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("/statusz answers with status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReport+1))
	switch {
	case err != nil:
		return r, err
	case len(body) > maxReport:
		return r, fmt.Errorf("/statusz answers with more than %d bytes", maxReport)
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return Report{}, fmt.Errorf("/statusz answers with something else than its JSON: %w", err)
	}
	if r.Generation < 0 || r.Generation > maxGeneration {
		return Report{}, fmt.Errorf("/statusz answers with the impossible generation %d", r.Generation)
	}
	r.tame()
	return r, nil
}

// adminPort is where the sidecar of a pod serves /statusz.
func adminPort(pod *corev1.Pod) int32 {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == render.ContainerName && len(c.Ports) > 0 {
			return c.Ports[0].ContainerPort
		}
	}
	return 0
}

// withoutAddresses reduces a network error to what went wrong. The local port differs each time, and a status must not
// change because of it.
func withoutAddresses(err error) error {
	var network *net.OpError
	var request *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &network):
		return network.Err
	case errors.As(err, &request) && request.Timeout():
		return errNoAnswer
	case errors.As(err, &request):
		return request.Err
	}
	return err
}

// errNoAnswer means that nothing came back, not even a refusal.
var errNoAnswer = errors.New("no answer in time")

var ownPort = regexp.MustCompile(`:\d+->`)

// maxText is how many bytes of a text from a pod are kept.
const maxText = 400

// tame makes a text from a pod fit for a status: short, on one line, and equal for equal trouble.
func tame(s string) string {
	cut := len(s) > 4*maxText
	if cut {
		s = s[:4*maxText] // the rest is not even looked at
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, ownPort.ReplaceAllString(s, "->"))
	if cut = cut || len(s) > maxText; cut {
		s = strings.ToValidUTF8(s[:min(len(s), maxText)], "") + "…"
	}
	return strings.Clone(s) // a slice would keep the long text alive
}

// tameError is err with a text that [tame] has cut.
func tameError(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(tame(err.Error()))
}

// lastLine returns the last line that is not empty. Of a line of our own log it returns only message and error, since
// the time differs in each.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	s = s[strings.LastIndexByte(s, '\n')+1:]
	var line struct{ Msg, Error, Err string }
	if json.Unmarshal([]byte(s), &line) == nil && line.Msg != "" {
		s = line.Msg
		if why := cmp.Or(line.Error, line.Err); why != "" {
			s += ": " + why
		}
	}
	return tame(loggedAt.ReplaceAllString(s, ""))
}

var loggedAt = regexp.MustCompile(`^time=\S+ `)
