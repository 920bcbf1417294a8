package api

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// Of twenty clients that edit from the same state, at two processes, one changes
// the webhook and the others are told.
func TestIfMatch_OneOfManyEditorsWinsEachRound(t *testing.T) {
	w := newWorld(t)
	other := w.second(t)
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, adminToken, "7", "")
	for round := range 6 {
		read := w.want(t, 200, adminToken, "GET", path, "")
		tag := read.header.Get("ETag")
		if again := other.want(t, 200, adminToken, "GET", path, ""); tag == "" || again.header.Get("ETag") != tag {
			t.Fatalf("ETag %q, and %q from another process", tag, again.header.Get("ETag"))
		}
		var wait sync.WaitGroup
		replies := make([]reply, 20)
		for i := range replies {
			wait.Go(func() {
				method, body := http.MethodPost, fmt.Sprintf(`{"data":{"name":"round %d of editor %d"}}`, round, i)
				switch {
				case round == 5 && i%3 == 0: // the last one is between editing and deleting
					method, body = http.MethodDelete, ""
				case round == 4: // all write the same, which is a change for each
					body = `{"data":{"name":"the same"}}`
				case i%2 == 1:
					method = http.MethodPatch
				}
				replies[i] = []*world{w, other}[i%2].call(t, adminToken, method, path, body, "If-Match", tag)
			})
		}
		wait.Wait()
		var won []reply
		for _, r := range replies {
			switch r.status {
			case 200:
				won = append(won, r)
			case 412:
			case 404: // deleted by the winner
				if round != 5 {
					t.Errorf("round %d: %d %s", round, r.status, r.text)
				}
			default:
				t.Errorf("round %d: %d %s", round, r.status, r.text)
			}
		}
		if len(won) != 1 {
			t.Fatalf("round %d: %d editors won", round, len(won))
		}
		if round == 5 {
			continue
		}
		after := w.want(t, 200, adminToken, "GET", path, "")
		if after.data(t)["name"] != won[0].data(t)["name"] || after.header.Get("ETag") != won[0].header.Get("ETag") || after.header.Get("ETag") == tag {
			t.Errorf("round %d: stands as %s %v, answered %s %v", round, after.text, after.header, won[0].text, won[0].header)
		}
	}
}

// If-Match is a list, * or nothing; what is neither is named.
func TestIfMatch_IsReadAsTheStandardWritesIt(t *testing.T) {
	w := newWorld(t)
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, adminToken, "7", "")
	created := w.want(t, 201, adminToken, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://example.com/x"}}`)
	if tag := created.header.Get("ETag"); tag == "" || w.want(t, 200, adminToken, "GET", "/v2/accounts/7/webhooks/"+created.data(t)["id"].(string), "").header.Get("ETag") != tag {
		t.Errorf("created with ETag %q", tag)
	}
	for _, c := range []struct {
		name   string
		header func(tag string) string
		status int
	}{
		{"the tag", func(tag string) string { return tag }, 200},
		{"any", func(string) string { return "*" }, 200},
		{"among others", func(tag string) string { return `"a", W/"b",, ` + tag + ` ,"c,d"` }, 200},
		{"without blanks", func(tag string) string { return `"a",` + tag }, 200},
		{"weak and strong", func(tag string) string { return "W/" + tag + "," + tag }, 200},
		{"another", func(string) string { return `"1-1x"` }, 412},
		{"an empty one", func(string) string { return `""` }, 412},
		{"several others", func(string) string { return `"a", "b"` }, 412},
		{"weak", func(tag string) string { return "W/" + tag }, 412},
		{"within another", func(tag string) string { return `"x` + tag[1:] }, 412},
		{"not ASCII", func(string) string { return "\"\xff\xfe\"" }, 412},
		{"no quotes", func(tag string) string { return tag[1 : len(tag)-1] }, 400},
		{"a quote alone", func(tag string) string { return tag[:len(tag)-1] }, 400},
		{"any among others", func(tag string) string { return "*, " + tag }, 400},
		{"no comma", func(tag string) string { return tag + " " + tag }, 400},
		{"a blank inside", func(string) string { return `"a b"` }, 400},
		{"commas alone", func(string) string { return ",," }, 400},
		{"lower-case weak", func(tag string) string { return "w/" + tag }, 400},
		{"a date", func(string) string { return "Thu, 01 Jan 1970 00:00:00 GMT" }, 400},
	} {
		tag := ""
		for _, method := range []string{"PATCH", "POST", "DELETE"} {
			if method == "DELETE" && c.status == 200 {
				continue
			}
			tag = w.want(t, 200, adminToken, "GET", path, "").header.Get("ETag")
			// Whether the body is right is asked after the condition.
			body := map[int]string{200: `{"data":{"name":"` + c.name + `"}}`, 412: `{"data":{"retries":-1}}`, 400: `{"data":{"name":"x"}}`}[c.status]
			r := w.call(t, adminToken, method, path, body, "If-Match", c.header(tag))
			data, _ := r.body["data"].(map[string]any)
			if r.status != c.status || c.status != 200 && data["If-Match"] == nil {
				t.Errorf("%s with %s (%s): %d %s, want %d", method, c.name, c.header(tag), r.status, r.text, c.status)
			}
		}
		if after := w.want(t, 200, adminToken, "GET", path, ""); c.status != 200 && after.header.Get("ETag") != tag {
			t.Errorf("%s: a refused change changed the webhook: %s", c.name, after.text)
		}
	}
	// What is not there, or not to be deleted, is so whatever the condition.
	w.want(t, 404, adminToken, "PATCH", "/v2/accounts/7/webhooks/none", `{"data":{}}`, "If-Match", "*")
	w.want(t, 404, adminToken, "DELETE", "/v2/accounts/7/webhooks/none", "", "If-Match", `"1-1"`)
}

// The condition holds against whoever changes a webhook: an operator, and walhook.
func TestIfMatch_SeesChangesThatNoEditorMade(t *testing.T) {
	w := newWorld(t)
	id := w.webhook(t, adminToken, "7", "")
	path := "/v2/accounts/7/webhooks/" + id
	tag := w.want(t, 200, adminToken, "GET", path, "").header.Get("ETag")
	if _, err := w.admin.DisableEndpoint(t.Context(), "7", id, "by hand"); err != nil {
		t.Fatal(err)
	}
	w.want(t, 412, adminToken, "PATCH", path, `{"data":{"name":"x"}}`, "If-Match", tag)
	w.want(t, 412, adminToken, "DELETE", path, "", "If-Match", tag)
	tag = w.want(t, 200, adminToken, "GET", path, "").header.Get("ETag")
	w.want(t, 200, adminToken, "DELETE", path, "", "If-Match", tag)
}
