package api

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// Every request that the documents of the two Kazoo systems show, as they show
// it: where a page lost a character it is put back, and said so. account_id and
// webhook_id stand for real ones.

const newCalls = `{"data":{"name":"New Calls", "uri":"http://my.server.com/calls/new.php", "http_verb":"post", "hook":"channel_create", "retries":3}}`

func TestSeed002_EveryRequestIsAnsweredAsItsDocumentSays(t *testing.T) {
	for _, prefix := range []string{"/v2", "/api/v1"} {
		t.Run(prefix, func(t *testing.T) {
			w := newWorld(t)
			token := w.token(t, "7", `{"data":{}}`)
			path := prefix + "/accounts/7/webhooks"

			// Listing of current webhooks: none yet.
			if list := w.want(t, 200, token, "GET", path, "").list(t); len(list) != 0 {
				t.Errorf("list at first: %v", list)
			}
			// Creates a new webhook. The page lost the closing quote of -d.
			created := w.want(t, 201, token, "PUT", path, newCalls)
			golden(t, created, `{"data":{"id":"ID","name":"New Calls","uri":"http://my.server.com/calls/new.php","http_verb":"post","hook":"channel_create",`+
				`"retries":3,"enabled":true,"state":"active","include_subaccounts":false,"include_internal_legs":false,"delivery":"realtime",`+
				`"endpoint":0,"created_at":"TIME","changed_at":"TIME","health":{"breaker":"closed","waiting":0,"retrying":0,"dead":0}},"status":"success","request_id":"REQUEST"}`)
			one := path + "/" + created.data(t)["id"].(string)
			if list := w.want(t, 200, token, "GET", path, "").list(t); len(list) != 1 || list[0]["name"] != "New Calls" {
				t.Errorf("list: %v", list)
			}
			// See the details of a webhook.
			golden(t, w.want(t, 200, token, "GET", one, ""), strings.Replace(normal(created.text), "}", "}", 1))
			// Edit the particulars of a webhook. The page lost the slash before {webhook_id}.
			edited := w.want(t, 200, token, "POST", one,
				`{"data":{"name":"New Calls", "uri":"http://my.server.com/calls/new_call.php", "http_verb":"post", "hook":"channel_create", "retries":3}}`)
			golden(t, edited, strings.Replace(normal(created.text), "new.php", "new_call.php", 1))
			// Get a list of recent attempts, to your server and to this webhook.
			for _, attempts := range []string{path + "/attempts", one + "/attempts"} {
				golden(t, w.want(t, 200, token, "GET", attempts, ""), `{"data":[],"status":"success","request_id":"REQUEST","page_size":0}`)
			}
			// Delete a webhook.
			w.want(t, 200, token, "DELETE", one, "")
			w.want(t, 404, token, "GET", one, "")
			// custom_data. The page breaks the line with a backslash inside the quotes.
			custom := w.want(t, 201, token, "PUT", path, `{"data":{"name":"New Calls", "uri":"http://my.server.com/calls/new.php", "http_verb":"post", "hook":"channel_create", "retries":3, `+
				`"custom_data": {"account_id": "my_crm_account_id", "screen_pop": true}}}`)
			text, err := json.Marshal(custom.data(t)["custom_data"])
			if err != nil || string(text) != `{"account_id":"my_crm_account_id","screen_pop":true}` {
				t.Errorf("custom_data %s, %v", text, err)
			}
			if len(custom.header["X-Request-Id"]) != 1 || custom.header.Get("Content-Type") != "application/json" {
				t.Errorf("header %v", custom.header)
			}
		})
	}
}

const missedCalls = `{
"data":{
"name":"Missed Call",
"hook":"notifications",
"include_subaccounts":false,
"http_verb":"get",
"retries":4,
"uri":"https://hooks.zapier.com/hooks/catch/591668/xlwslm/",
"type":"account",
"action":"doc_created",
"custom_data":{
"type":"missed_call"
},
"enabled":true,
"include_internal_legs":true,
"id":"51840ffc8bde832a1f5477def32cd665"
}
}`

