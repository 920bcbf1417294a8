package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// append adds events to a webhook's part of the event log, as a publisher does: with the
// position that says which id is the next.
func (w *world) append(t *testing.T, webhook string, ids ...int) {
	t.Helper()
	w.appendLong(t, webhook, 0, ids...)
}

// appendLong is append of events whose bodies are longer by so many bytes.
func (w *world) appendLong(t *testing.T, webhook string, longer int, ids ...int) {
	t.Helper()
	tx, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), w.withAppend); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if _, err := tx.Exec(t.Context(), `
			INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
			SELECT $2::bigint, p.id, coalesce(nullif($4::bigint, 0), p.revision), 'dids:1', 'evt_' || $2::bigint, 'dids', 'update', now(), clock_timestamp(), convert_to('{"type":"update","schema":"dids","data":"{\"id\":' || $2::bigint || repeat(' ', $3) || '}"}', 'UTF8')
			FROM walhook.endpoint p WHERE p.webhook = $1`, webhook, id, longer, w.publisherKnows); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec(t.Context(), `
		INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id) VALUES (1, '0/1', 1, 1, '0/1', $1)`, slices.Max(ids)+1); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// feedIDs are the ids of a page, and its cursor.
func feedIDs(t *testing.T, r reply) (ids []string, cursor string) {
	t.Helper()
	for _, e := range r.list(t) {
		ids = append(ids, strings.TrimPrefix(e["event_id"].(string), "evt_"))
	}
	return ids, r.body["cursor"].(string)
}

func TestFeed_IsTheEventLogOfOneWebhookInItsOrder(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	mine, other := w.webhook(t, token, "7", ""), w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + mine + "/feed"
	empty := w.want(t, 200, token, "GET", path, "")
	if ids, cursor := feedIDs(t, empty); len(ids) != 0 || cursor == "" || empty.body["more"] != false {
		t.Errorf("an empty feed: %s", empty.text)
	}
	w.append(t, mine, 1, 2)
	w.append(t, other, 3)
	w.append(t, mine, 4, 9)
	all := w.want(t, 200, token, "GET", path, "")
	ids, end := feedIDs(t, all)
	if fmt.Sprint(ids) != "[1 2 4 9]" || all.body["more"] != false {
		t.Errorf("events %v: %s", ids, all.text)
	}
	first := all.list(t)[0]
	headers := first["headers"].(map[string]any)
	if first["body"] != `{"type":"update","schema":"dids","data":"{\"id\":1}"}` || headers["webhook-id"] != "evt_1" || headers["webhook-signature"] != "v1,evt_1" || headers["webhook-timestamp"] == "" || headers["Content-Type"] != "application/json" {
		t.Errorf("event %v", first)
	}
	// By pages, from the cursor of the page or of an event.
	var walked []string
	cursor := ""
	for range 3 {
		r := w.want(t, 200, token, "GET", path+"?limit=2"+cursor, "")
		ids, next := feedIDs(t, r)
		walked, cursor = append(walked, ids...), "&after="+next
	}
	if fmt.Sprint(walked) != "[1 2 4 9]" {
		t.Errorf("by pages: %v", walked)
	}
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+first["cursor"].(string), "")); fmt.Sprint(ids) != "[2 4 9]" {
		t.Errorf("after the first: %v", ids)
	}
	for last, want := range map[string]string{"0": "[]", "1": "[9]", "3": "[2 4 9]", "100": "[1 2 4 9]"} {
		if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?last="+last, "")); fmt.Sprint(ids) != want {
			t.Errorf("the last %s: %v", last, ids)
		}
	}
	w.append(t, mine, 12)
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+end, "")); fmt.Sprint(ids) != "[12]" {
		t.Errorf("after the end: %v", ids)
	}
	for _, wrong := range []string{"?after=xyz", "?after=" + end[:len(end)-2] + "AA", "?last=5000", "?last=-1", "?limit=0", "?limit=501", "?last=1&after=" + end} {
		w.want(t, 400, token, "GET", path+wrong, "")
	}
	if r := w.want(t, 400, token, "GET", "/v2/accounts/7/webhooks/"+other+"/feed?after="+end, ""); !strings.Contains(r.text, "is not a cursor of this webhook's feed") {
		t.Errorf("another webhook's cursor: %s", r.text)
	}
}

