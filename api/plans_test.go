package api

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/outbox/admin"
)

var planRows = flag.Int("plan-rows", 200_000, "how many events and attempts the outbox of the test of plans holds at last")

// planCalls are calls of every route, as an attacker makes them: by method and
// path of the OpenAPI document the rests of the path and the bodies. Every route
// has to be here.
// named is how many events the one that names many may name.
func planCalls(since string, named int) map[string][][2]string {
	const big, bare = "?page_size=500", ""
	lists := func(keys ...string) (calls [][2]string) {
		for _, key := range append(keys, "") {
			calls = append(calls, [2]string{big + key, bare})
		}
		return append(calls, [2]string{bare, bare})
	}
	const webhook = `{"data":{"name":"n","uri":"https://example.com/new"}}`
	const of, one = "/accounts/{account_id}", "/accounts/{account_id}/webhooks/{webhook_id}"
	var many []string
	for n := 1; len(many) < named; n++ {
		if n%4 != 0 { // those are of other webhooks
			many = append(many, fmt.Sprintf("%q", fmt.Sprint("evt_", n*7)))
		}
	}
	return map[string][][2]string{
		"GET " + of + "/webhooks":                 lists("&start_key=" + keyOf(20)),
		"PUT " + of + "/webhooks":                 {{bare, webhook}},
		"GET " + of + "/webhooks/attempts":        lists("&start_key=" + keyOf(admin.AttemptKey{At: time.Now().Add(-time.Second), Endpoint: 5, EventID: 500})),
		"GET " + of + "/webhooks/attempts/counts": {{bare, bare}, {bare, bare}},
		"GET " + one + "/attempts/counts":         {{bare, bare}, {bare, bare}},
		"GET " + of + "/webhooks/dead":            lists("&start_key=" + keyOf(700)),
		"GET " + one:                              {{bare, bare}},
		"POST " + one:                             {{bare, `{"data":{"name":"x"}}`}},
		"PATCH " + one:                            {{bare, `{"data":{"name":"x","uri":"https://example.com/b","enabled":true}}`}},
		"DELETE " + one:                           {{bare, bare}},
		"GET " + one + "/attempts":                lists("&start_key=" + keyOf(admin.AttemptKey{At: time.Now().Add(-time.Second), Endpoint: 5, EventID: 500})),
		"GET " + one + "/events": lists("&start_key="+keyOf(50_000), "&start_key="+keyOf(10),
			"&state=retry", "&state=dead", "&state=waiting", "&state=held", "&state=delivered", "&state=replayed", "&schema=none", "&type=insert",
			"&record=dids:77", "&record=dids:77&state=retry&start_key="+keyOf(60_000), "&record=none:1&state=dead", "&contains=nowhere", "&contains=nowhere&state=dead", "&contains=nowhere&state=waiting", "&contains=nowhere&state=retry", "&contains=%22a%C3%BC", "&since="+since, "&until="+since, "&since=2020-01-01T00:00:00Z&until=2100-01-01T00:00:00Z&schema=none"),
		"GET " + one + "/events/{event_id}":     {{bare, bare}},
		"GET " + one + "/feed":                  {{bare, bare}, {"?limit=500", bare}, {"?last=1000", bare}, {"?last=0", bare}},
		"GET " + one + "/replay":                lists("&start_key=" + keyOf(500)),
		"DELETE " + one + "/replay/{replay_id}": {{bare, bare}},
		"POST " + one + "/replay": {
			{bare, `{"data":{"since":"2020-01-01T00:00:00Z","dry_run":true}}`}, {bare, `{"data":{"since":"` + since + `","dry_run":true}}`},
			{bare, `{"data":{"event_ids":[` + strings.Join(many, ",") + `],"dry_run":true}}`}, {bare, `{"data":{"event_ids":["evt_3"],"dry_run":true}}`},
		},
		"POST " + one + "/retry":     {{bare, bare}, {bare, `{"data":{"event_ids":["evt_9"]}}`}},
		"GET " + one + "/resync":     lists("&start_key=" + keyOf(500)),
		"PUT " + of + "/portal":      {{bare, bare}},
		"GET " + of + "/event-types": lists(),
		"GET /audit": lists("&account=7", "&account=of+20", "&actor=token+a1", "&action=retry", "&since="+since, "&since=2020-01-01T00:00:00Z&until="+since,
			"&start_key="+keyOf(admin.ActKey{At: time.Now().UTC(), ID: 500}), "&account=7&start_key="+keyOf(admin.ActKey{At: time.Now().UTC(), ID: 500})),
		"POST " + one + "/resync":             {{bare, bare}, {bare, `{"data":{"schema":"dids"}}`}},
		"POST " + one + "/test":               {{bare, bare}},
		"GET " + one + "/secret":              {{bare, bare}},
		"POST " + one + "/secret/rotate":      {{bare, bare}},
		"GET " + of + "/tokens":               lists(),
		"PUT " + of + "/tokens":               {{bare, bare}},
		"DELETE " + of + "/tokens/{token_id}": {{bare, bare}},
		"GET " + of + "/holds":                lists("&start_key=" + keyOf("h2.example")),
		"PUT " + of + "/holds":                {{bare, `{"data":{"host":"example.com"}}`}, {bare, `{"data":{"host":"nobody.example"}}`}},
		"DELETE " + of + "/holds/{host}":      {{bare, bare}},
		"DELETE " + of + "/holds":             {{bare, bare}},
	}
}

