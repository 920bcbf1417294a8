package shape

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "walhook"

// rule is what a folder, with the folders below it, may import of ours. It may
// always import from itself.
type rule struct {
	folder string
	may    []string
	absent bool // it need not exist
}

// rules is the table of the design. The first rule that covers a folder counts.
var rules = []rule{
	{folder: "schemas"},
	{folder: "migrations"},
	{folder: "doctor", may: []string{"schemas", "internal/pgsession"}},
	{folder: "cdc", may: []string{"schemas", "doctor", "internal/pgsession"}},
	{folder: "outbox", may: []string{"schemas", "migrations", "doctor", "internal/pgsession"}},
	{folder: "sender/deliver", may: []string{"schemas", "outbox", "doctor"}}, // one attempt: it knows nothing of lanes
	{folder: "sender", may: []string{"schemas", "outbox", "doctor"}},
	{folder: "api", may: []string{"outbox", "schemas"}, absent: true},
	{folder: "cmd", may: []string{"schemas", "migrations", "doctor", "cdc", "outbox", "sender", "api", "internal"}},
	// The referee: what judges walhook does not stand on it.
	{folder: "internal/pgsession"},
	{folder: "internal/pgcluster", may: []string{"internal/pgsession"}},
	{folder: "internal/pgtest", may: []string{"internal/pgcluster", "internal/pgsession"}},
	{folder: "internal/carrier", may: []string{"schemas", "internal"}},
	{folder: "internal/receiver", may: []string{"schemas", "internal"}},
	// The benchmark measures the reader by itself.
	{folder: "internal/bench", may: []string{"schemas", "cdc", "internal"}},
	{folder: "internal", may: []string{"schemas"}},
}

func TestImports_PointTheWayOfTheDesign(t *testing.T) {
	for _, fault := range violations(t, os.DirFS("../.."), rules) {
		t.Error(fault)
	}
}

func TestImports_APlantedViolationIsCaught(t *testing.T) {
	files := func(folder string, imports ...string) fstest.MapFS {
		tree := fstest.MapFS{}
		for _, r := range rules {
			tree[r.folder+"/doc.go"] = &fstest.MapFile{Data: []byte("package x\n")}
		}
		var source strings.Builder
		source.WriteString("package x\n")
		for _, i := range imports {
			fmt.Fprintf(&source, "import %q\n", i)
		}
		tree[folder] = &fstest.MapFile{Data: []byte(source.String())}
		return tree
	}
	without := files("cdc/x.go")
	delete(without, "migrations/doc.go")
	for _, test := range []struct {
		name string
		tree fs.FS
		want string // part of the one fault; "" is none
	}{
		{"as designed", files("sender/x.go", "walhook/outbox", "walhook/schemas", "context"), ""},
		{"a folder below", files("sender/lane/x.go", "walhook/sender", "walhook/outbox"), ""},
		{"a test with a server", files("cdc/x_test.go", "walhook/internal/pgtest"), ""},
		{"everything from cmd", files("cmd/walhook/x.go", "walhook/cdc", "walhook/outbox", "walhook/internal/carrier"), ""},
		{"no api yet", func() fs.FS { tree := files("cdc/x.go"); delete(tree, "api/doc.go"); return tree }(), ""},
		{"cdc knows the outbox", files("cdc/x.go", "walhook/outbox"), "cdc/x.go imports walhook/outbox"},
		{"an attempt knows of lanes", files("sender/deliver/x.go", "walhook/sender"), "sender/deliver/x.go imports walhook/sender"},
		{"a lane makes attempts", files("sender/x.go", "walhook/sender/deliver"), ""},
		{"so does its test", files("cdc/x_test.go", "walhook/outbox"), "cdc/x_test.go imports walhook/outbox"},
		{"a name that only begins alike", files("sender/x.go", "walhook/outboxes"), "imports walhook/outboxes"},
		{"a service stands on the test server", files("outbox/x.go", "walhook/internal/pgcluster"), "outbox/x.go"},
		{"the referee stands on the player", files("internal/receiver/x.go", "walhook/sender"), "internal/receiver/x.go"},
		{"somebody imports a command", files("internal/pgtest/x.go", "walhook/cmd/walhook"), "internal/pgtest/x.go"},
		{"a folder vanished", without, "migrations holds no Go file"},
		{"a folder that no rule covers", files("util/x.go"), "util/x.go is in no folder"},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults := violations(t, test.tree, rules)
			if test.want == "" && len(faults) > 0 || test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.want)) {
				t.Errorf("faults %q, want %q", faults, test.want)
			}
		})
	}
}

// violations reads the imports of every Go file of a tree.
func violations(t *testing.T, tree fs.FS, rules []rule) (faults []string) {
	t.Helper()
	seen := map[string]bool{}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || slices.Contains([]string{"testdata", "vendor", "node_modules"}, entry.Name())) {
			return fs.SkipDir
		}
		if entry.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		i := slices.IndexFunc(rules, func(r rule) bool { return within(path.Dir(name), r.folder) })
		if i < 0 {
			faults = append(faults, name+" is in no folder of the rules: add one")
			return nil
		}
		for _, r := range rules {
			seen[r.folder] = seen[r.folder] || within(path.Dir(name), r.folder)
		}
		imported, err := ourImports(tree, name)
		for _, i2 := range imported {
			if !rules[i].allows(i2, strings.HasSuffix(name, "_test.go")) {
				faults = append(faults, fmt.Sprintf("%s imports %s/%s: %s may import %q", name, module, i2, rules[i].folder, rules[i].may))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if !seen[r.folder] && !r.absent {
			faults = append(faults, r.folder+" holds no Go file: has it moved?")
		}
	}
	return faults
}

func (r rule) allows(imported string, test bool) bool {
	allowed := append([]string{r.folder}, r.may...)
	if test {
		allowed = append(allowed, "internal")
	}
	return slices.ContainsFunc(allowed, func(folder string) bool { return within(imported, folder) })
}

// ourImports are the imports of a file from this module, without its name.
func ourImports(tree fs.FS, name string) ([]string, error) {
	source, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var ours []string
	var faults []error
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		faults = append(faults, err)
		if rest, ok := strings.CutPrefix(imported, module+"/"); ok {
			ours = append(ours, rest)
		}
	}
	return ours, errors.Join(faults...)
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}
