package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"
)

// wantFiring scrapes a running process n times and has Prometheus's own tool
// evaluate alerts.yml on what it said, a scrape counting for a minute: every one
// of the alerts must fire at the end.
func wantFiring(t *testing.T, address string, n int, every time.Duration, alerts ...string) {
	t.Helper()
	series := map[string][]string{}
	for i := range n {
		for name, family := range scrape(t, address).families {
			if !strings.HasPrefix(name, "walhook_") || family.GetType() == dto.MetricType_HISTOGRAM {
				continue
			}
			for _, m := range family.GetMetric() {
				labels := []string{`job="walhook"`, `instance="a:8480"`}
				for _, pair := range m.GetLabel() {
					labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
				}
				key := name + "{" + strings.Join(labels, ",") + "}"
				for len(series[key]) < i {
					series[key] = append(series[key], "_")
				}
				series[key] = append(series[key], strconv.FormatFloat(m.GetGauge().GetValue()+m.GetCounter().GetValue(), 'f', -1, 64))
			}
		}
		time.Sleep(every)
	}
	type input struct{ Series, Values string }
	type sample struct {
		Labels string
		Value  float64
	}
	type exprTest struct {
		Expr       string
		EvalTime   string   `yaml:"eval_time"`
		ExpSamples []sample `yaml:"exp_samples"`
	}
	var inputs []input
	for _, key := range slices.Sorted(maps.Keys(series)) {
		inputs = append(inputs, input{key, strings.Join(series[key], " ")})
	}
	var tests []exprTest
	for _, alert := range alerts {
		tests = append(tests, exprTest{fmt.Sprintf(`count(ALERTS{alertname=%q,alertstate="firing"}) > bool 0`, alert), fmt.Sprintf("%dm", n-1), []sample{{"{}", 1}}})
	}
	rules, err := filepath.Abs(filepath.Join(repository, "deploy/prometheus/alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := yaml.Marshal(map[string]any{
		"rule_files": []string{rules}, "evaluation_interval": "1m",
		"tests": []any{map[string]any{"interval": "1m", "input_series": inputs, "promql_expr_test": tests}},
	})
	path := filepath.Join(t.TempDir(), "pipeline.yml")
	if err == nil {
		err = os.WriteFile(path, file, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", path)
}
