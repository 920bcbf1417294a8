package endtoend

import (
	"fmt"
	"maps"
	"net/http"
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

// recording is what a process said of itself, scrape by scrape. For Prometheus's
// own tool a scrape counts for a minute.
type recording struct {
	address string
	minutes int
	series  map[string][]string
}

func record(address string) *recording {
	return &recording{address: address, series: map[string][]string{}}
}

// wantFiring scrapes a running process n times and fails unless each of the
// alerts fires.
func wantFiring(t *testing.T, address string, n int, every time.Duration, alerts ...string) {
	t.Helper()
	r := record(address)
	r.take(t, n, every)
	r.wantFired(t, alerts...)
}

// take scrapes n times. A process that does not answer is down, as Prometheus
// has it.
func (r *recording) take(t *testing.T, n int, every time.Duration) {
	t.Helper()
	for range n {
		response, err := http.Get("http://" + r.address + "/healthz")
		if err != nil {
			for key := range r.series {
				r.put(key, "stale")
			}
			r.add("up", nil, "", 0)
		} else {
			response.Body.Close()
			r.add("up", nil, "", 1)
			for name, family := range scrape(t, r.address).families {
				if strings.HasPrefix(name, "walhook_") || name == "process_start_time_seconds" {
					r.addFamily(name, family)
				}
			}
		}
		r.minutes++
		time.Sleep(every)
	}
}

func (r *recording) addFamily(name string, family *dto.MetricFamily) {
	for _, m := range family.GetMetric() {
		if family.GetType() != dto.MetricType_HISTOGRAM {
			r.add(name, m.GetLabel(), "", m.GetGauge().GetValue()+m.GetCounter().GetValue())
			continue
		}
		for _, bucket := range m.GetHistogram().GetBucket() {
			r.add(name+"_bucket", m.GetLabel(), strconv.FormatFloat(bucket.GetUpperBound(), 'g', -1, 64), float64(bucket.GetCumulativeCount()))
		}
	}
}

func (r *recording) add(name string, labels []*dto.LabelPair, le string, value float64) {
	all := []string{`job="walhook"`, `instance="a:8480"`}
	for _, pair := range labels {
		all = append(all, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
	}
	if le != "" {
		all = append(all, fmt.Sprintf("le=%q", le))
	}
	key := name + "{" + strings.Join(all, ",") + "}"
	r.put(key, strconv.FormatFloat(value, 'f', -1, 64))
}

// put is the value of a series at this minute.
func (r *recording) put(key, value string) {
	for len(r.series[key]) < r.minutes {
		r.series[key] = append(r.series[key], "_")
	}
	r.series[key] = append(r.series[key][:r.minutes], value)
}

// wantFired fails unless each of the alerts has fired by now.
func (r *recording) wantFired(t *testing.T, alerts ...string) {
	t.Helper()
	want := map[string]float64{}
	for _, alert := range alerts {
		want[fmt.Sprintf(`(count(max_over_time(ALERTS{alertname=%q,alertstate="firing"}[1d])) or vector(0)) > bool 0`, alert)] = 1
	}
	r.evaluate(t, want)
}

// wantQuiet fails if any alert has fired by now.
func (r *recording) wantQuiet(t *testing.T) {
	t.Helper()
	want := map[string]float64{}
	for _, rule := range alertRules(t) {
		if rule.Alert != "" {
			want[fmt.Sprintf(`count(max_over_time(ALERTS{alertname=%q,alertstate="firing"}[1d])) or vector(0)`, rule.Alert)] = 0
		}
	}
	r.evaluate(t, want)
}

// evaluate has promtool evaluate alerts.yml on what was recorded, and fails
// unless the expressions then have these values.
func (r *recording) evaluate(t *testing.T, want map[string]float64) {
	t.Helper()
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
	for _, key := range slices.Sorted(maps.Keys(r.series)) {
		inputs = append(inputs, input{key, strings.Join(r.series[key], " ")})
	}
	var tests []exprTest
	for _, expr := range slices.Sorted(maps.Keys(want)) {
		tests = append(tests, exprTest{expr, fmt.Sprintf("%dm", r.minutes-1), []sample{{"{}", want[expr]}}})
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
