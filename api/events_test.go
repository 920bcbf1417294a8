package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// eventsWorld has one webhook with events of each state: 1 to 3 are delivered, 4 waits
// for a retry, 5 behind it, 6 is a dead letter, 7 waits; 8 is 1 sent again.
func eventsWorld(t *testing.T) (w *world, token, path string) {
	w = newWorld(t)
	token = w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	endpoint := one[int64](t, w, "SELECT id FROM walhook.endpoint")
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body, replayed)
		SELECT n, $1, 1, CASE WHEN n IN (4, 5) THEN 'dids:4' ELSE 'users:' || n END, 'evt_' || CASE n WHEN 8 THEN 1 ELSE n END, CASE WHEN n IN (4, 5) THEN 'dids' ELSE 'users' END,
			CASE n % 2 WHEN 0 THEN 'update' ELSE 'insert' END, '2026-03-01', '2026-03-09'::timestamptz + n * interval '1 h', convert_to('{"n":' || n || '}', 'UTF8'), n = 8 FROM generate_series(1, 8) n`, endpoint)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now() + n * interval '1 ms', $1, n, 1, 1, '5 ms', CASE n WHEN 4 THEN 500 ELSE 200 END, CASE n WHEN 4 THEN 'retry' WHEN 6 THEN 'dead' ELSE 'delivered' END, CASE n WHEN 4 THEN '5xx' ELSE '2xx' END, 'HTTP 500: <script>'
		FROM unnest('{1,2,3,4,6,8}'::int[]) n`, endpoint)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		VALUES ($1, 6, 'users:6', 'evt_6', 'users', 'update', now(), 11, '5xx', 2, '{}')`, endpoint)
	w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ($1, 4, 'dids:4', 1, now() + interval '1 h', '5xx'), ($1, 5, 'dids:4', 0, NULL, 'behind')`, endpoint)
	return w, token, "/v2/accounts/7/webhooks/" + id + "/events"
}

func (w *world) eventIDs(t *testing.T, token, path string) (ids []string) {
	t.Helper()
	for start, pages := "", 0; pages < 50; pages++ {
		r := w.want(t, 200, token, "GET", path+start, "")
		for _, e := range r.list(t) {
			ids = append(ids, strings.TrimPrefix(e["event_id"].(string), "evt_")+":"+e["state"].(string))
		}
		key, more := r.body["next_start_key"].(string)
		if !more {
			break
		}
		start = "&start_key=" + key
	}
	return ids
}

func TestEvents_AreFiltered(t *testing.T) {
	w, token, path := eventsWorld(t)
	all := []string{"1:delivered", "7:waiting", "6:dead", "5:waiting", "4:retry", "3:delivered", "2:delivered", "1:delivered"}
	for query, want := range map[string][]string{
		"":                all,
		"state=delivered": {"1:delivered", "3:delivered", "2:delivered", "1:delivered"},
		"state=waiting":   {"7:waiting", "5:waiting"},
		"state=retry":     {"4:retry"},
		"state=retrying":  {"4:retry"},
		"state=dead":      {"6:dead"},
		"state=held":      nil,
		"schema=dids":     {"5:waiting", "4:retry"},
		"schema=none":     nil,
		"type=insert":     {"7:waiting", "5:waiting", "3:delivered", "1:delivered"},
		"record=dids:4":   {"5:waiting", "4:retry"},
		"record=users:6":  {"6:dead"},
		"schema=dids&record=4&state=retry&type=update":                     {"4:retry"},
		"since=2026-03-09T04:00:00Z&until=2026-03-09T06:00:00Z":            {"5:waiting", "4:retry"},
		"since=2026-03-09T08:00:00.000001Z":                                nil,
		"until=2026-03-09T01:00:00Z":                                       nil,
		"until=2026-03-09T03:00:00%2B01:00":                                {"1:delivered"},
		"since=2026-03-09T03:30:00Z&state=delivered":                       {"1:delivered"},
		"since=2026-03-09T04:00:00Z&until=2026-03-09T07:00:00Z&state=dead": {"6:dead"},
		"since=2026-03-09T08:00:00Z&state=dead":                            nil,
	} {
		for _, size := range []string{"page_size=1&", "page_size=3&", ""} {
			if got := w.eventIDs(t, token, path+"?"+size+query); !slices.Equal(got, want) {
				t.Errorf("%s%s: %v, want %v", size, query, got, want)
			}
		}
	}
	w.exec(t, "UPDATE walhook.shard SET tail = 6") // what is below is settled or in retry
	if got := w.eventIDs(t, token, path+"?state=waiting"); !slices.Equal(got, []string{"7:waiting", "5:waiting"}) {
		t.Errorf("behind the tail: %v", got)
	}
	w.want(t, 200, token, "POST", strings.TrimSuffix(path, "/events"), `{"data":{"enabled":false}}`)
	if got := w.eventIDs(t, token, path+"?state=held"); !slices.Equal(got, []string{"7:held", "5:held", "4:held"}) {
		t.Errorf("held: %v", got)
	}
	w.exec(t, "DELETE FROM walhook.event WHERE id = 6")
	if got := w.eventIDs(t, token, path+"?state=dead"); !slices.Equal(got, []string{"6:dead"}) {
		t.Errorf("a dead letter whose row is dropped: %v", got)
	}
}

