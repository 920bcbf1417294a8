package api

import (
	"encoding/json"
	"maps"
	"testing"
)

// The audit of an edit names what it changed, whatever else a client sent with it.
func TestAudit_AnEditNamesWhatItChanged(t *testing.T) {
	w := newWorld(t)
	const list = "/v2/accounts/7/webhooks"
	whole := func(changes string) string { // as the form of the portal sends it
		t.Helper()
		all, other := map[string]json.RawMessage{}, map[string]json.RawMessage{}
		for text, to := range map[string]any{`{"name":"n","uri":"https://…@example.com/x","http_verb":"post","hook":"records","type":"","action":"","delivery":"realtime","daily_zone":"UTC","daily_at":null,"format":null,
			"schemas":[],"types":["update"],"include_subaccounts":false,"include_internal_legs":false,"initial_state":false,"retries":3,"rate_limit":null,"batch":null,
			"custom_data":{"b": 1,  "a": 2},"headers":{"X-Key":"…"}}`: &all, "{" + changes + "}": &other} {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				t.Fatal(err)
			}
		}
		maps.Copy(all, other)
		text, err := json.Marshal(map[string]any{"data": all})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	id := w.want(t, 201, adminToken, "PUT", list, `{"data":{"name":"n","uri":"https://usr:hunter2@example.com/x","types":["update"],"retries":3,"custom_data":{"b":1,"a":2},"headers":{"X-Key":"hunter2"}}}`).data(t)["id"].(string)
	for _, c := range []struct{ sent, want string }{
		{whole(""), "no field is changed"},
		{whole(`"name":"m"`), "fields: name"},
		{whole(`"name":"m","retries":null,"rate_limit":5`), "fields: rate_limit, retries"},
		{whole(`"name":"m","retries":null,"rate_limit":5,"delivery":"daily"`), "fields: delivery"},
		{whole(`"name":"m","retries":null,"rate_limit":5,"delivery":"daily","daily_at":"05:00"`), "fields: daily_at"},
		{whole(`"name":"m","retries":null,"rate_limit":5,"types":[],"schemas":["dids"],"custom_data":null`), "fields: custom_data, daily_at, delivery, schemas, types"},
		{`{"data":{"uri":"https://…@example.com/y"}}`, "fields: uri"},
		{`{"data":{"uri":"https://usr:hunter3@example.com/y"}}`, "fields: uri"},
		{`{"data":{"headers":{"X-Key":"…","X-New":"hunter2"}}}`, "fields: headers (X-Key, X-New)"},
		{`{"data":{"headers":{"X-Key":"hunter4","X-New":"…"}}}`, "fields: headers (X-Key, X-New)"},
		{`{"data":{"headers":{}}}`, "fields: headers"},
		{`{"data":{"enabled":false,"name":"m"}}`, "fields: enabled"},
	} {
		w.want(t, 200, adminToken, "PATCH", list+"/"+id, c.sent)
		if got := one[string](t, w, "SELECT detail FROM walhook.audit WHERE action = 'webhook edited' ORDER BY id DESC LIMIT 1"); got != c.want {
			t.Errorf("%s: the audit says %q, want %q", c.sent, got, c.want)
		}
	}
}
