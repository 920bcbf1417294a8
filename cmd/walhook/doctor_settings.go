package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"walhook/doctor"
)

// withSettings gives walhook's commands in the fixes the flags that doctor was given, so
// that they work on the same databases. A flag that may hold a secret, such as a URL with
// a password, has a word in capitals for its value.
func withSettings(cmd *cobra.Command, findings []doctor.Finding) []doctor.Finding {
	findings = slices.Clone(findings)
	for i := range findings {
		findings[i].Fix = slices.Clone(findings[i].Fix)
		for j := range findings[i].Fix {
			step := &findings[i].Fix[j]
			if step.Kind != doctor.Command {
				continue
			}
			words := strings.Fields(step.Text)
			if len(words) < 2 || words[0] != cmd.Root().Name() {
				continue
			}
			if target, _, err := cmd.Root().Find(words[1:]); err == nil && target != cmd.Root() {
				step.Text += givenFlags(cmd.Flags(), target.Flags())
			}
		}
	}
	return findings
}

// givenFlags returns the settings that were given as flags and that another command also
// takes, in the order of their names.
func givenFlags(given, takes *pflag.FlagSet) string {
	var text strings.Builder
	given.Visit(func(flag *pflag.Flag) {
		name := flag.Name
		if !isRegistered(given, name) || !isRegistered(takes, name) {
			return
		}
		value := shellWord(flag.Value.String())
		if isSecretSetting(name) {
			value = "VALUE"
			if name == "source" || name == "outbox" {
				value = "URL"
			}
		}
		text.WriteString(" --" + name + " " + value)
	})
	return text.String()
}

// isSecretSetting reports whether a setting may hold a secret: it can be in a file.
func isSecretSetting(name string) bool {
	return slices.ContainsFunc(settingTable, func(one setting) bool { return one.secretOf() == name })
}
