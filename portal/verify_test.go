package portal

import (
	"os"
	"strings"
	"testing"
)

// A test of package deliver runs the code of the document against real deliveries.
func TestVerify_ShowsTheCodeOfTheDocument(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/RECEIVERS.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err := readSnippets()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		var blocks []string
		for i, part := range strings.Split(string(document), "```"+s.ID+"\n") {
			if code, _, found := strings.Cut(part, "```"); i > 0 && found {
				blocks = append(blocks, code)
			}
		}
		if len(blocks) == 0 || s.Code != strings.Join(blocks, "\n") {
			t.Errorf("snippets/%s.txt is not what RECEIVERS.md has: %q", s.ID, s.Code)
		}
	}
}
