package catalog

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestHooks_OfTheCatalogsPageWork reads the hooks that docs/CATALOG.md shows.
func TestHooks_OfTheCatalogsPageWork(t *testing.T) {
	page, err := os.ReadFile("../../docs/CATALOG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n    hooks:\n      call_started:")
	text, _, _ = strings.Cut(text, "\n\n")
	c, err := Parse([]byte("account: {table: users, id: id, url: url}\nhooks:\n  call_started:" + strings.ReplaceAll(text, "\n    ", "\n")))
	if err != nil {
		t.Fatal(err)
	}
	for hook, want := range map[string]string{
		"call_started": `{"event":"call_started","account":"7","at":62167219200,"source":"pbx","call_id":1,"caller":""}`,
		"call_ended":   `{"event":"call_ended","account":"7","at":62167219200,"source":"pbx","call_id":1,"caller":"","cause":"busy"}`,
	} {
		emitted, err := ParseEventMessage([]byte(`{"account_id":7,"hook":"` + hook + `","payload":{"cause":"busy","extension":"101","call_id":1}}`))
		if err != nil {
			t.Fatal(err)
		}
		event, err := c.HookEvent(emitted)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(event.Body(time.Unix(0, 0))); got != want {
			t.Errorf("%s\n got %s\nwant %s", hook, got, want)
		}
		if event.Order != "1" || len(event.Targets) != 1 || event.Targets[0] != [2]string{"extension", "101"} || event.Hook.Format != "form" {
			t.Errorf("%s is about %q of %v, as %s", hook, event.Order, event.Targets, event.Hook.Format)
		}
	}
}
