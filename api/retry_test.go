package api

import (
	"strings"
	"testing"
	"time"
)

func TestRetry_MakesDueWhatWaits(t *testing.T) {
	w, token, events := eventsWorld(t)
	path := strings.TrimSuffix(events, "/events") + "/retry"
	due := func() string {
		return one[string](t, w, `SELECT string_agg(event_id || CASE WHEN next_at IS NULL THEN ':behind' WHEN next_at <= now() THEN ':due' ELSE ':later' END, ' ' ORDER BY event_id) FROM walhook.retry`)
	}
	later := func() {
		w.exec(t, "UPDATE walhook.retry SET next_at = now() + interval '1 h' WHERE next_at IS NOT NULL")
	}
	asked := func() int64 { return one[int64](t, w, "SELECT retry_asked FROM walhook.endpoint") }
	revision := one[int64](t, w, "SELECT revision FROM walhook.endpoint")
	for n, body := range []string{"", `{"data":{}}`, `{"data":{"event_ids":["evt_4"]}}`, `{"data":{"event_ids":["evt_5"]}}`, `{"data":{"event_ids":["evt_5","evt_4","evt_5"]}}`} {
		later()
		r := w.want(t, 202, token, "POST", path, body)
		if r.data(t)["due"] != 1.0 || r.data(t)["probes"] != false || r.body["warnings"] != nil || due() != "4:due 5:behind" || asked() != int64(n+1) {
			t.Errorf("%s: %s, then %s", body, r.text, due())
		}
	}
	later()
	if r := w.want(t, 202, token, "POST", path, `{"data":{"event_ids":["evt_4","evt_1","evt_7"]}}`); r.data(t)["due"] != 1.0 || !strings.Contains(r.text, "2 of them wait for no retry") {
		t.Errorf("some: %s", r.text)
	}
	later()
	before := asked()
	if r := w.want(t, 409, token, "POST", path, `{"data":{"event_ids":["evt_1","evt_1","evt_6"]}}`); !strings.Contains(r.text, "2 of them wait for no retry") || !strings.Contains(r.text, "POST …/replay") {
		t.Errorf("none: %s", r.text)
	}
	if r := w.want(t, 400, token, "POST", path, `{"data":{"event_ids":["evt_4","evt_99"]}}`); !strings.Contains(r.text, `\"evt_99\"`) {
		t.Errorf("unknown: %s", r.text)
	}
	if due() != "4:later 5:behind" || asked() != before {
		t.Errorf("a refused retry changed %s", due())
	}
	if one[int64](t, w, "SELECT revision FROM walhook.endpoint") != revision {
		t.Error("the webhook has another ETag, although nothing of it changed")
	}
	w.api.retrying = newTestLimit()
	still := time.Now()
	w.api.retrying.now = func() time.Time { return still } // a slow machine must not earn another try
	w.exec(t, `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, last_reason) SELECT id, revision, true, 6, true, now() + interval '1 h', 3, '5xx' FROM walhook.endpoint`)
	if r := w.want(t, 202, token, "POST", path, `{"data":{"event_ids":["evt_7"]}}`); r.data(t)["probes"] != true || r.data(t)["due"] != 0.0 {
		t.Errorf("behind an open breaker: %s", r.text)
	}
	w.want(t, 200, token, "POST", strings.TrimSuffix(path, "/retry"), `{"data":{"enabled":false}}`)
	if r := w.want(t, 409, token, "POST", path, ""); !strings.Contains(r.text, "once it is enabled") {
		t.Errorf("disabled: %s", r.text)
	}
	for range testBurst {
		w.call(t, token, "POST", path, "")
	}
	w.want(t, 200, token, "POST", strings.TrimSuffix(path, "/retry"), `{"data":{"enabled":true}}`)
	w.want(t, 429, token, "POST", path, "")
}

func TestHealth_TellsHowDeliveryGoes(t *testing.T) {
	w, token, events := eventsWorld(t)
	path := strings.TrimSuffix(events, "/events")
	health := func(path string) map[string]any {
		r := w.want(t, 200, token, "GET", path, "")
		if list, is := r.body["data"].([]any); is {
			return list[0].(map[string]any)["health"].(map[string]any)
		}
		return r.data(t)["health"].(map[string]any)
	}
	h := health(path)
	if h["breaker"] != "closed" || h["waiting"] != 2.0 || h["retrying"] != 1.0 || h["dead"] != 1.0 || h["last_success_at"] == nil || h["failing_since"] != nil || h["last_reason"] != nil {
		t.Errorf("closed: %v", h)
	}
	w.exec(t, `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail)
		SELECT now() + interval '1 s', id, 4, 1, 2, '5 ms', 0, 'retry', 'unreachable', 'dial tcp 10.0.0.7' FROM walhook.endpoint`)
	w.exec(t, `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, failing_since, paused_until, last_reason)
		SELECT id, revision, true, 6, true, now() + interval '1 h', 3, now(), now() + interval '2 h', 'blocked' FROM walhook.endpoint`)
	for _, at := range []string{path, strings.TrimSuffix(path, path[strings.LastIndex(path, "/"):])} {
		h = health(at)
		if h["breaker"] != "open" || h["open_until"] == nil || h["paused_until"] == nil || h["failing_since"] == nil || h["last_reason"] != "unreachable" ||
			h["waiting"] != 2.0 || h["last_success_at"] == nil {
			t.Errorf("%s, open: %v", at, h)
		}
	}
	w.exec(t, "UPDATE walhook.lane SET open_until = now() - interval '1 s'")
	if h = health(path); h["breaker"] != "half_open" || h["open_until"] != nil {
		t.Errorf("half-open: %v", h)
	}
	edited := w.want(t, 200, token, "POST", path, `{"data":{"uri":"https://other.example/"}}`).data(t)["health"].(map[string]any)
	if edited["breaker"] != "closed" || edited["paused_until"] != nil {
		t.Errorf("with another URL: %v", edited)
	}
}
