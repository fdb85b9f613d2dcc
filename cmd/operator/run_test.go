package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/envtest"
	"github.com/sidecart/sidecart/internal/render"
	"github.com/sidecart/sidecart/internal/testlog"

	corev1 "k8s.io/api/core/v1"
)

func TestMain(m *testing.M) { os.Exit(envtest.Main(m)) }

func TestCommandLine(t *testing.T) {
	for _, r := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"--help", 0, "--sidecar-image image", ""},
		{"-h", 0, "Exit codes:", ""},
		{"version", 0, "operator ", ""},
		{"--version", 0, "operator ", ""},
		{"--version --workers 0", 0, "operator ", ""},
		{"--version serve", 2, "", `"serve" is no command: there are check and version`},
		{"serve", 2, "", `"serve" is no command: there are check and version`},
		{"check", 1, "", "SIDECART_HTTP_URL is not set: this pod was given no sidecar"},
		{"--nonsense", 2, "", "unknown flag: --nonsense"},
		{"--resync 1ms", 2, "", "--resync: 1ms is too often: write 1s or more"},
		{"--workers 0", 2, "", "--workers: 0 is out of range: write 1 to 256"},
		{"--webhook-port 70000", 2, "", "--webhook-port: 70000 is no port: write 1 to 65535"},
		{"--sidecar-image-allow ghcr.io*,a/b", 2, "", `--sidecar-image-allow: "ghcr.io*": write the registry in full before *`},
		{"--webhook-client-ca-file /does/not/exist --kubeconfig " + kubeconfig(t), 1, "", "authorities of the webhook's clients: open /does/not/exist"},
		{"--namespace A_B", 2, "", `--namespace: "A_B" is no name of a Kubernetes object`},
		{"--namespaces shop,A.B", 2, "", `--namespaces: "A.B" is no name of a namespace`},
		{"--metrics-address 8080", 2, "", `--metrics-address: "8080" is no address: write for example :8080, or 0 for none`},
		{"--log-level loud", 2, "", `--log-level: "loud" is not a log level: write debug, info, warn or error`},
		{"--log-format xml --probe-address x", 2, "", `--log-format: "xml" is not a log format: write json or text`},
		{"--kubeconfig /does/not/exist", 1, "", "/does/not/exist"},
	} {
		var stdout, stderr bytes.Buffer
		code := Run(t.Context(), strings.Fields(r.args), nil, &stdout, &stderr)
		if code != r.code || !strings.Contains(stdout.String(), r.stdout) || !strings.Contains(stderr.String(), r.stderr) {
			t.Errorf("%s: code %d, want %d\nstdout %s\nstderr %s", r.args, code, r.code, &stdout, &stderr)
		}
	}
}

// A variable with a misspelt name is reported. The one that the operator reads, and those that Kubernetes sets for its
// Service, are not.
func TestUnknownVariablesAreTold(t *testing.T) {
	var stderr bytes.Buffer
	env := []string{
		"SIDECART_SIDECAR_IMAGE=s", "SIDECART_SIDECARIMAGE=s3cret", "SIDECART_OPERATOR_SERVICE_HOST=10.0.0.1",
		"SIDECART_OPERATOR_PORT=tcp://10.0.0.1:443", "SIDECART_HTTP_URL=http://127.0.0.1:7421",
	}
	if code := Run(t.Context(), []string{"--kubeconfig", "/does/not/exist"}, env, &stderr, &stderr); code != exitFailed {
		t.Errorf("code %d", code)
	}
	told := strings.Count(stderr.String(), "environment variable")
	if want := "environment variable is unknown and has no effect: did you mean SIDECART_SIDECAR_IMAGE?"; told != 1 || !strings.Contains(stderr.String(), want) || strings.Contains(stderr.String(), "s3cret") {
		t.Errorf("want once %q:\n%s", want, &stderr)
	}
}

// kubeconfig is a file that names a server, which is not asked.
func kubeconfig(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: \"https://127.0.0.1:1\"}}]}"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The whole program: it becomes leader, serves metrics and health, works, and stops.
func TestRun(t *testing.T) {
	cluster := envtest.Start(t)
	namespace := cluster.Namespace(t)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(cluster.Kubectl(t, "config", "view", "--raw", "--flatten")), 0o600); err != nil {
		t.Fatal(err)
	}
	webhook, err := os.ReadFile(filepath.Join("..", "..", "config", "operator", "webhook.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if message, err := cluster.Apply(t, namespace, string(webhook)); err != nil {
		t.Fatal(message)
	}
	metrics, probes, port := address(t), address(t), address(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stderr testlog.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- Run(ctx, []string{
			"--kubeconfig", kubeconfig, "--namespace", namespace, "--sidecar-image", "sidecart:1", "--log-format", "text",
			"--metrics-address", metrics, "--probe-address", probes, "--webhook-port", port[strings.LastIndex(port, ":")+1:],
		}, nil, &bytes.Buffer{}, &stderr)
	}()
	wait(t, &stderr, func() error { return answers("http://" + probes + "/readyz") })
	wait(t, &stderr, func() error { return answers("http://" + probes + "/healthz") })
	wait(t, &stderr, func() error { return answers("http://" + metrics + "/metrics") })

	cs := &v1alpha1.CartStorage{}
	cs.Namespace, cs.Name = namespace, "shop"
	cs.Spec.Backend = v1alpha1.Backend{Type: v1alpha1.BackendMemory, Memory: &v1alpha1.MemoryBackend{}}
	if err := cluster.Client.Create(t.Context(), cs); err != nil {
		t.Fatal(err)
	}
	wait(t, &stderr, func() error {
		return cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: render.ConfigMapName("shop")}, &corev1.ConfigMap{})
	})
	if err := cluster.Client.Delete(t.Context(), cs, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("ended with %d\n%s", code, &stderr)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("it does not stop\n%s", &stderr)
	}
	if !strings.Contains(stderr.String(), "operator starts") {
		t.Errorf("the log is\n%s", &stderr)
	}
}

func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func answers(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

func wait(t *testing.T, stderr *testlog.Buffer, try func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v\n%s", err, stderr)
		}
	}
}
