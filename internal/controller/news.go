package controller

import (
	"cmp"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// news remembers which state of each condition was reported last, so that an event says something new. It leaves out
// passing states, and states that another condition reports already. A backend that comes and goes causes a few events
// at first and later one now and then. The state in which it stays always causes one. The memory ends with the process;
// a new process begins with the current status.
type news struct {
	now func() time.Time

	mu   sync.Mutex
	told map[types.NamespacedName]map[string]*telling // by condition
	ones map[types.NamespacedName]map[string]string   // by what it is about
}

// telling is what was reported of one condition.
type telling struct {
	state
	left   int       // how many more events there may be now
	filled time.Time // since when left counts
}

// state is what an event is about.
type state struct {
	status metav1.ConditionStatus
	reason string
}

const (
	// mostNews is how many events one condition may have at once. newsPause is how long it takes until there may be one
	// more.
	mostNews  = 4
	newsPause = 3 * time.Minute
)

func newNews(now func() time.Time) *news {
	return &news{now: now, told: map[types.NamespacedName]map[string]*telling{}, ones: map[types.NamespacedName]map[string]string{}}
}

// fresh reports whether c is to be told, and if so notes it as told. Before is the condition as it was read, or nil.
func (n *news) fresh(key types.NamespacedName, c, before *metav1.Condition) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.told[key]
	if of == nil {
		of = map[string]*telling{}
		n.told[key] = of
	}
	t := of[c.Type]
	if t == nil {
		t = &telling{left: mostNews, filled: n.now()}
		if before != nil {
			t.state = settledState(before)
		}
		of[c.Type] = t
	}
	is := settledState(c)
	if is.status == "" || is == t.state {
		return false
	}
	if is.status == metav1.ConditionTrue && t.status != metav1.ConditionFalse && !first(t.status, is.reason) {
		t.state = is
		return false
	}
	now := n.now()
	if more := int(now.Sub(t.filled) / newsPause); more > 0 {
		t.left, t.filled = min(t.left+more, mostNews), now
	}
	if t.left == 0 {
		return false
	}
	t.left--
	t.state = is
	return true
}

// first reports whether a condition that becomes true for that reason causes an event although it was not false before.
// It does when the first pods are served, and when the condition was unknown before.
func first(before metav1.ConditionStatus, reason string) bool {
	switch reason {
	case v1alpha1.ReasonAllUpdated:
		return true
	case v1alpha1.ReasonNoWorkloads, v1alpha1.ReasonNotNeeded:
		return false
	}
	return before == ""
}

// settledState returns the state of a condition, or none if it is unknown or on the way to another.
func settledState(c *metav1.Condition) state {
	if c.Status == metav1.ConditionUnknown || c.Reason == v1alpha1.ReasonRollingOut {
		return state{}
	}
	return state{c.Status, c.Reason}
}

func (n *news) forget(key types.NamespacedName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.told, key)
	delete(n.ones, key)
}

// mostOnes is for how many workloads of one CartStorage news remembers what was told.
const mostOnes = 1000

// once reports whether a message differs from the last one about the same object, and records it as sent.
func (n *news) once(key types.NamespacedName, about, what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.ones[key]
	if of == nil || len(of) >= mostOnes {
		of = map[string]string{}
		n.ones[key] = of
	}
	if last, ok := of[about]; ok && last == what {
		return false
	}
	of[about] = what
	return true
}

// announce sends an event for each new state.
func (r *Reconciler) announce(before, after *v1alpha1.CartStorage) {
	was, is := before.Status.Locking, after.Status.Locking
	if is != nil && (was == nil && is.Enabled || was != nil && was.Enabled != is.Enabled) {
		word := map[bool]string{true: "on", false: "off"}[is.Enabled]
		r.events.Eventf(after, nil, corev1.EventTypeNormal, cmp.Or(is.Reason, "Locking"), "DecideLocking", "locking is %s: %s", word, is.Message)
	}
	r.tellMove(before, after)
	for _, kind := range v1alpha1.Conditions {
		c := condition(after, kind)
		// Another condition is false as well, and says why.
		if c == nil || kind == v1alpha1.ConditionReady && (c.Reason == v1alpha1.ReasonDegraded || c.Reason == v1alpha1.ReasonRenderFailed) {
			continue
		}
		if !r.news.fresh(client.ObjectKeyFromObject(after), c, condition(before, kind)) {
			continue
		}
		severity := corev1.EventTypeNormal
		if c.Status == metav1.ConditionFalse {
			severity = corev1.EventTypeWarning
		}
		// The action has the name of the condition, since events that differ only in their note become one.
		r.events.Eventf(after, nil, severity, c.Reason, "Observe"+c.Type, "%s is %s: %s", c.Type, c.Status, c.Message)
	}
}
