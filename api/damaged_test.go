package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A body that breaks off, or breaks the rules of HTTP, is the client's fault and
// no fault of the server.
func TestInput_ABodyThatBreaksOffIsTheClientsFault(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	for name, rest := range map[string]string{
		"shorter than it says": "Content-Length: 500\r\n\r\n{\"data\":{\"name\":\"n\"",
		"a negative chunk":     "Transfer-Encoding: chunked\r\n\r\n-5\r\n{\"data\"",
		"an endless chunk":     "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
		"a chunk without end":  "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"dat",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(conn, "PUT /v2/accounts/7/webhooks HTTP/1.1\r\nHost: x\r\nX-Auth-Token: %s\r\nContent-Type: application/json\r\n%s", token, rest)
			_ = conn.(*net.TCPConn).CloseWrite()
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("%d, want 400", response.StatusCode)
			}
		})
	}
}

// A time can be within the years of JSON where it was written, and not in UTC.
func TestReplay_ATimeOfTheYear10000ElsewhereIsRefused(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	for _, since := range []string{"9999-12-31T23:59:59-23:59", "1970-01-01T00:00:00+12:00", "0000-01-01T00:00:00Z"} {
		for _, dry := range []string{"true", "false"} {
			got := w.call(t, token, "POST", "/v2/accounts/7/webhooks/"+id+"/replay", `{"data":{"since":"`+since+`","dry_run":`+dry+`}}`)
			if got.status != http.StatusBadRequest || !strings.Contains(got.text, "since") {
				t.Errorf("%s: %d %s", since, got.status, got.text)
			}
		}
	}
	w.wantNoPanic(t)
}

// What a damaged row holds may have no form in JSON, or in Go. Its list is shown
// all the same, with the rows beside it.
func TestLists_ShowRowsWhoseValuesNoAnswerCanHold(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	bad := w.webhook(t, token, "7", "")
	good := w.webhook(t, token, "7", "")
	damage := []struct{ table, where, column, value string }{
		{"endpoint", "webhook = '" + bad + "'", "created_at", "'294276-12-31'"},
		{"endpoint", "webhook = '" + bad + "'", "created_at", "'infinity'"},
		{"endpoint", "webhook = '" + bad + "'", "changed_at", "'-infinity'"},
		{"endpoint", "webhook = '" + bad + "'", "changed_at", "'4713-01-01 BC'"},
		{"endpoint", "webhook = '" + bad + "'", "rate_limit", "'NaN'"},
		{"endpoint", "webhook = '" + bad + "'", "rate_limit", "'Infinity'"},
		{"endpoint", "webhook = '" + bad + "'", "schemas", "'{NULL}'"},
		{"endpoint", "webhook = '" + bad + "'", "types", "'{{a,b},{c,d}}'"},
		{"endpoint", "webhook = '" + bad + "'", "custom_data", `'{"a":"\ud83d","a":"\u0000"}'`},
		{"endpoint", "webhook = '" + bad + "'", "daily_at", "'24:00'"},
		{"endpoint", "webhook = '" + bad + "'", "url", "'http://[::1'"},
		{"request", "true", "since", "'294276-12-31'"},
		{"request", "true", "since", "'-infinity'"},
		{"request", "true", "rate", "'Infinity'"},
		{"request", "true", "asked_at", "'infinity'"},
		{"request", "true", "total", "-9223372036854775808"},
		{"event", "true", "committed_at", "'infinity'"},
		{"event", "true", "committed_at", "'294276-12-31'"},
		{"attempt", "true", "duration", "'-178000000 years'"},
		{"attempt", "true", "status", "-2147483648"},
		{"dead_letter", "true", "committed_at", "'294276-12-31'"},
		{"dead_letter", "true", "committed_at", "'-infinity'"},
		{"dead_letter", "true", "size", "-1"},
		{"token", "true", "created_at", "'294276-12-31'"},
	}
	w.exec(t, `INSERT INTO walhook.request (endpoint, since, rate, until_id, total, done_at) SELECT id, now(), 1, 1, 1, now() FROM walhook.endpoint WHERE webhook = '`+bad+`'`)
	w.exec(t, `INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT 1, id, 1, 'dids:1', 'evt_1', 'dids', 'update', now(), now(), '{}' FROM walhook.endpoint WHERE webhook = '`+bad+`'`)
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now(), id, 1, 1, 1, '1 ms', 200, 'delivered', '2xx', '' FROM walhook.endpoint WHERE webhook = '`+bad+`'`)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
		SELECT id, 1, 'dids:1', 'evt_1', 'dids', 'update', now(), 1, '5xx', 2, '{}' FROM walhook.endpoint WHERE webhook = '`+bad+`'`)
	lists := []string{"/webhooks", "/webhooks/attempts", "/webhooks/dead", "/webhooks/" + bad + "/attempts", "/webhooks/" + bad + "/events", "/webhooks/" + bad + "/replay"}
	look := func(t *testing.T) {
		t.Helper()
		for _, list := range lists {
			got := w.call(t, token, "GET", "/v2/accounts/7"+list+"?page_size=500", "")
			if got.status != http.StatusOK {
				t.Errorf("%s: %d %s", list, got.status, got.text)
			}
			if list == "/webhooks" && !strings.Contains(got.text, good) {
				t.Errorf("the other webhook is not shown: %s", got.text)
			}
		}
		if got := w.call(t, adminToken, "GET", "/v2/accounts/7/tokens", ""); got.status != http.StatusOK {
			t.Errorf("tokens: %d %s", got.status, got.text)
		}
	}
	one := "/v2/accounts/7/webhooks/" + bad
	look(t)
	for _, d := range damage {
		t.Run(d.table+" "+d.column+" "+d.value, func(t *testing.T) {
			key := map[string]string{"endpoint": "id", "request": "id", "event": "id", "attempt": "event_id", "dead_letter": "event_id", "token": "id"}[d.table]
			w.exec(t, fmt.Sprintf("DROP TABLE IF EXISTS before; CREATE TEMP TABLE before AS SELECT %s AS key, %s AS value FROM walhook.%s", key, d.column, d.table))
			w.exec(t, fmt.Sprintf("UPDATE walhook.%s SET %s = %s WHERE %s", d.table, d.column, d.value, d.where))
			look(t)
			for _, call := range [][2]string{{"GET", ""}, {"GET", "/secret"}, {"PATCH", `{"data":{"name":"another"}}`}} {
				path, body := one+call[1], ""
				if call[0] == "PATCH" {
					path, body = one, call[1]
				}
				if got := w.call(t, token, call[0], path, body); got.status != http.StatusOK && got.status != http.StatusConflict {
					t.Errorf("%s %s: %d %s", call[0], path, got.status, got.text)
				}
			}
			w.exec(t, fmt.Sprintf("UPDATE walhook.%s t SET %s = b.value FROM before b WHERE b.key = t.%s", d.table, d.column, key))
		})
	}
	w.exec(t, "UPDATE walhook.endpoint SET schemas = '{NULL}' WHERE webhook = '"+bad+"'")
	if got := w.call(t, token, "DELETE", one, ""); got.status != http.StatusOK {
		t.Errorf("a damaged webhook cannot be deleted: %d %s", got.status, got.text)
	}
	w.wantNoPanic(t)
}

