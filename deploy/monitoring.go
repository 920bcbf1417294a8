package deploy

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

var (
	//go:embed prometheus/alerts.yml
	alerts string
	//go:embed grafana/walhook.json
	dashboard []byte
)

// What the files of this repository have in place of an installation's own.
const (
	repositoryRunbooks = "https://walhook.example/docs/OPERATIONS.md"
	repositoryJob      = "walhook"
)

// Monitoring is what Prometheus and Grafana show of an installation.
type Monitoring struct {
	Runbooks string // URL of the page with the runbooks, docs/OPERATIONS.md, as people open it
	Job      string // the scrape job of walhook's processes; "" stands for walhook
}

// Validate reports everything that is wrong at once.
func (m Monitoring) Validate() error {
	var wrong []error
	page, err := url.Parse(m.Runbooks)
	if err != nil || page.Scheme != "http" && page.Scheme != "https" || page.Host == "" || page.Fragment != "" || strings.ContainsAny(m.Runbooks, "#\"'\\ \t\r\n") {
		wrong = append(wrong, fmt.Errorf("runbooks %q: want the URL of a page, such as https://wiki.example.com/walhook/OPERATIONS.md", m.Runbooks))
	}
	if !jobName.MatchString(cmp.Or(m.Job, repositoryJob)) {
		wrong = append(wrong, fmt.Errorf("job %q: want letters, digits and any of _ . / : -", m.Job))
	}
	return errors.Join(wrong...)
}

var jobName = regexp.MustCompile(`^[A-Za-z0-9_./:-]+$`)

// Files returns the alerts, as rules of Prometheus and as an object of its operator, and
// Grafana's dashboard.
func (m Monitoring) Files() ([]File, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	job := cmp.Or(m.Job, repositoryJob)
	rules := strings.NewReplacer(repositoryRunbooks, m.Runbooks, `job="`+repositoryJob+`"`, `job="`+job+`"`).Replace(alerts)
	rules = "# Alerts of walhook, written by 'walhook monitoring'.\n" + rules[strings.Index(rules, "groups:"):]
	board := bytes.ReplaceAll(dashboard, []byte(`"text": "`+repositoryJob+`"`), []byte(`"text": "`+job+`"`))
	board = bytes.ReplaceAll(board, []byte(`"value": "`+repositoryJob+`"`), []byte(`"value": "`+job+`"`))
	return []File{
		{"alerts.yml", []byte(rules)},
		{"prometheusrule.yaml", prometheusRule(rules)},
		{"walhook.json", board},
	}, nil
}

const prometheusRuleHead = `apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: walhook
  labels: {app.kubernetes.io/name: walhook}
spec:
`

// prometheusRule returns rules as the Prometheus operator takes them.
func prometheusRule(rules string) []byte {
	var out bytes.Buffer
	head, groups, _ := strings.Cut(rules, "groups:")
	out.WriteString(head + prometheusRuleHead)
	for line := range strings.Lines("groups:" + groups) {
		if strings.TrimSpace(line) != "" {
			out.WriteString("  ")
		}
		out.WriteString(line)
	}
	return out.Bytes()
}
