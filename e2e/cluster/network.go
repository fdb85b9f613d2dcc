package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Addresses. They may be the same in every cluster, since none is visible outside. The wire is a bridge in the control
// plane's network, to which every node has a cable.
const (
	controlPlaneIP = "10.243.0.254"
	apiAddress     = controlPlaneIP + ":6443"
	serviceCIDR    = "10.96.0.0/16"
	firstService   = "10.96.0.1"
	dnsService     = "10.96.0.10"
	podCIDR        = "10.244.0.0/16"
)

func nodeIP(n int) string      { return fmt.Sprintf("10.243.0.%d", n) }
func nodePodCIDR(n int) string { return fmt.Sprintf("10.244.%d.0/24", n) }

// cable is the control plane's end of a node's cable.
func cable(n int) string { return fmt.Sprintf("node%d", n) }

// ip runs ip(8) commands in the network of that process, all in one go.
func ip(ctx context.Context, pid int, lines ...string) error {
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := inNetwork(pid, cmd.Start); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("ip %q: %w: %s", lines, err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

// layWire gives the control plane its network.
func (c *Cluster) layWire(ctx context.Context) error {
	lines := []string{
		"link set lo up",
		"link add wire type bridge",
		"addr add " + controlPlaneIP + "/24 dev wire",
		"link set wire up",
		"route add default dev wire", // programs look for their address there
	}
	return ip(ctx, c.pid(controlPlane), append(lines, c.podRoutes(0)...)...)
}

// plugIn lays the node's cable and gives the node its network.
func (c *Cluster) plugIn(ctx context.Context, n int) error {
	pid := c.pid(nodeName(n))
	if err := ip(ctx, c.pid(controlPlane),
		fmt.Sprintf("link add %s type veth peer name wire netns %d", cable(n), pid),
		fmt.Sprintf("link set %s master wire up", cable(n)),
	); err != nil {
		return err
	}
	lines := []string{
		"link set lo up",
		"addr add " + nodeIP(n) + "/24 dev wire",
		"link set wire up",
		"route add default via " + controlPlaneIP,
	}
	return ip(ctx, pid, append(lines, c.podRoutes(n)...)...)
}

// podRoutes are the routes to the pods of all nodes but one.
func (c *Cluster) podRoutes(but int) (lines []string) {
	for n := 1; n <= c.options.Nodes; n++ {
		if n != but {
			lines = append(lines, fmt.Sprintf("route add %s via %s", nodePodCIDR(n), nodeIP(n)))
		}
	}
	return lines
}

// Partition cuts a node off from everything else until Heal. Its programs and pods go on.
func (c *Cluster) Partition(ctx context.Context, n int) error {
	return ip(ctx, c.pid(controlPlane), "link set "+cable(n)+" down")
}

// Heal ends a Partition.
func (c *Cluster) Heal(ctx context.Context, n int) error {
	return ip(ctx, c.pid(controlPlane), "link set "+cable(n)+" up")
}
