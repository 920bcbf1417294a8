package portal

import (
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// A search that finds more than a page shows leads to the rest.
func TestAccounts_OlderLeadsToWhatElseIsFound(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.endpoint (account, webhook, name, url, state, secret)
		SELECT 'a' || n % 2, 'w' || n, 'Meridian & ' || n, 'https://example.com/', 'active', 'whsec_c2VjcmV0' FROM generate_series(1, 80) n`)
	o := w.operator(t)
	first := o.get(t, "accounts?q=meridian+%26").want(t, http.StatusOK, ">Older</a>")
	older := regexp.MustCompile(`href="/portal/(accounts\?[^"]*from=[^"]*)"`).FindStringSubmatch(first.text)
	if older == nil {
		t.Fatalf("no address of the next page: %s", first.text)
	}
	second := o.get(t, html.UnescapeString(older[1])).want(t, http.StatusOK, `value="meridian &amp;"`).lacks(t, ">Older</a>")
	if a, b := strings.Count(first.text, ">Meridian "), strings.Count(second.text, ">Meridian "); a != 50 || b != 30 {
		t.Errorf("%d and %d are shown, want 50 and 30", a, b)
	}
	o.get(t, "accounts?q=nobody").want(t, http.StatusOK, "Nothing found.").lacks(t, ">Older</a>")
	o.get(t, "accounts?q=meridian&from=x").want(t, http.StatusOK, ">Older</a>")
}
