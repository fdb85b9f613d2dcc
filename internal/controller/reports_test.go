package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// answering returns pods whose admin ports are served by handler.
func answering(t *testing.T, n int, handler http.HandlerFunc) []*corev1.Pod {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	port := server.Listener.Addr().(*net.TCPAddr).Port
	pods := make([]*corev1.Pod, n)
	for i := range pods {
		name := fmt.Sprintf("web-%d", i)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}}
		pod.Annotations = map[string]string{v1alpha1.InjectedAnnotation: "shop"}
		pod.Spec.InitContainers = []corev1.Container{{Name: render.ContainerName, Ports: []corev1.ContainerPort{{ContainerPort: int32(port)}}}}
		pod.Status.PodIP = "127.0.0.1"
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: render.ContainerName, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		pods[i] = pod
	}
	return pods
}

// askAll asks until every pod has been asked.
func askAll(t *testing.T, c *census, pods []*corev1.Pod) (all []sidecar) {
	t.Helper()
	within(t, time.Minute, func() string {
		all, _ = c.ask(t.Context(), types.NamespacedName{Namespace: "shop", Name: "shop"}, pods, 1)
		for i := range all {
			if all[i].report == nil && all[i].err == nil {
				return fmt.Sprintf("pod %d has not been asked", i)
			}
		}
		return ""
	})
	return all
}

// Whatever pods answer, only little of it is kept.
func TestReportsAreBounded(t *testing.T) {
	const pods, most = 200, 10 // MiB
	for _, r := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"long texts", says(`{"config": {"state": %q, "message": %[1]q}, "backend": {"message": %[1]q}, "locking": {"reason": %[1]q}}`, 250<<10)},
		{"texts of all that may be", says(`{"config": {"state": %q, "message": %[1]q}, "backend": {"message": %[1]q}}`, 20<<10)},
		{"a long number", says(`{"generation": 1%s}`, 60<<10)},
		{"something else", says(`%s`, 60<<10)},
		{"a long header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 500<<10))
			_, _ = w.Write([]byte(`{"generation": 1}`))
		}},
		{"a long status line", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = conn.Write([]byte("nonsense" + strings.Repeat("x", 500<<10) + "\r\n\r\n"))
			_ = conn.Close()
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			all := answering(t, pods, r.answer)
			c := newCensus(NewHTTPFetcher(20*time.Second), time.Hour)
			before := heap()
			sidecars := askAll(t, c, all)
			if grown := heap() - before; grown > most {
				t.Errorf("the heap has grown by %.0f MiB, want less than %d", grown, most)
			} else {
				t.Logf("the heap has grown by %.1f MiB", grown)
			}
			for i := range sidecars {
				s := &sidecars[i]
				for _, text := range []string{message(s.err), reportText(s.report)} {
					if len(text) > 3*(maxText+len("…")) || !utf8.ValidString(text) {
						t.Fatalf("a text of %d bytes is kept", len(text))
					}
				}
			}
		})
	}
}

func says(format string, length int) http.HandlerFunc {
	text := []byte(fmt.Sprintf(format, strings.Repeat("7", length)))
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) }
}

func reportText(r *Report) string {
	if r == nil {
		return ""
	}
	return r.Config.State + r.Config.Message + r.Backend.Message
}

// A body over the limit is reported, and not read to its end.
func TestReportTooLong(t *testing.T) {
	pod := answering(t, 1, says(`{"config": {"state": %q}}`, maxReport))[0]
	_, err := NewHTTPFetcher(20*time.Second).Fetch(t.Context(), pod)
	if err == nil || err.Error() != "/statusz answers with more than 65536 bytes" {
		t.Errorf("error is %v", err)
	}
}

func TestTame(t *testing.T) {
	for in, want := range map[string]string{
		"a\r\nb\tc\x00\x1b[31m\u202e": "a  b c[31m",
		"\xff\xfe":                    "",
		"read tcp 127.0.0.1:4711->127.0.0.1:80: no": "read tcp 127.0.0.1->127.0.0.1:80: no",
		strings.Repeat("ä", maxText):                strings.Repeat("ä", maxText/2) + "…",
		strings.Repeat("\x00", 1<<20) + "x":         "…",
	} {
		if got := tame(in); got != want {
			t.Errorf("tame(%.40q) is %q, want %q", in, got, want)
		}
	}
}

// slowFetcher answers when it is told to, and counts.
type slowFetcher struct {
	now, most atomic.Int64
	release   chan struct{}
}

func (f *slowFetcher) Fetch(ctx context.Context, pod *corev1.Pod) (Report, error) {
	n := f.now.Add(1)
	defer f.now.Add(-1)
	for most := f.most.Load(); n > most && !f.most.CompareAndSwap(most, n); most = f.most.Load() {
	}
	select {
	case <-f.release:
		return Report{Generation: 1}, nil
	case <-ctx.Done():
		return Report{}, errors.New("no answer in time")
	}
}

// However many sidecars of a namespace answer slowly, only a few are asked at once, and those of other namespaces are
// asked meanwhile.
func TestFetchesAreBounded(t *testing.T) {
	f := &slowFetcher{release: make(chan struct{})}
	c := newCensus(f, time.Hour)
	pods := answering(t, 600, nil)
	ctx, stop := context.WithCancel(t.Context())
	asked := make(chan struct{})
	for i := range 10 {
		go func() {
			c.ask(ctx, types.NamespacedName{Namespace: "shop", Name: fmt.Sprint(i)}, pods, 1)
			asked <- struct{}{}
		}()
	}
	within(t, 10*time.Second, func() string {
		if n := f.now.Load(); n < askNamespace {
			return fmt.Sprintf("%d sidecars are asked", n)
		}
		return ""
	})
	other := answering(t, 1, nil)[0]
	other.Namespace = "other"
	heard := make(chan []sidecar, 1)
	go func() {
		all, _ := c.ask(t.Context(), types.NamespacedName{Namespace: "other", Name: "shop"}, []*corev1.Pod{other}, 1)
		heard <- all
	}()
	within(t, 10*time.Second, func() string {
		if n := f.now.Load(); n < askNamespace+1 {
			return "the sidecar of the other namespace is not asked"
		}
		return ""
	})
	stop()
	close(f.release)
	if all := <-heard; all[0].report == nil {
		t.Errorf("the sidecar of the other namespace is not heard: %v", all[0].err)
	}
	for range 10 {
		<-asked
	}
	if most := f.most.Load(); most != askNamespace+1 {
		t.Errorf("%d sidecars were asked at once, want %d of the one namespace and 1 of the other", most, askNamespace)
	}
	if len(c.slots.namespaces) != 0 {
		t.Errorf("%d namespaces are remembered", len(c.slots.namespaces))
	}
}
