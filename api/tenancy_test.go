package api

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// routes are all operations of the OpenAPI document: method and path.
func (w *world) routes(t *testing.T) (routes [][2]string) {
	t.Helper()
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(w.want(t, 200, "", "GET", "/openapi.json", "").text), &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method := range item {
			if !slices.Contains([]string{"get", "put", "post", "patch", "delete"}, method) {
				t.Fatalf("%s %s: not a method that the test knows", method, path)
			}
			routes = append(routes, [2]string{strings.ToUpper(method), path})
		}
	}
	slices.SortFunc(routes, func(a, b [2]string) int { return strings.Compare(a[1]+a[0], b[1]+b[0]) })
	return routes
}

// at fills a path's parameters in.
func at(path, account, webhook, token string) string {
	return strings.NewReplacer("{account_id}", account, "{webhook_id}", webhook, "{token_id}", token, "{replay_id}", "1").Replace(path)
}

// Every route is tried, as the OpenAPI document lists them, so that a new one
// cannot be forgotten.
func TestTenancy_AnotherAccountIsNotThere(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('8', '7'), ('9', '8'), ('70', '71')`)
	alice, bob, above := w.token(t, "7", `{"data":{}}`), w.token(t, "70", `{"data":{}}`), w.token(t, "7", `{"data":{"include_subaccounts":true}}`)
	hers, his, below := w.webhook(t, alice, "7", ""), w.webhook(t, bob, "70", ""), w.webhook(t, adminToken, "9", "")
	w.exec(t, `INSERT INTO walhook.endpoint (account, url, state, secret) SELECT a, 'https://example.com/', 'active', 'whsec_c2VjcmV0' FROM unnest('{7,70,9}'::text[]) a`)
	tokens := w.want(t, 200, adminToken, "GET", "/v2/accounts/70/tokens", "").list(t)
	hisToken := tokens[0]["id"].(string)
	w.exec(t, `INSERT INTO walhook.request (endpoint, since, rate, until_id, total) SELECT id, now(), 1, 1, 1 FROM walhook.endpoint WHERE account = '70' AND webhook <> 'account'`)
	before := w.state(t)

	routes := w.routes(t)
	if len(routes) < 26 {
		t.Fatalf("%d routes in the OpenAPI document: %v", len(routes), routes)
	}
	for _, route := range routes {
		method, path := route[0], route[1]
		body := `{"data":{"name":"theft","uri":"https://thief.example/","enabled":false,"since":"2026-01-01T00:00:00Z"}}`
		try := func(what string, status int, token, path string) {
			t.Helper()
			if r := w.call(t, token, method, path, body); r.status != status || r.body["status"] != "error" {
				t.Errorf("%s: %s %s: %d %s, want %d", what, method, path, r.status, r.text, status)
			}
		}
		if !strings.Contains(path, "{account_id}") { // of all accounts
			try("no token", 401, "", path)
			try("a wrong token", 401, "whtok_"+strings.Repeat("A", 43), path)
			w.guardOff()
			try("of all accounts, by one's token", 403, alice, path)
			try("of all accounts, by a token with sub-accounts", 403, above, path)
			continue
		}
		try("no token", 401, "", at(path, "7", hers, hisToken))
		try("a wrong token", 401, "whtok_"+strings.Repeat("A", 43), at(path, "7", hers, hisToken))
		w.guardOff()
		try("another account", 404, alice, at(path, "70", his, hisToken))
		try("another account's own web hook", 404, alice, at(path, "70", "account", hisToken))
		try("another account, a webhook of mine", 404, alice, at(path, "70", hers, hisToken))
		try("an account that is not there", 404, alice, at(path, "12345", hers, hisToken))
		try("an account that nothing can name", 404, alice, at(path, "7%00", hers, hisToken))
		try("a sub-account, by a token without them", 404, alice, at(path, "9", below, hisToken))
		try("an account beside, by a token with sub-accounts", 404, above, at(path, "70", his, hisToken))
		try("the account above", 404, bob, at(path, "71", his, hisToken))
		if strings.Contains(path, "/tokens") {
			try("mine, for the operator", 403, alice, at(path, "7", hers, hisToken))
			continue
		}
		if strings.Contains(path, "{webhook_id}") {
			try("my account, another's webhook", 404, alice, at(path, "7", his, hisToken))
			try("my account, no webhook", 404, alice, at(path, "7", "00000000000000000000000000000000", hisToken))
			try("my account, what cannot be an id", 404, alice, at(path, "7", "%00", hisToken))
			try("the operator, another's webhook", 404, adminToken, at(path, "7", his, hisToken))
		}
	}
	if after := w.state(t); after != before {
		t.Errorf("somebody got through:\n\t%s\n\t%s", before, after)
	}
	w.want(t, 200, above, "GET", at("/v2/accounts/{account_id}/webhooks/{webhook_id}", "9", below, ""), "")
	w.want(t, 200, above, "GET", "/v2/accounts/7/webhooks", "")
	w.exec(t, `DELETE FROM walhook.account WHERE id = '9'`)
	w.want(t, 404, above, "GET", at("/v2/accounts/{account_id}/webhooks/{webhook_id}", "9", below, ""), "")
}

// guardOff forgets wrong tokens: what slows down guessing is tested by itself.
func (w *world) guardOff() {
	w.api.guard.mu.Lock()
	defer w.api.guard.mu.Unlock()
	clear(w.api.guard.bad)
}

// state is all that a call may change.
func (w *world) state(t *testing.T) string {
	t.Helper()
	return one[string](t, w, `SELECT concat(
		(SELECT json_agg(e ORDER BY id) FROM walhook.endpoint e), (SELECT json_agg(k.id ORDER BY k.id) FROM walhook.token k),
		(SELECT json_agg(r) FROM walhook.request r), (SELECT json_agg(i) FROM walhook.inbox i))`)
}

func TestTenancy_ALoopInTheTreeEnds(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('1', '2'), ('2', '3'), ('3', '1')`)
	token := w.token(t, "9", `{"data":{"include_subaccounts":true}}`)
	w.want(t, 404, token, "GET", "/v2/accounts/1/webhooks", "")
	token = w.token(t, "3", `{"data":{"include_subaccounts":true}}`)
	w.want(t, 200, token, "GET", "/v2/accounts/1/webhooks", "")
}

