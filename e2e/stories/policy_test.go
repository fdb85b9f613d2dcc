package stories

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

// The two directions of traffic.
const (
	in  = networkingv1.PolicyTypeIngress
	out = networkingv1.PolicyTypeEgress
)

// firewall judges TCP connections by the NetworkPolicies of one namespace, like a network that enforces them. A pod
// that no policy selects is open. Any other is open to the connections that one of its policies allows. It does not
// know address blocks; none of our policies has any.
type firewall struct {
	policies   []networkingv1.NetworkPolicy
	namespaces map[string]labels.Set
}

func newFirewall(ctx context.Context, client kubernetes.Interface, namespace string) (*firewall, error) {
	policies, err := client.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	w := &firewall{policies.Items, map[string]labels.Set{}}
	for _, n := range namespaces.Items {
		w.namespaces[n.Name] = n.Labels
	}
	return w, nil
}

// lets says whether a pod may be reached at a port by a peer, or reach the peer's. A nil peer is somebody who is not a
// pod.
func (w *firewall) lets(pod *corev1.Pod, direction networkingv1.PolicyType, peer *corev1.Pod, port int32) bool {
	open := true
	for _, p := range w.policies {
		if p.Namespace != pod.Namespace || !selects(&p.Spec.PodSelector, pod.Labels) || !slices.Contains(p.Spec.PolicyTypes, direction) {
			continue
		}
		open = false
		if direction == in {
			for _, r := range p.Spec.Ingress {
				if w.from(p.Namespace, r.From, peer) && at(r.Ports, pod, port) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			if w.from(p.Namespace, r.To, peer) && at(r.Ports, peer, port) {
				return true
			}
		}
	}
	return open
}

// from says whether a rule is about a peer.
func (w *firewall) from(namespace string, rule []networkingv1.NetworkPolicyPeer, peer *corev1.Pod) bool {
	return len(rule) == 0 || peer != nil && slices.ContainsFunc(rule, func(r networkingv1.NetworkPolicyPeer) bool {
		if r.IPBlock != nil {
			return false
		}
		if r.NamespaceSelector == nil && peer.Namespace != namespace {
			return false
		}
		return (r.NamespaceSelector == nil || selects(r.NamespaceSelector, w.namespaces[peer.Namespace])) &&
			(r.PodSelector == nil || selects(r.PodSelector, peer.Labels))
	})
}

// at says whether a rule is about a TCP port of the pod that is reached.
func at(rule []networkingv1.NetworkPolicyPort, pod *corev1.Pod, port int32) bool {
	return len(rule) == 0 || slices.ContainsFunc(rule, func(r networkingv1.NetworkPolicyPort) bool {
		if r.Protocol != nil && *r.Protocol != corev1.ProtocolTCP {
			return false
		}
		if r.Port == nil {
			return true
		}
		first := portOf(pod, *r.Port)
		last := first
		if r.EndPort != nil {
			last = *r.EndPort
		}
		return first <= port && port <= last
	})
}

// portOf is the number of a port that may be named by one of the pod's containers; -1 if none is called so.
func portOf(pod *corev1.Pod, port intstr.IntOrString) int32 {
	if port.Type == intstr.Int {
		return port.IntVal
	}
	if pod != nil {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			for _, p := range c.Ports {
				if p.Name == port.StrVal {
					return p.ContainerPort
				}
			}
		}
	}
	return -1
}

func selects(selector *metav1.LabelSelector, set labels.Set) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set)
}