func (w *world) wantNoPanic(t *testing.T) {
	t.Helper()
	if lines := w.logs.FilterMessage("panic in request handler").All(); len(lines) > 0 {
		t.Errorf("%d panics, such as %v", len(lines), lines[0].ContextMap()["panic"])
	}
}

// TestSecret_OneThatIsDamagedIsNamedAndCanBeReplaced damages a stored secret, and
// then an earlier one.
func TestSecret_OneThatIsDamagedIsNamedAndCanBeReplaced(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/secret"
	for name, damage := range map[string]string{
		"one byte of it":    `overlay(secret placing '~' from 20)`,
		"too short":         `'whsec_short'`,
		"none of this kind": `'hunter2'`,
		"sealed for nobody": `'sealed:v1:AAAA'`,
		"empty":             `''`,
	} {
		t.Run(name, func(t *testing.T) {
			w.exec(t, `UPDATE walhook.endpoint SET secret = `+damage+`, previous_secret = NULL, previous_until = NULL, older_secrets = '{}', older_until = '{}' WHERE webhook = '`+id+`'`)
			got := w.call(t, token, "GET", path, "")
			if got.status != http.StatusConflict || !strings.Contains(got.text, "rotate it") || strings.Contains(got.text, "hunter2") || strings.Contains(got.text, "whsec_") {
				t.Errorf("%d %s", got.status, got.text)
			}
			if got := w.call(t, token, "POST", path+"/rotate", `{"data":{"overlap_seconds":60}}`); got.status != http.StatusOK || strings.Contains(got.text, "previous_until") {
				t.Fatalf("rotate: %d %s", got.status, got.text)
			}
			got = w.call(t, token, "GET", path, "")
			if got.status != http.StatusOK || !strings.Contains(got.text, `"secret":"whsec_`) || strings.Contains(got.text, "hunter2") || strings.Contains(got.text, "whsec_short") {
				t.Errorf("after its rotation: %d %s", got.status, got.text)
			}
		})
	}
}
