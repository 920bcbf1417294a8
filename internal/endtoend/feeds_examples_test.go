package endtoend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the help of 'walhook feeds' and docs/FEEDS.md show is run as it is written. Only the
// outbox is the test's.
func TestFeedsExamples_RunAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	w := newOperatorWorld(t)
	run := func(line string) {
		t.Helper()
		line = strings.ReplaceAll(line, "--outbox postgres://walhook@db/walhook", "")
		line, _, _ = strings.Cut(line, " # ")
		args := append(wordsOf(line), "--outbox", w.db.URL)
		if out, err := walhook(t, args[1:]...); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	ran := 0
	for _, help := range []string{"", "add", "show", "change", "disable", "enable", "secret", "remove"} {
		for _, name := range []string{"billing", "analytics", "crm"} { // what an earlier help left
			_, _ = walhook(t, "feeds", "remove", name, "--outbox", w.db.URL)
		}
		if help != "" && help != "add" {
			run("walhook feeds add billing --url https://billing.internal/hook")
		}
		for line := range strings.Lines(mustRun(t, strings.Fields("feeds "+help+" --help")...)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "walhook feeds ") && !strings.Contains(line, "[") && !strings.Contains(line, "<") {
				run(line)
				ran++
			}
		}
	}
	for _, name := range []string{"billing", "analytics", "crm"} {
		_, _ = walhook(t, "feeds", "remove", name, "--outbox", w.db.URL)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "FEEDS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "    walhook feeds") {
			run(strings.TrimSpace(line))
			ran++
		}
	}
	if ran < 20 {
		t.Errorf("only %d examples were run", ran)
	}
	if audit := mustRun(t, "audit", "--outbox", w.db.URL, "--action", "feed changed"); !strings.Contains(audit, "feed: billing") {
		t.Errorf("the audit says %s", audit)
	}
}

// wordsOf splits a command as a shell does, as far as double quotes go.
func wordsOf(line string) (words []string) {
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}
