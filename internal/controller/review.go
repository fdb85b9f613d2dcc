package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/render"
)

// ReviewPath is where changes of CartStorages are reviewed.
const ReviewPath = "/review"

// reviewWithin is how long a review may take; the API server waits for a little longer.
const reviewWithin = 2500 * time.Millisecond

// Reviewer says what a change of a CartStorage will do, before it is written: which carts stay behind, what needs a
// restart, whether locking changes. It answers with warnings, which kubectl shows, also in a dry run. It refuses only a
// CartStorage that no sidecar could run on, and changes nothing.
type Reviewer struct {
	r          *Reconciler
	namespaces []string // that the operator keeps; empty is every one
}

// Handle implements [admission.Handler].
func (v *Reviewer) Handle(ctx context.Context, req admission.Request) admission.Response {
	ctx, cancel := context.WithTimeout(ctx, reviewWithin)
	defer cancel()
	var was, is *v1alpha1.CartStorage
	for _, o := range []struct {
		raw  []byte
		into **v1alpha1.CartStorage
	}{{req.OldObject.Raw, &was}, {req.Object.Raw, &is}} {
		if len(o.raw) == 0 {
			continue
		}
		*o.into = &v1alpha1.CartStorage{}
		if err := json.Unmarshal(o.raw, *o.into); err != nil {
			return admission.Errored(http.StatusBadRequest, fmt.Errorf("decode the CartStorage: %w", err))
		}
	}
	switch {
	case !keeps(v.namespaces, req.Namespace):
		return admission.Allowed("").WithWarnings(fmt.Sprintf("this operator does not keep namespace %s, and nothing comes of this CartStorage: add it to --namespaces (watchNamespaces of the chart)", req.Namespace))
	case req.Operation == admissionv1.Delete && was != nil:
		return admission.Allowed("").WithWarnings(v.removal(ctx, was)...)
	case is == nil || !is.DeletionTimestamp.IsZero():
		return admission.Allowed("")
	}
	var warnings []string
	if err := render.Check(is); err != nil {
		if was == nil || render.Check(was) == nil {
			return admission.Denied(err.Error())
		}
		warnings = append(warnings, err.Error()) // the same as before the change, so it must stay writable
	}
	if err := v.r.images.Check(is.Spec.Sidecar.Image); err != nil {
		warnings = append(warnings, fmt.Sprintf("no new pod is given a sidecar: %s", err))
	}
	if was != nil {
		warnings = append(warnings, v.change(ctx, was, is)...)
	}
	return admission.Allowed("").WithWarnings(append(warnings, settings(was, is)...)...)
}

// change says what a change does to running sidecars.
func (v *Reviewer) change(ctx context.Context, was, is *v1alpha1.CartStorage) (warnings []string) {
	behind, restart := render.Behind(was, is), render.NeedsRestart(was, is)
	moves := is.Spec.MoveFrom != nil && render.MoveID(was) != render.MoveID(is)
	fleet, err := v.r.observe(ctx, is)
	var n CartCount
	var known bool
	if err == nil && (len(behind) > 0 || moves) {
		n, known = v.r.countCarts(ctx, fleet.pods)
	}
	for _, b := range behind {
		warnings = append(warnings, stay(b, n, known && b == was))
	}
	if moves {
		former := render.Former(is)
		warnings = append(warnings, fmt.Sprintf("carts move from %s to %s: %s; see status.move", render.Where(former), render.Where(is), seen(former, n, known)))
	}
	if err != nil {
		return append(warnings, "what the change does to running pods is not known: the operator could not look in time")
	}
	injected := 0
	for _, pod := range fleet.pods {
		if render.Injected(pod) {
			injected++
		}
	}
	if len(restart) > 0 && injected > 0 {
		warnings = append(warnings, fmt.Sprintf("needs a restart of %s (%s): until then they go on as they are", plural(injected, "1 pod", "%d pods"), strings.Join(restart, ", ")))
	}
	return append(warnings, v.locking(was, is, fleet)...)
}

// stay returns "carts stay in Redis redis-a:6379: 1,204 seen under prefix cart; no sidecar will find them".
func stay(was *v1alpha1.CartStorage, n CartCount, known bool) string {
	verb := "carts stay in "
	if was.Spec.Backend.Type == v1alpha1.BackendMemory {
		verb = "carts are lost with "
	}
	return verb + render.Where(was) + ": " + seen(was, n, known) + "; no sidecar will find them"
}

