package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Dial connects from the control plane's network, as a client outside all nodes, to an address in the cluster: of a
// pod, a node or a Service. Names are asked of the cluster's DNS; shop.default is short for
// shop.default.svc.cluster.local.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		if host, err = c.resolve(ctx, host); err != nil {
			return nil, err
		}
	}
	return c.dialControlPlane(ctx, network, net.JoinHostPort(host, port))
}

// DialFrom connects from a node's network, like a pod there, to an address without a name. It is up to each node's own
// kube-proxy where the address of a Service leads.
func (c *Cluster) DialFrom(ctx context.Context, n int, network, address string) (net.Conn, error) {
	return c.dialIn(ctx, nodeName(n), network, address)
}

func (c *Cluster) dialControlPlane(ctx context.Context, network, address string) (net.Conn, error) {
	return c.dialIn(ctx, controlPlane, network, address)
}

// dialIn makes the socket in a machine's network, so that the connection belongs there.
func (c *Cluster) dialIn(ctx context.Context, machine, network, address string) (conn net.Conn, err error) {
	pid := c.pid(machine)
	if pid == 0 {
		return nil, fmt.Errorf("dial %s: %s is down", address, machine)
	}
	entered := inNetwork(pid, func() error {
		// An address needs no second goroutine, which would run on another thread.
		conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
		return nil
	})
	if entered != nil {
		return nil, entered
	}
	return conn, err
}

func (c *Cluster) resolve(ctx context.Context, host string) (string, error) {
	if strings.Count(host, ".") == 1 {
		host += ".svc.cluster.local"
	}
	dns := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.dialControlPlane(ctx, network, net.JoinHostPort(dnsService, "53"))
	}}
	// The final dot keeps this machine's search domains out.
	addresses, err := dns.LookupHost(ctx, strings.TrimSuffix(host, ".")+".")
	if err != nil {
		return "", err
	}
	return addresses[0], nil
}

// HTTPClient is a client that dials by [Cluster.Dial]. It makes a connection for each request, so that each meets the
// Service as it is then.
func (c *Cluster) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: c.Dial, DisableKeepAlives: true}}
}