func keyOf(key any) string {
	list := paged([]any{key, nil}, 1, func(*any) any { return nil }, func(k *any) any { return *k })
	return list.Body.NextStartKey
}

// growSQL fills the event log from one id up to another, each event for the webhook that
// an expression names, and all that there may be of others, and what the account may have
// a hundred of.
const growSQL = `
	WITH e AS (
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body, replayed)
		SELECT n, %[3]s, 1, 'dids:' || n %% 1000, 'evt_' || n, 'dids', 'update', now(), now(), '{}', n %% 50 = 0
		FROM generate_series(%[1]d, %[2]d) n RETURNING id, endpoint),
	a AS (
		INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT greatest(now() - interval '1 minute', date_trunc('day', now(), 'UTC')) + id * interval '1 us', endpoint, id, 1, 1, '1 ms', 200, CASE WHEN id %% 3 = 0 THEN 'retry' ELSE 'delivered' END, '2xx', '' FROM e),
	d AS (
		INSERT INTO walhook.dead_letter (died_at, endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT now(), endpoint, id, 'dids:1', 'evt_' || id, 'dids', 'update', now(), 1, '5xx', 2, '{}' FROM e WHERE id %% 6 = 0)
	INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) SELECT endpoint, id, 'dids:' || id, 1, now(), '5xx' FROM e WHERE id %% 9 = 0;
	INSERT INTO walhook.request (endpoint, since, rate, until_id, total, done_at) SELECT 5, now(), 1, 1, 1, now() FROM generate_series(%[1]d, %[2]d, 20);
	INSERT INTO walhook.resync (endpoint, kind, done_at) SELECT 5, 'update', now() FROM generate_series(%[1]d, %[2]d, 20);
	INSERT INTO walhook.endpoint (account, webhook, url, state, secret)
	SELECT 'of ' || n, 'account', 'https://h' || n || '.example/', 'active', 'whsec_c2VjcmV0' FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.account (id, parent) SELECT 'of ' || n, '7' FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.token (hash, id, account, subaccounts) SELECT convert_to(n::text, 'UTF8'), n, 'of ' || n, false FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.known_account (id) SELECT 'of ' || n FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.hold (account, host, reason) SELECT 'of ' || n, 'h.example', 'x' FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.ended_account (account) SELECT 'gone ' || n FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.idempotency (account, token, key, sealed, place) SELECT 'of ' || n, 'x', convert_to(n::text, 'UTF8'), '', n / 20 FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.audit (actor, action, account) SELECT 'token a' || n %% 7, CASE WHEN n %% 3 = 0 THEN 'retry' ELSE 'replay' END, CASE WHEN n %% 2 = 0 THEN '7' ELSE 'of ' || n END FROM generate_series(%[1]d, %[2]d, 5) n;
	INSERT INTO walhook.portal_link (hash, account, expires_at) SELECT convert_to(n::text, 'UTF8'), 'of ' || n, now() + interval '1 hour' FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.portal_session (hash, id, account, operator, expires_at) SELECT convert_to(n::text, 'UTF8'), n, 'of ' || n, false, now() + interval '1 hour' FROM generate_series(%[1]d, %[2]d, 20) n;
	INSERT INTO walhook.set_aside (loop, item, endpoint, reason, detail) SELECT 'append', n, 5, 'unstorable', 'x' FROM generate_series(%[1]d, %[2]d, 20) n;
	ANALYZE`

// mostRead is how many rows a statement may read at most, whatever the outbox
// holds: a list 500 of each of an account's hundred webhooks, and a count of what
// to send again four times its bound.
const mostRead = 60_000

// littleRead is what may grow: up to a page of each of the account's webhooks.
const littleRead = 6_000

