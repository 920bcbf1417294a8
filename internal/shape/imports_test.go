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
	absent bool     // it need not exist
	alone  bool     // the folder without those below it
	std    bool     // needs the standard library alone; its tests may need more
	tests  []string // what its tests may import besides
	never  []string // folders below those that it may import, which its programs never do
}

// rules is the table of the design. The first rule that covers a folder counts.
var rules = []rule{
	{folder: "schemas/pgjson", std: true},
	{folder: "schemas/catalog", may: []string{"schemas"}},
	{folder: "schemas", may: []string{"schemas/pgjson"}, alone: true},
	{folder: "migrations"},
	{folder: "doctor", may: []string{"schemas", "internal/pgsession"}},
	{folder: "cdc/source", may: []string{"schemas", "doctor", "internal/pgsession"}}, // it knows nothing of the stream
	{folder: "cdc", may: []string{"schemas", "cdc/source", "internal/pgsession", "internal/retry"}, alone: true},
	{folder: "outbox/route", may: []string{"schemas"}, std: true},       // pure: no database, and its tests need none
	{folder: "outbox/address"},                                          // pure: URLs and hosts
	{folder: "outbox/seal", may: []string{"outbox/address"}, std: true}, // pure: what is encrypted at rest
	{folder: "outbox/admin", may: []string{"outbox", "schemas", "internal/pgsession"}, tests: []string{"doctor"}},
	{folder: "outbox/storetest", may: []string{"schemas", "internal/pgtest"}}, // not outbox, whose own tests use it
	{folder: "outbox/outboxtest/memory", may: []string{"outbox"}},
	{folder: "outbox/outboxtest", may: []string{"outbox", "sender"}},
	{folder: "outbox", alone: true, tests: []string{"sender", "outbox/outboxtest", "outbox/storetest"},
		may: []string{"outbox/route", "outbox/seal", "outbox/address", "schemas", "migrations", "doctor", "internal/pgsession", "internal/retry"}},
	{folder: "sender/deliver", may: []string{"schemas", "outbox", "doctor"}, never: []string{"outbox/admin"}}, // one attempt: it knows nothing of lanes
	{folder: "sender", may: []string{"schemas", "outbox", "doctor", "internal/retry"}, never: []string{"outbox/admin"}},
	{folder: "api", may: []string{"outbox", "schemas"}, absent: true},
	{folder: "portal", may: []string{"api", "outbox", "schemas"}}, // pages: it reads and changes nothing but by the API and its own sessions
	{folder: "deploy"},
	{folder: "cmd", may: []string{"deploy", "schemas", "migrations", "doctor", "cdc", "outbox", "sender", "api", "portal", "internal"}},
	// The referee: what judges walhook does not stand on it.
	{folder: "internal/pgsession"},
	{folder: "internal/retry"},
	{folder: "internal/pgcluster", may: []string{"internal/pgsession"}},
	{folder: "internal/pgtest", may: []string{"internal/pgcluster", "internal/pgsession"}},
	{folder: "internal/carrier", may: []string{"schemas", "internal"}},
	{folder: "internal/receiver", may: []string{"schemas", "internal"}},
	// The benchmark measures the reader by itself, and with the HTTP client as the floor.
	{folder: "internal/bench", may: []string{"schemas", "cdc", "outbox", "sender/deliver", "internal"}},
	// The end-to-end tests drive the binary: of what it is made of they know the
	// words of doctor --json.
	{folder: "internal/endtoend", tests: []string{"doctor"}},
	{folder: "internal", may: []string{"schemas"}},
}

