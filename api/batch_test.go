package api

import (
	"strings"
	"testing"
)

// A webhook of the record feed has batches until somebody takes them away, and becomes no
// webhook that cannot have them.
func TestBatch_IsASettingOfTheRecordFeed(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", `,"batch":100,"format":"cloudevents","http_verb":"put"`)
	data := func(body string) map[string]any {
		t.Helper()
		return w.want(t, 200, token, "POST", path, `{"data":`+body+`}`).body["data"].(map[string]any)
	}
	if got := data(`{"name":"n"}`)["batch"]; got != 100. {
		t.Errorf("batch is %v, want 100", got)
	}
	stored := func(want int) {
		t.Helper()
		if got := one[int](t, w, "SELECT batch FROM walhook.endpoint WHERE webhook <> 'account'"); got != want {
			t.Errorf("stored is %d, want %d", got, want)
		}
	}
	stored(100)
	for _, other := range []string{`"hook":"all"`, `"http_verb":"get","format":"json"`, `"format":"form"`, `"delivery":"daily"`} {
		r := w.want(t, 400, token, "PATCH", path, `{"data":{`+other+`}}`)
		if fields, _ := r.body["data"].(map[string]any); fields["batch"] == nil || !strings.Contains(r.text, "batch") {
			t.Errorf("%s: %s, want batch named", other, r.text)
		}
	}
	stored(100)
	if got, there := data(`{"batch":null}`)["batch"]; there {
		t.Errorf("batch is %v, want none", got)
	}
	stored(0)
	data(`{"batch":1,"format":"json"}`)
	data(`{"batch":0,"hook":"all"}`)
	stored(0)
}
