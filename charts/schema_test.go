package charts

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// A wrong value is refused, with its place and what would be right.
func TestSchemaRefuses(t *testing.T) {
	for _, r := range []struct{ set, message string }{
		{"replica=3", "additional properties 'replica' not allowed"},
		{"replicas=0", "at '/replicas': minimum: got 0, want 1"},
		{"replicas=two", "at '/replicas': got string, want integer"},
		{"image.name=x", "at '/image': additional properties 'name' not allowed"},
		{"image.repository=", "at '/image/repository': '' does not match pattern"},
		{"image.tag=a/b", "at '/image/tag': 'a/b' does not match pattern"},
		{"image.digest=sha256:1", "at '/image/digest': 'sha256:1' does not match pattern"},
		{"image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"},
		{"sidecarImage.pullPolicy=Always", "at '/sidecarImage': additional properties 'pullPolicy' not allowed"},
		{"sidecarImageAllow[0]=ghcr.io*", "at '/sidecarImageAllow/0': 'ghcr.io*' does not match pattern"},
		{"sidecarImageAllow=ghcr.io/a", "at '/sidecarImageAllow': got string, want array"},
		{"admissionPolicy.enabled=yes", "at '/admissionPolicy/enabled': got string, want boolean"},
		{"webhook.clientCA.configMap=A_B", "at '/webhook/clientCA/configMap': 'A_B' does not match pattern"},
		{"networkPolicy.sidecars.namespaces[0].name=shop", "at '/networkPolicy/sidecars/namespaces/0': missing property 'otherPorts'"},
		{"networkPolicy.sidecars.adminPorts[0]=0", "at '/networkPolicy/sidecars/adminPorts/0': minimum: got 0, want 1"},
		{"imagePullSecrets[0]=registry", "at '/imagePullSecrets/0': got string, want object"},
		{"operator.logLevel=loud", "at '/operator/logLevel': value must be one of 'debug', 'info', 'warn', 'error'"},
		{"operator.resync=soon", "at '/operator/resync': 'soon' does not match pattern"},
		{"operator.workers=0", "at '/operator/workers': minimum: got 0, want 1"},
		{"resources.claims=x", "at '/resources': additional properties 'claims' not allowed"},
		{"priorityClassName=5", "at '/priorityClassName': got number, want string"},
		{"podDisruptionBudget.maxUnavailable=half", "at '/podDisruptionBudget/maxUnavailable'"},
		{"podAnnotations.a=1", "at '/podAnnotations/a': got number, want string"},
		{"webhook.failurePolicy=Ignore", "at '/webhook': additional properties 'failurePolicy' not allowed"},
		{"watchNamespaces[0]=A", "at '/watchNamespaces/0': 'A' does not match pattern"},
		{"webhook.timeoutSeconds=31", "at '/webhook/timeoutSeconds': maximum: got 31, want 30"},
		{"webhook.certificate.source=vault", "at '/webhook/certificate/source': value must be one of 'operator', 'cert-manager'"},
		{"webhook.certificate.issuerRef.kind=ClusterIssuer", "at '/webhook/certificate/issuerRef': properties 'name' required, if 'kind' exists"},
		{"networkPolicy.egress.sidecarPorts[0]=70000", "at '/networkPolicy/egress/sidecarPorts/0': maximum: got 70,000, want 65,535"},
		{"metrics.serviceMonitor.interval=often", "at '/metrics/serviceMonitor/interval': 'often' does not match pattern"},
		{"crds.keep=false", "at '/crds': additional properties 'keep' not allowed"},
		// Rules that a schema cannot express.
		{`podLabels.sidecart\.dev/inject=shop`, "podLabels: sidecart.dev/inject is the chart's own: choose another label"},
		{`podLabels.app\.kubernetes\.io/name=x`, "podLabels: app.kubernetes.io/name is the chart's own: choose another label"},
		{"metrics.enabled=false,metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.enabled needs metrics.enabled: true"},
		{"webhook.certificate.issuerRef.name=internal", "webhook.certificate.issuerRef needs webhook.certificate.source: cert-manager"},
	} {
		_, message, err := helm(t, os.DevNull, "template", chart, chart, "--set", r.set)
		if err == nil || !strings.Contains(message, r.message) {
			t.Errorf("--set %s: error %v, want %q in\n%s", r.set, err, r.message, message)
		}
	}
	// A chart that contains this one hands globals down.
	if _, message, err := helm(t, os.DevNull, "template", chart, chart, "--set", "global.a=1"); err != nil {
		t.Errorf("globals are refused: %s", message)
	}
}

// The schema knows exactly the values that exist: a value that it did not know would not be checked.
func TestSchemaIsComplete(t *testing.T) {
	var schema node
	if err := json.Unmarshal([]byte(read(t, "sidecart/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "sidecart/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global")
	complete(t, "", &schema, schema.Defs, values)
}

// node has the parts of a JSON schema that are looked at.
type node struct {
	Ref                  string           `json:"$ref"`
	Defs                 map[string]*node `json:"$defs"`
	Properties           map[string]*node `json:"properties"`
	AdditionalProperties any              `json:"additionalProperties"`
}

func complete(t *testing.T, path string, n *node, defs map[string]*node, value any) {
	t.Helper()
	if n.Ref != "" {
		n = defs[strings.TrimPrefix(n.Ref, "#/$defs/")]
	}
	object, ok := value.(map[string]any)
	if !ok || len(n.Properties) == 0 || len(object) == 0 {
		return
	}
	if n.AdditionalProperties != false {
		t.Errorf("%s: the schema admits keys that it does not know", path)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(n.Properties)), slices.Sorted(maps.Keys(object))); diff != "" {
		t.Errorf("%s: schema (-) and values.yaml (+) differ:\n%s", path, diff)
		return
	}
	for key, child := range n.Properties {
		complete(t, path+"."+key, child, defs, object[key])
	}
}
