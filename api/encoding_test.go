package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"walhook/internal/pgtest"
)

// An outbox that is not UTF8 takes every URL and custom_data, names the field of a text
// that it cannot hold, and has nothing under an id that it cannot hold.
func TestEncoding_AnOutboxThatIsNotUTF8NamesWhatItCannotHold(t *testing.T) {
	t.Parallel()
	base := pgtest.Database(t)
	name := "latin_" + base.Name
	base.Exec(t, fmt.Sprintf("CREATE DATABASE %q ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", name))
	w := newWorldIn(t, &pgtest.DB{Cluster: base.Cluster, Name: name, URL: strings.Replace(base.URL, base.Name, name, 1)})

	const webhooks, tokens, holds = "/v2/accounts/7/webhooks", "/v2/accounts/7/tokens", "/v2/accounts/7/holds"
	created := w.want(t, http.StatusCreated, adminToken, http.MethodPut, webhooks,
		`{"data":{"name":"né","uri":"https://example.com/日/é?q=Ж#x","custom_data":{"日":"😀"}}}`).data(t)
	if created["uri"] != "https://example.com/%E6%97%A5/%C3%A9?q=%D0%96" || created["name"] != "né" || fmt.Sprint(created["custom_data"]) != "map[日:😀]" {
		t.Errorf("created %v", created)
	}
	one := webhooks + "/" + created["id"].(string)
	edited := w.want(t, http.StatusOK, adminToken, http.MethodPost, one, `{"data":{"uri":"https://example.com/語"}}`).data(t)
	if edited["uri"] != "https://example.com/%E8%AA%9E" {
		t.Errorf("edited %v", edited)
	}
	again := w.want(t, http.StatusOK, adminToken, http.MethodPost, one, `{"data":{"uri":"https://example.com/語"}}`).data(t)
	if again["uri"] != edited["uri"] {
		t.Errorf("the same URL again: %v", again)
	}
	for _, test := range []struct{ method, path, body, field string }{
		{http.MethodPut, webhooks, `{"data":{"name":"日","uri":"https://example.com/"}}`, "name"},
		{http.MethodPost, one, `{"data":{"name":"日"}}`, "name"},
		{http.MethodPatch, one, `{"data":{"schemas":["dids","日"]}}`, "schemas"},
		{http.MethodPost, one, `{"data":{"hook":"object","type":"日"}}`, "type"},
		{http.MethodPost, one, `{"data":{"hook":"object","action":"日"}}`, "action"},
		{http.MethodPut, tokens, `{"data":{"name":"токен"}}`, "name"},
		{http.MethodPut, holds, `{"data":{"reason":"причина"}}`, "reason"},
		{http.MethodPut, holds, `{"data":{"host":"bücher.example","reason":"причина"}}`, "reason"},
	} {
		r := w.want(t, http.StatusBadRequest, adminToken, test.method, test.path, test.body)
		fields, _ := r.body["data"].(map[string]any)
		if len(fields) != 1 || fields[test.field] == nil || !strings.Contains(r.text, "the encoding of the outbox's database") {
			t.Errorf("%s %s %s: %s, want the field %s", test.method, test.path, test.body, r.text, test.field)
		}
	}
	const strange, account = "/%E6%97%A5%F0%9F%98%80", "/v2/accounts/%E6%97%A5"
	for _, test := range []struct{ method, path, body string }{
		{http.MethodGet, webhooks + strange, ""}, {http.MethodGet, webhooks + strange + "/events", ""},
		{http.MethodGet, webhooks + strange + "/attempts", ""}, {http.MethodDelete, webhooks + strange, ""},
		{http.MethodPost, webhooks + strange, `{"data":{"name":"x"}}`}, {http.MethodGet, webhooks + strange + "/secret", ""},
		{http.MethodDelete, tokens + strange, ""}, {http.MethodDelete, holds + strange, ""}, {http.MethodDelete, holds + "/%2F%2F", ""},
		{http.MethodGet, account + "/webhooks", ""}, {http.MethodPut, account + "/tokens", `{"data":{"name":"x"}}`},
		{http.MethodPut, account + "/holds", `{"data":{}}`}, {http.MethodPut, account + "/webhooks", `{"data":{"name":"x","uri":"https://example.com/"}}`},
	} {
		w.want(t, http.StatusNotFound, adminToken, test.method, test.path, test.body)
	}
}

// A host that is none does not stand for the whole account.
func TestHolds_AHostThatIsNoneReleasesNothing(t *testing.T) {
	w := newWorld(t)
	w.want(t, http.StatusCreated, adminToken, http.MethodPut, "/v2/accounts/7/holds", `{"data":{"reason":"unpaid"}}`)
	w.want(t, http.StatusNotFound, adminToken, http.MethodDelete, "/v2/accounts/7/holds/%2F%2F", "")
	if n := one[int](t, w, "SELECT count(*) FROM walhook.hold WHERE account = '7' AND host = ''"); n != 1 {
		t.Errorf("%d holds on the account, want 1", n)
	}
}
