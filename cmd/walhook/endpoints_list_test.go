package main

import (
	"strings"
	"testing"
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
