package portal

import (
	"net/http"
	"strings"
	"testing"
)

// A page of a rare filter that finds nothing among the events that it looks at says so,
// and leads on by itself; the last one says that nothing matches.
func TestEvents_TheSearchForARareRecordGoesOn(t *testing.T) {
	w := newWorld(t)
	hook := w.hook(t, "7")
	w.exec(t, fillSQL, hook.Endpoint, 1, 10_050, 10_050)
	w.exec(t, `UPDATE walhook.event SET record = 'dids:rare' WHERE id = 3`)
	b := w.session(t, "7")
	path := "a/7/webhooks/" + hook.ID + "/events"
	r := b.get(t, path+"?record=rare&schema=dids").want(t, http.StatusOK, "None of the newer events matches", `hx-trigger="load delay:200ms"`)
	_, rest, found := strings.Cut(r.text, `hx-get="/portal/`+path+`?from=`)
	if !found {
		t.Fatalf("the page does not go on: %s", r.text)
	}
	rest, _, _ = strings.Cut(rest, `"`)
	b.get(t, path+"?from="+strings.ReplaceAll(rest, "&amp;", "&")).want(t, http.StatusOK, "dids:rare", "evt_0000000000000003_1")
	b.get(t, path+"?record=dids:none&since=2100-01-01T00:00").want(t, http.StatusOK, "No event matches the filter")
}