func TestTokens_OpenWhatTheyAreForUntilTheyAreDeleted(t *testing.T) {
	w := newWorld(t)
	created := w.want(t, 201, adminToken, "PUT", "/api/v1/accounts/a%2Fb/tokens", `{"data":{"name":"crm"}}`).data(t)
	if created["account_id"] != "a/b" || created["name"] != "crm" || created["include_subaccounts"] != false {
		t.Errorf("created %v", created)
	}
	token := created["token"].(string)
	if n := one[int](t, w, `SELECT count(*) FROM walhook.token WHERE position(convert_to($1, 'UTF8') in hash) > 0 OR id = $1 OR name = $1`, token); n != 0 {
		t.Error("the token itself is stored")
	}
	if hash := one[bool](t, w, `SELECT hash = sha256(convert_to($1, 'UTF8')) FROM walhook.token`, token); !hash {
		t.Error("what is stored is not its SHA-256")
	}
	w.want(t, 200, token, "GET", "/v2/accounts/a%2Fb/webhooks", "")
	w.want(t, 200, "", "GET", "/v2/accounts/a%2Fb/webhooks", "", "Authorization", "Bearer "+token)
	w.want(t, 200, adminToken, "GET", "/v2/accounts/a%2Fb/webhooks", "")
	list := w.want(t, 200, adminToken, "GET", "/v2/accounts/a%2Fb/tokens", "")
	if l := list.list(t); len(l) != 1 || l[0]["id"] != created["id"] || strings.Contains(list.text, token) {
		t.Errorf("list %s", list.text)
	}
	w.want(t, 201, adminToken, "PUT", "/v2/accounts/a%2Fb/tokens", "")
	w.want(t, 404, adminToken, "DELETE", "/v2/accounts/other/tokens/"+created["id"].(string), "")
	w.want(t, 200, adminToken, "DELETE", "/v2/accounts/a%2Fb/tokens/"+created["id"].(string), "")
	w.want(t, 401, token, "GET", "/v2/accounts/a%2Fb/webhooks", "")
	w.want(t, 404, adminToken, "DELETE", "/v2/accounts/a%2Fb/tokens/"+created["id"].(string), "")
	for _, entry := range w.logs.All() {
		for name, value := range entry.ContextMap() {
			if text, ok := value.(string); ok && (strings.Contains(text, token) || strings.Contains(text, adminToken)) {
				t.Errorf("log line %q shows a token in %s", entry.Message, name)
			}
		}
	}
}

func TestAuth_WrongTokensAreSlowedDownAndRightOnesAreNot(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks", "")
	for range badBurst {
		w.want(t, 401, "whtok_wrong", "GET", "/v2/accounts/7/webhooks", "")
	}
	shut := w.want(t, 429, "whtok_wrong", "GET", "/v2/accounts/7/webhooks", "")
	if shut.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.want(t, 401, "another guess", "PUT", "/v2/accounts/7/tokens", "")
	w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks", "")
	w.want(t, 201, adminToken, "PUT", "/v2/accounts/7/tokens", "")
}

func TestAuth_WithoutAnOperatorsTokenAllButHealthIsRefused(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.AdminToken = "" })
	for _, path := range []string{"/v2/accounts/7/webhooks", "/api/v1/accounts/7/tokens", "/openapi.json", "/nothing"} {
		w.want(t, 403, "", "GET", path, "")
		w.want(t, 403, "anything", "GET", path, "")
	}
	w.want(t, 200, "", "GET", "/healthz", "")
	w.want(t, 200, "", "GET", "/readyz", "")
	w.want(t, 200, "", "GET", "/metrics", "")
}
