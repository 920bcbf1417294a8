package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	strict "sigs.k8s.io/json"
)

var (
	update   = flag.Bool("update", false, "write the files that are generated from the code")
	rendered = flag.String("rendered", "", "check this output of kustomize, too")
)

// cluster is what manifests describe, by kind.
type cluster struct {
	deployments []appsv1.Deployment
	services    []corev1.Service
	configMaps  []corev1.ConfigMap
	budgets     []policyv1.PodDisruptionBudget
	policies    []networkingv1.NetworkPolicy
	monitors    []serviceMonitor
}

// serviceMonitor is what the manifests use of the Prometheus operator's kind.
type serviceMonitor struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		JobLabel string `json:"jobLabel"`
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Interval string `json:"interval"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// read decodes every document of a manifest into the API's own types, as strictly as
// its server does: names have their exact case.
func (c *cluster) read(text []byte) error {
	documents := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document any
		err := documents.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		one, err := json.Marshal(document)
		if err != nil {
			return err
		}
		if err := c.add(one); err != nil {
			return err
		}
	}
}

func (c *cluster) add(text []byte) error {
	var kind struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return err
	}
	switch name := kind.APIVersion + " " + kind.Kind; name {
	case "apps/v1 Deployment":
		return decode(text, &c.deployments)
	case "v1 Service":
		return decode(text, &c.services)
	case "v1 ConfigMap":
		return decode(text, &c.configMaps)
	case "policy/v1 PodDisruptionBudget":
		return decode(text, &c.budgets)
	case "networking.k8s.io/v1 NetworkPolicy":
		return decode(text, &c.policies)
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return decode(text, &c.monitors)
	default:
		return fmt.Errorf("%s: no kind that these manifests use", name)
	}
}

func decode[T any](text []byte, into *[]T) error {
	var one T
	faults, err := strict.UnmarshalStrict(text, &one)
	if err := errors.Join(append(faults, err)...); err != nil {
		return err
	}
	*into = append(*into, one)
	return nil
}

// readFiles decodes the manifests among an installation's files.
func readFiles(t *testing.T, files []File) *cluster {
	t.Helper()
	var c cluster
	for _, file := range files {
		if slices.Contains([]string{"kustomization.yaml", settingsFile, catalogFile}, filepath.Base(file.Name)) {
			continue
		}
		if err := c.read(file.Content); err != nil {
			t.Errorf("%s: %v", file.Name, err)
		}
	}
	return &c
}

func TestKubernetes_TheCommittedFilesAreTheDefaults(t *testing.T) {
	files, err := Kubernetes{}.Files()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("kubernetes", files[0].Name)
	if *update {
		if err := os.WriteFile(path, files[0].Content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, files[0].Content) {
		t.Errorf("%s is older than the code: run 'make docs' (%v)", path, err)
	}
}

func TestKubernetes_ManifestsAreWhatTheAPIAccepts(t *testing.T) {
	t.Parallel()
	files, err := Kubernetes{}.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, breakage := range [][2]string{
		{"livenessProbe:", "livenesProbe:"}, {"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: yes please"},
		{"maxUnavailable: 1", "maxUnavailble: 1"}, {"policyTypes:", "policyType:"}, {"clusterIP: None", "clusterIp: None"},
		{"replicas: 2", "replicas: two"}, {"kind: Service\n", "kind: Servise\n"}, {"jobLabel", "joblabels"},
	} {
		found := false
		for _, file := range files {
			if broken := bytes.Replace(file.Content, []byte(breakage[0]), []byte(breakage[1]), 1); !bytes.Equal(broken, file.Content) {
				found = true
				if new(cluster).read(broken) == nil {
					t.Errorf("%s with %q is accepted: nothing is checked", file.Name, breakage[1])
				}
			}
		}
		if !found {
			t.Errorf("no file has %q", breakage[0])
		}
	}
	checkCluster(t, readFiles(t, files))
}

// TestKubernetes_RenderedIsWhatTheAPIAccepts checks what kustomize made of the folder;
// .ci/kubernetes runs it.
func TestKubernetes_RenderedIsWhatTheAPIAccepts(t *testing.T) {
	if *rendered == "" {
		t.Skip("no -rendered: .ci/kubernetes has kustomize render the folder")
	}
	text, err := os.ReadFile(*rendered)
	if err != nil {
		t.Fatal(err)
	}
	var c cluster
	if err := c.read(text); err != nil {
		t.Fatal(err)
	}
	checkCluster(t, &c)
	if len(c.configMaps) != 1 || !strings.HasPrefix(c.configMaps[0].Name, "walhook-") {
		t.Fatalf("config maps %v: a changed setting would restart nothing", c.configMaps)
	}
	for _, d := range c.deployments {
		if got := d.Spec.Template.Spec.Volumes[1].ConfigMap.Name; got != c.configMaps[0].Name {
			t.Errorf("%s reads the config map %s, and there is %s", d.Name, got, c.configMaps[0].Name)
		}
		if image := d.Spec.Template.Spec.Containers[0].Image; !strings.Contains(image, ":") {
			t.Errorf("%s: the image %s has no tag", d.Name, image)
		}
	}
}

// checkCluster checks what the API does not: that the objects fit each other, and what
// docs/OPERATIONS.md promises of them.
func checkCluster(t *testing.T, c *cluster) {
	t.Helper()
	if len(c.deployments) != 3 || len(c.services) != 2 || len(c.budgets) != 3 || len(c.policies) != 4 {
		t.Fatalf("%d deployments, %d services, %d budgets, %d policies", len(c.deployments), len(c.services), len(c.budgets), len(c.policies))
	}
	for _, d := range c.deployments {
		checkDeployment(t, d)
		pod := labels.Set(d.Spec.Template.Labels)
		budgets := 0
		for _, b := range c.budgets {
			if labels.SelectorFromSet(b.Spec.Selector.MatchLabels).Matches(pod) {
				budgets++
				if *b.Spec.MaxUnavailable != intstr.FromInt32(1) {
					t.Errorf("%s: a drain takes %v", d.Name, b.Spec.MaxUnavailable)
				}
			}
		}
		if budgets != 1 {
			t.Errorf("%s has %d disruption budgets", d.Name, budgets)
		}
	}
	for _, s := range c.services {
		selected := 0
		for _, d := range c.deployments {
			if labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(d.Spec.Template.Labels)) {
				selected++
				for _, port := range s.Spec.Ports {
					checkPort(t, d, port.TargetPort)
				}
			}
		}
		if want := map[string]int{"walhook-api": 1, "walhook-metrics": 3}[s.Name]; selected != want {
			t.Errorf("service %s is in front of %d deployments, want %d", s.Name, selected, want)
		}
	}
	for _, p := range c.policies {
		var selected []string
		for _, d := range c.deployments {
			selector := labels.SelectorFromSet(p.Spec.PodSelector.MatchLabels)
			for _, e := range p.Spec.PodSelector.MatchExpressions {
				requirement, err := labels.NewRequirement(e.Key, "in", e.Values)
				if err != nil || e.Operator != "In" {
					t.Fatalf("%s: %v", p.Name, err)
				}
				selector = selector.Add(*requirement)
			}
			if selector.Matches(labels.Set(d.Spec.Template.Labels)) {
				selected = append(selected, strings.TrimPrefix(d.Name, "walhook-"))
				for _, rule := range p.Spec.Ingress {
					for _, port := range rule.Ports {
						checkPort(t, d, *port.Port)
					}
				}
			}
		}
		want := map[string]string{"walhook": "[api publisher sender]", "walhook-database": "[api publisher sender]",
			"walhook-deliveries": "[api sender]", "walhook-api": "[api]"}[p.Name]
		slices.Sort(selected)
		if got := fmt.Sprint(selected); got != want {
			t.Errorf("policy %s is for %s, want %s", p.Name, got, want)
		}
	}
	for _, m := range c.monitors {
		selected := 0
		for _, s := range c.services {
			if !labels.SelectorFromSet(m.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)) {
				continue
			}
			selected++
			if s.Labels[m.Spec.JobLabel] != "walhook" || m.Spec.Endpoints[0].Port != s.Spec.Ports[0].Name {
				t.Errorf("%s reads port %v of %s as job %q", m.Metadata.Name, m.Spec.Endpoints, s.Name, s.Labels[m.Spec.JobLabel])
			}
		}
		if selected != 1 {
			t.Errorf("%s reads %d services", m.Metadata.Name, selected)
		}
	}
}

func checkDeployment(t *testing.T, d appsv1.Deployment) {
	t.Helper()
	template := d.Spec.Template
	if !labels.SelectorFromSet(d.Spec.Selector.MatchLabels).Matches(labels.Set(template.Labels)) || *d.Spec.Replicas != 2 {
		t.Errorf("%s selects none of its pods, or has %d replicas", d.Name, *d.Spec.Replicas)
	}
	pod, container := template.Spec, template.Spec.Containers[0]
	if s := pod.SecurityContext; s == nil || !*s.RunAsNonRoot || *s.RunAsUser != 65532 || *s.FSGroup != 65532 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: the pod's security context is %v", d.Name, s)
	}
	if s := container.SecurityContext; s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%s: the container's security context is %v", d.Name, s)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Errorf("%s: the pod gets a token of the API server", d.Name)
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Errorf("%s: links to services would be read as settings", d.Name)
	}
	// At most: the attempt's limit and what a stop adds to it (docs/OPERATIONS.md).
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || *grace < 35 {
		t.Errorf("%s: %v seconds end a clean stop", d.Name, grace)
	}
	if len(pod.TopologySpreadConstraints) != 2 {
		t.Errorf("%s: spread by %v", d.Name, pod.TopologySpreadConstraints)
	}
	for _, spread := range pod.TopologySpreadConstraints {
		if !reflect.DeepEqual(spread.LabelSelector.MatchLabels, template.Labels) {
			t.Errorf("%s: spread among %v", d.Name, spread.LabelSelector.MatchLabels)
		}
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet.Path != path {
			t.Errorf("%s: the probe of %s is %v", d.Name, path, probe)
			continue
		}
		checkPort(t, d, probe.HTTPGet.Port)
	}
	if container.Resources.Requests.Cpu().IsZero() || container.Resources.Requests.Memory().IsZero() || container.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s: resources %v", d.Name, container.Resources)
	}
	// Each file that a variable names is one of the Secret's items, and each item is used.
	var named, mounted []string
	for _, e := range container.Env {
		if file, found := strings.CutPrefix(e.Value, "/run/secrets/walhook/"); found {
			named = append(named, file)
		}
	}
	secret := pod.Volumes[0].Secret // kustomization.yaml knows it by this place
	if secret == nil || secret.SecretName != "walhook" {
		t.Fatalf("%s: the first volume is %v", d.Name, pod.Volumes[0])
	}
	// walhook warns of files that others can read.
	for _, mode := range []*int32{secret.DefaultMode, pod.Volumes[1].ConfigMap.DefaultMode} {
		if mode == nil || *mode != 0o440 {
			t.Errorf("%s: files are mounted with mode %v", d.Name, mode)
		}
	}
	for _, item := range secret.Items {
		mounted = append(mounted, item.Key)
		if item.Key != item.Path || !slices.Contains(SecretKeys, item.Key) {
			t.Errorf("%s: item %v", d.Name, item)
		}
	}
	if !slices.Equal(named, mounted) {
		t.Errorf("%s reads the secrets %q and gets %q", d.Name, named, mounted)
	}
}

// checkPort checks that the container of a deployment has a port.
func checkPort(t *testing.T, d appsv1.Deployment, port intstr.IntOrString) {
	t.Helper()
	if !slices.ContainsFunc(d.Spec.Template.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool {
		return p.Name == port.StrVal || p.ContainerPort == port.IntVal
	}) {
		t.Errorf("%s has no port %s", d.Name, port.String())
	}
}

func TestKubernetes_WritesWhatAnInstallationNeeds(t *testing.T) {
	t.Parallel()
	k := Kubernetes{Namespace: "hooks", Image: "registry.example:5000/team/walhook:1.2.3", Senders: 5, Secret: "walhook-keys",
		DatabasePorts: []int{6432, 5432, 6432}, Settings: []byte("allow-cidr: 10.0.0.0/8"), Catalog: []byte("account: {}\n"), Monitoring: true}
	files, err := k.Files()
	if err != nil {
		t.Fatal(err)
	}
	checkCluster(t, readFiles(t, files))
	contents := map[string]string{}
	for _, file := range files {
		if contents[file.Name] != "" {
			t.Errorf("%s is there twice", file.Name)
		}
		contents[file.Name] = string(file.Content)
	}
	if got, want := contents["walhook.yaml"], "allow-cidr: 10.0.0.0/8\ncatalog: /etc/walhook/catalog.yaml\n"; got != want {
		t.Errorf("settings %q, want %q", got, want)
	}
	if contents["catalog.yaml"] != "account: {}\n" {
		t.Errorf("catalog %q", contents["catalog.yaml"])
	}
	var got struct {
		Namespace          string
		Resources          []string
		Components         []string
		Images             []map[string]string
		Replicas           []map[string]any
		ConfigMapGenerator []struct {
			Name  string
			Files []string
		} `yaml:"configMapGenerator"`
		Patches []struct{ Patch string }
	}
	if err := yaml.Unmarshal([]byte(contents["kustomization.yaml"]), &got); err != nil {
		t.Fatal(err)
	}
	image := map[string]string{"name": "walhook", "newName": "registry.example:5000/team/walhook", "newTag": "1.2.3"}
	if got.Namespace != "hooks" || !slices.Equal(got.Components, []string{"monitoring"}) || !reflect.DeepEqual(got.Images, []map[string]string{image}) ||
		got.Replicas[0]["count"] != 5 || !slices.Equal(got.ConfigMapGenerator[0].Files, []string{"walhook.yaml", "catalog.yaml"}) {
		t.Errorf("%+v", got)
	}
	if len(got.Patches) != 2 || !strings.Contains(got.Patches[0].Patch, "walhook-keys") || !strings.Contains(got.Patches[1].Patch, "6432") {
		t.Errorf("patches %q", got.Patches)
	}
	for _, name := range got.Resources {
		if contents[name] == "" {
			t.Errorf("kustomization.yaml names %s, which is not there", name)
		}
	}
}

func TestKubernetes_RefusesWhatNoClusterTakes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		k    Kubernetes
		want string
	}{
		{"a namespace", Kubernetes{Namespace: "Hooks Of Mine"}, `namespace "Hooks Of Mine"`},
		{"a secret's name", Kubernetes{Secret: "-x"}, `secret "-x"`},
		{"an image", Kubernetes{Image: "a b"}, `image "a b"`},
		{"a digest that is short", Kubernetes{Image: "walhook@sha256:12"}, "image"},
		{"senders", Kubernetes{Senders: -1}, "-1 senders"},
		{"a port", Kubernetes{DatabasePorts: []int{70000}}, "database port 70000"},
		{"a secret among the settings", Kubernetes{Settings: []byte("source: postgres://a:b@c/d")}, "the settings hold source"},
		{"settings that are a list", Kubernetes{Settings: []byte("- a")}, "not a YAML mapping"},
		{"two catalogs", Kubernetes{Settings: []byte("catalog: platform"), Catalog: []byte("x")}, "name a catalog"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := test.k.Files(); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "a:b") {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestKubernetes_TakesADigest(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0f", 32)
	files, err := Kubernetes{Image: "registry.example/walhook@" + digest}.Files()
	if err != nil || !strings.Contains(string(files[0].Content), "digest: "+digest) || strings.Contains(string(files[0].Content), "newTag") {
		t.Errorf("%v\n%s", err, files[0].Content)
	}
}
