package shape

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	architecture = "docs/ARCHITECTURE.md"
	pathSection  = "\n## The path of one change\n"
)

var (
	inCode = regexp.MustCompile("`([^`]+)`")
	method = regexp.MustCompile(`^[A-Za-z]\w*\.[A-Za-z]\w*$`)
)

// TestPath_NamesFunctionsThatExist reads the section that follows one change from the
// WAL to the settled attempt. Each line names a file, then functions right behind it,
// and methods (Type.method) anywhere behind it.
func TestPath_NamesFunctionsThatExist(t *testing.T) {
	t.Parallel()
	for _, fault := range pathFaults(t, os.DirFS("../..")) {
		t.Error(fault)
	}
}

func TestPath_AMissingFunctionIsFound(t *testing.T) {
	t.Parallel()
	const source = "package cdc\n\ntype stream struct{}\n\nfunc (s *stream) receive() {}\n\nfunc decode() {}\n"
	for _, test := range []struct{ name, section, want string }{
		{"all there", "1. `cdc/x.go`, `stream.receive` and `decode`: it keeps the row's `user_id`.\n", ""},
		{"in a table", "| 1 | of `stream` | `cdc/x.go`: `stream.receive` → `decode` |\n", ""},
		{"a function that moved", "1. `cdc/x.go`, `stream.receive`, `send`: it sends.\n", "send is not in cdc/x.go"},
		{"a method later in the sentence", "1. `cdc/x.go`, `decode`: then `stream.send` sends.\n", "stream.send is not in cdc/x.go"},
		{"a method without its type", "1. `cdc/x.go`, `receive`.\n", "receive is not in cdc/x.go"},
		{"a file that moved", "1. `cdc/y.go`, `decode`.\n", "cdc/y.go"},
		{"two files", "1. `cdc/x.go`, `decode`, and `cdc/z.go`, `decode`.\n", "decode is not in cdc/z.go"},
		{"no function", "1. Received by `decode`.\n", "names no function"},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults := pathFaults(t, fstest.MapFS{
				"cdc/x.go": {Data: []byte(source)}, "cdc/z.go": {Data: []byte("package cdc\n")},
				architecture: {Data: []byte("# How\n" + pathSection + "\n" + test.section + "\n## Another\n\n| 1 | `cdc/x.go`: `gone` |\n")},
			})
			if test.want == "" && len(faults) > 0 || test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.want)) {
				t.Errorf("faults %q, want %q", faults, test.want)
			}
		})
	}
}

// pathFaults lists what the table names and the code does not have.
func pathFaults(t *testing.T, tree fs.FS) (faults []string) {
	t.Helper()
	page, err := fs.ReadFile(tree, architecture)
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), pathSection)
	section, _, _ = strings.Cut(section, "\n## ")
	functions := map[string]map[string]bool{} // by file
	named := 0
	for line := range strings.Lines(section) {
		file, behind := "", false // a file's name is right before this one
		for _, at := range inCode.FindAllStringSubmatchIndex(line, -1) {
			name, before := line[at[2]:at[3]], strings.Trim(line[max(strings.LastIndex(line[:at[0]], "`"), 0):at[0]], "`,:→ ")
			if strings.HasSuffix(name, ".go") {
				file, behind = name, true
				if functions[file] == nil {
					if functions[file], err = functionsOf(tree, file); err != nil {
						faults = append(faults, fmt.Sprintf("%s: %v", architecture, err))
						file = ""
					}
				}
				continue
			}
			behind = behind && (before == "" || before == "and")
			if file == "" || !behind && !method.MatchString(name) {
				continue // a word of the sentence, such as a column
			}
			if named++; !functions[file][name] {
				faults = append(faults, fmt.Sprintf("%s: %s is not in %s", architecture, name, file))
			}
		}
	}
	if named == 0 && len(faults) == 0 {
		faults = append(faults, architecture+": the path of one change names no function")
	}
	return faults
}

// functionsOf returns the functions of a file, and methods as Type.method.
func functionsOf(tree fs.FS, file string) (map[string]bool, error) {
	source, err := fs.ReadFile(tree, file)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := f.Name.Name
		if f.Recv != nil {
			of := f.Recv.List[0].Type
			if pointer, ok := of.(*ast.StarExpr); ok {
				of = pointer.X
			}
			if generic, ok := of.(*ast.IndexExpr); ok {
				of = generic.X
			}
			if ident, ok := of.(*ast.Ident); ok {
				name = ident.Name + "." + name
			}
		}
		names[name] = true
	}
	return names, nil
}

// TestPath_PassesAtMost60Functions counts the table's column of functions that the
// change passes through, so that its way gets no longer unnoticed.
func TestPath_PassesAtMost60Functions(t *testing.T) {
	t.Parallel()
	const mostFunctions, mostFiles = 60, 25
	page, err := os.ReadFile("../../" + architecture)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n### Function by function\n")
	table, _, _ = strings.Cut(table, "\n## ")
	functions, files := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			continue
		}
		file := ""
		for _, name := range inCode.FindAllStringSubmatch(cells[3], -1) {
			if strings.HasSuffix(name[1], ".go") {
				file = name[1]
				files[file] = true
			} else {
				functions[file+" "+name[1]] = true
			}
		}
	}
	if n, f := len(functions), len(files); n == 0 || n > mostFunctions || f > mostFiles {
		t.Errorf("the change passes %d functions in %d files, want at most %d in %d", n, f, mostFunctions, mostFiles)
	} else if says := fmt.Sprintf("passes through %d functions in %d files", n, f); !strings.Contains(table, says) {
		t.Errorf("%s does not say that the change %s", architecture, says)
	}
}
