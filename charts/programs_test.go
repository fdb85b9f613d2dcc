package charts

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testlog"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// metrics are values by label by metric.
type metrics map[string]map[string]map[string]bool

// export runs the operator of a release and a sidecar, and returns what they export.
func export(t *testing.T) metrics {
	t.Helper()
	all := metrics{}
	all.add(operatorMetrics(t))
	all.add(sidecarMetrics(t))
	return all
}

// operator is the operator of a release, with its own service account and the flags of its Deployment.
type operator struct {
	*process
	metrics, webhook string
}

func startOperator(t *testing.T, r *release, args ...string) operator {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "sidecart-operator"}}
	token := &authenticationv1.TokenRequest{}
	if err := r.c.Client.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	o := operator{metrics: address(t), webhook: address(t)}
	probes := address(t)
	args = append(args, "--kubeconfig", asAccount(t, r.kubeconfig, token.Status.Token),
		"--metrics-address", o.metrics, "--probe-address", probes, "--webhook-port", o.webhook[strings.LastIndex(o.webhook, ":")+1:])
	o.process = run(t, program(t, "operator"), []string{"POD_NAMESPACE=" + r.namespace}, args...)
	o.until("http://"+probes+"/readyz", "")
	return o
}

// stop also fails the test if something was forbidden to the operator.
func (o operator) stop() {
	o.t.Helper()
	o.process.stop()
	if log := o.log.String(); strings.Contains(log, "forbidden") {
		o.t.Errorf("the roles of the chart do not allow what the operator does:\n%s", log)
	}
}

func operatorMetrics(t *testing.T) string {
	t.Helper()
	c := cluster(t)
	r := &release{t: t, c: c, kubeconfig: kubeconfig(t, c), namespace: c.Namespace(t)}
	r.must("install", "sidecart", chart, "--take-ownership")
	defer r.must("uninstall", "sidecart")
	o := startOperator(t, r, arguments(t)...)
	askWebhook(t, r, o.webhook)
	text := o.until("http://"+o.metrics+"/metrics", `controller_runtime_reconcile_total{controller="cartstorage",result="\w+"} [1-9]`)
	o.stop()
	return text
}

// askWebhook asks the webhook to admit the pod of helm test, like an API server: by the name of the Service, trusting
// the authority in the webhook's configuration.
func askWebhook(t *testing.T, r *release, address string) {
	t.Helper()
	var pod *unstructured.Unstructured
	for _, o := range objects(t, template(t, "--namespace", r.namespace, "--show-only", "templates/tests/cart.yaml")) {
		if o.GetKind() == "Pod" {
			pod = o
		} else if err := r.c.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	hook := &admissionregistrationv1.MutatingWebhookConfiguration{}
	r.get(hook, "", "sidecart")
	config := hook.Webhooks[0].ClientConfig
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(config.CABundle) {
		t.Fatalf("the operator wrote no authority into the webhook's configuration: %q", config.CABundle)
	}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Operation: admissionv1.Create, Namespace: r.namespace, Name: pod.GetName(),
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: raw},
		},
	}
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: authorities, ServerName: config.Service.Name + "." + config.Service.Namespace + ".svc",
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("https://"+address+*config.Service.Path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&review); err != nil {
		t.Fatal(err)
	}
	if a := review.Response; a == nil || !a.Allowed || !strings.Contains(string(a.Patch), "sidecart/sidecar:") {
		t.Errorf("the pod of helm test is not given the chart's sidecar: %+v", a)
	}
}

// arguments are those that the chart gives the operator.
func arguments(t *testing.T, values ...string) []string {
	t.Helper()
	for _, o := range objects(t, template(t, values...)) {
		if o.GetKind() != "Deployment" {
			continue
		}
		containers, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		if err != nil {
			t.Fatal(err)
		}
		args, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
		if err != nil || len(args) == 0 {
			t.Fatalf("arguments %v: %v", args, err)
		}
		return args
	}
	t.Fatal("there is no Deployment")
	return nil
}

// asAccount is an administrator's kubeconfig with another user.
func asAccount(t *testing.T, admin, token string) string {
	t.Helper()
	var config map[string]any
	if err := yaml.Unmarshal([]byte(read(t, admin)), &config); err != nil {
		t.Fatal(err)
	}
	for _, u := range config["users"].([]any) {
		u.(map[string]any)["user"] = map[string]any{"token": token}
	}
	data, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// sidecarMetrics also has the sidecar checked as helm test does.
func sidecarMetrics(t *testing.T) string {
	t.Helper()
	serve, admin := address(t), address(t)
	p := run(t, program(t, "sidecar"), nil, "--backend", "memory", "--http-address", serve, "--grpc-address", address(t), "--admin-address", admin)
	p.until("http://"+admin+"/readyz", "")
	operator := program(t, "operator")
	cmd := exec.CommandContext(t.Context(), operator, "check")
	cmd.Env = []string{"SIDECART_HTTP_URL=http://" + serve}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "keeps carts") {
		t.Errorf("operator check: %v\n%s", err, out)
	}
	text := p.until("http://"+admin+"/metrics", "sidecart_requests_total")
	p.stop()
	return text
}

var (
	sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? `)
	label  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// add reads the text format of Prometheus.
func (m metrics) add(text string) {
	for line := range strings.SplitSeq(text, "\n") {
		s := sample.FindStringSubmatch(line)
		if s == nil {
			continue
		}
		if m[s[1]] == nil {
			m[s[1]] = map[string]map[string]bool{}
		}
		for _, l := range label.FindAllStringSubmatch(s[2], -1) {
			if m[s[1]][l[1]] == nil {
				m[s[1]][l[1]] = map[string]bool{}
			}
			m[s[1]][l[1]][l[2]] = true
		}
	}
}

// programs is the folder of the programs of cmd/, which build makes once for all tests.
var programs string

var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", programs, "../cmd/operator", "../cmd/sidecar").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
})

// program is one of cmd/.
func program(t *testing.T, name string) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(programs, name)
}

// process is a program that runs until the test ends.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	log testlog.Buffer
	end chan struct{}
}

func run(t *testing.T, path string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, args...), end: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.end)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.end
	})
	return p
}

// stop ends the program as Kubernetes does.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.end:
	case <-time.After(30 * time.Second):
		p.t.Errorf("it does not stop:\n%s", p.log.String())
	}
}

// until is the answer of url, once it succeeds and matches the pattern.
func (p *process) until(url, pattern string) string {
	p.t.Helper()
	want := regexp.MustCompile(pattern)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		body, err := fetch(url)
		if err == nil && want.MatchString(body) {
			return body
		}
		select {
		case <-p.end:
			p.t.Fatalf("it ended:\n%s", p.log.String())
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: %v, or no %s in\n%s\n%s", url, err, pattern, body, p.log.String())
		}
	}
}

func fetch(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", resp.Status)
	}
	return string(body), err
}

// address is a free one.
func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