// A key may hold what the source's key holds. As record shows it, it selects its events.
func TestEvents_TheNameOfARecordMayHoldControlCharacters(t *testing.T) {
	w, token, path := eventsWorld(t)
	keys := []string{"a\tb", "\r\n", "x\x01\x1b[2Jy", "del\x7f", "\u0085", "two: parts ", "\u202e"}
	for n, key := range keys {
		w.exec(t, "UPDATE walhook.event SET schema = 'users', record = 'users:' || $1 WHERE id = $2", key, n+1)
	}
	found := 0
	for _, e := range w.want(t, 200, token, "GET", path, "").list(t) {
		record := e["record"].(string)
		key, _ := strings.CutPrefix(record, "users:")
		if !slices.Contains(keys, key) {
			continue
		}
		for _, query := range []url.Values{{"record": {record}}, {"record": {key}, "schema": {"users"}}} {
			if list := w.want(t, 200, token, "GET", path+"?"+query.Encode(), "").list(t); len(list) != 1 || list[0]["event_id"] != e["event_id"] {
				t.Errorf("%q selects %v, want %v", query, list, e)
			}
		}
		found++
	}
	if found != len(keys) {
		t.Errorf("%d of %d keys are in the list", found, len(keys))
	}
}

// A page looks at a bounded number of rows, and the pages together find everything.
func TestEvents_ARareFilterFindsAllInBoundedPages(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body, replayed)
		SELECT n, p.id, 1, 'dids:' || CASE WHEN n % 30000 = 5 THEN 5 ELSE 6 END, 'evt_' || n, 'dids', 'update', now(), now(), '{}', n = 9
		FROM generate_series(1, 100000) n, walhook.endpoint p`)
	w.exec(t, "ANALYZE walhook.event")
	path := "/v2/accounts/7/webhooks/" + id + "/events?record=dids:5"
	if got := w.eventIDs(t, token, path); !slices.Equal(got, []string{"90005:waiting", "60005:waiting", "30005:waiting", "5:waiting"}) {
		t.Errorf("found %v", got)
	}
	r := w.want(t, 200, token, "GET", path, "")
	if n := len(r.list(t)); n != 1 || r.body["next_start_key"] == nil {
		t.Errorf("the first page: %s", r.text)
	}
}

func TestQuery_WrongValuesAndUnknownParametersAreNamed(t *testing.T) {
	w, token, path := eventsWorld(t)
	for query, want := range map[string][2]string{
		"state=retries":                   {"state", "delivered"},
		"state=":                          {"state", "is empty"},
		"state=dead&state=retry":          {"state", "more than once"},
		"status=dead":                     {"status", "did you mean state"},
		"schemas=dids":                    {"schemas", "did you mean schema"},
		"colour=red":                      {"colour", "want contains, page_size, record, schema, since, start_key, state, type, until"},
		"since=yesterday":                 {"since", "RFC 3339"},
		"since=2026-03-09T02:00:00+01:00": {"since", "write + as %2B"},
		"until=2026-03-09":                {"until", "RFC 3339"},
		"until=0001-01-01T00:00:00Z":      {"until", "1970"},
		"since=2026-03-09T02:00:00Z&until=2026-03-09T02:00:00Z": {"until", "not after since"},
		"contains=12":                          {"contains", "3 to 100 characters"},
		"contains=" + strings.Repeat("a", 101): {"contains", "3 to 100 characters"},
		"contains=":                            {"contains", "is empty"},
		"contains=%00abc":                      {"contains", "control character"},
		"contains=%01abc":                      {"contains", "control character"},
		"schema=a%0Ab":                         {"schema", "control character"},
		"type=%7f":                             {"type", "control character"},
		"record=42":                            {"record", "such as dids:42"},
		"record=dids:%00":                      {"record", "U+0000"},
		"record=dids:%ff":                      {"record", "invalid UTF-8"},
		"record=dids:" + strings.Repeat("a", 3000): {"record", "longer"},
		"schema=%00":                          {"schema", "control character"},
		"type=%ff":                            {"type", "invalid UTF-8"},
		"schema=" + strings.Repeat("a", 3000): {"schema", "longer"},
		"page_size=501":                       {"page_size", "500"},
		"start_key=x":                         {"start_key", "next_start_key"},
		url.QueryEscape("a\nb") + "=1":        {"a\nb", "unknown parameter"},
	} {
		r := w.call(t, token, "GET", path+"?"+query, "")
		fault := fmt.Sprint(r.body["data"].(map[string]any)[want[0]])
		if r.status != 400 || !strings.Contains(fault, want[1]) {
			t.Errorf("%s: %d %s, want a 400 about %s: %s", query, r.status, r.text, want[0], want[1])
		}
	}
	for _, call := range [][2]string{{"GET", "/v2/accounts/7/webhooks"}, {"GET", "/v2/accounts/7/webhooks/dead"}, {"POST", strings.TrimSuffix(path, "/events") + "/test"}, {"GET", path + "/evt_1"}} {
		if r := w.call(t, token, call[0], call[1]+"?nonsense=1", ""); r.status != 400 || !strings.Contains(r.text, "nonsense: unknown parameter") {
			t.Errorf("%v: %d %s", call, r.status, r.text)
		}
	}
	if len(w.destination.tried) > 0 {
		t.Error("a refused test was made")
	}
}

func TestEvent_IsShownWithItsBodyAndItsAttempts(t *testing.T) {
	w, token, path := eventsWorld(t)
	e := w.want(t, 200, token, "GET", path+"/evt_1", "").data(t)
	request := e["request"].(map[string]any)
	if e["state"] != "delivered" || e["replayed"] != true || e["record"] != "users:8" || request["body"] != `{"n":8}` || request["method"] != "POST" ||
		request["headers"].(map[string]any)["webhook-id"] != "evt_1" {
		t.Errorf("event %v", e)
	}
	made := e["attempts_made"].([]any)
	if len(made) != 2 || made[0].(map[string]any)["status"] != 200.0 || made[0].(map[string]any)["detail"] != "HTTP 500: <script>" || made[0].(map[string]any)["duration_ms"] != 5.0 {
		t.Errorf("attempts %v, want those of the replay and of the first delivery", made)
	}
	e = w.want(t, 200, token, "GET", path+"/evt_4", "").data(t)
	if e["state"] != "retry" || e["reason"] != "5xx" || e["next_at"] == nil || len(e["attempts_made"].([]any)) != 1 {
		t.Errorf("in retry: %v", e)
	}
	w.exec(t, "UPDATE walhook.attempt SET batch = 'batch_1' WHERE event_id = 4")
	for id, want := range map[string]any{"evt_4": "batch_1", "evt_1": nil} {
		made := w.want(t, 200, token, "GET", path+"/"+id, "").data(t)["attempts_made"].([]any)
		if got := made[0].(map[string]any)["batch_id"]; got != want {
			t.Errorf("the attempt of %s names the batch %v, want %v", id, got, want)
		}
	}
	for _, one := range w.want(t, 200, token, "GET", strings.TrimSuffix(path, "/events")+"/attempts", "").list(t) {
		if (one["batch_id"] == "batch_1") != (one["event_id"] == "evt_4") {
			t.Errorf("listed attempt %v", one)
		}
	}
	if e = w.want(t, 200, token, "GET", path+"/evt_7", "").data(t); e["state"] != "waiting" || len(e["attempts_made"].([]any)) != 0 {
		t.Errorf("waiting: %v", e)
	}
	w.exec(t, "DELETE FROM walhook.event WHERE id = 6")
	if e = w.want(t, 200, token, "GET", path+"/evt_6", "").data(t); e["state"] != "dead" || e["request"].(map[string]any)["body"] != "{}" || len(e["attempts_made"].([]any)) != 1 {
		t.Errorf("a dead letter whose row is dropped: %v", e)
	}
	w.exec(t, "UPDATE walhook.dead_letter SET body = NULL, reason = 'too_large'")
	if e = w.want(t, 200, token, "GET", path+"/evt_6", "").data(t); e["request"] != nil || e["unsent"] == nil {
		t.Errorf("without a body: %v", e)
	}
	for _, id := range []string{"evt_99", "%00", strings.Repeat("x", 1000)} {
		if r := w.want(t, 404, token, "GET", path+"/"+id, ""); !strings.Contains(r.text, "no event has the webhook-id") {
			t.Errorf("%s: %s", id, r.text)
		}
	}
	if r := w.want(t, 404, token, "GET", path+"/evt_99", ""); !strings.Contains(r.text, "evt_99") {
		t.Errorf("the unknown id is not named: %s", r.text)
	}
	// Nobody else sees it, also by a webhook of their own.
	other := w.token(t, "8", "")
	hook := w.webhook(t, other, "8", "")
	w.want(t, 404, other, "GET", path+"/evt_1", "")
	w.want(t, 404, other, "GET", "/v2/accounts/8/webhooks/"+hook+"/events/evt_1", "")
	w.want(t, 200, token, "DELETE", strings.TrimSuffix(path, "/events"), "")
	if e = w.want(t, 200, token, "GET", path+"/evt_1", "").data(t); e["webhook_deleted"] != true {
		t.Errorf("of a deleted webhook: %v", e)
	}
}
