package api

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"walhook/schemas/catalog"
)

// The list has everything that the catalog in force tells account users, in pages, and
// follows another catalog.
func TestEventTypes_AreThoseOfTheCatalogInForce(t *testing.T) {
	offer := testOffer
	w := newWorld(t, func(c *Config) { c.Offer = func(context.Context) *Offer { return offer } })
	token := w.token(t, "7", "")
	list := w.want(t, 200, token, "GET", "/v2/accounts/7/event-types?page_size=500", "").list(t)
	described := catalog.Carrier().EventTypes()
	if len(list) != len(described) {
		t.Fatalf("%d event types, want %d", len(list), len(described))
	}
	for i, typ := range list {
		if typ["name"] != described[i].Name || typ["description"] == "" || typ["json_schema"] == nil {
			t.Errorf("event type %d: %v", i, typ)
		}
		for _, form := range typ["forms"].([]any) {
			form := form.(map[string]any)
			if example := form["example"].(map[string]any); len(form["fields"].([]any)) == 0 || example["json"] == nil || example["envelope"] == nil || example["form"] == "" {
				t.Errorf("%v: form %v", typ["name"], form)
			}
		}
	}
	named := func(name string) (found map[string]any) {
		for _, typ := range list {
			if typ["name"] == name {
				found = typ
			}
		}
		return found
	}
	dids := named("dids")
	example := dids["forms"].([]any)[0].(map[string]any)["example"].(map[string]any)
	envelope, opened := example["envelope"].(map[string]any), example["json"].(map[string]any)
	var data map[string]any
	if err := json.Unmarshal([]byte(envelope["data"].(string)), &data); err != nil || data["number"] != opened["data"].(map[string]any)["number"] || data["number"] == nil {
		t.Errorf("dids: envelope %v, json %v: %v", envelope, opened, err)
	}
	if dids["kind"] != "record" || dids["default_format"] != "envelope" || named("result")["kind"] != "result" {
		t.Errorf("dids %v, result %v", dids, named("result"))
	}
	call := named("InboundCall")
	form, err := url.ParseQuery(call["forms"].([]any)[0].(map[string]any)["example"].(map[string]any)["form"].(string))
	if err != nil || call["default_format"] != "form" || form.Get("eventType") != "InboundCall" || form.Get("didNumber") == "" {
		t.Errorf("InboundCall: %v %v", form, call)
	}
	if forms := named("ringAttempt")["forms"].([]any); len(forms) != 2 || forms[0].(map[string]any)["field"] != "eventTarget" || forms[1].(map[string]any)["value"] != "ringGroup" {
		t.Errorf("ringAttempt: %v", forms)
	}

	var names []string
	for path := "/v2/accounts/7/event-types?page_size=20"; path != ""; {
		r := w.want(t, 200, token, "GET", path, "")
		for _, typ := range r.list(t) {
			names = append(names, typ["name"].(string))
		}
		if len(names) > len(described) {
			break
		}
		path = ""
		if next, more := r.body["next_start_key"].(string); more {
			path = "/v2/accounts/7/event-types?page_size=20&start_key=" + next
		}
	}
	if len(names) != len(described) || strings.Join(names[:2], " ") != described[0].Name+" "+described[1].Name {
		t.Errorf("in pages: %v", names)
	}

	other := *testOffer
	other.EventTypes = catalog.Platform().EventTypes
	offer = &other
	if list = w.want(t, 200, token, "GET", "/v2/accounts/7/event-types?page_size=500", "").list(t); named("customers") == nil || named("dids") != nil {
		t.Errorf("with another catalog in force: %v", list)
	}
	w.want(t, 400, token, "GET", "/v2/accounts/7/event-types?start_key="+keyText("dids"), "") // of the former one
	w.want(t, 400, token, "GET", "/v2/accounts/7/event-types?name=dids", "")
}
