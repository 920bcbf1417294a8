package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Each list is read page by page while new rows come at its beginning: what was
// there at first is seen once, in order.
func TestPaging_IsStableWhileRowsArrive(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	endpoint := one[int64](t, w, "SELECT id FROM walhook.endpoint")
	next := 0
	grow := func(n int) {
		for range n {
			next++
			w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
				VALUES ($1::bigint, $2, 1, 'dids:1', 'evt_' || $1, 'dids', 'update', now(), now(), '{}')`, next, endpoint)
			// Two at the same instant, to see that ties go on too.
			w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
				VALUES (date_trunc('day', now()) + ($1::int / 2) * interval '1 ms', $2, $1, 1, 1, '5 ms', 500, 'dead', '5xx', '')`, next, endpoint)
			w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
				VALUES ($2, $1::bigint, 'dids:1', 'evt_' || $1, 'dids', 'update', now(), 1, '5xx', 2, '{}')`, next, endpoint)
		}
	}
	grow(11)
	for _, list := range []string{"/attempts", "/" + id + "/attempts", "/" + id + "/events", "/dead"} {
		var seen, want []string
		for n := next; n > 0; n-- {
			want = append(want, fmt.Sprint("evt_", n))
		}
		path := "/v2/accounts/7/webhooks" + list + "?page_size=3"
		for start := ""; ; {
			r := w.want(t, 200, token, "GET", path+start, "")
			for _, row := range r.list(t) {
				seen = append(seen, row["event_id"].(string))
			}
			grow(1)
			key, more := r.body["next_start_key"].(string)
			if !more {
				break
			}
			start = "&start_key=" + key
		}
		if !slices.Equal(seen, want) {
			t.Errorf("%s: %v, want %v", list, seen, want)
		}
	}
	for range 4 {
		w.webhook(t, token, "7", "")
	}
	first := w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks?page_size=2", "")
	w.webhook(t, token, "7", "")
	w.want(t, 200, token, "DELETE", "/v2/accounts/7/webhooks/"+first.list(t)[1]["id"].(string), "")
	second := w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks?page_size=100&start_key="+first.body["next_start_key"].(string), "")
	if n := len(second.list(t)); n != 4 {
		t.Errorf("%d webhooks on the second page, want 4", n)
	}
}

func TestEvents_ShowTheStateOfEach(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	endpoint := one[int64](t, w, "SELECT id FROM walhook.endpoint")
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body, replayed)
		SELECT n, $1, 1, 'dids:1', 'evt_' || CASE n WHEN 6 THEN 1 ELSE n END, 'dids', 'update', now(), now(), '{}', n = 6 FROM generate_series(1, 6) n`, endpoint)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now() + n * interval '1 ms', $1, n, 1, 1, '5 ms', 500, CASE n WHEN 2 THEN 'delivered' WHEN 1 THEN 'dead' ELSE 'retry' END, '5xx', 'x' FROM generate_series(1, 4) n`, endpoint)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		VALUES ($1, 3, 'dids:1', 'evt_3', 'dids', 'update', now(), 11, '5xx', 2, '{}')`, endpoint)
	w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ($1, 4, 'dids:1', 1, now() + interval '1 h', '5xx')`, endpoint)
	states := func() (got []any) {
		for _, e := range w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks/"+id+"/events", "").list(t) {
			got = append(got, e["state"])
		}
		return got
	}
	if got := states(); !slices.Equal(got, []any{"waiting", "waiting", "retry", "dead", "delivered", "replayed"}) {
		t.Errorf("states %v", got)
	}
	w.want(t, 200, token, "POST", "/v2/accounts/7/webhooks/"+id, `{"data":{"enabled":false}}`)
	if got := states(); !slices.Equal(got, []any{"held", "held", "held", "dead", "delivered", "replayed"}) {
		t.Errorf("states while disabled %v", got)
	}
	dry := w.want(t, 202, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay", `{"data":{"since":"2020-01-01T00:00:00Z","dry_run":true}}`).data(t)
	if dry["total"] != 2.0 || dry["state"] != "counted" || dry["id"] != nil {
		t.Errorf("dry run %v", dry)
	}
	asked := w.want(t, 202, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay", `{"data":{"event_ids":["evt_3"],"rate":5}}`).data(t)
	if list := w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks/"+id+"/replay", "").list(t); len(list) != 1 || list[0]["state"] != "running" || list[0]["id"] != asked["id"] || list[0]["total"] != 1.0 {
		t.Errorf("replays %v", list)
	}
	for field, body := range map[string]string{
		"since":        `{}`,
		"event_ids":    `{"event_ids":[]}`,
		"event_ids[0]": `{"event_ids":[7]}`,
		"rate":         `{"event_ids":["evt_1"],"rate":0}`,
	} {
		if r := w.want(t, 400, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay", `{"data":`+body+`}`); r.body["data"].(map[string]any)[field] == nil {
			t.Errorf("%s: %s", body, r.text)
		}
	}
	w.want(t, 400, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay", `{"data":{"since":"yesterday"}}`)
	w.want(t, 200, token, "POST", "/v2/accounts/7/webhooks/"+id, `{"data":{"enabled":true}}`)
	wantMostIDs(t, w, token, "/v2/accounts/7/webhooks/"+id)
	w.want(t, 400, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay", `{"data":{"since":"2020-01-01T00:00:00Z","event_ids":["evt_1"]}}`)
}

// wantMostIDs names 1,000 ids, which a replay and a retry take, and one more, which they
// refuse with the bound and do nothing of.
func wantMostIDs(t *testing.T, w *world, token, webhook string) {
	t.Helper()
	ids := func(id string, n int) string {
		list := slices.Repeat([]string{`"` + id + `"`}, n)
		return `{"data":{"event_ids":[` + strings.Join(list, ",") + `]}}`
	}
	before := len(w.want(t, 200, token, "GET", webhook+"/replay", "").list(t))
	for call, id := range map[string]string{"/replay": "evt_2", "/retry": "evt_4"} { // one was delivered, one waits for a retry
		r := w.want(t, 400, token, "POST", webhook+call, ids(id, 1001))
		if why := fmt.Sprint(r.body["data"].(map[string]any)["event_ids"]); !strings.Contains(why, "1000") {
			t.Errorf("%s of 1,001 ids: %s", call, r.text)
		}
		w.want(t, 202, token, "POST", webhook+call, ids(id, 1000))
	}
	if after := len(w.want(t, 200, token, "GET", webhook+"/replay", "").list(t)); after != before+1 {
		t.Errorf("%d replays, want %d", after, before+1)
	}
}
