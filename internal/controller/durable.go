package controller

import (
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// maxWarnings is how many warnings of a sidecar are taken in.
const maxWarnings = 8

// warningCode is what the API server accepts as a reason, and short.
var warningCode = regexp.MustCompile(`^[A-Z][A-Za-z]{0,62}$`)

// tameWarnings makes the warnings that a pod sent fit for a status. An empty list means that there are none. nil means
// that they are not known.
func tameWarnings(in []Warning) []Warning {
	if in == nil {
		return nil
	}
	out := []Warning{}
	for _, w := range in {
		if len(out) < maxWarnings && warningCode.MatchString(w.Code) {
			out = append(out, Warning{w.Code, tame(w.Message)})
		}
	}
	return out
}

// about says what a warning is about: whether carts may be lost, or whether that is unknown. NoWakeUps is about speed,
// ExpiredStay about room.
func (w Warning) about() (loss, unknown bool) {
	unknown = strings.HasPrefix(w.Code, "Unknown")
	return !unknown && w.Code != "NoWakeUps" && w.Code != "ExpiredStay", unknown
}

func (c *conclusion) backendDurable(*v1alpha1.CartStorage) (metav1.ConditionStatus, string, string) {
	first := func(s *sidecar, which func(Warning) bool) int {
		return slices.IndexFunc(s.report.Backend.Warnings, which)
	}
	loss := func(w Warning) bool { loss, _ := w.about(); return loss }
	open := func(w Warning) bool { _, unknown := w.about(); return unknown }
	with := func(which func(Warning) bool) []*sidecar {
		return filter(c.answered, func(s *sidecar) bool { return first(s, which) >= 0 })
	}
	told := filter(c.answered, func(s *sidecar) bool { return s.report.Backend.Warnings != nil })
	say := func(which func(Warning) bool, said []*sidecar, verb string) (reason, message string) {
		reason = said[0].report.Backend.Warnings[first(said[0], which)].Code
		return reason, tell(said, len(c.answered), verb, func(s *sidecar) string {
			var all []string
			for _, w := range s.report.Backend.Warnings {
				if which(w) {
					all = append(all, w.Message)
				}
			}
			return strings.Join(all, " ")
		})
	}
	if c.present == 0 {
		return metav1.ConditionUnknown, v1alpha1.ReasonNoWorkloads, "no pod uses this CartStorage"
	}
	if said := with(loss); len(said) > 0 {
		reason, message := say(loss, said, "sidecars warn that carts may be lost")
		return metav1.ConditionFalse, reason, message
	}
	if said := with(open); len(said) > 0 {
		reason, message := say(open, said, "sidecars cannot find out how safe carts are")
		return metav1.ConditionUnknown, reason, message
	}
	if len(told) == 0 {
		return metav1.ConditionUnknown, v1alpha1.ReasonUnknown, "no sidecar has said yet how safe carts are"
	}
	return metav1.ConditionTrue, v1alpha1.ReasonDurable, "no sidecar has anything to say against how carts are kept"
}
