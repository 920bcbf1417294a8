package api

import (
	"fmt"
	"strings"
	"testing"

	"walhook/outbox/admin"
)

func TestResync_AsksForOneAtATime(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/resync"
	asked := w.want(t, 202, token, "POST", path, `{"data":{"schema":"dids","shcema":"x"}}`)
	if made := asked.data(t); made["state"] != "waiting" || made["type"] != "update" || made["schema"] != "dids" || made["sent"] != 0.0 {
		t.Errorf("answer %s", asked.text)
	}
	if !strings.Contains(asked.text, `unknown field \"shcema\"`) {
		t.Errorf("answer %s", asked.text)
	}
	if r := w.want(t, 409, token, "POST", path, ""); !strings.Contains(r.text, fmt.Sprintf("resync %v of this webhook is in progress", asked.data(t)["id"])) {
		t.Errorf("a second one: %s", r.text)
	}
	w.want(t, 409, adminToken, "POST", path, "")
	w.exec(t, "UPDATE walhook.resync SET done_at = now(), sent = 5, total = 6, started_at = now()")
	again := w.want(t, 202, token, "POST", path, "").data(t)
	list := w.want(t, 200, token, "GET", path, "").list(t)
	if len(list) != 2 || list[0]["id"] != again["id"] || list[1]["state"] != "done" || list[1]["sent"] != 5.0 || list[1]["total"] != 6.0 {
		t.Errorf("list %v", list)
	}
	// Deleting the webhook ends it.
	w.want(t, 200, token, "DELETE", "/v2/accounts/7/webhooks/"+id, "")
	if list := w.want(t, 200, token, "GET", path, "").list(t); list[0]["state"] != "ended" || list[0]["reason"] != "the webhook was deleted" {
		t.Errorf("list %v", list)
	}
	w.want(t, 409, token, "POST", path, "")
}

func TestResync_OpenOnesOfAnAccountAreBounded(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	statuses := map[int]int{}
	for range admin.MaxOpenResyncs + 2 {
		r := w.call(t, token, "POST", "/v2/accounts/7/webhooks/"+w.webhook(t, token, "7", "")+"/resync", "")
		if statuses[r.status]++; r.status == 429 && r.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if statuses[202] != admin.MaxOpenResyncs || statuses[429] != 2 {
		t.Errorf("answers %v", statuses)
	}
	w.want(t, 202, adminToken, "POST", "/v2/accounts/7/webhooks/"+w.webhook(t, token, "7", "")+"/resync", "")
}

func TestResync_RefusesWebhooksWithoutRecords(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	for fields, why := range map[string]string{
		`"hook":"all"`:                       "the webhook has the hook all",
		`"delivery":"daily"`:                 "daily delivery",
		`"types":["insert","delete"]`:        "types leave out update",
		`"schemas":["notes"]`:                "schemas leave out dids",
		`"hook":"all","initial_state":false`: "the webhook has the hook all",
	} {
		path := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", ","+fields) + "/resync"
		if r := w.want(t, 409, token, "POST", path, `{"data":{"schema":"dids"}}`); !strings.Contains(r.text, why) {
			t.Errorf("%s: %s", fields, r.text)
		}
	}
}

// A webhook with initial_state begins with the present state whenever its URL is set.
func TestResync_InitialState(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const webhooks = "/v2/accounts/7/webhooks"
	made := w.want(t, 201, token, "PUT", webhooks, `{"data":{"name":"n","uri":"https://example.com/a","initial_state":true}}`)
	if made.data(t)["initial_state"] != true {
		t.Errorf("answer %s", made.text)
	}
	path := webhooks + "/" + made.data(t)["id"].(string)
	open := func() string {
		return one[string](t, w, "SELECT coalesce(string_agg(concat_ws(' ', kind, done_at IS NULL, reason), ', ' ORDER BY id), '') FROM walhook.resync")
	}
	if got := open(); got != "insert t " {
		t.Errorf("resyncs: %s", got)
	}
	w.want(t, 200, token, "PATCH", path, `{"data":{"name":"m"}}`)
	if got := open(); got != "insert t " {
		t.Errorf("after another name, resyncs: %s", got)
	}
	w.want(t, 200, token, "PATCH", path, `{"data":{"uri":"https://example.com/b"}}`)
	if got := open(); got != "insert f the URL was set: another one begins, with all records, insert t " {
		t.Errorf("after another URL, resyncs: %s", got)
	}
	for _, fields := range []string{`"types":["update"]`, `"hook":"all"`, `"delivery":"daily"`} {
		if r := w.want(t, 400, token, "PUT", webhooks, `{"data":{"name":"n","uri":"https://example.com/a","initial_state":true,`+fields+`}}`); !strings.Contains(r.text, "initial_state") {
			t.Errorf("%s: %s", fields, r.text)
		}
		w.want(t, 400, token, "PATCH", path, `{"data":{`+fields+`}}`)
	}
	w.want(t, 200, token, "PATCH", path, `{"data":{"initial_state":null,"types":["update"]}}`)
}

// A webhook that wants more than before gets also what its resync has passed.
func TestResync_BeginsAgainWhereTheWebhookWantsMore(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	for edit, again := range map[string]bool{
		`"schemas":["dids","faxes"]`: true, `"schemas":[]`: true, `"schemas":["faxes"]`: true, `"include_subaccounts":true`: true,
		`"schemas":["dids"]`: false, `"name":"other"`: false, `"types":["update"]`: false, `"retries":2`: false,
	} {
		for schema, asks := range map[string]string{"": "", "dids": `{"data":{"schema":"dids"}}`} {
			t.Run(edit+" "+schema, func(t *testing.T) {
				path := "/v2/accounts/7/webhooks/" + w.webhook(t, adminToken, "7", `,"schemas":["dids","users"]`)
				id := w.want(t, 202, adminToken, "POST", path+"/resync", asks).data(t)["id"]
				w.exec(t, fmt.Sprintf("UPDATE walhook.resync SET at_schema = 'dids', at_key = '{5}', sent = 5, numbered = 5, started_at = now() WHERE id = %v", id))
				w.want(t, 200, token, "PATCH", path, `{"data":{`+edit+`}}`)
				want := "dids 5 5"
				if again && !(schema == "dids" && strings.Contains(edit, "schemas")) {
					want = " 0 6"
				}
				var got string
				if err := w.conn.QueryRow(t.Context(), fmt.Sprintf("SELECT format('%%s %%s %%s', at_schema, sent, numbered) FROM walhook.resync WHERE id = %v", id)).Scan(&got); err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("the resync is at %q, want %q", got, want)
				}
				w.want(t, 200, token, "DELETE", path, "")
			})
		}
	}
}
