package shape

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// TestFiles_DocumentedOnesExist looks for every file that the documentation of a
// package names, in the package or by its path, and for the names right behind it:
// "lane.go, start and look".
func TestFiles_DocumentedOnesExist(t *testing.T) {
	t.Parallel()
	for _, fault := range missingFiles(t, os.DirFS("../..")) {
		t.Error(fault)
	}
}

func TestFiles_AMissingOneIsFound(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, text, want string }{
		{"one that exists", "// see lane.go\npackage x\n", ""},
		{"one that does not", "// see gone.go, and lane.go\npackage x\n", "x/doc.go names gone.go"},
		{"a pattern", "// lane*.go\npackage x\n", ""},
		{"a pattern of none", "// gone*.go\npackage x\n", "x/doc.go names gone*.go"},
		{"data", "// gone.yaml\npackage x\n", "x/doc.go names gone.yaml"},
		{"one by its path", "// y/other.go\npackage x\n", ""},
		{"a missing one by its path", "// y/gone.go\npackage x\n", "x/doc.go names y/gone.go"},
		{"one of another package", "// package y, other.go\npackage x\n", ""},
		{"below the package clause", "package x\n\n// gone.go\n", ""},
		{"a function, a method and a type", "// lane.go, start and look; lane.go, lane\npackage x\n", ""},
		{"a function that moved", "// lane.go, stop\npackage x\n", "x/doc.go names stop in lane.go"},
		{"a second one that moved", "// lane.go, start and stop\npackage x\n", "x/doc.go names stop in lane.go"},
		{"two files", "// lane.go, doc.go\npackage x\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults := missingFiles(t, fstest.MapFS{
				"x/doc.go": {Data: []byte(test.text)}, "y/other.go": {Data: []byte("package y\n")},
				"x/lane.go": {Data: []byte("package x\n\ntype lane struct{}\n\nfunc start() {}\n\nfunc (l *lane) look() {}\n")},
			})
			if got := strings.Join(faults, "; "); got != test.want {
				t.Errorf("faults %q, want %q", got, test.want)
			}
		})
	}
}

var (
	// namedFile is a file in a text, or a pattern of files. In "package x, y.go" the
	// file is one of x.
	namedFile = regexp.MustCompile(`(?:package ([a-z][a-z0-9/]*), )?([A-Za-z0-9_*./-]*[A-Za-z0-9_*]\.(?:go|yaml|sql))\b`)
	// namedInFile are the names behind a file.
	namedInFile = regexp.MustCompile(`^, ([A-Za-z]\w*)(?: and ([A-Za-z]\w*))?(?:[;,)\s]|\.\s|$)`)
)

func missingFiles(t *testing.T, tree fs.FS) (faults []string) {
	t.Helper()
	var docs []string
	for _, pattern := range []string{"*/doc.go", "*/*/doc.go", "*/*/*/doc.go"} {
		found, err := fs.Glob(tree, pattern)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, found...)
	}
	for _, doc := range docs {
		text, err := fs.ReadFile(tree, doc)
		if err != nil {
			t.Fatal(err)
		}
		comment, _, _ := strings.Cut("\n"+string(text), "\npackage ")
		for _, at := range namedFile.FindAllStringSubmatchIndex(comment, -1) {
			folder, file := path.Dir(doc), comment[at[4]:at[5]]
			if at[2] >= 0 {
				folder = comment[at[2]:at[3]]
			}
			found, err := fs.Glob(tree, path.Join(folder, file))
			if err == nil && len(found) == 0 {
				found, err = fs.Glob(tree, file)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(found) == 0 {
				faults = append(faults, doc+" names "+file)
				continue
			}
			if behind := namedInFile.FindStringSubmatch(comment[at[5]:]); behind != nil && path.Ext(file) == ".go" {
				declared := declaredIn(t, tree, found[0])
				for _, name := range behind[1:] {
					if name != "" && !declared[name] {
						faults = append(faults, doc+" names "+name+" in "+file)
					}
				}
			}
		}
	}
	return faults
}

// declaredIn names the functions, methods, types and other declarations of a file.
func declaredIn(t *testing.T, tree fs.FS, file string) map[string]bool {
	t.Helper()
	source, err := fs.ReadFile(tree, file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, decl := range parsed.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			names[decl.Name.Name] = true
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						names[name.Name] = true
					}
				}
			}
		}
	}
	return names
}
