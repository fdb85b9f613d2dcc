package controller

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// A move of carts has three states. The status remembers the state, and the configuration follows from it:
//
//	Waiting   the former backend alone, until every pod mounts what the new one needs
//	Moving    both
//	Finished  the new one alone
//
// If the status is lost, the move begins anew. A move that had finished then finds nothing left.

// startMove notes which move is to be made, and begins it when every pod can take part. A sidecar that cannot would
// answer UNAVAILABLE for the carts that have moved.
func (r *Reconciler) startMove(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) error {
	if cs.Spec.MoveFrom == nil {
		cs.Status.Move = nil
		return nil
	}
	if render.MoveState(cs) == "" {
		cs.Status.Move = &v1alpha1.MoveStatus{
			From: tame(place(render.Former(cs))), To: tame(place(cs)), ID: render.MoveID(cs),
			State: v1alpha1.MoveWaiting, Since: metav1.NewTime(r.now().Truncate(time.Second)),
		}
	}
	m := cs.Status.Move
	if m.State != v1alpha1.MoveWaiting {
		return nil
	}
	current, err := currentConfig(ctx, r.client, cs.Namespace, cs.Name)
	if err != nil {
		return err
	}
	m.Message = unprepared(f.pods, cs)
	if m.Message == "" || render.Moves(current) { // it has begun already
		r.enter(ctx, cs, v1alpha1.MoveMoving)
	}
	return nil
}

// place is where the carts of cs are, with their prefix.
func place(cs *v1alpha1.CartStorage) string {
	return render.Where(cs) + " under prefix " + prefixOf(cs)
}

// unprepared says which pods do not mount what both backends need, "" for none.
func unprepared(pods []*corev1.Pod, cs *v1alpha1.CartStorage) string {
	var first *corev1.Pod
	var lacks []string
	n, injected := 0, 0
	for _, pod := range pods {
		if !render.Injected(pod) {
			continue
		}
		injected++
		if missing := render.Missing(pod, cs); len(missing) > 0 {
			if n++; first == nil {
				first, lacks = pod, missing
			}
		}
	}
	if n == 0 {
		return ""
	}
	return tame(fmt.Sprintf("%d of %d pods were made before the new backend was named, and the move waits for them; pod %s lacks %s: restart its workload",
		n, injected, first.Name, strings.Join(lacks, ", ")))
}

// enter begins a state of the move.
func (r *Reconciler) enter(ctx context.Context, cs *v1alpha1.CartStorage, state v1alpha1.MoveState) {
	m := cs.Status.Move
	m.State, m.Since, m.Message = state, metav1.NewTime(r.now().Truncate(time.Second)), ""
	ctrl.LoggerFrom(ctx).Info("carts move", "state", state, "from", m.From, "to", m.To)
}

// leaveMargin is added to the longest time of a call: for so long a sidecar that took over a configuration may still
// end calls on the one before.
const leaveMargin = 3 * time.Second

// followMove writes what the sidecars say of the move into the status, and ends the move when nothing can be left. It
// reports whether the move has ended; then the configuration must be written anew.
//
// A whole walk that leaves nothing proves that only if no sidecar wrote to the former backend alone any more when it
// began: each has been told, and its earlier calls have ended.
func (r *Reconciler) followMove(ctx context.Context, cs *v1alpha1.CartStorage, sidecars []sidecar, generation int64) (ended bool) {
	m := cs.Status.Move
	switch {
	case m == nil || m.State == v1alpha1.MoveWaiting:
		return false
	case m.State == v1alpha1.MoveFinished:
		m.Message = tame("all carts have moved: remove moveFrom, and switch " + m.From + " off after that")
		return false
	}
	heard := hearMove(sidecars, generation)
	m.Carried, m.Left, m.Message = heard.carried, heard.left, cmp.Or(heard.message, "carts move")
	switch {
	case heard.sidecars == 0:
		m.ToldSince, m.Message = nil, "no pod runs: carts move when one does"
		return false
	case len(heard.untold) > 0:
		m.ToldSince = nil
		m.Message = tame(tell(heard.untold, heard.sidecars, "sidecars have not been told to move carts", func(s *sidecar) string {
			if s.report == nil {
				return "it has not answered"
			}
			return fmt.Sprintf("it runs configuration %d, not %d", s.report.Generation, generation)
		}))
		return false
	case m.ToldSince == nil:
		told := metav1.NewTime(r.now().Truncate(time.Second).Add(time.Second)) // the API keeps whole seconds: not one too early
		m.ToldSince = &told
	}
	if !heard.clean.After(m.ToldSince.Add(render.RequestTimeout(cs) + leaveMargin)) {
		if m.Left == 0 && !heard.clean.IsZero() {
			m.Message = "nothing is left: one more walk looks for what came meanwhile"
		}
		return false
	}
	r.enter(ctx, cs, v1alpha1.MoveFinished)
	m.ToldSince = nil
	return true
}

// moveNews is what all sidecars together report of a move.
type moveNews struct {
	sidecars      int
	untold        []*sidecar // those that do not run the present configuration
	carried, left int64
	message       string
	clean         time.Time // when the latest walk began that left nothing
}

func hearMove(sidecars []sidecar, generation int64) (n moveNews) {
	for i := range sidecars {
		s := &sidecars[i]
		if !s.present {
			continue
		}
		n.sidecars++
		if !s.updated(generation) {
			n.untold = append(n.untold, s)
		}
		if s.report == nil || s.report.Move == nil {
			continue
		}
		report := s.report.Move
		n.carried += int64(report.Carried)
		if report.Walking {
			n.left, n.message = report.Left, report.Message
		}
		if report.CleanSeconds != nil {
			age := time.Duration(max(0, min(*report.CleanSeconds, longestAge.Seconds())) * float64(time.Second))
			if began := s.report.heard.Add(-age); began.After(n.clean) {
				n.clean = began
			}
		}
	}
	return n
}

// longestAge bounds the age that a sidecar may report of its walk.
const longestAge = 24 * time.Hour

// tellMove sends an event when a move begins, waits or ends.
func (r *Reconciler) tellMove(before, after *v1alpha1.CartStorage) {
	was, is := before.Status.Move, after.Status.Move
	if is == nil || was != nil && was.ID == is.ID && was.State == is.State {
		return
	}
	switch is.State {
	case v1alpha1.MoveWaiting:
		r.events.Eventf(after, nil, corev1.EventTypeWarning, "MoveWaiting", "Move", "carts are to move from %s to %s: %s", is.From, is.To, is.Message)
	case v1alpha1.MoveMoving:
		r.events.Eventf(after, nil, corev1.EventTypeNormal, "MoveStarted", "Move", "carts move from %s to %s", is.From, is.To)
	case v1alpha1.MoveFinished:
		r.events.Eventf(after, nil, corev1.EventTypeNormal, "MoveFinished", "Move", "all carts have moved from %s to %s", is.From, is.To)
	}
}
