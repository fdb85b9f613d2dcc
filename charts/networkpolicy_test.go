package charts

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// sender is a pod that sends, by its labels and those of its namespace.
type sender struct{ namespace, pod labels.Set }

// admits reports whether the policy lets the sender reach the port, as the API documents its fields.
func admits(t *testing.T, p *networkingv1.NetworkPolicy, from sender, protocol corev1.Protocol, port int32) bool {
	t.Helper()
	for _, rule := range p.Spec.Ingress {
		if admitsPort(rule.Ports, protocol, port) && admitsSender(t, rule.From, from) {
			return true
		}
	}
	return false
}

func admitsPort(ports []networkingv1.NetworkPolicyPort, protocol corev1.Protocol, port int32) bool {
	for _, p := range ports {
		first := p.Port.IntVal
		last := first
		if p.EndPort != nil {
			last = *p.EndPort
		}
		if *p.Protocol == protocol && first <= port && port <= last {
			return true
		}
	}
	return len(ports) == 0
}

func admitsSender(t *testing.T, peers []networkingv1.NetworkPolicyPeer, from sender) bool {
	t.Helper()
	matches := func(s *metav1.LabelSelector, l labels.Set) bool {
		if s == nil {
			return true // both together select, and the chart always names the namespace
		}
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return selector.Matches(l)
	}
	for _, p := range peers {
		if matches(p.NamespaceSelector, from.namespace) && matches(p.PodSelector, from.pod) {
			return true
		}
	}
	return len(peers) == 0
}

// The admin ports of sidecars are for the operator and the peers that the values name. All other ports are open to
// everybody if that is wanted; if not, the policy opens none of them.
func TestSidecarNetworkPolicy(t *testing.T) {
	policies := map[string]*networkingv1.NetworkPolicy{}
	for _, o := range objects(t, template(t, "--values", "testdata/sidecar-network-policy.values.yaml")) {
		if o.GetKind() != "NetworkPolicy" {
			continue
		}
		p := &networkingv1.NetworkPolicy{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, p); err != nil {
			t.Fatal(err)
		}
		policies[p.Namespace] = p
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		if !selector.Matches(labels.Set{"sidecart.dev/inject": "shop"}) || selector.Matches(labels.Set{"app": "db"}) {
			t.Errorf("the policy of %s is for %s", p.Namespace, selector)
		}
	}
	if len(policies) != 2 {
		t.Fatalf("there are %d policies, want one per namespace", len(policies))
	}
	named := func(namespace string) labels.Set { return labels.Set{"kubernetes.io/metadata.name": namespace} }
	operator := sender{named(namespace), labels.Set{"app.kubernetes.io/name": "sidecart-operator", "app.kubernetes.io/instance": "x"}}
	prometheus := sender{named("monitoring"), labels.Set{"app": "prometheus"}}
	strangers := []sender{
		{named("shop"), labels.Set{"app": "web"}},
		{named("evil"), labels.Set{"app.kubernetes.io/name": "sidecart-operator"}},
		{named(namespace), labels.Set{"app": "other"}},
	}
	for name, p := range policies {
		for port := int32(1); port <= 65535; port++ {
			admin := port == 7422 || port == 8422
			for _, s := range []sender{operator, prometheus} {
				if got, want := admits(t, p, s, corev1.ProtocolTCP, port), admin || name == "shop"; got != want {
					t.Fatalf("%s: port %d for %v: %t, want %t", name, port, s, got, want)
				}
			}
			for _, s := range strangers {
				if got, want := admits(t, p, s, corev1.ProtocolTCP, port), !admin && name == "shop"; got != want {
					t.Fatalf("%s: port %d for %v: %t, want %t", name, port, s, got, want)
				}
			}
			if got := admits(t, p, strangers[0], corev1.ProtocolUDP, port); got != (name == "shop") {
				t.Fatalf("%s: UDP port %d: %t", name, port, got)
			}
		}
	}
}