// What retention has dropped is not passed over in silence.
func TestFeed_ACursorOlderThanRetentionIsGone(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	w.append(t, id, 5, 6)
	_, old := feedIDs(t, w.want(t, 200, token, "GET", path+"?limit=1", ""))
	_, end := feedIDs(t, w.want(t, 200, token, "GET", path, ""))
	w.append(t, id, 16777300)
	w.exec(t, `DROP TABLE walhook.event_000000`)
	for _, cursor := range []string{old, end} {
		r := w.want(t, 410, token, "GET", path+"?after="+cursor, "")
		oldest, _ := r.body["oldest"].(string)
		if oldest == "" || !strings.Contains(r.body["message"].(string), oldest) {
			t.Fatalf("gone: %s", r.text)
		}
		if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+oldest, "")); fmt.Sprint(ids) != "[16777300]" {
			t.Errorf("after the oldest cursor: %v", ids)
		}
	}
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path, "")); fmt.Sprint(ids) != "[16777300]" {
		t.Errorf("without a cursor: %v", ids)
	}
}

// readerAhead has a reader of a feed know a cursor after event 9, and the outbox know no
// event after 5.
func (w *world) readerAhead(t *testing.T) (token, id, path, cursor string) {
	t.Helper()
	token = w.token(t, "7", "")
	id = w.webhook(t, token, "7", "")
	path = "/v2/accounts/7/webhooks/" + id + "/feed"
	w.append(t, id, 5)
	w.append(t, id, 9)
	_, cursor = feedIDs(t, w.want(t, 200, token, "GET", path, ""))
	w.exec(t, `DELETE FROM walhook.event WHERE id = 9`)
	w.exec(t, `DELETE FROM walhook.position WHERE next_event_id = 10`)
	return token, id, path, cursor
}

// The outbox of a backup gives ids again: a cursor from after the backup is no place in it.
func TestFeed_ACursorBeyondTheLogIsOfALostOne(t *testing.T) {
	w := newWorld(t)
	token, _, path, cursor := w.readerAhead(t)
	r := w.want(t, 410, token, "GET", path+"?after="+cursor, "")
	if !strings.Contains(r.text, "restored from a copy that is older") {
		t.Errorf("a restored outbox: %s", r.text)
	}
	oldest, _ := r.body["oldest"].(string)
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+oldest, "")); fmt.Sprint(ids) != "[5]" {
		t.Errorf("after the oldest cursor: %v", ids)
	}
}

// A server that was promoted may lack what a reader has seen of the one before it: a dying
// server shows what waited for its standby. The reader's cursor is good all the same, from
// the first moment on, since ids continue beyond it.
func TestFeed_ACursorOutlivesAFailover(t *testing.T) {
	w := newWorld(t)
	token, id, path, cursor := w.readerAhead(t)
	w.exec(t, `UPDATE walhook.timeline SET number = number + 1`) // nobody has met the one that it is on
	after, first := cursor, cursor
	for range 3 {
		_, after = feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+after, ""))
	}
	const next = 2 << 24 // of a new timeline
	w.append(t, id, next)
	for what, cursor := range map[string]string{"from before": first, "from after": after} {
		if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+cursor, "")); fmt.Sprint(ids) != fmt.Sprintf("[%d]", next) {
			t.Errorf("a cursor %s the failover: %v", what, ids)
		}
	}

	// The server of that timeline is lost as well, and the next one never heard of it.
	_, cursor = feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+after, ""))
	w.exec(t, `UPDATE walhook.timeline SET token = 'another' WHERE id = (SELECT max(id) FROM walhook.timeline)`)
	w.append(t, id, next+1)
	w.want(t, 410, token, "GET", path+"?after="+cursor, "")
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+first, "")); fmt.Sprint(ids) != fmt.Sprintf("[%d %d]", next, next+1) {
		t.Errorf("a cursor that is older than the timeline: %v", ids)
	}

	// Somebody has deleted what is known of timelines: another one is noted.
	w.exec(t, `DELETE FROM walhook.timeline`)
	w.want(t, 410, token, "GET", path+"?after="+first, "")
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path, "")); fmt.Sprint(ids) != fmt.Sprintf("[5 %d %d]", next, next+1) {
		t.Errorf("without timelines: %v", ids)
	}
}

// A stream that outlives failovers names the timeline that each event came on: its cursors
// are no places in the log of a server that never had those events.
func TestFeed_AStreamNamesTheTimelineOfEachEvent(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	w.append(t, id, 5)
	s := w.stream(t, token, path)
	if ids := s.ids(t, 1); ids[0] != "5" {
		t.Fatalf("the stream begins with %v", ids)
	}
	w.exec(t, `UPDATE walhook.timeline SET number = number + 1`) // nobody has met the one that it is on
	w.want(t, 200, token, "GET", path, "")
	const next = 2 << 24
	w.append(t, id, next)
	if ids := s.ids(t, 1); ids[0] != fmt.Sprint(next) {
		t.Fatalf("after the failover: %v", ids)
	}
	if _, cursor := feedIDs(t, w.want(t, 200, token, "GET", path, "")); cursor != s.last {
		t.Errorf("the stream's cursor is %s, a page's %s", s.last, cursor)
	}
	last := s.last
	w.exec(t, `UPDATE walhook.timeline SET token = 'another' WHERE id = (SELECT max(id) FROM walhook.timeline)`)
	w.append(t, id, next+1, next+2)
	for {
		e, err := s.next()
		if err != nil {
			break // it was sent to the log, which refuses its place
		}
		t.Fatalf("the stream continues in another history, with %v", e.data["event_id"])
	}
	w.want(t, 410, token, "GET", path+"?after="+last, "")
}

