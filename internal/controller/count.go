package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/internal/render"
)

// CartCount is how many carts a sidecar sees in its backend, under its prefix.
type CartCount struct {
	Carts int `json:"carts"`
	// More says that the sidecar stopped counting there.
	More bool `json:"more"`
}

// Counter asks the sidecar of a pod how many carts there are. It is called concurrently.
type Counter interface {
	Count(ctx context.Context, pod *corev1.Pod) (CartCount, error)
}

var _ Counter = (*HTTPFetcher)(nil)

const (
	// maxCount bounds what is read of the answer, in bytes; an answer is shorter.
	maxCount = 4 << 10
	// countTimeout is how long a sidecar counts.
	countTimeout = time.Second
)

// Count implements [Counter].
func (f *HTTPFetcher) Count(ctx context.Context, pod *corev1.Pod) (n CartCount, err error) {
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(adminPort(pod)))), Path: "/statusz/carts"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return n, err
	}
	resp, err := f.counting.Do(req)
	if err != nil {
		return n, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return n, fmt.Errorf("/statusz/carts answers with status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCount))
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(body, &n); err != nil || n.Carts < 0 {
		return CartCount{}, errors.New("/statusz/carts answers with something else than its JSON")
	}
	return n, nil
}

// mostAskedToCount is how many sidecars are asked, one after the other, until one answers.
const mostAskedToCount = 3

// countCarts asks one of the sidecars that run.
func (r *Reconciler) countCarts(ctx context.Context, pods []*corev1.Pod) (CartCount, bool) {
	counter, ok := r.census.fetcher.(Counter)
	if !ok {
		return CartCount{}, false
	}
	asked := 0
	for _, pod := range pods {
		if why, _ := waiting(pod, r.now()); !render.Injected(pod) || why != "" {
			continue
		}
		if asked++; asked > mostAskedToCount || !r.census.slots.take(ctx, pod.Namespace) {
			break
		}
		n, err := counter.Count(ctx, pod)
		r.census.slots.give(pod.Namespace)
		if err == nil {
			return n, true
		}
	}
	return CartCount{}, false
}
