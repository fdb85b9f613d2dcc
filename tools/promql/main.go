// Command promql says which metrics PromQL expressions ask for, by Prometheus' own parser. It reads a JSON array of
// expressions from standard input and prints an array of the same length:
//
//	[{"selectors": [{"metric": "up", "matchers": [{"label": "job", "operator": "=", "value": "x"}]}], "grouping": ["job"], "error": ""}]
//
// It is a module of its own, since the parser brings most of Prometheus with it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	// The chart's objects are validated by the definitions of resources in these modules.
	_ "github.com/cert-manager/cert-manager/pkg/apis/meta"
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
)

type answer struct {
	Selectors []selector `json:"selectors"`
	Grouping  []string   `json:"grouping"`
	Error     string     `json:"error"`
}

type selector struct {
	Metric   string    `json:"metric"`
	Matchers []matcher `json:"matchers"`
}

type matcher struct {
	Label    string `json:"label"`
	Operator string `json:"operator"`
	Value    string `json:"value"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "promql:", err)
		os.Exit(1)
	}
}

func run() error {
	var expressions []string
	if err := json.NewDecoder(os.Stdin).Decode(&expressions); err != nil {
		return err
	}
	p := parser.NewParser(parser.Options{})
	answers := make([]answer, len(expressions))
	for i, e := range expressions {
		answers[i] = ask(p, e)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func ask(p parser.Parser, expression string) (a answer) {
	e, err := p.ParseExpr(expression)
	if err != nil {
		return answer{Error: err.Error()}
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			s := selector{Metric: n.Name}
			for _, m := range n.LabelMatchers {
				if m.Name != labels.MetricName {
					s.Matchers = append(s.Matchers, matcher{Label: m.Name, Operator: m.Type.String(), Value: m.Value})
				}
			}
			a.Selectors = append(a.Selectors, s)
		case *parser.AggregateExpr:
			a.Grouping = append(a.Grouping, n.Grouping...)
		}
		return nil
	})
	return a
}
