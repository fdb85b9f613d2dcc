package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Command is a command outside the nodes, in the control plane's network, that sees the files of this machine, finds
// kubectl and helm in its PATH, and has KUBECONFIG set.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// "ip netns exec" would hide the cgroups.
	enter := []string{fmt.Sprintf("--net=/proc/%d/ns/net", c.pid(controlPlane)), "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	home := filepath.Join(c.dir, "home") // helm keeps a cache
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "PATH="+filepath.Join(Root(), "bin")+":"+os.Getenv("PATH"),
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECACHEDIR="+home)
	return cmd
}

// Exec runs a Command to its end and returns what it wrote to its standard output; an error tells what it wrote to its
// standard error.
func (c *Cluster) Exec(ctx context.Context, name string, args ...string) (string, error) {
	return output(c.Command(ctx, name, args...))
}

// OnNode runs a program on a node to its end, as in a shell there, and returns what it wrote. It needs no API server.
func (c *Cluster) OnNode(ctx context.Context, n int, name string, args ...string) (out string, err error) {
	err = c.callMachine(ctx, nodeName(n), "Run", Program{Args: append([]string{name}, args...)}, &out)
	return out, err
}

// Kubectl runs kubectl; see Exec.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.Exec(ctx, "kubectl", args...)
}

// Helm runs helm; see Exec.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return c.Exec(ctx, "helm", args...)
}

// Apply applies a manifest.
func (c *Cluster) Apply(ctx context.Context, manifest string) error {
	cmd := c.Command(ctx, "kubectl", "apply", "--server-side", "--filename=-")
	cmd.Stdin = strings.NewReader(manifest)
	_, err := output(cmd)
	return err
}

func output(cmd *exec.Cmd) (string, error) {
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		args := cmd.Args
		if i := slices.Index(args, "--"); args[0] == "nsenter" && i > 0 {
			args = args[i+1:] // what was asked for
		}
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(problem.Bytes()))
	}
	return out.String(), nil
}