// forTests are folders that tests import and programs never hold.
var forTests = []string{"internal/carrier/carriertest", "outbox/outboxtest", "outbox/route/routetest", "outbox/storetest"}

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
		{"the catalog knows the vocabulary", files("schemas/catalog/x.go", "walhook/schemas", "walhook/schemas/pgjson", "go.yaml.in/yaml/v3"), ""},
		{"the vocabulary knows the catalog", files("schemas/x.go", "walhook/schemas/catalog"), "schemas/x.go imports walhook/schemas/catalog"},
		{"text to JSON knows the vocabulary", files("schemas/pgjson/x.go", "walhook/schemas"), "schemas/pgjson/x.go imports walhook/schemas"},
		{"text to JSON needs a module", files("schemas/pgjson/x.go", "github.com/jackc/pgx/v5"), "schemas/pgjson/x.go imports github.com/jackc/pgx/v5"},
		{"so may its test", files("schemas/pgjson/x_test.go", "github.com/jackc/pgx/v5"), ""},
		{"a room without a rule", files("schemas/new/x.go"), "schemas/new/x.go is in no folder"},
		{"cdc knows the outbox", files("cdc/x.go", "walhook/outbox"), "cdc/x.go imports walhook/outbox"},
		{"an attempt knows of lanes", files("sender/deliver/x.go", "walhook/sender"), "sender/deliver/x.go imports walhook/sender"},
		{"a lane makes attempts", files("sender/x.go", "walhook/sender/deliver"), ""},
		{"the reader stands on the source", files("cdc/x.go", "walhook/cdc/source", "walhook/schemas/catalog"), ""},
		{"the source stands on the reader", files("cdc/source/x.go", "walhook/cdc"), "cdc/source/x.go imports walhook/cdc"},
		{"the stream examines", files("cdc/x.go", "walhook/doctor"), "cdc/x.go imports walhook/doctor"},
		{"so does its test", files("cdc/x_test.go", "walhook/outbox"), "cdc/x_test.go imports walhook/outbox"},
		{"a name that only begins alike", files("sender/x.go", "walhook/outboxes"), "imports walhook/outboxes"},
		{"routing reads a database", files("outbox/route/x.go", "github.com/jackc/pgx/v5"), "outbox/route/x.go imports github.com/jackc/pgx/v5"},
		{"a service stands on the test server", files("outbox/x.go", "walhook/internal/pgcluster"), "outbox/x.go"},
		{"the referee stands on the player", files("internal/receiver/x.go", "walhook/sender"), "internal/receiver/x.go"},
		{"an end-to-end test reads doctor's report", files("internal/endtoend/x_test.go", "walhook/doctor", "walhook/internal/pgtest"), ""},
		{"an end-to-end test goes behind the binary", files("internal/endtoend/x_test.go", "walhook/outbox"), "internal/endtoend/x_test.go imports walhook/outbox"},
		{"a test with the suite", files("sender/x_test.go", "walhook/outbox/outboxtest/memory"), ""},
		{"the suite looks down", files("outbox/outboxtest/x.go", "walhook/sender", "walhook/outbox"), ""},
		{"a log for tests in a program", files("sender/x.go", "walhook/outbox/outboxtest/memory"), "is for tests"},
		{"the outbox under the sender's suite", files("outbox/x_test.go", "walhook/sender", "walhook/outbox/outboxtest"), ""},
		{"the outbox knows the sender", files("outbox/x.go", "walhook/sender"), "outbox/x.go imports walhook/sender"},
		{"the outbox knows its administration", files("outbox/x.go", "walhook/outbox/admin"), "outbox/x.go imports walhook/outbox/admin"},
		{"the administration knows the outbox", files("outbox/admin/x.go", "walhook/outbox", "walhook/outbox/seal", "github.com/jackc/pgx/v5"), ""},
		{"the administration knows the sender", files("outbox/admin/x.go", "walhook/sender"), "outbox/admin/x.go imports walhook/sender"},
		{"the sender knows the administration", files("sender/x.go", "walhook/outbox/admin"), "sender/x.go imports walhook/outbox/admin"},
		{"an attempt knows the administration", files("sender/deliver/x.go", "walhook/outbox/admin"), "sender/deliver/x.go imports walhook/outbox/admin"},
		{"the sender's tests ask the administration", files("sender/x_test.go", "walhook/outbox/admin"), ""},
		{"an attempt reads addresses", files("sender/deliver/x.go", "walhook/outbox/address", "walhook/outbox/seal"), ""},
		{"sealing reads a database", files("outbox/seal/x.go", "github.com/jackc/pgx/v5"), "outbox/seal/x.go imports github.com/jackc/pgx/v5"},
		{"sealing knows the outbox", files("outbox/seal/x.go", "walhook/outbox"), "outbox/seal/x.go imports walhook/outbox"},
		{"addresses know what is sealed", files("outbox/address/x.go", "walhook/outbox/seal"), "outbox/address/x.go imports walhook/outbox/seal"},
		{"the outbox seals", files("outbox/x.go", "walhook/outbox/seal", "walhook/outbox/address", "walhook/outbox/route"), ""},
		{"the world of a test in a program", files("outbox/admin/x.go", "walhook/outbox/storetest"), "is for tests"},
		{"the world of a test knows the outbox", files("outbox/storetest/x.go", "walhook/outbox"), "outbox/storetest/x.go imports walhook/outbox"},
		{"the suite in a program", files("cmd/walhook/x.go", "walhook/outbox/outboxtest"), "is for tests"},
		{"in the package that it is about", files("outbox/x.go", "walhook/outbox/outboxtest"), "is for tests"},
		{"the log for tests knows the sender", files("outbox/outboxtest/memory/x.go", "walhook/sender"), "outbox/outboxtest/memory/x.go imports walhook/sender"},
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
		i := slices.IndexFunc(rules, func(r rule) bool { return r.covers(path.Dir(name)) })
		if i < 0 {
			faults = append(faults, name+" is in no folder of the rules: add one")
			return nil
		}
		for _, r := range rules {
			seen[r.folder] = seen[r.folder] || r.covers(path.Dir(name))
		}
		imported, err := importsOf(tree, name)
		for _, i2 := range imported {
			if !strings.HasSuffix(name, "_test.go") && slices.ContainsFunc(forTests, func(folder string) bool {
				return within(i2, module+"/"+folder) && !within(path.Dir(name), folder)
			}) {
				faults = append(faults, fmt.Sprintf("%s imports %s, which is for tests", name, i2))
				continue
			}
			if !rules[i].allows(i2, strings.HasSuffix(name, "_test.go")) {
				faults = append(faults, fmt.Sprintf("%s imports %s: %s may import %q of ours", name, i2, rules[i].folder, rules[i].may))
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

func (r rule) covers(folder string) bool {
	return folder == r.folder || !r.alone && within(folder, r.folder)
}

// allows says whether a file may import a package, given by its whole path.
func (r rule) allows(imported string, test bool) bool {
	folder, ours := strings.CutPrefix(imported, module+"/")
	if !ours {
		first, _, _ := strings.Cut(imported, "/")
		return test || !r.std || !strings.Contains(first, ".") // a module's path begins with a domain
	}
	may := r.may
	if !test && slices.ContainsFunc(r.never, func(other string) bool { return within(folder, other) }) {
		return false
	}
	if test {
		may = slices.Concat([]string{"internal"}, r.tests, may)
	}
	return r.covers(folder) || slices.ContainsFunc(may, func(allowed string) bool { return within(folder, allowed) })
}

// importsOf are the imports of a file.
func importsOf(tree fs.FS, name string) ([]string, error) {
	source, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var imports []string
	var faults []error
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		imports, faults = append(imports, imported), append(faults, err)
	}
	return imports, errors.Join(faults...)
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}
