package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the documents that are generated from the code")

const configurationFile = "../../docs/CONFIGURATION.md"

// The page lists what --help lists, so it cannot tell otherwise.
func TestConfiguration_ThePageIsGeneratedFromTheCode(t *testing.T) {
	want := configurationPage(newRootCommand())
	if *update {
		if err := os.WriteFile(configurationFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(configurationFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/CONFIGURATION.md is older than the code: run 'make docs'")
	}
}

func configurationPage(root *cobra.Command) string {
	commands := runnable(root)
	var b strings.Builder
	b.WriteString(`# Configuring walhook

*Generated from the code by ` + "`make docs`" + `: change it there.*

A setting is a flag, an environment variable or a key of the YAML file that ` + "`--config`" + ` (or ` + "`WALHOOK_CONFIG`" + `) names. A flag overrides the environment, and the environment overrides the file. The file's keys are the flags' names without the dashes in front:

` + "```yaml" + `
source: postgres://walhook@db1,db2/carrier
outbox: postgres://walhook@outbox/walhook
allow-cidr: [10.20.0.0/16, 192.0.2.7/32]
retention: 336h
` + "```" + `

walhook rejects a key that is not a setting, and every wrong value, all at once, with exit status 2. An empty variable or key counts as unset; an empty flag, or an empty item of a list, is an error, but an empty ` + "`--allow-cidr` or `--egress-address`" + ` means none. One file may serve every command: each uses the settings that it knows.

## Settings

| flag | environment | default | meaning | commands |
|---|---|---|---|---|
`)
	for _, one := range settingTable {
		var of []string
		for _, cmd := range commands {
			if isRegistered(cmd.Flags(), one.name) {
				of = append(of, commandName(root, cmd))
			}
		}
		standard := one.standard
		if standard != "" {
			standard = "`" + standard + "`"
		}
		usage := strings.ReplaceAll(one.usage, "`", "")
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s | %s |\n", one.name, envName(one.name), standard, usage, strings.Join(of, ", "))
	}
	b.WriteString("\n## Flags of single commands\n\nThese are flags only.\n\n| command | flag | default | meaning |\n|---|---|---|---|\n")
	for _, cmd := range commands {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if isRegistered(cmd.Flags(), f.Name) || f.Hidden || f.Name == "help" {
				return
			}
			standard := ""
			if f.DefValue != "" && f.DefValue != "[]" {
				standard = "`" + f.DefValue + "`"
			}
			_, usage := pflag.UnquoteUsage(f)
			fmt.Fprintf(&b, "| `%s` | `--%s` | %s | %s |\n", commandName(root, cmd), f.Name, standard, usage)
		})
	}
	return b.String()
}

func commandName(root, cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
}

// runnable lists root's commands and theirs, in order of name.
func runnable(root *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, cmd := range root.Commands() {
		if cmd.Runnable() && !cmd.Hidden {
			all = append(all, cmd)
		}
		all = append(all, runnable(cmd)...)
	}
	slices.SortFunc(all, func(a, b *cobra.Command) int { return cmp.Compare(a.CommandPath(), b.CommandPath()) })
	return all
}
