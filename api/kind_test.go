package api

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What JSON, HTTP or another API lets somebody write is taken, or refused in
// words of ours that say what is wanted.
func TestInput_WhatOthersWouldWriteIsTakenOrExplained(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	id := w.webhook(t, token, "7", "")
	for written, want := range map[string]any{"3.0": 3.0, "1e0": 1.0, "0.1E1": 1.0, "-0.0": 0.0, "50e-1": 5.0, "1E1": 10.0} {
		r := w.want(t, 200, token, "PATCH", path+"/"+id, `{"data":{"retries":`+written+`}}`)
		if got := r.data(t)["retries"]; got != want {
			t.Errorf("retries %s is stored as %v", written, got)
		}
	}
	w.want(t, 200, token, "POST", path+"/"+id+"/secret/rotate", `{"data":{"overlap_seconds":1E2}}`)
	w.want(t, 200, token, "PATCH", path+"/"+id, "\uFEFF"+`{"data":{"retries":3}}`)
	w.want(t, 200, token, "GET", path+"/", "")
	w.want(t, 200, token, "GET", path+"/"+id+"//", "")
	w.want(t, 200, token, "PATCH", path+"/"+id+"/", `{"data":{"retries":3}}`)
	w.want(t, 404, token, "GET", path+"/"+id+"/nothing/", "")

	for _, c := range []struct{ name, body, want, never string }{
		{"beyond a float", `{"data":{"retries":1e400}}`, "retries", "Go"},
		{"beyond a float, by its digits", `{"data":{"retries":` + strings.Repeat("9", 60) + `e299}}`, "retries", "Go"},
		{"a fraction", `{"data":{"retries":3.5}}`, "retries", "Go"},
		{"an empty body", ` `, "body: is empty", "name"},
		{"null", `null`, "body: is null", "name"},
		{"a list", `[{"data":{}}]`, "body: is an array", "name"},
		{"a text", `"data"`, "body: is a string", "name"},
		{"half a body", `{"data":{"name":"x"`, "it ends early", "Go"},
		{"not valid JSON", "{\"data\":\n{'name':1}}", "line 2", "looking for"},
		{"data of a list", `{"data":[]}`, "data: is an array", "blank"},
		{"other case", `{"Data":{"name":"x","uri":"https://example.com/"}}`, "data: is missing", "blank"},
		{"twice", `{"data":{"name":"x","name":"y"}}`, "twice", "blank"},
		{"deep", `{"data":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat("}", 41), "nested", "blank"},
		{"very deep", strings.Repeat("[", 100000) + strings.Repeat("]", 100000), "body", "blank"},
		{"another API's fields", `{"url":"https://example.com/","events":["dids"]}`, `unknown field "url" is ignored: did you mean uri?`, "blank"},
		{"another API's fields, in data", `{"data":{"url":"https://example.com/","events":["dids"]}}`, `uri: is missing (sent as "url"?)`, "blank"},
		{"fields outside", `{"name":"x","uri":"https://example.com/"}`, "uri must be inside data", "blank"},
	} {
		for _, call := range [][2]string{{"PUT", path}, {"PATCH", path + "/" + id}} {
			r := w.call(t, token, call[0], call[1], c.body)
			if call[0] == "PATCH" && c.name == "another API's fields, in data" {
				if text := fmt.Sprint(r.body["warnings"]); r.status != 200 || !strings.Contains(text, `"url" is ignored: did you mean uri?`) || !strings.Contains(text, "hook or schemas or types") {
					t.Errorf("%d %s", r.status, r.text)
				}
				continue
			}
			if r.status != 400 || !strings.Contains(fmt.Sprint(r.body["message"]), c.want) || strings.Contains(r.text, "blank") || strings.Contains(fmt.Sprint(r.body["message"]), "Go ") ||
				c.never == "name" && strings.Contains(r.text, "name") || strings.Contains(r.text, "json:") {
				t.Errorf("%s: %d %s, want %q", c.name, r.status, r.text, c.want)
			}
		}
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, _ = zip.Write([]byte(`{"data":{"name":"x","uri":"https://example.com/"}}`))
	_ = zip.Close()
	for _, coding := range []string{"gzip", "deflate", "br", "GZIP", "identity, gzip", "x"} {
		r := w.want(t, 415, token, "PUT", path, packed.String(), "Content-Encoding", coding)
		if r.header.Get("Accept-Encoding") != "identity" || !strings.Contains(r.text, "Content-Encoding") {
			t.Errorf("%s: %v %s", coding, r.header, r.text)
		}
	}
	const body = `{"data":{"name":"x","uri":"https://example.com/"}}`
	w.want(t, 201, token, "PUT", path, body, "Content-Encoding", "identity")
	for kind, status := range map[string]int{
		`application/json; charset=UTF-8`: 201, `application/json;charset="utf-8"`: 201, `application/json; charset=iso-8859-1`: 415, `application/json; charset=utf-16`: 415,
		`application/json; v=1`: 201, `application/json, text/plain`: 415, `;`: 415,
	} {
		if r := w.call(t, token, "PUT", path, body, "Content-Type", kind); r.status != status {
			t.Errorf("%s: %d %s, want %d", kind, r.status, r.text, status)
		}
	}
	welcome := w.want(t, 200, "", "GET", "/", "")
	if !strings.Contains(welcome.text, "/openapi.json") || !strings.Contains(welcome.text, "/v2/accounts/{account_id}/webhooks") {
		t.Error(welcome.text)
	}
	for _, lost := range []string{"/webhooks", "/v2/webhooks", "/api/v2/accounts/7/webhooks", "/v2/accounts/7"} {
		if r := w.want(t, 404, token, "GET", lost, ""); !strings.Contains(r.text, "/openapi.json") {
			t.Error(r.text)
		}
	}
}

// User name and password are shown as …, and what is sent back with it keeps them,
// for the host that they are for and for no other.
func TestWebhooks_AMaskedURLKeepsWhatItHidesForItsHost(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	r := w.want(t, 201, token, "PUT", path, `{"data":{"name":"n","uri":"http://me:hunt%40er2@example.com/a?key=1"}}`)
	id := r.data(t)["id"].(string)
	stored := func() string {
		return one[string](t, w, "SELECT url FROM walhook.endpoint WHERE webhook = $1", id)
	}
	for _, c := range []struct{ sent, want string }{
		{"http://…@example.com/a?key=1", "http://me:hunt%40er2@example.com/a?key=1"},
		{"http://…@example.com/b", "http://me:hunt%40er2@example.com/b"},
		{"http://…@EXAMPLE.com:80/b?x=://…@y", "http://me:hunt%40er2@EXAMPLE.com:80/b?x=://…@y"},
		{"https://…@example.com/c", ""},
		{"http://%E2%80%A6@example.com/d", "http://me:hunt%40er2@example.com/d"},
		{"https://…@example.com/c", "https://me:hunt%40er2@example.com/c"},
		{"http://…@example.com/c", ""},
		{"https://…@example.org/c", ""},
		{"https://…@example.com:8443/c", ""},
		{"https://…@me@example.com/c", ""},
		{"https://…@/c", ""},
		{"https://example.com/plain", "https://example.com/plain"},
		{"https://…@example.com/c", ""},
	} {
		before := stored()
		r := w.call(t, token, "PATCH", path+"/"+id, `{"data":{"uri":"`+c.sent+`"}}`)
		switch {
		case c.want == "" && r.status == 400 && stored() == before && strings.Contains(r.text, "write user name and password again"):
		case c.want != "" && r.status == 200 && stored() == c.want && !strings.Contains(r.text, "hunt"):
		default:
			t.Errorf("%s: %d %s, stored %s", c.sent, r.status, r.text, stored())
		}
	}
	if r := w.call(t, token, "PUT", path, `{"data":{"name":"n","uri":"https://…@example.com/a"}}`); r.status != http.StatusBadRequest || !strings.Contains(r.text, "none are stored") {
		t.Errorf("a new one: %d %s", r.status, r.text)
	}
}
