package main

import (
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
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

// TestCompose_IsWhatTheSpecificationAllows loads the file as Docker Compose does:
// by the schema of the compose specification, then by what refers to what.
func TestCompose_IsWhatTheSpecificationAllows(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repository, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	load := func(text string) error {
		_, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
			WorkingDir:  repository,
			ConfigFiles: []types.ConfigFile{{Filename: "docker-compose.yml", Content: []byte(text)}},
		})
		return err
	}
	if err := load(string(text)); err != nil {
		t.Error(err)
	}
	for _, breakage := range [][2]string{
		{"healthcheck:", "healthchek:"}, {"condition: service_healthy", "condition: service_wealthy"},
		{"{postgres: {condition", "{postgre: {condition"}, {"stop_grace_period: 30s", "stop_grace_period: soon"},
	} {
		if broken := strings.Replace(string(text), breakage[0], breakage[1], 1); broken != string(text) && load(broken) == nil {
			t.Errorf("with %q it is accepted: nothing is checked", breakage[1])
		}
	}
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
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	pages, err := filepath.Glob(filepath.Join(repository, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} {
		pages = append(pages, filepath.Join(repository, page))
	}
	for _, page := range pages {
		for _, match := range link.FindAllStringSubmatch(withoutCode(t, page), -1) {
			target := page
			if match[1] != "" {
				target = filepath.Join(filepath.Dir(page), match[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if anchor := strings.TrimPrefix(match[2], "#"); anchor != "" && strings.HasSuffix(target, ".md") && !slices.Contains(anchors(t, target), anchor) {
				t.Errorf("%s links to %s#%s, and there is no such heading", page, match[1], anchor)
			}
		}
	}
}

// withoutCode returns a page without its blocks of code.
func withoutCode(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile("(?ms)^ *```.*?^ *```").ReplaceAllString(string(text), "")
}

// anchors returns the names under which a page's headings are linked to.
func anchors(t *testing.T, page string) (all []string) {
	t.Helper()
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(withoutCode(t, page), -1) {
		name := strings.ToLower(regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading[1], ""))
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// TestSystemd_TheUnitIsRightAndHardened checks what the unit promises, and where
// systemd's own tool is here, has it check the whole.
func TestSystemd_TheUnitIsRightAndHardened(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/systemd/walhook.service"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), "="); found && !strings.HasPrefix(line, "#") {
			set[key] += value
		}
	}
	for key, want := range map[string]string{
		"Type": "exec", "Restart": "on-failure", "KillSignal": "SIGTERM", "DynamicUser": "yes", "User": "walhook",
		"AssertPathExists": "/etc/walhook/walhook.yaml", "NoNewPrivileges": "yes",
		"RestartPreventExitStatus": fmt.Sprintf("%d %d", exitUsage, exitGap), "CapabilityBoundingSet": "", "ProtectSystem": "strict",
	} {
		if got, there := set[key]; got != want || !there {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	// At most: the attempt's limit, and what sender/stop.go adds to it.
	if limit, err := time.ParseDuration(set["TimeoutStopSec"]); err != nil || limit < 36*time.Second {
		t.Errorf("TimeoutStopSec %s (%v) ends a clean stop", set["TimeoutStopSec"], err)
	}
	program, args, _ := strings.Cut(set["ExecStart"], " ")
	if cmd, rest, err := newRootCommand().Find(strings.Fields(args)); err != nil || cmd.Name() != "run" || len(rest) > 0 {
		t.Errorf("ExecStart %s: %v", set["ExecStart"], err)
	}
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not here: only what is above was checked")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "walhook.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), program, self)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", "--man=no", unit}, {"security", "--offline=true", "--threshold=20", "--no-pager", unit}} {
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestContainer_IsStaticAndNotRoot checks the form of deploy/Dockerfile; there is
// no engine here to build it with. What it builds by is built.
func TestContainer_IsStaticAndNotRoot(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split(string(text), "\nFROM ")
	if len(stages) != 3 || !strings.HasPrefix(stages[2], "scratch") {
		t.Fatalf("%d stages, the last is not from scratch", len(stages)-1)
	}
	last := stages[2]
	for _, want := range []string{"ca-certificates.crt", "\nUSER 65532:65532", `ENTRYPOINT ["/walhook"]`, `CMD ["run"]`} {
		if !strings.Contains(last, want) {
			t.Errorf("the image lacks %q", want)
		}
	}
	if strings.Index(last, "USER") > strings.Index(last, "ENTRYPOINT") {
		t.Error("it starts as root")
	}
	build := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0) (go build .*) -o /walhook (\./cmd/walhook)$`).FindStringSubmatch(stages[1])
	if build == nil {
		t.Fatal("no static build")
	}
	binary := filepath.Join(t.TempDir(), "walhook")
	line := strings.NewReplacer("${VERSION}", "1.2.3", "${COMMIT}", "abc").Replace(build[2]) + " -o " + binary + " " + build[3]
	cmd := exec.CommandContext(t.Context(), "bash", "-c", line)
	cmd.Dir, cmd.Env = repository, append(os.Environ(), build[1])
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if libraries, err := file.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the binary needs %v, %v: it is not static", libraries, err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "walhook 1.2.3 (commit abc) go1.") {
		t.Errorf("version %s, %v", out, err)
	}
}

// TestKubernetes_FitsWhatItStarts checks arguments and settings as the command itself does.
func TestKubernetes_FitsWhatItStarts(t *testing.T) {
	t.Parallel()
	settings, err := os.ReadFile(filepath.Join(repository, "deploy/kubernetes/walhook.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	mounts := t.TempDir()
	for name, value := range map[string]string{
		"source": "postgres://walhook@db/carrier", "outbox": "postgres://walhook@db/walhook",
		"secret-key": strings.Repeat("A", 43) + "=", "admin-token": strings.Repeat("t", 44), "walhook.yaml": string(settings),
	} {
		if err := os.WriteFile(filepath.Join(mounts, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	places := strings.NewReplacer("/run/secrets/walhook", mounts, "/etc/walhook", mounts)
	for name, want := range map[string]roles{"publisher": {Publisher: true}, "sender": {Sender: true}, "api": {API: true}} {
		var deployment struct {
			Spec struct {
				Template struct {
					Spec struct {
						Containers []struct {
							Args []string
							Env  []struct{ Name, Value string }
						}
					}
				}
			}
		}
		readYAML(t, "deploy/kubernetes/"+name+".yaml", &deployment)
		container := deployment.Spec.Template.Spec.Containers[0]
		cmd, args, err := newRootCommand().Find(container.Args)
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err != nil || cmd.Name() != "run" {
			t.Fatalf("%s: %v: %v", name, container.Args, err)
		}
		var environ []string
		for _, e := range container.Env {
			environ = append(environ, e.Name+"="+places.Replace(e.Value))
		}
		s, err := readSettings(cmd.Flags(), func() []string { return environ })
		if err != nil || len(s.warnings) > 0 {
			t.Errorf("%s: %v %v", name, err, s.warnings)
			continue
		}
		if s.Roles != want || s.Listen != ":8480" || s.MetricsListen != ":9480" || s.Outbox == "" || s.SecretKey == nil ||
			(s.Source != "") != want.Publisher || (s.AdminToken != "") != want.API {
			t.Errorf("%s: roles %+v, listens on %s and %s", name, s.Roles, s.Listen, s.MetricsListen)
		}
	}
}
