package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"walhook/schemas/catalog"
)

// A test sends the catalog's example of the event that it is asked for, under an id of a test.
func TestTest_SendsTheExampleOfAnEvent(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	records := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", `,"schemas":["dids"],"types":["update","delete"]`) + "/test"
	calls := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", `,"hook":"channel_create"`) + "/test"
	types := map[string]catalog.EventType{}
	for _, typ := range catalog.Carrier().EventTypes() {
		types[typ.Name] = typ
	}
	const not = "the webhook gets no such events"
	for _, c := range []struct {
		path, body, schema, typ, format string
		warned                          bool
	}{
		{records, `{"schema":"dids"}`, "dids", "update", "", false},
		{records, `{"schema":"dids","type":"delete"}`, "dids", "delete", "", false},
		{records, `{"schema":"dids","type":"insert"}`, "dids", "insert", "", true},
		{records, `{"schema":"result"}`, "sms_enablement", "update", "", false},
		{records, `{"schema":"users"}`, "users", "update", "", true},
		{records, `{"hook":"channel_create"}`, "channel_create", types["channel_create"].Examples[0].EventType, "json", true},
		{calls, `{"hook":"channel_create"}`, "channel_create", types["channel_create"].Examples[0].EventType, "json", false},
		{calls, `{"hook":"InboundCall"}`, "InboundCall", types["InboundCall"].Examples[0].EventType, "form", true},
		{calls, `{"schema":"dids"}`, "dids", "update", "", true},
	} {
		r := w.want(t, 200, token, "POST", c.path, `{"data":`+c.body+`}`)
		e := w.destination.tried[len(w.destination.tried)-1]
		if e.Schema != c.schema || e.Type != c.typ || e.Format != c.format || !strings.HasPrefix(e.WebhookID, "test_") || r.data(t)["event_id"] != e.WebhookID {
			t.Errorf("%s: %+v, answer %s", c.body, e, r.text)
		}
		if strings.Contains(r.text, not) != c.warned {
			t.Errorf("%s: warned %v, want %v: %s", c.body, !c.warned, c.warned, r.text)
		}
		name := c.schema
		if name == "sms_enablement" {
			name = "result"
		}
		example := types[name].Examples[0]
		want := string(example.JSON)
		if c.format == "" {
			want = strings.Replace(string(example.Envelope), `"type":"update"`, `"type":"`+c.typ+`"`, 1)
		}
		if string(e.Body) != want {
			t.Errorf("%s: body %s, want %s", c.body, e.Body, want)
		}
	}
	tried := len(w.destination.tried)
	for body, field := range map[string]string{
		`{"hook":"nonsense"}`: "hook", `{"hook":"dids"}`: "hook", `{"schema":"channel_create"}`: "schema", `{"schema":"nonsense"}`: "schema",
		`{"type":"update"}`: "type", `{"schema":"dids","type":"edit"}`: "type", `{"schema":"result","type":"insert"}`: "type",
		`{"hook":"channel_create","schema":"dids"}`: "hook", `{"hook":7}`: "hook",
	} {
		r := w.want(t, 400, token, "POST", records, `{"data":`+body+`}`)
		if !strings.Contains(fmt.Sprint(r.body["message"]), field) {
			t.Errorf("%s: %s", body, r.text)
		}
	}
	if len(w.destination.tried) != tried {
		t.Error("a request that was refused sent something")
	}
	w.want(t, 200, token, "POST", records, "")
	if e := w.destination.tried[tried]; e.Schema != "test" || !json.Valid(e.Body) {
		t.Errorf("without a body: %+v", e)
	}
}
