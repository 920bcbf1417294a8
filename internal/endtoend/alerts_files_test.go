package endtoend

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const repository = "../.."

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, path))
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// promtool runs Prometheus's own tool, which the script finds or fetches.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), "bash", filepath.Join(repository, ".ci/promtool")).Output()
	if err != nil {
		t.Fatalf(".ci/promtool: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), strings.TrimSpace(string(path)), args...)
	cmd.Dir = filepath.Join(repository, "deploy/prometheus")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// alertRule is an alert of alerts.yml.
type alertRule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

func alertRules(t *testing.T) (rules []alertRule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	readYAML(t, "deploy/prometheus/alerts.yml", &file)
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	if len(rules) < 20 {
		t.Fatalf("%d rules", len(rules))
	}
	return rules
}

func TestAlerts_PassTheirUnitTests(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "alerts.yml")
	promtool(t, "test", "rules", "alerts_test.yml")
	promtool(t, "check", "config", "prometheus.yml")
}

// Each alert asks for metrics that exist, has a runbook, and a unit test in
// which it fires and one in which it does not.
func TestAlerts_HaveARunbookAndATestEach(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(repository, "docs/OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var tests struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, "deploy/prometheus/alerts_test.yml", &tests)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, one := range test.AlertRuleTest {
			fires[one.Alertname] = fires[one.Alertname] || len(one.ExpAlerts) > 0
			quiet[one.Alertname] = quiet[one.Alertname] || len(one.ExpAlerts) == 0
		}
	}
	for _, rule := range alertRules(t) {
		checkMetricNames(t, rule.Alert+rule.Record, rule.Expr)
		if rule.Alert == "" {
			continue
		}
		if !fires[rule.Alert] || !quiet[rule.Alert] {
			t.Errorf("%s: no unit test in which it fires, or none in which it does not", rule.Alert)
		}
		if s := rule.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s: severity %q", rule.Alert, s)
		}
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s: no summary or description", rule.Alert)
		}
		if want := "https://walhook.example/docs/OPERATIONS.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q, want %s", rule.Alert, rule.Annotations["runbook_url"], want)
		}
		_, runbook, found := strings.Cut(string(page), "\n### "+rule.Alert+"\n")
		runbook, _, _ = strings.Cut(runbook, "\n#")
		if !found || len(strings.TrimSpace(runbook)) < 100 {
			t.Errorf("%s: docs/OPERATIONS.md has no runbook, or hardly any", rule.Alert)
		}
	}
}

// checkMetricNames checks what an expression asks for against the metrics that
// a running process has.
func checkMetricNames(t *testing.T, where, expr string) {
	t.Helper()
	for _, name := range regexp.MustCompile(`\bwalhook_[a-z_]+`).FindAllString(expr, -1) {
		name = strings.TrimSuffix(name, "_bucket")
		if _, ok := promisedMetrics[name]; !ok {
			t.Errorf("%s: no metric %s", where, name)
		}
	}
}

// panel is one of the dashboard.
type panel struct {
	ID                       int
	Title, Description, Type string
	Datasource               struct{ UID string }
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ Expr string }
}

// variable is one that a person chooses above the dashboard.
type variable struct {
	Name, Type string
	Datasource struct{ UID string }
	Query      any
}

// annotation marks times on every panel.
type annotation struct {
	Name, Expr string
	Enable     bool
	Datasource struct{ UID string }
}

// checkJob checks that each metric of an expression is that of the chosen job.
func checkJob(t *testing.T, where, expr string) {
	t.Helper()
	for _, metric := range regexp.MustCompile(`\b(?:walhook|process)_[a-z_]+(?:\{[^}]*\})?`).FindAllString(expr, -1) {
		if !strings.Contains(metric, `{job=~"$job"`) {
			t.Errorf("%s: %s is not of the chosen job", where, metric)
		}
	}
}

// checkVariables checks that what a dashboard's text names is defined, and that what is
// defined is used.
func checkVariables(t *testing.T, text string, defined []variable) {
	t.Helper()
	known := map[string]bool{"__rate_interval": true, "__interval": true, "__range": true}
	for _, v := range defined {
		if known[v.Name] {
			t.Errorf("the variable %s is there twice", v.Name)
		}
		known[v.Name] = true
		if v.Type == "query" {
			query, err := json.Marshal(v.Query)
			if err != nil || v.Datasource.UID != "${datasource}" {
				t.Errorf("%s asks %s: %v", v.Name, v.Datasource.UID, err)
			}
			checkMetricNames(t, v.Name, string(query))
		}
	}
	used := map[string]bool{}
	for _, match := range regexp.MustCompile(`\$(?:\{(\w+)(?::\w+)?\}|(\w+)|\[\[(\w+)\]\])`).FindAllStringSubmatch(text, -1) {
		name := match[1] + match[2] + match[3]
		used[name] = true
		if !known[name] {
			t.Errorf("the dashboard uses $%s, which is not defined", name)
		}
	}
	for _, v := range defined {
		if !used[v.Name] {
			t.Errorf("nothing on the dashboard uses $%s", v.Name)
		}
	}
}

// TestDashboard_IsWholeAndAsksForMetricsThatExist also has Prometheus parse each
// query, as a rule.
func TestDashboard_IsWholeAndAsksForMetricsThatExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/grafana/walhook.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID, Title  string
		Panels      []panel
		Templating  struct{ List []variable }
		Annotations struct{ List []annotation }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil || dashboard.UID == "" || len(dashboard.Panels) == 0 {
		t.Fatalf("%d panels, %v", len(dashboard.Panels), err)
	}
	type rule struct{ Record, Expr string }
	var rules []rule
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range dashboard.Panels {
		if p.Title == "" || p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 || ids[p.ID] {
			t.Errorf("panel %d %q lacks a title, a description, a query or the datasource, or its id is there twice", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q, or beyond the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			checkMetricNames(t, p.Title, target.Expr)
			checkJob(t, p.Title, target.Expr)
			rules = append(rules, rule{"panel", strings.NewReplacer("$__rate_interval", "1m", "$job", "walhook").Replace(target.Expr)})
		}
	}
	checkVariables(t, string(text), dashboard.Templating.List)
	if all := dashboard.Annotations.List; len(all) != 1 || all[0].Datasource.UID != "${datasource}" || !all[0].Enable {
		t.Errorf("annotations %+v, want the alerts", all)
	} else {
		rules = append(rules, rule{"annotation", all[0].Expr})
		alertname := regexp.MustCompile(`^ALERTS\{alertname=~"([^"]+)"`).FindStringSubmatch(all[0].Expr)
		for _, rule := range alertRules(t) {
			if rule.Alert != "" && (alertname == nil || !regexp.MustCompile("^(?:"+alertname[1]+")$").MatchString(rule.Alert)) {
				t.Errorf("%s is not marked on the dashboard", rule.Alert)
			}
		}
	}
	file, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
