package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// composeService is a service of a compose file, as far as it is checked here.
type composeService struct {
	Image       string
	Build       struct{ Context, Dockerfile string }
	Command     []string
	Environment map[string]string
	Volumes     []string
	Ports       []string
	DependsOn   any `yaml:"depends_on"`
}

func TestCompose_FitsWhatItStarts(t *testing.T) {
	var compose struct {
		Services map[string]composeService
		Networks map[string]any
		Volumes  map[string]any
	}
	readYAML(t, "docker-compose.yml", &compose)
	want := []string{"grafana", "postgres", "prometheus", "receiver", "walhook"}
	if got := slices.Sorted(maps.Keys(compose.Services)); !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	for name, service := range compose.Services {
		if service.Image == "" {
			t.Errorf("%s: no image", name)
		}
		if file := service.Build.Dockerfile; file != "" {
			if _, err := os.Stat(filepath.Join(repository, file)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, volume := range service.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			_, named := compose.Volumes[source]
			if _, err := os.Stat(filepath.Join(repository, source)); err != nil && !named {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, port := range service.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to others", name, port)
			}
		}
	}
	if !slices.Contains(compose.Services["postgres"].Command, "wal_level=logical") {
		t.Error("postgres: wal_level is not logical")
	}
	checkComposeCommand(t, compose.Services["walhook"], "run")
	checkComposeCommand(t, compose.Services["receiver"], "listen")
}

// checkComposeCommand checks flags and settings as the command itself does.
func checkComposeCommand(t *testing.T, service composeService, name string) {
	t.Helper()
	cmd, args, err := newRootCommand().Find(service.Command)
	if err != nil || cmd.Name() != name {
		t.Fatalf("%v is not '%s': %v", service.Command, name, err)
	}
	if err := cmd.ParseFlags(args); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	var environ []string
	for key, value := range service.Environment {
		environ = append(environ, key+"="+value)
	}
	s, err := readSettings(cmd.Flags(), func() []string { return environ })
	if err != nil || len(s.warnings) > 0 {
		t.Errorf("%s: %v %v", name, err, s.warnings)
	}
}

func TestPrometheus_ScrapesWhatListens(t *testing.T) {
	var config struct {
		ScrapeConfigs []struct {
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "deploy/prometheus/prometheus.yml", &config)
	if got := fmt.Sprint(config.ScrapeConfigs); !strings.Contains(got, "walhook:8480") {
		t.Errorf("targets %s", got)
	}
}

func TestDocs_LinkToWhatExists(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range []string{"README.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/RECEIVERS.md"} {
		text, err := os.ReadFile(filepath.Join(repository, page))
		if err != nil {
			t.Error(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(repository, filepath.Dir(page), match[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
