package shape

import (
	"fmt"
	"go/ast"
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

// opens are the functions that open a connection to a PostgreSQL, by the package
// that they are in. A package without any must not be imported at all.
var opens = map[string][]string{
	"github.com/jackc/pgx/v5":         {"Connect", "ConnectConfig", "ConnectWithOptions"},
	"github.com/jackc/pgx/v5/pgconn":  {"Connect", "ConnectConfig", "ConnectWithOptions", "Construct"},
	"github.com/jackc/pgx/v5/pgxpool": {"New", "NewWithConfig"},
	"github.com/jackc/pgx/v5/stdlib":  nil,
	"database/sql":                    nil,
}

// pinning is the one folder that opens connections. pooler is a server to those
// who connect, and pgtest and storetest are the psql of tests:
// whoever types there has the path of his role.
var pinning = []string{"internal/pgsession", "internal/pgtest", "internal/pooler", "outbox/storetest"}

// Every session has its search_path pinned before its first statement, since one
// package opens them all.
func TestSessions_AreOpenedWhereTheyArePinned(t *testing.T) {
	for _, fault := range unpinned(t, os.DirFS("../..")) {
		t.Error(fault)
	}
}

func TestSessions_APlantedConnectionIsCaught(t *testing.T) {
	for _, test := range []struct {
		name, file, source string
		want               string // part of the one fault; "" is none
	}{
		{"by the package", "cdc/x.go", `import "walhook/internal/pgsession"; var x = pgsession.Connect`, ""},
		{"the package itself", "internal/pgsession/x.go", `import "github.com/jackc/pgx/v5"; var x = pgx.Connect`, ""},
		{"a test", "cdc/x_test.go", `import "github.com/jackc/pgx/v5"; var x = pgx.Connect`, ""},
		{"only a type", "cdc/x.go", `import "github.com/jackc/pgx/v5/pgconn"; type x = pgconn.ConnectError`, ""},
		{"a session", "cdc/x.go", `import "github.com/jackc/pgx/v5"; func x() { _, _ = pgx.Connect(nil, "") }`, "cdc/x.go calls pgx.Connect"},
		{"under another name", "doctor/x.go", `import db "github.com/jackc/pgx/v5"; var x = db.ConnectConfig`, "doctor/x.go calls db.ConnectConfig"},
		{"a name of none", "doctor/x.go", `import . "github.com/jackc/pgx/v5"; var x = Connect`, "doctor/x.go imports"},
		{"a stream", "cdc/x.go", `import "github.com/jackc/pgx/v5/pgconn"; var x = pgconn.ConnectConfig`, "cdc/x.go calls"},
		{"a pool", "cmd/walhook/x.go", `import "github.com/jackc/pgx/v5/pgxpool"; var x = pgxpool.New`, "cmd/walhook/x.go calls"},
		{"by database/sql", "outbox/x.go", `import "database/sql"; var x sql.DB`, "outbox/x.go imports"},
		{"the carrier's path", "outbox/x.go", `import "walhook/internal/pgsession"; var x = pgsession.ConnectCarrier`, "the carrier's path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults := unpinned(t, fstest.MapFS{test.file: &fstest.MapFile{Data: []byte("package x\n" + test.source)}})
			if test.want == "" && len(faults) > 0 || test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.want)) {
				t.Errorf("faults %q, want %q", faults, test.want)
			}
		})
	}
}

// unpinned reads which files of a tree open connections by themselves.
func unpinned(t *testing.T, tree fs.FS) (faults []string) {
	t.Helper()
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules"):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || slices.Contains(pinning, path.Dir(name)):
			return nil
		}
		source, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, 0)
		if err != nil {
			return err
		}
		faults = append(faults, unpinnedIn(name, file)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

func unpinnedIn(name string, file *ast.File) (faults []string) {
	calls := map[string][]string{} // by the name that a package has in the file
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		functions, watched := opens[imported]
		local := path.Base(strings.TrimSuffix(imported, "/v5"))
		if spec.Name != nil {
			local = spec.Name.Name
		}
		switch {
		case watched && (len(functions) == 0 || local == "."):
			faults = append(faults, fmt.Sprintf("%s imports %s: sessions are opened by internal/pgsession", name, imported))
		case watched:
			calls[local] = functions
		case imported == module+"/internal/pgsession" && !within(path.Dir(name), "cmd") && !within(path.Dir(name), "internal"):
			calls[local] = []string{"ConnectCarrier", "NewCarrierPool"}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := s.X.(*ast.Ident); ok && slices.Contains(calls[of.Name], s.Sel.Name) {
				faults = append(faults, fmt.Sprintf("%s calls %s.%s: sessions are opened by internal/pgsession, and none but the demo's and the benchmark's has the carrier's path",
					name, of.Name, s.Sel.Name))
			}
		}
		return true
	})
	return faults
}
