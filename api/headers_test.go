package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"walhook/outbox"
)

// headersBody is a body that sets headers, and fields besides.
func headersBody(headers map[string]string, fields string) string {
	text, _ := json.Marshal(headers)
	return `{"data":{` + fields + `"headers":` + string(text) + `}}`
}

func TestHeaders_ThoseOfWalhookOfFramingAndOfNoFormAreRefusedByTheirName(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const path = "/v2/accounts/7/webhooks"
	const fields = `"name":"n","uri":"https://example.com/a",`
	long := strings.Repeat("x", 4096)
	for _, c := range []struct{ name, value, want string }{
		{"webhook-id", "1", "headers.webhook-id"},
		{"Webhook-Timestamp", "1", "headers.Webhook-Timestamp"},
		{"webhook-signature", "v1,x", "headers.webhook-signature"},
		{"webhook-other", "1", "headers.webhook-other"},
		{"Walhook-Account", "7", "headers.Walhook-Account"},
		{"User-Agent", "me", "headers.User-Agent"},
		{"Host", "example.org", "headers.Host"},
		{"Content_Length", "1", "headers.Content_Length"},
		{"WEBHOOK_ID", "1", "headers.WEBHOOK_ID"},
		{"Content-Type", "text/plain", "headers.Content-Type"},
		{"content-length", "1", "headers.content-length"},
		{"Content-Encoding", "gzip", "headers.Content-Encoding"},
		{"Transfer-Encoding", "chunked", "headers.Transfer-Encoding"},
		{"Connection", "close", "headers.Connection"},
		{"Keep-Alive", "1", "headers.Keep-Alive"},
		{"Proxy-Authorization", "x", "headers.Proxy-Authorization"},
		{"Proxy-Connection", "x", "headers.Proxy-Connection"},
		{"TE", "trailers", "headers.TE"},
		{"Trailer", "x", "headers.Trailer"},
		{"Upgrade", "h2c", "headers.Upgrade"},
		{"HTTP2-Settings", "x", "headers.HTTP2-Settings"},
		{"Expect", "100-continue", "headers.Expect"},
		{"Accept-Encoding", "gzip", "headers.Accept-Encoding"},
		{"", "x", `headers.""`},
		{"X A", "x", `headers."X A"`},
		{"X:", "x", `headers."X:"`},
		{":authority", "x", `headers.":authority"`},
		{"X\r\nY", "x", `headers."X\r\nY"`},
		{"Ünı", "x", `headers."Ünı"`},
		{strings.Repeat("x", 129), "x", `headers."xxx`},
		{"X-A", "", "headers.X-A"},
		{"X-A", " x", "headers.X-A"},
		{"X-A", "x\t", "headers.X-A"},
		{"X-A", "x\r\nHost: y", "headers.X-A"},
		{"X-A", "x\ny", "headers.X-A"},
		{"X-A", "x\x00y", "headers"},
		{"X-A", "x\x7f", "headers.X-A"},
		{"X-A", "grün", "headers.X-A"},
		{"X-A", long + "x", "headers.X-A"},
		{"X-A", "…", "headers.X-A"},
		{"X-A", "……", "headers.X-A"},
		{"X-A", "sealed:v2:AAAA", "headers.X-A"},
	} {
		r := w.call(t, token, "PUT", path, headersBody(map[string]string{c.name: c.value}, fields))
		var got struct {
			Errors map[string]any `json:"data"`
		}
		_ = json.Unmarshal([]byte(r.text), &got)
		named := slices.ContainsFunc(slices.Collect(maps.Keys(got.Errors)), func(field string) bool { return strings.HasPrefix(field, c.want) })
		if r.status != http.StatusBadRequest || !named {
			t.Errorf("%.20q: %.20q: %d %.300s, want a 400 at %s", c.name, c.value, r.status, r.text, c.want)
		}
		if len(c.value) > 3 && c.value != long+"x" && strings.Contains(r.text, c.value) {
			t.Errorf("%.20q: the answer repeats the value: %.300s", c.name, r.text)
		}
	}
	eleven := map[string]string{}
	for n := range 11 {
		eleven[fmt.Sprint("X-", n)] = "x"
	}
	for what, c := range map[string]struct{ body, want string }{
		"two that differ in case":    {headersBody(map[string]string{"X-A": "1", "x-a": "2"}, fields), "headers.x-a"},
		"too many":                   {headersBody(eleven, fields), "headers"},
		"too much together":          {headersBody(map[string]string{"X-A": long, "X-B": long}, fields), "headers"},
		"no object":                  {`{"data":{` + fields + `"headers":["X-A: 1"]}}`, "headers"},
		"a number":                   {`{"data":{` + fields + `"headers":{"X-A":1}}}`, "headers.X-A"},
		"null for one":               {`{"data":{` + fields + `"headers":{"X-A":null}}}`, "headers.X-A"},
		"beside a password":          {headersBody(map[string]string{"authorization": "Bearer x"}, `"name":"n","uri":"https://me:pw@example.com/",`), "headers.authorization"},
		"delivery pull":              {headersBody(map[string]string{"X-A": "1"}, `"name":"n","delivery":"pull",`), "headers"},
		"twice in the same spelling": {`{"data":{` + fields + `"headers":{"X-A":"1","X-A":"2"}}}`, ""},
	} {
		r := w.call(t, token, "PUT", path, c.body)
		if r.status != http.StatusBadRequest || !strings.Contains(r.text, `"`+c.want) {
			t.Errorf("%s: %d %.300s, want a 400 at %s", what, r.status, r.text, c.want)
		}
	}
	if n := one[int](t, w, "SELECT count(*) FROM walhook.endpoint"); n != 0 {
		t.Errorf("%d webhooks were made", n)
	}
	w.want(t, 201, token, "PUT", path, headersBody(map[string]string{"Authorization": "Bearer a b\tc", "X-Api_Key!": long, "Cookie": "a=b; c=d", "X-1": "~"}, fields))
}

