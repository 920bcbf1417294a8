package shape

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
)

const glossary = "docs/GLOSSARY.md"

// retired is a row of the glossary's table of retired words.
type retired struct {
	words       []string // in lower case; each may be a phrase
	use         string
	identifiers bool
	text        bool
	pattern     *regexp.Regexp
}

// kept lists retired words that stay, by file and by word, with the reason.
var kept = []struct{ file, word, why string }{
	{"doctor/finding.go", "mend", "the JSON field mend of doctor --json is contract"},
	{"docs/OPERATIONS.md", "mend", "the JSON field mend of doctor --json is contract"},
	{"cmd/walhook/demo_summary.go", "faults", "a JSON field of demo --json"},
	{"internal/receiver/report.go", "faults", "a JSON field of the receivers' report"},
	{"internal/bench/tally.go", "fault", "a JSON field of the bench's receivers"},
	{"outbox/daily.go", "kin", "a column of walhook.daily_count"},
}

// TestWords_RetiredOnesAreNotUsed reads the table of docs/GLOSSARY.md and looks
// for its words in Go identifiers, in string literals, in the documents and in the
// files of deploy.
func TestWords_RetiredOnesAreNotUsed(t *testing.T) {
	t.Parallel()
	for _, fault := range retiredWords(t, os.DirFS("../..")) {
		t.Error(fault)
	}
}

func TestWords_APlantedOneIsFound(t *testing.T) {
	t.Parallel()
	const table = "# Glossary\n\n## Retired words\n\n| retired | use | rejected in |\n|---|---|---|\n" +
		"| `mend`, `mended` | fix | identifiers, text |\n| `goes on` | continues | text |\n| `place` | position | identifiers |\n"
	for _, test := range []struct{ name, file, text, want string }{
		{"an identifier", "cdc/x.go", "package cdc\n\nvar toMendIt = 1\n", `cdc/x.go:3: "mend" in toMendIt: use fix`},
		{"an exported one", "cdc/x.go", "package cdc\n\ntype Mended struct{}\n", `"mended" in Mended`},
		{"a part of another word", "cdc/x.go", "package cdc\n\nvar amendment = \"recommended\"\n", ""},
		{"a text", "cdc/x.go", "package cdc\n\nvar x = \"what\\nmends it: mend\"\n", `"mend" in "what`},
		{"a phrase over the end of a line", "cdc/x.go", "package cdc\n\nvar x = `it goes\non`\n", `"goes on"`},
		{"a phrase is no identifier", "cdc/x.go", "package cdc\n\nvar goesOn = 1\n", ""},
		{"a test may", "cdc/x_test.go", "package cdc\n\nvar mend = \"mend\"\n", ""},
		{"a comment may", "cdc/x.go", "package cdc\n\n// mend goes on\n", ""},
		{"a document", "docs/X.md", "# X\n\nHow to Mend it.\n", `docs/X.md:3: "mend"`},
		{"an alert", "deploy/prometheus/alerts.yml", "a: mended\n", `"mended"`},
		{"a unit", "deploy/systemd/x.service", "# it goes on\n", `"goes on"`},
		{"a word with an ordinary meaning", "docs/X.md", "its place\n", ""},
		{"the glossary itself", "docs/GLOSSARY2.md", "mend\n", `"mend"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults := retiredWords(t, fstest.MapFS{glossary: {Data: []byte(table)}, test.file: {Data: []byte(test.text)}})
			if test.want == "" && len(faults) > 0 || test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.want)) {
				t.Errorf("faults %q, want %q", faults, test.want)
			}
		})
	}
}

func readRetired(t *testing.T, tree fs.FS) (all []retired) {
	t.Helper()
	page, err := fs.ReadFile(tree, glossary)
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Retired words\n")
	code := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		r := retired{use: strings.TrimSpace(cells[2]), identifiers: strings.Contains(cells[3], "identifiers"), text: strings.Contains(cells[3], "text")}
		var patterns []string
		for _, word := range code.FindAllStringSubmatch(cells[1], -1) {
			r.words = append(r.words, strings.ToLower(word[1]))
			patterns = append(patterns, strings.ReplaceAll(regexp.QuoteMeta(word[1]), " ", `\s+`))
		}
		r.pattern = regexp.MustCompile(`(?i)\b(?:` + strings.Join(patterns, "|") + `)\b`)
		all = append(all, r)
	}
	if len(all) == 0 {
		t.Fatal("the glossary has no table of retired words")
	}
	return all
}

func retiredWords(t *testing.T, tree fs.FS) (faults []string) {
	t.Helper()
	table := readRetired(t, tree)
	found := func(file string, line int, word, in, use string) {
		for _, k := range kept {
			if k.word == word && k.file == file {
				return
			}
		}
		if len(in) > 70 {
			in = in[:70] + "…"
		}
		faults = append(faults, fmt.Sprintf("%s:%d: %q in %s: use %s", file, line, word, in, use))
	}
	text := func(file string, line int, in string) {
		for _, r := range table {
			if !r.text {
				continue
			}
			for _, at := range r.pattern.FindAllStringIndex(in, -1) {
				word := strings.Join(strings.Fields(strings.ToLower(in[at[0]:at[1]])), " ")
				around := in[max(at[0]-30, 0):]
				found(file, line+strings.Count(in[:at[0]], "\n"), word, strconv.Quote(around), r.use)
			}
		}
	}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != "." && (strings.HasPrefix(entry.Name(), ".") || slices.Contains(append([]string{"testdata", "node_modules"}, forTests...), name) || entry.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case name == glossary:
		case path.Ext(name) == ".md", strings.HasPrefix(name, "deploy/") && path.Ext(name) != ".go" && !strings.HasSuffix(name, "_test.yml"):
			page, err := fs.ReadFile(tree, name)
			if err != nil {
				return err
			}
			text(name, 1, string(page))
		case path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go"):
			source, err := fs.ReadFile(tree, name)
			if err != nil {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, name, source, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					if value, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil {
						text(name, files.Position(n.Pos()).Line, value)
					}
				case *ast.Ident:
					for _, r := range table {
						for _, word := range r.words {
							if r.identifiers && slices.Contains(wordsOf(n.Name), word) {
								found(name, files.Position(n.Pos()).Line, word, n.Name, r.use)
							}
						}
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

// wordsOf splits an identifier into its words, in lower case.
func wordsOf(name string) (words []string) {
	start := 0
	letters := []rune(name)
	for i := 1; i <= len(letters); i++ {
		if i == len(letters) || unicode.IsUpper(letters[i]) && !unicode.IsUpper(letters[i-1]) || letters[i] == '_' {
			words = append(words, strings.ToLower(strings.Trim(string(letters[start:i]), "_")))
			start = i
		}
	}
	return words
}
