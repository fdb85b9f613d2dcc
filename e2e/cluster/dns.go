package cluster

import (
	"bytes"
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var getOptions = metav1.GetOptions{}

// applyDNS installs CoreDNS.
func (c *Cluster) applyDNS(ctx context.Context) error {
	var manifest bytes.Buffer
	if err := templates.ExecuteTemplate(&manifest, "coredns.yaml.tmpl", map[string]any{"DNSService": dnsService}); err != nil {
		return err
	}
	return c.Apply(ctx, manifest.String())
}

// waitForDNS waits until CoreDNS serves, and with it everything that a pod needs to start.
func (c *Cluster) waitForDNS(ctx context.Context) error {
	return Poll(ctx, func(ctx context.Context) error {
		dns, err := c.client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", getOptions)
		if err != nil {
			return err
		}
		if dns.Status.ReadyReplicas == 0 {
			return fmt.Errorf("CoreDNS is not ready")
		}
		_, err = c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", getOptions)
		return err
	}, nil)
}
