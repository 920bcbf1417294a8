package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// contractSection returns one section of docs/CONTRACT.md.
func contractSection(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(repository, "docs/CONTRACT.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/CONTRACT.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// codeRows returns the rows of a section's tables whose first cell holds code,
// each as its cells.
func codeRows(section string) (rows [][]string) {
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if strings.HasPrefix(line, "| `") && len(cells) > 1 {
			rows = append(rows, cells)
		}
	}
	return rows
}

var inCode = regexp.MustCompile("`([^`]+)`")

// quoted returns the texts that stand in code.
func quoted(text string) (all []string) {
	for _, match := range inCode.FindAllStringSubmatch(text, -1) {
		all = append(all, match[1])
	}
	return all
}

func TestContract_ListsTheSchemasOfTheBuiltInCatalog(t *testing.T) {
	t.Parallel()
	text, err := walhook(t, "schemas", "--format", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	var catalog struct {
		Schemas map[string]struct {
			Owner  any
			Fields []string
		}
	}
	if err := yaml.Unmarshal([]byte(text), &catalog); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, row := range codeRows(contractSection(t, "1. The record feed")) {
		name := quoted(row[0])[0]
		listed[name] = true
		schema, ok := catalog.Schemas[name]
		if !ok {
			t.Errorf("the built-in catalog has no schema %s", name)
			continue
		}
		if !slices.Equal(strings.Fields(row[1]), schema.Fields) {
			t.Errorf("%s: the contract has the fields %s, the catalog %q", name, row[1], schema.Fields)
		}
		var want []string
		switch owner := schema.Owner.(type) {
		case string:
			want = []string{strings.Replace(owner, "account", "id", 1)}
		case map[string]any:
			want = []string{owner["column"].(string), owner["schema"].(string)}
		}
		if got := quoted(row[2]); !slices.Equal(got, want) {
			t.Errorf("%s: the contract has the owner %q, the catalog %q", name, got, want)
		}
	}
	if len(listed) != len(catalog.Schemas) {
		t.Errorf("the contract lists %d schemas, the catalog has %d", len(listed), len(catalog.Schemas))
	}
}

func TestContract_ListsTheCommandsTheirFlagsAndTheSettings(t *testing.T) {
	t.Parallel()
	section := contractSection(t, "5. The command")
	root := newRootCommand()
	commands := map[string]*cobra.Command{}
	for _, cmd := range runnable(root) {
		commands[commandName(root, cmd)] = cmd
	}
	settings := map[string]string{"config": ""}
	for _, one := range settingTable {
		settings[one.name] = one.standard
	}
	seen := map[string]bool{}
	for _, row := range codeRows(section) {
		first := quoted(row[0])
		if !strings.HasPrefix(first[0], "--") { // a command, and flags of it
			seen[first[0]] = true
			cmd := commands[first[0]]
			if cmd == nil {
				t.Errorf("there is no command %q", first[0])
				continue
			}
			for _, text := range quoted(row[1]) {
				if flag, isFlag := strings.CutPrefix(text, "--"); isFlag && cmd.Flags().Lookup(flag) == nil {
					t.Errorf("%s has no flag --%s", first[0], flag)
				}
			}
			continue
		}
		defaults := quoted(row[2])
		for i, flag := range first {
			name := strings.TrimPrefix(flag, "--")
			seen[name] = true
			standard, ok := settings[name]
			if !ok {
				t.Errorf("there is no setting %s", flag)
			}
			if i < len(defaults) && standard != "" && standard != defaults[i] {
				t.Errorf("%s: the contract has the default %s, the code %s", flag, defaults[i], standard)
			}
		}
	}
	for name := range settings {
		if !seen[name] {
			t.Errorf("the contract lacks the setting --%s", name)
		}
	}
	for name, cmd := range commands {
		if !seen[name] && !cmd.Hidden {
			t.Errorf("the contract lacks the command %s", name)
		}
	}
}