// Admin ports at the ends and side by side leave no empty range and no gap.
func TestOtherPorts(t *testing.T) {
	out := template(t, "--show-only", "templates/networkpolicy.yaml", "--set", "networkPolicy.sidecars.namespaces[0].name=shop,networkPolicy.sidecars.namespaces[0].otherPorts=true",
		"--set", "networkPolicy.sidecars.adminPorts={65535,80,81,1,80,9000}")
	var got []string
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, "endPort") && strings.Contains(line, "TCP") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := "- {protocol: TCP, port: 2, endPort: 79} - {protocol: TCP, port: 82, endPort: 8999} - {protocol: TCP, port: 9001, endPort: 65534}"
	if strings.Join(got, " ") != want {
		t.Errorf("ranges are %s, want %s", got, want)
	}
}

// The policies for a namespace that denies by default let a sidecar reach its backend and DNS, and the operator the
// sidecar, and allow nothing else. Nothing enforces policies here, so they are read as the API documents them.
func TestClosedNamespace(t *testing.T) {
	policies := map[string]*networkingv1.NetworkPolicy{}
	for _, o := range objects(t, read(t, "../config/networkpolicy/closed-namespace.yaml")) {
		p := &networkingv1.NetworkPolicy{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, p); err != nil {
			t.Fatal(err)
		}
		policies[p.Name] = p
	}
	sidecars, redis := policies["sidecart-sidecars"], policies["redis"]
	if sidecars == nil || redis == nil || len(sidecars.Spec.PolicyTypes) != 2 {
		t.Fatalf("policies are %v", policies)
	}
	named := func(namespace string) labels.Set { return labels.Set{"kubernetes.io/metadata.name": namespace} }
	pods := map[string]sender{
		"operator":           {named(namespace), labels.Set{"app.kubernetes.io/name": "sidecart-operator"}},
		"shop":               {named("shop"), labels.Set{"app": "web", "sidecart.dev/inject": "shop"}},
		"redis":              {named("shop"), labels.Set{"app.kubernetes.io/name": "redis"}},
		"other pod":          {named("shop"), labels.Set{"app": "other"}},
		"names":              {named("kube-system"), labels.Set{"k8s-app": "kube-dns"}},
		"redis of others":    {named("outlet"), labels.Set{"app.kubernetes.io/name": "redis"}},
		"shop of others":     {named("outlet"), labels.Set{"sidecart.dev/inject": "shop"}},
		"operator elsewhere": {named("outlet"), labels.Set{"app.kubernetes.io/name": "sidecart-operator"}},
	}
	// In a rule without a namespaceSelector the peer is of the policy's own namespace.
	own := func(peers []networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyPeer {
		out := make([]networkingv1.NetworkPolicyPeer, len(peers))
		for i, p := range peers {
			if out[i] = p; p.NamespaceSelector == nil {
				out[i].NamespaceSelector = &metav1.LabelSelector{MatchLabels: named("shop")}
			}
		}
		return out
	}
	goesOut := func(to sender, protocol corev1.Protocol, port int32) bool {
		for _, r := range sidecars.Spec.Egress {
			if admitsPort(r.Ports, protocol, port) && admitsSender(t, own(r.To), to) {
				return true
			}
		}
		return false
	}
	comesIn := func(p *networkingv1.NetworkPolicy, from sender, port int32) bool {
		for _, r := range p.Spec.Ingress {
			if admitsPort(r.Ports, corev1.ProtocolTCP, port) && admitsSender(t, own(r.From), from) {
				return true
			}
		}
		return false
	}
	for name, pod := range pods {
		for port := int32(1); port <= 65535; port++ {
			if got, want := comesIn(sidecars, pod, port), name == "operator" && port == 7422; got != want {
				t.Fatalf("from %s to port %d of a sidecar: %t, want %t", name, port, got, want)
			}
			if got, want := goesOut(pod, corev1.ProtocolTCP, port), name == "redis" && port == 6379 || name == "names" && port == 53; got != want {
				t.Fatalf("from a sidecar to port %d of %s: %t, want %t", port, name, got, want)
			}
			if got, want := goesOut(pod, corev1.ProtocolUDP, port), name == "names" && port == 53; got != want {
				t.Fatalf("from a sidecar to UDP port %d of %s: %t, want %t", port, name, got, want)
			}
			if got, want := comesIn(redis, pod, port), name == "shop" && port == 6379; got != want {
				t.Fatalf("from %s to port %d of redis: %t, want %t", name, port, got, want)
			}
		}
	}
}
