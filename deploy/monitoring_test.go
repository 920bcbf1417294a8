package deploy

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestMonitoring_NamesTheInstallationsRunbooksAndJob(t *testing.T) {
	t.Parallel()
	files, err := Monitoring{Runbooks: "https://wiki.example.com/a?page=b", Job: "hooks/eu-1"}.Files()
	if err != nil {
		t.Fatal(err)
	}
	type groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations map[string]string
		}
	}
	var rules struct{ Groups groups }
	var object struct {
		Kind string
		Spec struct{ Groups groups }
	}
	var board struct {
		Panels     []any
		Templating struct {
			List []struct {
				Name    string
				Current struct{ Text, Value string }
			}
		}
	}
	if err := yaml.Unmarshal(files[0].Content, &rules); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(files[1].Content, &object); err != nil || object.Kind != "PrometheusRule" || !reflect.DeepEqual(object.Spec.Groups, rules.Groups) {
		t.Errorf("the operator gets other rules: %v", err)
	}
	if err := json.Unmarshal(files[2].Content, &board); err != nil || len(board.Panels) < 20 {
		t.Fatalf("%v, %d panels", err, len(board.Panels))
	}
	if got := board.Templating.List[1]; got.Name != "job" || got.Current.Text != "hooks/eu-1" || got.Current.Value != "hooks/eu-1" {
		t.Errorf("the dashboard shows %+v", got)
	}
	all, jobs := 0, 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" {
				continue
			}
			all++
			if want := "https://wiki.example.com/a?page=b#" + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want {
				t.Errorf("%s: %s, want %s", rule.Alert, rule.Annotations["runbook_url"], want)
			}
			jobs += strings.Count(rule.Expr, `job="hooks/eu-1"`)
			if strings.Contains(rule.Expr, `job="walhook"`) {
				t.Errorf("%s: %s", rule.Alert, rule.Expr)
			}
		}
	}
	if all < 20 || jobs < 2 {
		t.Errorf("%d alerts, %d of whose expressions name the job", all, jobs)
	}
}

func TestMonitoring_RefusesWhatLeadsNowhere(t *testing.T) {
	t.Parallel()
	for _, m := range []Monitoring{
		{}, {Runbooks: "docs/OPERATIONS.md"}, {Runbooks: "file:///x"}, {Runbooks: "https://x/y#z"}, {Runbooks: "https://x/#"},
		{Runbooks: "https://x/a b"}, {Runbooks: "https://x/a\"b"}, {Runbooks: "https:///x"}, {Runbooks: "https://x/y", Job: `a"b`}, {Runbooks: "https://x/y", Job: "a b"},
	} {
		if _, err := m.Files(); err == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
}