// seen returns "1,204 seen under prefix cart".
func seen(cs *v1alpha1.CartStorage, n CartCount, known bool) string {
	prefix := " under prefix " + prefixOf(cs)
	switch {
	case !known:
		return "how many" + prefix + " is not known, since no sidecar says so"
	case n.More:
		return "more than " + thousands(n.Carts) + " seen" + prefix
	}
	return thousands(n.Carts) + " seen" + prefix
}

func prefixOf(cs *v1alpha1.CartStorage) string { return cmp.Or(cs.Spec.KeyPrefix, "cart") }

// thousands is "1,204".
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// locking says whether locking goes on or off, and if the backend cannot lock across replicas.
func (v *Reviewer) locking(was, is *v1alpha1.CartStorage, f *fleet) (warnings []string) {
	now := v.r.now().Truncate(time.Second)
	decision, _ := render.DecideLocking(is.Spec.Locking, f.topology, was.Status.Locking, now)
	if before := was.Status.Locking; before != nil && before.Enabled != decision.Enabled {
		word := map[bool]string{true: "on", false: "off"}[decision.Enabled]
		warnings = append(warnings, fmt.Sprintf("locking becomes %s, because %s", word, decision.Message))
	}
	auto := is.Spec.Locking
	auto.Mode = v1alpha1.LockingAuto
	needed, _ := render.DecideLocking(auto, f.topology, nil, now)
	could := render.LocksAcrossReplicas(&was.Spec.Backend)
	if needed.Enabled && could && !render.LocksAcrossReplicas(&is.Spec.Backend) {
		warnings = append(warnings, fmt.Sprintf("each pod will have carts of its own, and %s: backend %s is not shared; write %s for several pods", needed.Message, is.Spec.Backend.Type, config.SharedNames()))
	}
	return warnings
}

// settings returns warnings about single fields whose effects do not show in the pods. was is nil for the first spec of
// a CartStorage.
func settings(was, is *v1alpha1.CartStorage) (warnings []string) {
	none := &v1alpha1.CartStorage{}
	if was == nil {
		was = none
	}
	a, b := &was.Spec, &is.Spec
	if a.TTL != nil && b.TTL != nil && b.TTL.Duration != 0 && (a.TTL.Duration == 0 || b.TTL.Duration < a.TTL.Duration) {
		warnings = append(warnings, fmt.Sprintf("carts live shorter, for %s after their next change instead of %s", config.Duration(b.TTL.Duration), life(a.TTL.Duration)))
	}
	if b.Flush == v1alpha1.Allow && a.Flush != v1alpha1.Allow {
		warnings = append(warnings, "flush: Allow lets every app of these pods remove all carts at once")
	}
	if b.OrphanedCarts == v1alpha1.OrphanedAllow && a.OrphanedCarts != v1alpha1.OrphanedAllow {
		warnings = append(warnings, "orphanedCarts: Allow is the older spelling of Accept, and means the same")
	}
	accepts := b.OrphanedCarts == v1alpha1.OrphanedAccept || b.OrphanedCarts == v1alpha1.OrphanedAllow
	if was != none && accepts && len(render.Behind(was, is)) == 0 {
		warnings = append(warnings, "orphanedCarts is still "+string(b.OrphanedCarts)+": write Forbid, so that no later change leaves carts behind unasked")
	}
	return warnings
}

func life(ttl time.Duration) string {
	if ttl == 0 {
		return "for ever"
	}
	return config.Duration(ttl).String()
}

// removal says what remains when a CartStorage is removed.
func (v *Reviewer) removal(ctx context.Context, was *v1alpha1.CartStorage) []string {
	pods, err := livePods(ctx, v.r.client, was.Namespace, was.Name)
	if err != nil || len(pods) == 0 {
		return nil
	}
	n, known := v.r.countCarts(ctx, pods)
	said := []string{
		fmt.Sprintf("%s it: they go on with their last configuration, and no new pod starts until there is such a CartStorage again", plural(len(pods), "1 pod uses", "%d pods use")),
		"carts stay in " + render.Where(was) + ": " + seen(was, n, known),
	}
	if former := render.Former(was); former != nil && render.MoveState(was) != v1alpha1.MoveFinished {
		said = append(said, "carts that have not moved yet stay in "+render.Where(former))
	}
	return said
}
