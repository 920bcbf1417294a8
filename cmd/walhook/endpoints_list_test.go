package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// One account's long texts leave the lines of all others as they are.
func TestEndpoints_OneLongTextDoesNotWidenEverybodysLines(t *testing.T) {
	short := admin.EndpointInfo{ID: 1, Account: "7", Webhook: "account", URL: "https://example.com/", State: outbox.EndpointActive}
	long := admin.EndpointInfo{ID: 2, Account: strings.Repeat("é", 1000), Webhook: "account", URL: "https://example.com/" + strings.Repeat("x", 4000), State: outbox.EndpointActive}
	var table, json strings.Builder
	if err := writeEndpoints(&table, []admin.EndpointInfo{short, long}); err != nil {
		t.Fatal(err)
	}
	if err := writeEndpointsJSON(&json, []admin.EndpointInfo{short, long}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(table.String(), "\n"), "\n")
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 230 {
			t.Errorf("a line of %d characters: %s", n, line)
		}
	}
	if len(lines) != 3 || !strings.Contains(lines[2], "é…  ") || !strings.Contains(lines[2], "x…  ") || !strings.Contains(lines[1], "https://example.com/ ") {
		t.Errorf("printed %q", lines)
	}
	if !strings.Contains(json.String(), long.Account) || !strings.Contains(json.String(), long.URL) {
		t.Errorf("JSON cuts: %s", json.String())
	}
}

// A pause that is over, or that an older revision made, is not listed as one.
func TestEndpoints_ListOnlyPausesInForce(t *testing.T) {
	now := time.Now()
	lane := func(until time.Time, revision int64) string {
		e := admin.EndpointInfo{ID: 1, State: outbox.EndpointActive, Revision: 2, Lane: outbox.LaneState{Revision: revision}}
		e.Lane.PausedUntil, e.Lane.OpenUntil = until, until
		var json strings.Builder
		if err := writeEndpointsJSON(&json, []admin.EndpointInfo{e}); err != nil {
			t.Fatal(err)
		}
		return json.String()
	}
	for name, text := range map[string]string{"over": lane(now.Add(-time.Second), 2), "of an older revision": lane(now.Add(time.Hour), 1)} {
		if strings.Contains(text, "_until") || !strings.Contains(text, `"lane": "live"`) {
			t.Errorf("%s: %s", name, text)
		}
	}
	if text := lane(now.Add(time.Hour), 2); !strings.Contains(text, `"paused_until"`) || !strings.Contains(text, `"open_until"`) || !strings.Contains(text, `"lane": "paused"`) {
		t.Errorf("in force: %s", text)
	}
}
