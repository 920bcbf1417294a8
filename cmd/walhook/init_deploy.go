package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"walhook/deploy"
	"walhook/schemas/catalog"
)

// The files that init writes for --docker, --systemd and --kubernetes.
const (
	composeName   = "compose.yaml"
	unitName      = "walhook.service"
	manifestsName = "kubernetes"
	secretName    = "kubernetes-secret.env"
)

// installedBinary is where the unit expects walhook, unless it runs from a folder of the
// system already. The unit cannot start a binary in a home folder.
const installedBinary = "/usr/local/bin/walhook"

// deploymentFiles adds the files of the ways to run walhook that are wanted. They refer to
// the configuration file; only a cluster, which cannot, gets its content.
func (p *initPlan) deploymentFiles() error {
	if p.docker {
		text, err := p.compose().File()
		if err != nil {
			return err
		}
		p.files.add(composeName, text, 0o644)
	}
	if p.systemd {
		settings := filepath.Join(p.dir, settingsName)
		for _, path := range []string{settings, p.catalogFile()} {
			if strings.ContainsAny(path, " \t\n\"'\\:") {
				return usage(fmt.Errorf("--systemd: %s: want a path without white space, quotes, colons and backslashes, which a unit cannot name", path))
			}
		}
		program := p.program()
		p.files.add(unitName, []byte(deploy.UnitWith(program, settings, p.catalogFile())), 0o644)
		if _, err := os.Stat(program); err != nil {
			p.note("the unit starts %s, which does not exist: sudo install -m 755 %s %s", program, shellWord(executable()), program)
		}
	}
	if p.kubernetes {
		return p.manifests()
	}
	return nil
}

// catalogFile is the path of the catalog; "" for a built-in one.
func (p *initPlan) catalogFile() string {
	if p.draft == nil && catalog.BuiltIn(p.catalogName) != nil {
		return ""
	}
	return p.catalogPath()
}

func (p *initPlan) compose() deploy.Compose {
	c := deploy.Compose{Image: p.image, UID: os.Getuid(), GID: os.Getgid(), Catalog: p.catalogFile()}
	if p.draft != nil {
		c.Catalog = "./" + catalogName
	}
	for _, h := range append(p.source.hosts[:len(p.source.hosts):len(p.source.hosts)], p.outbox.hosts...) {
		if strings.HasPrefix(h.name, "/") {
			c.Sockets = append(c.Sockets, h.name)
		} else if onThisMachine(h.name) {
			c.HostNetwork = true
		}
	}
	return c
}

// onThisMachine reports whether a host of a URL is the machine itself, which another
// machine or a pod does not reach by that name.
func onThisMachine(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
}

// executable is the path of this binary.
func executable() string {
	path, err := os.Executable()
	if err != nil {
		return "walhook"
	}
	return path
}

func (p *initPlan) program() string {
	if path := executable(); strings.HasPrefix(path, "/usr/") || strings.HasPrefix(path, "/opt/") {
		return path
	}
	return installedBinary
}

// manifests adds the folder for `kubectl apply -k`, and the content of its Secret.
func (p *initPlan) manifests() error {
	k := deploy.Kubernetes{Image: p.image}
	var settings strings.Builder
	var unreachable []string
	for _, h := range append(p.source.hosts[:len(p.source.hosts):len(p.source.hosts)], p.outbox.hosts...) {
		k.DatabasePorts = append(k.DatabasePorts, int(h.port))
		if onThisMachine(h.name) {
			unreachable = append(unreachable, h.name)
		}
	}
	if unreachable = slices.Compact(slices.Sorted(slices.Values(unreachable))); len(unreachable) > 0 {
		p.note("a pod does not reach the server at %s: write the host that pods use into source and outbox of %s", strings.Join(unreachable, " and "), secretName)
	}
	settings.WriteString("# Settings of every process (docs/CONFIGURATION.md). The secret ones are in the Secret.\n")
	for _, one := range []struct{ name, value string }{{"slot", p.settings.Slot}, {"publication", p.settings.Publication}} {
		fmt.Fprintf(&settings, "%s: %s\n", one.name, yamlString(one.value))
	}
	if path := p.catalogFile(); path == "" {
		fmt.Fprintf(&settings, "catalog: %s\n", yamlString(p.catalogName))
	} else if k.Catalog = p.draft; k.Catalog == nil {
		text, err := readCatalog(path)
		if err != nil {
			return err
		}
		k.Catalog = text
	}
	k.Settings = []byte(settings.String())
	files, err := k.Files()
	if err != nil {
		return usage(fmt.Errorf("--kubernetes: %w", err))
	}
	for _, f := range files {
		p.files.add(filepath.Join(manifestsName, filepath.FromSlash(f.Name)), f.Content, 0o644)
	}
	values := map[string]string{"source": p.sourceURL(), "outbox": p.outboxURL(), "secret-key": p.key, "admin-token": p.token}
	var secret strings.Builder
	for _, name := range deploy.SecretKeys {
		value, there := values[name]
		if !there {
			return errors.New("the manifests want a secret that init does not make: " + name)
		}
		fmt.Fprintf(&secret, "%s=%s\n", name, value)
	}
	p.files.add(secretName, []byte(secret.String()), 0o600)
	return nil
}

// startCommands are the commands that start walhook as it is deployed; none without a
// deployment.
func (p *initPlan) startCommands() (commands []string) {
	path := func(name string) string { return shellWord(filepath.Join(p.dir, name)) }
	if p.systemd {
		commands = append(commands, "sudo install -m 644 "+path(unitName)+" /etc/systemd/system/ && sudo systemctl daemon-reload && sudo systemctl enable --now walhook")
	}
	if p.docker {
		commands = append(commands, "docker compose -f "+path(composeName)+" up -d")
	}
	if p.kubernetes {
		commands = append(commands, "kubectl create secret generic walhook --from-env-file="+path(secretName)+" && kubectl apply -k "+path(manifestsName))
	}
	return commands
}