func TestSeed003_EveryRequestIsAnsweredAsItsDocumentSays(t *testing.T) {
	for _, prefix := range []string{"/v2", "/api/v1"} {
		t.Run(prefix, func(t *testing.T) {
			w := newWorld(t)
			token := w.token(t, "7", `{"data":{}}`)
			path := prefix + "/accounts/7/webhooks"

			// Missed Calls Webhook; the payload of New Voicemail Message is the same.
			for range 2 {
				created := w.want(t, 201, token, "PUT", path, missedCalls)
				golden(t, created, `{"data":{"id":"ID","name":"Missed Call","uri":"https://hooks.zapier.com/hooks/catch/591668/xlwslm/","http_verb":"get","hook":"notifications",`+
					`"type":"account","action":"doc_created","retries":4,"custom_data":{"type":"missed_call"},"enabled":true,"state":"active",`+
					`"include_subaccounts":false,"include_internal_legs":true,"delivery":"realtime",`+
					`"endpoint":0,"created_at":"TIME","changed_at":"TIME","health":{"breaker":"closed","waiting":0,"retrying":0,"dead":0}},"status":"success","request_id":"REQUEST"}`)
				if created.data(t)["id"] == "51840ffc8bde832a1f5477def32cd665" {
					t.Error("the body's id was taken over")
				}
			}
			// Create Webhook.
			created := w.want(t, 201, token, "PUT", path, `{
"data": {
"name": "My New Webhook",
"uri": "http://my.server.net",
"http_verb": "post",
"hook": "channel_destroy",
"retries": 4
}
}`)
			one := path + "/" + created.data(t)["id"].(string)
			// List Webhooks: the document shows a body, which means nothing.
			list := w.want(t, 200, token, "GET", path, `{
"data": {
"name": "Main Blacklist",
"numbers": {
"+14154846048": {}
}
}
}`).list(t)
			if len(list) != 3 || list[2]["name"] != "My New Webhook" {
				t.Errorf("list: %v", list)
			}
			// Any webhooks with disable_reason have been auto-disabled.
			w.exec(t, `UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'walhook', reason = 'only failed for 5 days' WHERE webhook = $1`, created.data(t)["id"])
			list = w.want(t, 200, token, "GET", path, "").list(t)
			if list[2]["disable_reason"] != "only failed for 5 days" || list[2]["enabled"] != false || list[0]["disable_reason"] != nil {
				t.Errorf("after it was disabled: %v", list)
			}
			// Edit Webhook: the document's typing error is named and ignored.
			edited := w.want(t, 200, token, "POST", one, `{
"data": {
"enabled": true,
"retiees": 4
}
}`)
			golden(t, edited, `{"data":{"id":"ID","name":"My New Webhook","uri":"http://my.server.net","http_verb":"post","hook":"channel_destroy",`+
				`"retries":4,"enabled":true,"state":"active","include_subaccounts":false,"include_internal_legs":false,"delivery":"realtime",`+
				`"endpoint":0,"created_at":"TIME","changed_at":"TIME","health":{"breaker":"closed","waiting":0,"retrying":0,"dead":0}},"status":"success","request_id":"REQUEST",`+
				`"warnings":["unknown field \"retiees\" is ignored: did you mean retries?"]}`)
			// Delete Webhook. This is permanent and unrecoverable.
			w.want(t, 200, token, "DELETE", one, "")
			w.want(t, 404, token, "DELETE", one, "")
		})
	}
}

// golden compares an answer, byte for byte but for what is new each time.
func golden(t *testing.T, r reply, want string) {
	t.Helper()
	if got := normal(r.text); got != want {
		t.Errorf("answer\n\t%s\nwant\n\t%s", got, want)
	}
}

var (
	endpointPattern = regexp.MustCompile(`"endpoint":[1-9][0-9]*`)
	idPattern       = regexp.MustCompile(`"id":"[0-9a-f]{32}"`)
	timePattern     = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"`)
	requestPattern  = regexp.MustCompile(`"request_id":"[0-9a-z]+"`)
)

func normal(text string) string {
	text = idPattern.ReplaceAllString(text, `"id":"ID"`)
	text = endpointPattern.ReplaceAllString(text, `"endpoint":0`)
	text = timePattern.ReplaceAllString(text, `"TIME"`)
	return strings.TrimSuffix(requestPattern.ReplaceAllString(text, `"request_id":"REQUEST"`), "\n")
}