// A webhook of delivery pull has no URL, and a feed. What it is, it stays.
func TestFeed_AWebhookOfDeliveryPullNeedsNoURL(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const all = "/v2/accounts/7/webhooks"
	made := w.want(t, 201, token, "PUT", all, `{"data":{"name":"n","delivery":"pull"}}`).data(t)
	if made["state"] != "active" || made["uri"] != "" || made["delivery"] != "pull" {
		t.Errorf("made %v", made)
	}
	id := made["id"].(string)
	for what, body := range map[string]string{
		"a URL":             `{"data":{"name":"n","delivery":"pull","uri":"https://example.com/"}}`,
		"no URL, realtime":  `{"data":{"name":"n"}}`,
		"no URL, daily":     `{"data":{"name":"n","delivery":"daily"}}`,
		"no name":           `{"data":{"delivery":"pull"}}`,
		"an unknown manner": `{"data":{"name":"n","delivery":"push"}}`,
	} {
		if r := w.call(t, token, "PUT", all, body); r.status != 400 {
			t.Errorf("%s: %d %s", what, r.status, r.text)
		}
	}
	w.want(t, 201, token, "PUT", all, `{"data":{"name":"n","delivery":"pull","uri":null}}`)
	pushed := w.webhook(t, token, "7", "")
	w.want(t, 400, token, "PATCH", all+"/"+pushed, `{"data":{"delivery":"pull"}}`)
	w.want(t, 400, token, "PATCH", all+"/"+pushed, `{"data":{"delivery":"pull","uri":null}}`)
	if r := w.want(t, 400, token, "PATCH", all+"/"+pushed, `{"data":{"uri":null}}`); !strings.Contains(r.text, "cannot be removed") {
		t.Errorf("a URL that is removed: %s", r.text)
	}
	w.want(t, 400, token, "PUT", all, `{"data":{"name":"n","uri":null}}`)
	w.want(t, 200, token, "PATCH", all+"/"+id, `{"data":{"uri":null}}`)
	w.want(t, 400, token, "PATCH", all+"/"+id, `{"data":{"delivery":"realtime","uri":"https://example.com/"}}`)
	w.want(t, 400, token, "PATCH", all+"/"+id, `{"data":{"uri":"https://example.com/"}}`)
	w.want(t, 400, token, "PATCH", all+"/"+id, `{"data":{"delivery":null}}`)
	w.want(t, 200, token, "PATCH", all+"/"+id, `{"data":{"name":"another","schemas":["dids"]}}`)
	w.append(t, id, 1, 2)
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", all+"/"+id+"/feed", "")); fmt.Sprint(ids) != "[1 2]" {
		t.Errorf("its feed: %v", ids)
	}
	for _, e := range w.want(t, 200, token, "GET", all+"/"+id+"/events", "").list(t) {
		if e["state"] != "pull" {
			t.Errorf("the state of its event: %v", e)
		}
	}
	if list := w.want(t, 200, token, "GET", all+"/"+id+"/events?state=waiting", "").list(t); len(list) != 0 {
		t.Errorf("nothing of it waits: %v", list)
	}
	if h := w.want(t, 200, token, "GET", all+"/"+id, "").data(t)["health"].(map[string]any); h["waiting"] != 0.0 || h["breaker"] != "closed" {
		t.Errorf("its health: %v", h)
	}
	w.want(t, 409, token, "POST", all+"/"+id+"/test", "")
	for body, status := range map[string]int{
		`{"event_ids":["evt_1"]}`: 409, `{"event_ids":["evt_1"],"dry_run":true}`: 202, `{"since":"2020-01-01T00:00:00Z"}`: 202,
	} {
		if r := w.want(t, status, token, "POST", all+"/"+id+"/replay", `{"data":`+body+`}`); !strings.Contains(r.text, "read its feed again") || strings.Contains(r.text, "/retry") {
			t.Errorf("a replay of %s: %s", body, r.text)
		}
	}
	w.want(t, 200, token, "PATCH", all+"/"+id, `{"data":{"enabled":false}}`)
	w.want(t, 409, token, "GET", all+"/"+id+"/feed", "")
	w.want(t, 200, token, "PATCH", all+"/"+id, `{"data":{"enabled":true}}`)
	if ids, _ := feedIDs(t, w.want(t, 200, token, "GET", all+"/"+id+"/feed", "")); fmt.Sprint(ids) != "[1 2]" {
		t.Errorf("its feed, enabled again: %v", ids)
	}
}
