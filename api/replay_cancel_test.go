package api

import (
	"fmt"
	"strings"
	"testing"
)

// A replay that is cancelled says what it sent, and one that is over stays as it is.
func TestReplay_IsCancelled(t *testing.T) {
	w, token, events := eventsWorld(t)
	path := strings.TrimSuffix(events, "/events") + "/replay"
	id := fmt.Sprintf("/%.0f", w.want(t, 202, token, "POST", path, `{"data":{"since":"2020-01-01T00:00:00Z","rate":1}}`).data(t)["id"])
	w.exec(t, "UPDATE walhook.request SET sent = 2")
	r := w.want(t, 200, token, "DELETE", path+id, "")
	if got := r.data(t); got["state"] != "ended" || got["reason"] != "cancelled on request" || got["sent"] != 2.0 || got["done_at"] == nil || r.body["warnings"] != nil {
		t.Errorf("cancelled: %s", r.text)
	}
	ended := one[string](t, w, "SELECT concat(done_at, reason, sent) FROM walhook.request")
	if r := w.want(t, 200, token, "DELETE", path+id, ""); r.data(t)["state"] != "ended" || !strings.Contains(r.text, "the replay was over already") {
		t.Errorf("cancelled again: %s", r.text)
	}
	if again := one[string](t, w, "SELECT concat(done_at, reason, sent) FROM walhook.request"); again != ended {
		t.Errorf("the request changed from %s to %s", ended, again)
	}
	// What is not the webhook's is not there, also where it exists.
	other := w.token(t, "8", "")
	hook := w.webhook(t, other, "8", "")
	w.want(t, 404, other, "DELETE", "/v2/accounts/8/webhooks/"+hook+"/replay"+id, "")
	w.want(t, 404, other, "DELETE", path+id, "")
	w.want(t, 404, token, "DELETE", path+"/99", "")
	for _, wrong := range []string{"/x", "/0", "/-1", "/9999999999999999999"} {
		if r := w.call(t, token, "DELETE", path+wrong, ""); r.status != 400 && r.status != 404 {
			t.Errorf("%s: %d %s", wrong, r.status, r.text)
		}
	}
	// It makes room for another one.
	for range 10 {
		w.want(t, 202, token, "POST", path, `{"data":{"since":"2020-01-01T00:00:00Z","rate":1}}`)
	}
	if r := w.want(t, 429, token, "POST", path, `{"data":{"since":"2020-01-01T00:00:00Z"}}`); !strings.Contains(r.text, "or cancel one") {
		t.Errorf("too many: %s", r.text)
	}
	w.want(t, 200, token, "DELETE", path+"/5", "")
	w.want(t, 202, token, "POST", path, `{"data":{"since":"2020-01-01T00:00:00Z"}}`)
}
