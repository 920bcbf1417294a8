package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What PostgreSQL's json takes and ->> refuses, what another reader would read in
// another way, and what no text column holds: whatever the field, it is refused
// and named, and nothing of it is stored.
func TestInput_TextThatCannotBeStoredIsRefusedInEveryField(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	id := w.webhook(t, token, "7", "")
	before := w.state(t)
	bad := map[string]string{
		"half an emoji":                    `"hi \ud83d"`,
		"the other half":                   `"\ude00 hi"`,
		"two first halves":                 `"\ud83d\ud83d"`,
		"a half and an escape":             `"\ud83d\n"`,
		"a half and a character":           `"\ud83dA"`,
		"a half and no half":               `"\ud83d\u0041"`,
		"a NUL":                            `"a\u0000b"`,
		"an upper-case half":               `"\uD83D"`,
		"bytes that are no UTF-8":          "\"a\xffb\"",
		"a surrogate in UTF-8":             "\"\xed\xa0\xbd\"",
		"a number beyond numbers":          `1e400000`,
		"a number of many digits":          strings.Repeat("9", 100),
		"a number that is next to nothing": `1e-400000`,
		"a member twice":                   `{"a":1,"a":2}`,
		"a member twice, escaped":          `{"a":1,"\u0061":2}`,
		"half an emoji in a name":          `{"\ud83d":1}`,
		"deep":                             strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
		"deep objects":                     strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000),
	}
	fields := []string{"name", "uri", "http_verb", "hook", "type", "action", "schemas", "types", "target", "format", "retries", "rate_limit", "batch",
		"custom_data", "enabled", "delivery", "daily_at", "daily_zone", "include_subaccounts", "include_internal_legs", "unheard_of"}
	for name, value := range bad {
		for _, field := range fields {
			values := map[string]string{field: value}
			switch field {
			case "custom_data":
				values["custom_data"] = `{"greeting":{"deeper":[` + value + `]}}`
			case "schemas", "types":
				values[field] = `[` + value + `]`
			case "target":
				values["target"] = `{"type":"number","id":` + value + `}`
			}
			var members []string
			for member, text := range values {
				members = append(members, `"`+member+`":`+text)
			}
			if field != "name" {
				members = append(members, `"name":"n"`)
			}
			if field != "uri" {
				members = append(members, `"uri":"https://example.com/"`)
			}
			body := `{"data":{` + strings.Join(members, ",") + `}}`
			call := [2]string{"PUT", path}
			if len(name)%2 == 0 {
				call = [2]string{"PATCH", path + "/" + id}
			}
			r := w.want(t, 400, token, call[0], call[1], body)
			named, _ := r.body["data"].(map[string]any)
			if !slices.ContainsFunc([]string{field, field + "[0]", field + ".id"}, func(f string) bool { return named[f] != nil }) {
				t.Errorf("%s in %s: %s names another field", name, field, r.text)
			}
		}
	}
	for _, call := range [][2]string{{"POST", path + "/" + id + "/replay"}, {"POST", path + "/" + id + "/secret/rotate"}} {
		w.want(t, 400, token, call[0], call[1], `{"data":{"x":"\ud83d"}}`)
		w.want(t, 400, token, call[0], call[1], `{"data":{"x":1},"data":{"x":2}}`)
	}
	w.want(t, 400, adminToken, "PUT", "/v2/accounts/7/tokens", `{"data":{"name":"\ud83d"}}`)
	if after := w.state(t); after != before {
		t.Errorf("something was stored:\n\t%s\n\t%s", before, after)
	}
	w.want(t, 201, token, "PUT", path, `{"data":{"name":"whole \ud83d\ude00","uri":"https://example.com/","custom_data":{"a":"\ud83d\ude00 \\ud83d \\u0000","b":1e-300,"c":-12.50E+10}}}`)
}

// Whatever is let through, PostgreSQL reads too.
func FuzzStrict_WhatPassesIsReadByPostgres(f *testing.F) {
	for _, seed := range []string{`{"data":{"a":"\ud83d\ude00"}}`, `{"data":{"a":[1,{"b":null}]}}`, `[]`, `{"a":"\\ud83d"}`, `""`, `-1.5e10`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !json.Valid(body) {
			return
		}
		wrong := faults{}
		checkStrict(body, wrong)
		var v any
		if err := json.Unmarshal(body, &v); err != nil && len(wrong) == 0 {
			t.Errorf("%s passes: %v", body, err)
		}
		if len(wrong) == 0 && strings.Contains(fmt.Sprint(v), "\x00") {
			t.Errorf("%q passes", body)
		}
	})
}
