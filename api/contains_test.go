package api

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// addBody appends an event with a body of its own to the only webhook of an account.
const addBody = `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
	SELECT $2, id, 1, 'dids:' || $2::bigint, 'evt_' || $2::bigint, 'dids', 'update', now(), now(), convert_to($3, 'UTF8') FROM walhook.endpoint WHERE account = $1`

func TestContains_FindsATextAsItIsAndAsJSONEscapesIt(t *testing.T) {
	w := newWorld(t)
	token, other := w.token(t, "7", ""), w.token(t, "8", "")
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", "") + "/events"
	foreign := "/v2/accounts/8/webhooks/" + w.webhook(t, other, "8", "") + "/events"
	w.exec(t, addBody, "7", 1, `{"type":"update","schema":"dids","data":"{\"number\":15550100042,\"name\":\"Zoë\"}"}`)
	w.exec(t, addBody, "7", 2, `{"type":"update","schema":"dids","data":"{\"name\":\"O\\\"Neil\\\\x\"}"}`)
	w.exec(t, addBody, "7", 3, `{"name":"O\"Neil\\x","rate":"100% of_it"}`)
	w.exec(t, addBody, "7", 4, `{"type":"update","data":"`+strings.Repeat("x", 3000)+` shared 4215"}`)
	w.exec(t, addBody, "7", 5, `{}`)
	w.exec(t, `UPDATE walhook.event SET body = '', body_of = 4, body_size = 3030 WHERE id = 5`)
	w.exec(t, addBody, "8", 6, `{"number":15550100042}`)
	// A dead letter has a body of its own; this one's row is dropped.
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT id, 9, 'dids:9', 'evt_9', 'dids', 'update', now(), 11, '5xx', 20, '{"number":"late 4215"}' FROM walhook.endpoint WHERE account = '7'`)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT id, 10, 'dids:10', 'evt_10', 'dids', 'update', now(), 11, 'too_large', 200000000, NULL FROM walhook.endpoint WHERE account = '7'`)
	for text, want := range map[string][]string{
		"15550100042":        {"1:waiting"},
		"5550100":            {"1:waiting"},
		"1555010004_":        nil,
		"155501%":            nil,
		"100% of_it":         {"3:waiting"},
		"Zoë":                {"1:waiting"},
		"zoë":                nil,
		`O"Neil`:             {"3:waiting", "2:waiting"},
		`Neil\x`:             {"3:waiting", "2:waiting"},
		`O\"Neil`:            {"3:waiting", "2:waiting"}, // as the body of 3 writes it; 2 has it behind another backslash
		"shared 4215":        {"5:waiting", "4:waiting"},
		"4215&state=dead":    {"9:dead"},
		"4215&record=dids:5": {"5:waiting"},
		"nowhere":            nil,
	} {
		text, more, _ := strings.Cut(text, "&")
		query := "contains=" + url.QueryEscape(text) + "&" + more
		for _, size := range []string{"page_size=1&", ""} {
			if got := w.eventIDs(t, token, path+"?"+size+strings.TrimSuffix(query, "&")); !slices.Equal(got, want) {
				t.Errorf("%s%s: %v, want %v", size, query, got, want)
			}
		}
	}
	if got := w.eventIDs(t, other, foreign+"?contains=15550100042"); !slices.Equal(got, []string{"6:waiting"}) {
		t.Errorf("the other account: %v", got)
	}
	w.want(t, 404, other, "GET", path+"?contains=15550100042", "")
}

// A page searches a bounded number of events and a bounded number of bytes, and the pages
// together find everything.
func TestContains_GoesOnOverBoundedPages(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", "") + "/events?contains=15550100042"
	pages := func() (each [][]string) {
		t.Helper()
		for start := ""; len(each) < 20; {
			r := w.want(t, 200, token, "GET", path+start, "")
			var ids []string
			for _, e := range r.list(t) {
				ids = append(ids, e["event_id"].(string))
			}
			each = append(each, ids)
			key, more := r.body["next_start_key"].(string)
			if !more {
				break
			}
			start = "&start_key=" + key
		}
		return each
	}
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, p.id, 1, 'dids:' || n, 'evt_' || n, 'dids', 'update', now(), now(), convert_to('{"n":"' || CASE WHEN n IN (3, 10005) THEN '15550100042' ELSE 'x' END || '"}', 'UTF8')
		FROM generate_series(1, 10050) n, walhook.endpoint p`)
	if got := pages(); len(got) != 2 || !slices.Equal(got[0], []string{"evt_10005"}) || !slices.Equal(got[1], []string{"evt_3"}) {
		t.Errorf("10,050 events: pages of %v", got)
	}
	// Of ten bodies of 15 MiB, all of one that carries them, a page searches five.
	w.exec(t, `DELETE FROM walhook.event`)
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body, body_of, body_size)
		SELECT n, p.id, 1, 'dids:' || n, 'evt_' || n, 'dids', 'update', now(), now(), CASE n WHEN 1 THEN convert_to(repeat('x', 15 << 20) || '15550100042', 'UTF8') ELSE '' END,
			CASE WHEN n > 1 THEN 1 END, CASE WHEN n > 1 THEN (15 << 20) + 11 END
		FROM generate_series(1, 10) n, walhook.endpoint p`)
	got := pages()
	if len(got) != 2 || !slices.Equal(got[0], []string{"evt_10", "evt_9", "evt_8", "evt_7", "evt_6"}) || !slices.Equal(got[1], []string{"evt_5", "evt_4", "evt_3", "evt_2", "evt_1"}) {
		t.Errorf("ten large bodies: pages of %v", got)
	}
}

// A search takes the turns of expensive calls, and another list of events those of others.
func TestContains_IsACallOfTheExpensiveKind(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", "") + "/events"
	leave, _ := w.api.limits.enter(t.Context(), expensiveCall, "7") // the only turn of the account
	defer leave()
	w.want(t, 200, token, "GET", path+"?record=dids:1", "")
	w.want(t, 429, token, "GET", path+"?contains=15550100042", "")
}