// Every statement of every route stays on an index, and reads no more when the
// outbox holds twice as much: where the webhook has most of the events; where it has the
// first sixty, and another one has all others; and where it had most, and has none now.
func TestPlans_NoRouteReadsMoreThanItShows(t *testing.T) {
	t.Parallel()
	t.Run("of a busy webhook", func(t *testing.T) {
		t.Parallel()
		testPlans(t, "CASE WHEN n % 4 = 0 THEN 1 + n % 3000 ELSE 5 END", 1000)
	})
	t.Run("of a quiet webhook", func(t *testing.T) {
		t.Parallel()
		testPlans(t, "CASE WHEN n <= 60 THEN 5 ELSE 2999 END", 6)
	})
	t.Run("of a webhook that was busy", func(t *testing.T) {
		t.Parallel()
		testPlans(t, fmt.Sprintf("CASE WHEN n %% 4 = 0 OR n > %d THEN 2999 ELSE 5 END", *planRows/4), 1000)
	})
}

func testPlans(t *testing.T, endpoint string, named int) {
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{
		"logging_collector": "on", "log_destination": "csvlog", "session_preload_libraries": "auto_explain", "autovacuum": "off",
		"log_rotation_size": "0", "log_rotation_age": "0",
	}})
	url, err := cluster.CreateDatabase(t.Context(), "plans")
	if err != nil {
		t.Fatal(err)
	}
	if err := outbox.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	w := &world{conn: conn, destination: &fixedDestination{}}
	w.exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret) SELECT '7', md5(n::text), 'https://example.com/' || n, 'active', 'whsec_c2VjcmV0' FROM generate_series(1, 98) n`)
	w.exec(t, `INSERT INTO walhook.idempotency (account, token, key, sealed, place) SELECT '7', 'x', convert_to(n::text, 'UTF8'), '', n FROM generate_series(1, 900) n`)
	w.exec(t, `INSERT INTO walhook.hold (account, host, reason) SELECT '7', 'h' || n || '.example', 'x' FROM generate_series(1, 600) n`)
	w.exec(t, `ALTER DATABASE plans SET auto_explain.log_min_duration = 0; ALTER DATABASE plans SET auto_explain.log_analyze = on;
		ALTER DATABASE plans SET auto_explain.log_timing = off; ALTER DATABASE plans SET auto_explain.log_format = json`, pgx.QueryExecModeSimpleProtocol)
	store, err := outbox.Open(t.Context(), outbox.Config{URL: url}, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.admin = admin.New(store)
	w.feeds = NewFeeds(store, zap.NewNop(), nil)
	w.url = w.serve(t, zap.NewNop())

	half := *planRows / 2
	w.exec(t, fmt.Sprintf(growSQL, 1, half, endpoint), pgx.QueryExecModeSimpleProtocol)
	before := w.readAll(t, named)
	w.exec(t, fmt.Sprintf(growSQL, half+1, *planRows, endpoint), pgx.QueryExecModeSimpleProtocol)
	after := w.readAll(t, named)
	statements := 0
	for _, call := range slices.Sorted(maps.Keys(after)) {
		for sql, reads := range after[call] {
			statements++
			for _, table := range reads.Scanned {
				if !slices.Contains(small, table) {
					t.Errorf("%s: sequential scan of %s:\n%s", call, table, sql)
				}
			}
			if was := before[call][sql].Rows; reads.Rows > was+was/5 && reads.Rows > littleRead || reads.Rows > mostRead {
				t.Errorf("%s: reads %.0f rows, and %.0f of half as many:\n\t%s\n%s", call, reads.Rows, was, strings.Join(reads.Nodes, "\n\t"), sql)
			}
		}
	}
	t.Logf("%d statements of %d calls", statements, len(after))
}

// readAll makes every call of every route, and says what each statement of it
// read.
func (w *world) readAll(t *testing.T, named int) map[string]map[string]pgtest.Reads {
	t.Helper()
	admin := func(status int, method, path, body string) reply {
		return w.want(t, status, adminToken, method, path, body)
	}
	token := admin(201, "PUT", "/v2/accounts/above/tokens", `{"data":{"include_subaccounts":true}}`).data(t)["token"].(string)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('7', 'above') ON CONFLICT DO NOTHING`)
	w.exec(t, "SET auto_explain.log_format = json; SET auto_explain.log_min_duration = 0", pgx.QueryExecModeSimpleProtocol)
	calls := planCalls(time.Now().UTC().Format(time.RFC3339), named)
	marks := map[string]bool{}
	for _, route := range w.routes(t) {
		path, shared := strings.CutPrefix(route[1], "/v2")
		if !shared {
			continue // the same under another name
		}
		name := route[0] + " " + path
		if len(calls[name]) == 0 {
			t.Fatalf("%s is not in planCalls", name)
		}
		for i, call := range calls[name] {
			w.api.limits = newLimits(0) // what is expensive is measured, not refused
			w.api.testing, w.api.retrying = newTestLimit(), newTestLimit()
			w.api.counts = newAttemptCounter(w.admin)                                    // nothing is known from before
			w.api.counts.until, w.api.counts.after = -1, 0                               // one statement
			w.exec(t, "UPDATE walhook.resync SET done_at = now() WHERE done_at IS NULL") // a webhook has one at a time
			hook := one[string](t, w, `SELECT webhook FROM walhook.endpoint WHERE id = 5`)
			if strings.Contains(path, "/replay/") {
				w.exec(t, "UPDATE walhook.request SET done_at = NULL, reason = '' WHERE id = 1")
			} else if route[0] == "DELETE" {
				hook = admin(201, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://gone.example/"}}`).data(t)["id"].(string)
			}
			id := admin(201, "PUT", "/v2/accounts/7/tokens", "").data(t)["id"].(string)
			filled := strings.NewReplacer("{host}", "h1.example", "{event_id}", "evt_51").Replace(at("/v2"+path, "7", hook, id))
			bearer := token
			if strings.Contains(path, "/tokens") || strings.Contains(path, "/holds") || strings.Contains(path, "/audit") {
				bearer = adminToken
			}
			mark := fmt.Sprintf("%s #%d", name, i)
			marks[mark] = true
			w.exec(t, "SELECT 'begin "+mark+"'", pgx.QueryExecModeSimpleProtocol)
			r := w.call(t, bearer, route[0], filled+call[0], call[1], withKey(fmt.Sprint(time.Now().UnixNano()))...)
			w.exec(t, "SELECT 'end "+mark+"'", pgx.QueryExecModeSimpleProtocol)
			if r.status >= 300 {
				t.Errorf("%s: %d %s", mark, r.status, r.text)
			}
			// Room for the next: an account has a hundred of each.
			w.exec(t, `DELETE FROM walhook.token WHERE account = '7'`)
			w.exec(t, `DELETE FROM walhook.endpoint WHERE account = '7' AND id > 98 AND url IS DISTINCT FROM 'https://example.com/b'`)
			w.exec(t, `UPDATE walhook.endpoint SET state = 'active', disabled_by = '', disabled_reason = '', reason = '' WHERE account = '7' AND state = 'disabled'`)
			w.exec(t, `INSERT INTO walhook.hold (account, host, reason) SELECT '7', 'h' || n || '.example', 'x' FROM generate_series(1, 600) n ON CONFLICT DO NOTHING`)
			w.exec(t, `DELETE FROM walhook.hold WHERE account = '7' AND host IN ('example.com', 'gone.example')`)
		}
	}
	done := fmt.Sprintf("SELECT 'all done %d'", time.Now().UnixNano())
	w.exec(t, done, pgx.QueryExecModeSimpleProtocol)
	w.exec(t, "RESET auto_explain.log_min_duration", pgx.QueryExecModeSimpleProtocol)
	return w.plans(t, marks, done)
}

