package controller

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// How long something may be wrong before it counts as a failure, since pods start and end all day.
const (
	// startGrace is how much time a sidecar has from the start of its pod or of its container. It is also how long a
	// sidecar that has ended by itself must run before it counts as running. Otherwise one that ends every few seconds
	// would look well in between.
	startGrace = 10 * time.Second
	// rolloutPatience is how long an ordinary start may take, with the pull of an image, and how long a kubelet may
	// take to bring a new configuration.
	rolloutPatience = time.Minute
	// silentAfter is how long a sidecar may give no answer before it counts as silent. One late answer of a busy node
	// does not matter.
	silentAfter = 3 * time.Second
	// askAgain is how long it takes until a sidecar that did not answer is asked again.
	askAgain = time.Second
)

// look fills in what the pod's own status says.
func (s *sidecar) look(pod *corev1.Pod, now time.Time) {
	s.pod, s.present, s.ending = pod, render.Injected(pod), !pod.DeletionTimestamp.IsZero()
	began := pod.CreationTimestamp.Time
	if status := sidecarStatus(pod); status != nil && status.State.Running != nil && status.RestartCount == 0 {
		began = status.State.Running.StartedAt.Time
	}
	s.young = now.Sub(began) < startGrace
	s.waiting, s.stuck = waiting(pod, now)
	s.stuck = s.stuck && !s.young || s.waiting != "" && now.Sub(began) >= rolloutPatience
}

// patient reports whether there is still time for the sidecar to become as it should be.
func (s *sidecar) patient(now time.Time) bool { return s.young || now.Sub(s.since) < rolloutPatience }

func sidecarStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	i := slices.IndexFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == render.ContainerName })
	if i < 0 {
		return nil
	}
	return &pod.Status.InitContainerStatuses[i]
}

// passing are the waiting reasons of kubelets for containers that start normally.
var passing = []string{"ContainerCreating", "PodInitializing", "Waiting", "Pulling"}

// waiting says why the sidecar's container does not run, and whether that is trouble. It returns "" if the container
// runs.
func waiting(pod *corev1.Pod, now time.Time) (why string, trouble bool) {
	if s := sidecarStatus(pod); s != nil {
		switch {
		case s.State.Running != nil && pod.Status.PodIP == "":
			return "PodHasNoAddress", false
		case s.State.Running != nil && pod.Spec.HostNetwork:
			return "HostNetwork", true // anything on the node may answer at that port
		case s.State.Running != nil && s.RestartCount > 0 && now.Sub(s.State.Running.StartedAt.Time) < startGrace:
			return "it has just been started again" + lastWords(s.LastTerminationState.Terminated), true
		case s.State.Running != nil:
			return "", false
		case s.State.Terminated != nil:
			return cmp.Or(s.State.Terminated.Reason, "Terminated") + lastWords(s.State.Terminated), true
		case s.State.Waiting != nil:
			reason := cmp.Or(s.State.Waiting.Reason, "Waiting")
			why := reason
			// For a container that keeps ending, the kubelet's message has the length of the pause, which changes each
			// time.
			if m := s.State.Waiting.Message; m != "" && reason != "CrashLoopBackOff" {
				why += ": " + tame(m)
			}
			return why + lastWords(s.LastTerminationState.Terminated), !slices.Contains(passing, reason)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return cmp.Or(c.Reason, "Unschedulable") + ": " + tame(c.Message), true
		}
	}
	return "ContainerCreating", false
}

// lastWords returns how a container ended, with the last line of its log, which the kubelet keeps.
func lastWords(t *corev1.ContainerStateTerminated) string {
	if t == nil {
		return ""
	}
	how := fmt.Sprintf("; it ended with code %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		how += " (" + tame(t.Reason) + ")"
	}
	if m := tame(t.Message); m != "" {
		how += ", its last words: " + m
	}
	return how
}

// wasReady reports whether the resource was ready with this same spec before. If so, it stays ready while sidecars
// start, end or learn of a decision.
func wasReady(cs *v1alpha1.CartStorage) bool {
	c := condition(cs, v1alpha1.ConditionReady)
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == cs.Generation
}
