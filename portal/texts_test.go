package portal

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Keys that are made of a state or a field begin with these.
var madeKeys = []string{"done.", "event.", "outcome.", "run.", "field.", "delivery.", "reason.", "chart.", "kind.", "check.", "lane.", "endpoint."}

func TestTexts_EveryOneIsThereAndIsUsed(t *testing.T) {
	t.Parallel()
	p, err := newPages("/portal/", nil)
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`"([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)"`)
	asked := regexp.MustCompile(`\(?\bt "([^"]+)"`)
	used := map[string]bool{}
	names, _ := fs.Glob(os.DirFS("."), "templates/*.html")
	sources, _ := fs.Glob(os.DirFS("."), "*.go")
	for _, name := range append(names, sources...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range key.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
		}
		for _, m := range asked.FindAllStringSubmatch(string(text), -1) {
			if _, known := p.texts[m[1]]; !known && strings.HasSuffix(name, ".html") && !strings.Contains(m[1], "%") {
				t.Errorf("%s asks for %q, which has no words", name, m[1])
			}
		}
	}
	for name := range p.texts {
		made := strings.HasSuffix(name, ".more")
		for _, prefix := range madeKeys {
			made = made || strings.HasPrefix(name, prefix)
		}
		if !made && !used[name] {
			t.Errorf("nothing shows %q", name)
		}
	}
}
