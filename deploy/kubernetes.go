package deploy

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed kubernetes/*.yaml kubernetes/monitoring/*.yaml
var manifests embed.FS

// File is one file of an installation. Its name is relative, with slashes.
type File struct {
	Name    string
	Content []byte
}

// Kubernetes is an installation in a cluster. The zero value of a field stands for what
// its comment says.
type Kubernetes struct {
	Namespace     string // "" stands for the one that kubectl uses
	Image         string // with a tag or digest: registry.example/walhook:1.2.3; "" stands for walhook:latest
	Senders       int    // replicas of the sender; 0 stands for 2
	Secret        string // the existing Secret; "" stands for walhook
	DatabasePorts []int  // ports of source and outbox; nil stands for 5432
	// Settings is walhook.yaml: settings of every process, and never a secret. nil
	// stands for a file that sets nothing of importance.
	Settings []byte
	// Catalog is the catalog file; nil stands for the catalog that Settings name.
	Catalog    []byte
	Monitoring bool // the cluster has the Prometheus operator
}

// SecretKeys are the keys of the Secret, one for each secret setting. It is never changed.
var SecretKeys = []string{"source", "outbox", "secret-key", "admin-token"}

const (
	settingsFile = "walhook.yaml"
	catalogFile  = "catalog.yaml"
	// settingsFolder is where the containers find both.
	settingsFolder = "/etc/walhook/"
)

// Files returns every file of the folder for `kubectl apply -k`.
func (k Kubernetes) Files() ([]File, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	kustomization, err := k.kustomization()
	if err != nil {
		return nil, err
	}
	files := []File{{"kustomization.yaml", kustomization}, {settingsFile, k.settings()}}
	if k.Catalog != nil {
		files = append(files, File{catalogFile, k.Catalog})
	}
	err = fs.WalkDir(manifests, "kubernetes", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := manifests.ReadFile(name)
		short := strings.TrimPrefix(name, "kubernetes/")
		if !slices.ContainsFunc(files, func(f File) bool { return f.Name == short }) {
			files = append(files, File{short, content})
		}
		return err
	})
	return files, err
}

var (
	dnsLabel  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsName   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	imageName = regexp.MustCompile(`^([a-z0-9][a-zA-Z0-9._:/-]*?)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})|@(sha256:[0-9a-f]{64}))?$`)
)

// Validate reports everything that is wrong at once.
func (k Kubernetes) Validate() error {
	var faults []error
	if k.Namespace != "" && !dnsLabel.MatchString(k.Namespace) {
		faults = append(faults, fmt.Errorf("namespace %q: want lower-case letters, digits and hyphens", k.Namespace))
	}
	if k.Secret != "" && !dnsName.MatchString(k.Secret) {
		faults = append(faults, fmt.Errorf("secret %q: want lower-case letters, digits, hyphens and dots", k.Secret))
	}
	if k.Image != "" && !imageName.MatchString(k.Image) {
		faults = append(faults, fmt.Errorf("image %q: want a name and a tag, such as registry.example/walhook:1.2.3", k.Image))
	}
	if k.Senders < 0 {
		faults = append(faults, fmt.Errorf("%d senders: want a number from 1 on", k.Senders))
	}
	for _, port := range k.DatabasePorts {
		if port < 1 || port > 65535 {
			faults = append(faults, fmt.Errorf("database port %d: want a number from 1 to 65535", port))
		}
	}
	var settings map[string]any
	if err := yaml.Unmarshal(k.Settings, &settings); err != nil {
		faults = append(faults, errors.New("the settings are not a YAML mapping"))
	}
	for _, secret := range SecretKeys {
		if _, there := settings[secret]; there {
			faults = append(faults, fmt.Errorf("the settings hold %s: it belongs into the Secret", secret))
		}
	}
	if _, there := settings["catalog"]; there && k.Catalog != nil {
		faults = append(faults, errors.New("the settings name a catalog, and there is a catalog file, too"))
	}
	return errors.Join(faults...)
}

// settings returns walhook.yaml.
func (k Kubernetes) settings() []byte {
	text := k.Settings
	if text == nil {
		text, _ = manifests.ReadFile("kubernetes/" + settingsFile) // it is embedded
	}
	if k.Catalog == nil {
		return text
	}
	text = append(bytes.TrimRight(text, "\n"), '\n')
	return append(text, "catalog: "+settingsFolder+catalogFile+"\n"...)
}

const kustomizationHead = `# kubectl apply -k .
#
# Before that, the Secret:
#
#   kubectl create secret generic %s --from-file=source --from-file=outbox --from-file=secret-key --from-file=admin-token
#
# Each file holds one value: two URLs of databases, 32 random bytes in
# base64, and the operator's token.
`

// kustomization returns kustomization.yaml: all in which installations differ.
func (k Kubernetes) kustomization() ([]byte, error) {
	image := imageName.FindStringSubmatch(cmp.Or(k.Image, "walhook:latest"))
	secret := cmp.Or(k.Secret, "walhook")
	type object = map[string]any
	type patch struct {
		Target map[string]string
		Patch  string
	}
	type images struct {
		Name    string
		NewName string `yaml:"newName"`
		NewTag  string `yaml:"newTag,omitempty"`
		Digest  string `yaml:",omitempty"`
	}
	type replicas struct {
		Name  string
		Count int
	}
	type configMap struct {
		Name  string
		Files []string
	}
	var file struct {
		APIVersion         string `yaml:"apiVersion"`
		Kind               string
		Namespace          string `yaml:",omitempty"`
		Resources          []string
		Components         []string `yaml:",omitempty"`
		Images             []images
		Replicas           []replicas
		ConfigMapGenerator []configMap `yaml:"configMapGenerator"`
		Patches            []patch     `yaml:",omitempty"`
	}
	file.APIVersion, file.Kind, file.Namespace = "kustomize.config.k8s.io/v1beta1", "Kustomization", k.Namespace
	names, err := fs.Glob(manifests, "kubernetes/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name = path.Base(name); name != settingsFile && name != "kustomization.yaml" {
			file.Resources = append(file.Resources, name)
		}
	}
	if k.Monitoring {
		file.Components = []string{"monitoring"}
	}
	file.Images = []images{{Name: "walhook", NewName: image[1], NewTag: image[2], Digest: image[3]}}
	if image[2] == "" && image[3] == "" {
		file.Images[0].NewTag = "latest"
	}
	file.Replicas = []replicas{{"walhook-sender", cmp.Or(k.Senders, 2)}}
	config := configMap{"walhook", []string{settingsFile}}
	if k.Catalog != nil {
		config.Files = append(config.Files, catalogFile)
	}
	file.ConfigMapGenerator = []configMap{config}
	replace := func(kind, name, where string, value any) error {
		text, err := yaml.Marshal([]object{{"op": "replace", "path": where, "value": value}})
		target := map[string]string{"kind": kind}
		if name != "" {
			target["name"] = name
		}
		file.Patches = append(file.Patches, patch{target, string(text)})
		return err
	}
	if secret != "walhook" {
		if err := replace("Deployment", "", "/spec/template/spec/volumes/0/secret/secretName", secret); err != nil {
			return nil, err
		}
	}
	if ports := slices.Compact(slices.Sorted(slices.Values(k.DatabasePorts))); len(ports) > 0 && !slices.Equal(ports, []int{5432}) {
		var allowed []object
		for _, port := range ports {
			allowed = append(allowed, object{"protocol": "TCP", "port": port})
		}
		if err := replace("NetworkPolicy", "walhook-database", "/spec/egress/0/ports", allowed); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, kustomizationHead, secret)
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(file); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}
