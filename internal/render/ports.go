package render

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// Arguments that tell a sidecar where to listen.
const (
	grpcArgument  = "--grpc-address="
	httpArgument  = "--http-address="
	adminArgument = "--admin-address="
)

// ports are those of a new pod.
func ports(cs *v1alpha1.CartStorage) v1alpha1.Ports {
	p := cs.Spec.Sidecar.Ports
	return v1alpha1.Ports{GRPC: cmp.Or(p.GRPC, config.GRPCPort), HTTP: cmp.Or(p.HTTP, config.HTTPPort), Admin: cmp.Or(p.Admin, config.AdminPort)}
}

// local returns an address on loopback. It is an IPv4 address, which every pod has on its loopback interface, also in
// an IPv6 cluster.
func local(port int32) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) }

// anywhere returns an address on all interfaces of a pod.
func anywhere(port int32) string { return net.JoinHostPort("", strconv.Itoa(int(port))) }

func addressArguments(p v1alpha1.Ports) []string {
	return []string{grpcArgument + local(p.GRPC), httpArgument + local(p.HTTP), adminArgument + anywhere(p.Admin)}
}

// injectedPorts returns the ports on which the sidecar of a pod listens as long as the pod lives. Its arguments say
// that, or cs if an older operator has given it no such arguments.
func injectedPorts(pod *corev1.Pod, cs *v1alpha1.CartStorage) v1alpha1.Ports {
	p := ports(cs)
	i := slices.IndexFunc(pod.Spec.InitContainers, ours)
	if i < 0 {
		return p
	}
	for _, arg := range pod.Spec.InitContainers[i].Args {
		for name, port := range map[string]*int32{grpcArgument: &p.GRPC, httpArgument: &p.HTTP, adminArgument: &p.Admin} {
			address, found := strings.CutPrefix(arg, name)
			_, text, err := net.SplitHostPort(address)
			if n, bad := strconv.ParseUint(text, 10, 16); found && err == nil && bad == nil {
				*port = int32(n)
			}
		}
	}
	return p
}
