package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// documented are the calls of the OpenAPI document below /v2, by method and path,
// with the names of their query's parameters.
func documented(t *testing.T, w *world) map[string][]string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
		}
	}
	if err := json.Unmarshal([]byte(w.want(t, http.StatusOK, "", http.MethodGet, "/openapi.json", "").text), &doc); err != nil {
		t.Fatal(err)
	}
	calls := map[string][]string{}
	for path, item := range doc.Paths {
		for method, op := range item {
			if !strings.HasPrefix(path, "/v2/") {
				continue
			}
			call := strings.ToUpper(method) + " " + path
			calls[call] = nil
			for _, p := range op.Parameters {
				if p.In == "query" {
					calls[call] = append(calls[call], p.Name)
				}
			}
		}
	}
	if len(calls) < 15 {
		t.Fatalf("%d calls are documented", len(calls))
	}
	return calls
}

// No account and no webhook has such an id: each call says that there is none, to
// the operator as to an account.
func TestInput_AnOddIDInAPathIsOneThatIsNotThere(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.TestTimeout = 1 })
	fields := strings.NewReplacer("{account_id}", "7", "{webhook_id}", "account", "{token_id}", "none", "{replay_id}", "7", "{host}", "none.example")
	odd := []struct {
		name, id string
		stored   bool // an account may have it
	}{
		{"a NUL", "%00", false}, {"a NUL inside", "7%00", false}, {"not UTF-8", "%ff%fe", false}, {"half a character", "7%c3", false},
		{"a surrogate", "%ed%a0%80", false}, {"longer than any", strings.Repeat("9", 5000), false}, {"many long characters", strings.Repeat("%F0%9F%98%80", 300), false},
		{"a slash", "7%2Fwebhooks", true}, {"two slashes", "a%2F%2Fb", true}, {"a backslash", "7%5c", true}, {"negative", "-7", true},
		{"too large for 64 bits", "99999999999999999999", true}, {"a float", "7.0", true}, {"an exponent", "7e0", true}, {"dots inside", "7...", true},
		{"blanks", "%207%20", true}, {"a quote", "7'%20OR%20''='", true}, {"a percent sign", "7%2525", true}, {"a control character", "7%1b%5b2J%0a", true},
		{"a question mark", "7%3Fx=1", true}, {"another digit seven", "%EF%BC%97", true}, {"braces", "%7Baccount_id%7D", true},
	}
	for _, call := range slices.Sorted(maps.Keys(documented(t, w))) {
		method, path, _ := strings.Cut(call, " ")
		body := ""
		if method != http.MethodGet && method != http.MethodDelete {
			body = `{"data":{}}`
		}
		for part := range strings.SplitSeq(path, "/") {
			if !strings.HasPrefix(part, "{") {
				continue
			}
			mine := w.token(t, "7", "") // one that is not in a hurry
			for _, c := range odd {
				address := fields.Replace(strings.Replace(path, part, c.id, 1))
				for _, token := range []string{mine, adminToken} {
					r := w.call(t, token, method, address, body)
					want := r.status == http.StatusNotFound
					switch {
					case part == "{account_id}" && token == adminToken && c.stored:
						want = r.status < 500 // an operator may act for any account
					case part != "{account_id}":
						// What the account may not do, and what is wrong with the body, may be said first.
						want = slices.Contains([]int{400, 403, 404}, r.status)
					}
					if !want || r.status != 200 && r.status != 201 && r.body["error"] != fmt.Sprint(r.status) {
						t.Errorf("%s with %s for %s: %d %s", call, c.name, part, r.status, r.text)
					}
				}
			}
		}
	}
	if lines := w.logs.FilterMessage("request cannot be answered").Len(); lines > 0 {
		t.Errorf("%d requests are called a fault of ours", lines)
	}
}

// A page's size outside 1 to 500 is a 400 that names it in every list, and so is a
// query that cannot be read. Calls that are no list ignore it.
func TestInput_AnOddPageSizeIsRefusedByEveryList(t *testing.T) {
	w := newWorld(t)
	id := w.webhook(t, adminToken, "7", "")
	fields := strings.NewReplacer("{account_id}", "7", "{webhook_id}", id)
	lists := 0
	for call, parameters := range documented(t, w) {
		method, path, _ := strings.Cut(call, " ")
		if method != http.MethodGet {
			continue
		}
		list := slices.Contains(parameters, "page_size")
		if list {
			lists++
		}
		for _, size := range []string{
			"0", "-1", "-0", "501", "1e1", "1.0", "0x10", "1_0", "ten", "NaN", "null", "true", "%20", "1%00", "%ff", "%EF%BC%91",
			"9223372036854775808", "-9223372036854775809", strings.Repeat("9", 400),
		} {
			r := w.call(t, adminToken, method, fields.Replace(path)+"?page_size="+size, "")
			data, _ := r.body["data"].(map[string]any)
			if list && (r.status != 400 || data["page_size"] == nil) || r.status >= 500 {
				t.Errorf("%s of %s: %d %s", call, size, r.status, r.text)
			}
		}
		for _, query := range []string{"page_size=%zz", "page_size=1;2", "%", "start_key=%f"} {
			if r := w.call(t, adminToken, method, fields.Replace(path)+"?"+query, ""); r.status != 400 || r.body["message"] == "" {
				t.Errorf("%s?%s: %d %s", call, query, r.status, r.text)
			}
		}
		if r := w.call(t, adminToken, method, fields.Replace(path)+"?page_size=500", ""); list && r.status != 200 {
			t.Errorf("%s of 500: %d %s", call, r.status, r.text)
		}
	}
	if lists < 7 {
		t.Errorf("%d lists are documented", lists)
	}
}
