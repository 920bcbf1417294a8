package api

import (
	"fmt"
	"net/url"
	"testing"
)

// What an event shows as its record selects it, also of a result or an emitted event, which
// are of no record.
func TestEvents_AreSelectedByTheRecordThatTheyShow(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", `,"hook":"all"`)
	path := "/v2/accounts/7/webhooks/" + id + "/events"
	records := map[string]string{"dids:1": "dids", "result/sms_enablement": "sms_enablement", "event/c1": "channel_create", "derived/numbers:42": "numbers", "object/number:3": "object"}
	n := 0
	for record, schema := range records {
		n++
		w.append(t, id, n)
		w.exec(t, "UPDATE walhook.event SET record = $2, schema = $3 WHERE id = $1", n, record, schema)
	}
	for record, schema := range records {
		for _, query := range []string{"", "&schema=" + schema} {
			if query != "" && schema != "dids" && schema != "sms_enablement" {
				continue // with a schema besides it the parameter is a key
			}
			list := w.want(t, 200, token, "GET", path+"?record="+url.QueryEscape(record)+query, "").list(t)
			if len(list) != 1 || list[0]["record"] != record {
				t.Errorf("record=%s%s: %v", record, query, fmt.Sprint(list))
			}
		}
	}
	w.want(t, 400, token, "GET", path+"?record=other/c1", "")
}