// plans reads what auto_explain wrote since the last time.
func (w *world) plans(t *testing.T, marks map[string]bool, done string) map[string]map[string]pgtest.Reads {
	t.Helper()
	made := map[string]map[string]pgtest.Reads{}
	var text string
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text = one[string](t, w, `SELECT pg_read_file(pg_current_logfile('csvlog'))`)
		if strings.Contains(text[max(len(text)-20_000, 0):], done) || time.Now().After(deadline) {
			break
		}
	}
	rows := csv.NewReader(strings.NewReader(text))
	rows.FieldsPerRecord = -1
	call := ""
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) || err != nil && len(made) > 0 {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(row) < 14 {
			continue
		}
		_, plan, found := strings.Cut(row[13], "plan:\n")
		if !found {
			continue
		}
		var explained struct {
			Text string         `json:"Query Text"`
			Plan map[string]any `json:"Plan"`
		}
		if err := json.Unmarshal([]byte(plan), &explained); err != nil {
			t.Fatalf("%v: %s", err, plan)
		}
		if begun, is := strings.CutPrefix(explained.Text, "SELECT 'begin "); is {
			call = strings.TrimSuffix(begun, "'")
			made[call] = map[string]pgtest.Reads{} // only the newest walk counts
			continue
		}
		if strings.HasPrefix(explained.Text, "SELECT 'end ") {
			call = ""
			continue
		}
		if call != "" {
			read := made[call][explained.Text]
			read.Add(explained.Plan)
			made[call][explained.Text] = read
		}
	}
	for mark := range marks {
		if len(made[mark]) == 0 {
			t.Errorf("%s: no statement was seen", mark)
		}
	}
	return made
}

// small are the tables whose size nobody makes grow.
var small = []string{"webhooks_version", "sealing", "epoch", "shard", "source", "gap", "timeline", "pg_inherits"}