func TestHeaders_AreShownNowhereAndStayAsTheyAreSentBack(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	const list = "/v2/accounts/7/webhooks"
	r := w.want(t, 201, token, "PUT", list, headersBody(map[string]string{"X-Api-Key": "hunter2-key", "Authorization": "Bearer hunter2-bearer"}, `"name":"n","uri":"http://example.com/a",`))
	id := r.data(t)["id"].(string)
	path := list + "/" + id
	stored := func() string {
		return one[string](t, w, "SELECT coalesce((SELECT string_agg(n || ': ' || v, ', ') FROM unnest(header_names, header_values) AS h(n, v)), '') FROM walhook.endpoint WHERE webhook = $1", id)
	}
	revision := func() int64 {
		return one[int64](t, w, "SELECT revision FROM walhook.endpoint WHERE webhook = $1", id)
	}
	const both = "Authorization: Bearer hunter2-bearer, X-Api-Key: hunter2-key"
	for _, c := range []struct{ what, fields, want, shown string }{
		{"another field", `"name":"other"`, both, `map[Authorization:… X-Api-Key:…]`},
		{"as shown", `"headers":{"Authorization":"…","X-Api-Key":"…"}`, both, `map[Authorization:… X-Api-Key:…]`},
		{"as shown, with another path", `"uri":"http://example.com/b","headers":{"Authorization":"…","X-Api-Key":"…"}`, both, `map[Authorization:… X-Api-Key:…]`},
		{"an unknown one as shown", `"headers":{"Authorization":"…","X-Other":"…"}`, "", "400 headers.X-Other"},
		{"another host", `"uri":"http://example.org/b"`, "", "400 headers.Authorization"},
		{"another host, one new", `"uri":"http://example.org/b","headers":{"Authorization":"Bearer x","X-Api-Key":"…"}`, "", "400 headers.X-Api-Key"},
		{"another port", `"uri":"http://example.com:8080/b"`, "", "400 headers.Authorization"},
		{"user and password besides", `"uri":"http://me:pw@example.com/b"`, "", "400 headers.Authorization"},
		{"https", `"uri":"https://example.com/b"`, both, `map[Authorization:… X-Api-Key:…]`},
		{"clear text", `"uri":"http://example.com/b"`, "", "400 headers.Authorization"},
		{"another case, one less, one more", `"headers":{"x-api-key":"…","X-B":"hunter2-b"}`, "X-B: hunter2-b, x-api-key: hunter2-key", `map[X-B:… x-api-key:…]`},
		{"another host with all values", `"uri":"https://example.org/b","headers":{"X-B":"hunter2-c"}`, "X-B: hunter2-c", `map[X-B:…]`},
		{"an empty object", `"headers":{}`, "", `<nil>`},
		{"one again", `"headers":{"X-B":"hunter2-d"}`, "X-B: hunter2-d", `map[X-B:…]`},
		{"null", `"headers":null`, "", `<nil>`},
	} {
		before, revised := stored(), revision()
		r := w.call(t, token, "PATCH", path, `{"data":{`+c.fields+`}}`)
		field, refused := strings.CutPrefix(c.shown, "400 ")
		switch {
		case refused && r.status == 400 && strings.Contains(r.text, `"`+field+`"`) && stored() == before && revision() == revised:
		case !refused && r.status == 200 && stored() == c.want && fmt.Sprint(r.data(t)["headers"]) == c.shown && revision() > revised:
		default:
			t.Errorf("%s: %d %s, stored %s, revision %d after %d", c.what, r.status, r.text, stored(), revision(), revised)
		}
		if strings.Contains(r.text, "hunter2") {
			t.Errorf("%s shows a value: %s", c.what, r.text)
		}
	}
	w.want(t, 200, token, "PATCH", path, `{"data":{"headers":{"X-B":"hunter2-e"}}}`)
	for _, get := range []string{list, path, "/v2/accounts/7/webhooks/" + id + "/secret"} {
		if r := w.want(t, 200, token, "GET", get, ""); strings.Contains(r.text, "hunter2") {
			t.Errorf("%s shows a value: %s", get, r.text)
		}
	}
	for _, entry := range w.logs.All() {
		if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "hunter2") {
			t.Errorf("log line %s", text)
		}
	}
	acts := one[string](t, w, "SELECT string_agg(action || ' ' || detail, '|' ORDER BY id) FROM walhook.audit")
	if strings.Contains(acts, "hunter2") || !strings.Contains(acts, "webhook created headers (Authorization, X-Api-Key)") || !strings.Contains(acts, "fields: headers (X-B, x-api-key)") {
		t.Errorf("audit %s", acts)
	}
	w.want(t, 200, token, "DELETE", path, "")
	if got := stored(); got != "" {
		t.Errorf("a deleted webhook keeps %s", got)
	}
}

func TestHeaders_TheAccountsOwnWebhookHasNone(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	w.exec(t, "INSERT INTO walhook.endpoint (account, webhook, secret, url, state) VALUES ('7', 'account', 'whsec_eA==', 'https://example.com/', 'active')")
	r := w.want(t, 400, token, "PATCH", "/v2/accounts/7/webhooks/"+outbox.AccountWebhook, `{"data":{"headers":{"X-A":"1"}}}`)
	if !strings.Contains(r.text, `"headers"`) || !strings.Contains(r.text, "another webhook") {
		t.Errorf("answer %s", r.text)
	}
	w.want(t, 200, token, "PATCH", "/v2/accounts/7/webhooks/"+outbox.AccountWebhook, `{"data":{"headers":{}}}`)
}
