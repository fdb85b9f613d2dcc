package charts

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// query is an expression of an alert or a panel.
type query struct {
	where, expression string
	// shown are the labels that the text beside it names.
	shown []string
}

// scraped are labels that Prometheus adds, by the monitors of the chart.
var scraped = []string{"job", "namespace", "cartstorage", "pod", "instance"}

// job is Prometheus' name for the operator: that of the Service that the ServiceMonitor selects.
const job = "sidecart-operator-metrics"

// Every alert and every panel asks for metrics that the two programs export, with labels and values that these have.
func TestQueries(t *testing.T) {
	queries := slices.Concat(alerts(t), panels(t))
	if len(queries) < 30 {
		t.Fatalf("there are only %d queries", len(queries))
	}
	if !strings.Contains(template(t), "kind: Service\nmetadata:\n  name: "+job+"\n") {
		t.Errorf("there is no Service %s", job)
	}
	exported := export(t)
	for i, a := range ask(t, queries) {
		q := queries[i]
		if a.Error != "" {
			t.Errorf("%s: %s: %s", q.where, q.expression, a.Error)
			continue
		}
		if len(a.Selectors) == 0 {
			t.Errorf("%s: %s asks for nothing", q.where, q.expression)
		}
		known := slices.Clone(scraped)
		for _, s := range a.Selectors {
			labels, ok := exported[s.Metric]
			if !ok && s.Metric != "up" { // which is Prometheus' own
				t.Errorf("%s: no program exports %s", q.where, s.Metric)
			}
			for label := range labels {
				known = append(known, label)
			}
			for _, m := range s.Matchers {
				if m.Label == "job" && m.Value != job {
					t.Errorf("%s: there is no job %s", q.where, m.Value)
				}
				if slices.Contains(scraped, m.Label) {
					continue
				}
				values, ok := labels[m.Label]
				if !ok {
					t.Errorf("%s: %s has no label %s", q.where, s.Metric, m.Label)
				} else if m.Operator == "=" && !values[m.Value] {
					t.Errorf("%s: %s never has %s=%q", q.where, s.Metric, m.Label, m.Value)
				}
			}
		}
		for _, label := range a.Grouping {
			if !slices.Contains(known, label) {
				t.Errorf("%s: what is grouped has no label %s", q.where, label)
			}
		}
		for _, label := range q.shown {
			if !slices.Contains(a.Grouping, label) {
				t.Errorf("%s: the text names the label %s, which the result has not", q.where, label)
			}
		}
	}
}

var templated = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?(\w+) ?\}\}`)

func shown(text string) (labels []string) {
	for _, m := range templated.FindAllStringSubmatch(text, -1) {
		labels = append(labels, m[1])
	}
	return labels
}

// alerts are the expressions of the rendered PrometheusRule.
func alerts(t *testing.T) (all []query) {
	t.Helper()
	for _, o := range objects(t, template(t, "--set", "metrics.prometheusRule.enabled=true")) {
		if o.GetKind() != "PrometheusRule" {
			continue
		}
		groups, _, err := unstructured.NestedSlice(o.Object, "spec", "groups")
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, r := range g.(map[string]any)["rules"].([]any) {
				rule := r.(map[string]any)
				annotations := rule["annotations"].(map[string]any)
				if annotations["summary"] == nil || annotations["description"] == nil {
					t.Errorf("alert %s has no summary or no description", rule["alert"])
				}
				all = append(all, query{"alert " + rule["alert"].(string), rule["expr"].(string),
					shown(annotations["summary"].(string) + annotations["description"].(string))})
			}
		}
	}
	return all
}

var labelValues = regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)

// panels are the expressions of the rendered dashboard.
func panels(t *testing.T) (all []query) {
	t.Helper()
	for _, o := range objects(t, template(t, "--set", "metrics.dashboard.enabled=true")) {
		if o.GetName() != "sidecart-dashboard" {
			continue
		}
		text, _, err := unstructured.NestedString(o.Object, "data", "sidecart.json")
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			Panels []struct {
				ID          int
				Title, Type string
				GridPos     struct{ H, W, X, Y int }
				Targets     []struct{ Expr, LegendFormat string }
			}
			Templating struct {
				List []struct {
					Name, Type string
					Query      any
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &board); err != nil {
			t.Fatal(err)
		}
		ids := map[int]bool{}
		for _, p := range board.Panels {
			if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("panel %s: its id is taken, it is too wide or shows nothing", p.Title)
			}
			ids[p.ID] = true
			for _, target := range p.Targets {
				expression := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
				all = append(all, query{"panel " + p.Title, expression, shown(target.LegendFormat)})
			}
		}
		for _, v := range board.Templating.List {
			if v.Type != "query" {
				continue
			}
			m := labelValues.FindStringSubmatch(v.Query.(map[string]any)["query"].(string))
			if m == nil {
				t.Fatalf("variable %s is not label_values(…)", v.Name)
			}
			all = append(all, query{"variable " + v.Name, "group by (" + m[2] + ") (" + m[1] + ")", nil})
		}
	}
	return all
}

// answer is the output of tools/promql for an expression.
type answer struct {
	Selectors []struct {
		Metric   string
		Matchers []struct{ Label, Operator, Value string }
	}
	Grouping []string
	Error    string
}

// ask has Prometheus' own parser read the queries.
func ask(t *testing.T, queries []query) (answers []answer) {
	t.Helper()
	expressions := make([]string, len(queries))
	for i, q := range queries {
		expressions[i] = q.expression
	}
	in, err := json.Marshal(expressions)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = "../tools/promql"
	cmd.Stdin = bytes.NewReader(in)
	var message bytes.Buffer
	cmd.Stderr = &message
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tools/promql: %v\n%s", err, &message)
	}
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(queries) {
		t.Fatalf("tools/promql: %d answers to %d queries: %v", len(answers), len(queries), err)
	}
	return answers
}

// The file that the chart includes is one that Prometheus could load by itself.
func TestAlertsFile(t *testing.T) {
	var rules struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert       string            `json:"alert"`
				Expr        string            `json:"expr"`
				For         string            `json:"for"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, "sidecart/files/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity is %q, want critical or warning", r.Alert, s)
			}
		}
	}
}
