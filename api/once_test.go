package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// second is another process on the same outbox.
func (w *world) second(t *testing.T, change ...func(*outbox.Config)) *world {
	t.Helper()
	cfg := outbox.Config{URL: w.conn.Config().ConnString()}
	for _, f := range change {
		f(&cfg)
	}
	store, err := outbox.Open(t.Context(), cfg, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	other := &world{conn: w.conn, admin: admin.New(store), destination: w.destination, logs: w.logs}
	other.url = other.serve(t, zap.NewNop())
	return other
}

const onceKey = "8e03978e-40d5-43e8-bc93-6894a57f9324"

func withKey(key string) []string { return []string{idempotencyHeader, key} }

// Every call that makes something makes it once for a key, and answers the same
// bytes each time, whichever process is asked.
func TestIdempotency_EveryCreationHappensOnce(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	other := w.second(t)
	const webhooks, tokens = "/v2/accounts/7/webhooks", "/v2/accounts/7/tokens"
	for name, c := range map[string]struct {
		bearer, method, path, body string
		status                     int
		count                      string
	}{
		"webhook":                  {token, "PUT", webhooks, `{"data":{"name":"<n>","uri":"https://me:pw@example.com/x?q=<&>","custom_data":{"a":"<b>"},"retiees":3}}`, 201, "walhook.endpoint"},
		"webhook, by the operator": {adminToken, "PUT", webhooks, `{"data":{"name":"o","uri":"https://example.com/o","rate_limit":2.5}}`, 201, "walhook.endpoint"},
		"token":                    {adminToken, "PUT", tokens, `{"data":{"name":"crm"}}`, 201, "walhook.token"},
		"replay":                   {token, "POST", webhooks + "/" + id + "/replay", `{"data":{"since":"2026-03-09T00:00:00Z","rate":3}}`, 202, "walhook.request"},
		"resync":                   {token, "POST", webhooks + "/" + id + "/resync", `{"data":{"schema":"dids"}}`, 202, "walhook.resync"},
		"retry":                    {token, "POST", webhooks + "/" + id + "/retry", `{"data":{}}`, 202, "walhook.endpoint e CROSS JOIN generate_series(1, e.retry_asked)"},
		"secret":                   {token, "POST", webhooks + "/" + id + "/secret/rotate", `{"data":{"overlap_seconds":60}}`, 200, "walhook.audit WHERE action = 'secret rotated'"},
		"secret, at once":          {token, "POST", webhooks + "/" + id + "/secret/rotate", `{"data":{"overlap_seconds":0}}`, 200, "walhook.audit WHERE action = 'secret rotated'"},
		"portal":                   {token, "PUT", "/v2/accounts/7/portal", "", 201, "walhook.portal_link"},
		"portal, by the operator":  {adminToken, "PUT", "/v2/accounts/7/portal", "", 201, "walhook.portal_link"},
	} {
		key := withKey(name + onceKey[:8])
		key[1] = `"` + key[1] + `"`
		first := w.want(t, c.status, c.bearer, c.method, c.path, c.body, key...)
		count := "SELECT count(*) FROM " + c.count
		before := one[int](t, w, count)
		for i, at := range []*world{w, other} {
			again := at.want(t, c.status, c.bearer, c.method, strings.Replace(c.path, "/v2/", "/api/v1/", 1-i), c.body+" \n", key...)
			if again.text != first.text || again.header.Get(replayedHeader) != "true" || again.header.Get("Content-Type") != first.header.Get("Content-Type") {
				t.Errorf("%s: answered %s, then %s", name, first.text, again.text)
			}
		}
		if after := one[int](t, w, count); after != before {
			t.Errorf("%s: %d were made again", name, after-before)
		}
		if first.header.Get(replayedHeader) != "" {
			t.Errorf("%s: the first answer calls itself another's", name)
		}
		if c.body == "" {
			continue // there is one request alone
		}
		// The same with members in another order, and then another request.
		w.want(t, c.status, c.bearer, c.method, c.path, reordered(c.body), key...)
		w.want(t, 422, c.bearer, c.method, c.path, strings.Replace(c.body, `{"data":{`, `{"data":{"more":1,`, 1), key...)
		w.want(t, 422, c.bearer, c.method, c.path, "no JSON", key...)
		if after := one[int](t, w, count); after != before {
			t.Errorf("%s: %d were made by another request", name, after-before)
		}
	}
}

// A repeated rotation without an overlap, too, is answered only once no sender signs with
// the earlier secret: the first one may have ended without waiting.
func TestIdempotency_ARepeatedRotationWaitsAsTheFirst(t *testing.T) {
	w := newWorld(t)
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, adminToken, "7", "") + "/secret/rotate"
	first := w.want(t, 200, adminToken, "POST", path, `{"data":{"overlap_seconds":0}}`, withKey(onceKey)...)
	w.exec(t, "WITH s AS (INSERT INTO walhook.sender (name, process, lease_until) VALUES ('s', 'p', now() + interval '1 h') RETURNING id) UPDATE walhook.shard SET sender = (SELECT id FROM s)")
	again := make(chan reply, 1)
	go func() {
		again <- w.call(t, adminToken, "POST", path, `{"data":{"overlap_seconds":0}}`, withKey(onceKey)...)
	}()
	select {
	case r := <-again:
		t.Errorf("answered while a sender signs with the earlier secret: %s", r.text)
		return
	case <-time.After(time.Second):
	}
	w.exec(t, "UPDATE walhook.endpoint SET confirmed_revision = revision")
	if r := <-again; r.text != first.text {
		t.Errorf("%s, then %s", first.text, r.text)
	}
}

func TestIdempotency_ARetryIsAnsweredTheSameOnceItWasSent(t *testing.T) {
	w, token, events := eventsWorld(t)
	path, body := strings.TrimSuffix(events, "/events")+"/retry", `{"data":{"event_ids":["evt_4"]}}`
	w.want(t, 409, token, "POST", path, `{"data":{"event_ids":["evt_1"]}}`, withKey(onceKey)...)
	first := w.want(t, 202, token, "POST", path, body, withKey(onceKey)...) // what failed is not remembered
	w.exec(t, "DELETE FROM walhook.retry")
	w.want(t, 409, token, "POST", path, body)
	if again := w.want(t, 202, token, "POST", path, body, withKey(onceKey)...); again.text != first.text {
		t.Errorf("%s, then %s", first.text, again.text)
	}
}

// A repeated answer holds the same link, which still opens once, and no other process
// nor another token gets it.
func TestIdempotency_ARepeatedLinkOpensOnce(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	link := func(bearer string) string {
		at, err := url.Parse(w.want(t, 201, bearer, "PUT", "/v2/accounts/7/portal", "", withKey(onceKey)...).data(t)["url"].(string))
		if err != nil {
			t.Fatal(err)
		}
		return at.Query().Get("link")
	}
	first, again := link(token), link(token)
	if first != again || link(adminToken) == first || link(w.token(t, "7", "")) == first {
		t.Error("another link, or another's link")
	}
	if _, _, err := w.admin.UsePortalLink(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.admin.UsePortalLink(t.Context(), link(token)); !errors.Is(err, admin.ErrNoPortalLink) {
		t.Errorf("a repeated link opened again: %v", err)
	}
	rows := one[string](t, w, "SELECT string_agg(convert_from(decode(replace(encode(sealed, 'hex'), '00', '01'), 'hex'), 'LATIN1'), ' ') FROM walhook.idempotency")
	if strings.Contains(rows, first) || strings.Contains(rows, "whlink_") {
		t.Error("a link is stored in clear")
	}
}

func reordered(body string) string {
	inner := strings.TrimSuffix(strings.TrimPrefix(body, `{"data":{`), "}}")
	name, rest, more := strings.Cut(inner, ",")
	if !more {
		return `{ "data" : {` + inner + "} }"
	}
	return `{"data":{` + rest + "," + name + "}}"
}

// Fifty at the same time in two processes make one: whoever is not answered the
// same is told to try again.
func TestIdempotency_ConcurrentRequestsMakeOne(t *testing.T) {
	w := newWorld(t)
	other := w.second(t)
	for _, what := range []string{"webhooks", "tokens"} {
		var wait sync.WaitGroup
		replies := make([]reply, 50)
		for i := range replies {
			wait.Go(func() {
				at := []*world{w, other}[i%2]
				replies[i] = at.call(t, adminToken, "PUT", "/v2/accounts/7/"+what, `{"data":{"name":"n"`+map[string]string{"webhooks": `,"uri":"https://example.com/"`}[what]+`}}`, withKey(onceKey+what)...)
			})
		}
		wait.Wait()
		ids := map[any]bool{}
		for _, r := range replies {
			switch {
			case r.status == 201:
				ids[r.data(t)["id"]] = true
			case r.status == 409 && r.header.Get("Retry-After") == "1":
			default:
				t.Errorf("%d %v %s", r.status, r.header, r.text)
			}
		}
		if len(ids) != 1 {
			t.Errorf("%s: answered with %d ids", what, len(ids))
		}
	}
	if n := one[int](t, w, "SELECT count(*) FROM walhook.endpoint"); n != 1 {
		t.Errorf("%d webhooks", n)
	}
	if n := one[int](t, w, "SELECT count(*) FROM walhook.token"); n != 1 {
		t.Errorf("%d tokens", n)
	}
}

// While the first one runs the others are a 409 at once; once it has ended
// without making anything the key is free.
func TestIdempotency_WhileTheFirstRunsTheOthersAreRefused(t *testing.T) {
	w := newWorld(t)
	other := w.second(t)
	body := `{"data":{"name":"n","uri":"https://example.com/"}}`
	first := make(chan reply, 1)
	tx, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT FROM walhook.webhooks_version FOR UPDATE"); err != nil { // what a creation waits for
		t.Fatal(err)
	}
	go func() { first <- w.call(t, adminToken, "PUT", "/v2/accounts/7/webhooks", body, withKey(onceKey)...) }()
	const waits = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	for n := 0; n == 0; {
		if err := tx.QueryRow(t.Context(), waits).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	r := other.want(t, 409, adminToken, "PUT", "/v2/accounts/7/webhooks", body, withKey(onceKey)...)
	if r.header.Get("Retry-After") != "1" {
		t.Errorf("no Retry-After: %v", r.header)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := <-first
	if again := other.want(t, 201, adminToken, "PUT", "/v2/accounts/7/webhooks", body, withKey(onceKey)...); again.text != made.text || made.status != 201 {
		t.Errorf("%d %s, then %s", made.status, made.text, again.text)
	}
}

// A process that ends between commit and answer: the next request is answered as
// the lost one would have been. What failed is not remembered.
func TestIdempotency_OnlyWhatWasMadeIsRemembered(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	put := func(status int, body string) reply {
		t.Helper()
		return w.want(t, status, token, "PUT", "/v2/accounts/7/webhooks", body, withKey(onceKey)...)
	}
	put(400, `{"data":{"name":"n","uri":"ftp://example.com/"}}`)
	put(400, `{"data":`)
	w.exec(t, "INSERT INTO walhook.hold (account, host, reason) VALUES ('7', 'example.com', 'x')")
	good := `{"data":{"name":"n","uri":"https://example.com/"}}`
	put(409, good)
	w.exec(t, "DELETE FROM walhook.hold")
	// The answer is stored by the transaction that makes it, or neither is.
	w.exec(t, "ALTER TABLE walhook.idempotency ADD CONSTRAINT none CHECK (false) NOT VALID")
	if r := w.call(t, token, "PUT", "/v2/accounts/7/webhooks", good, withKey(onceKey)...); r.status < 400 {
		t.Errorf("%d %s", r.status, r.text)
	}
	if n := one[int](t, w, "SELECT count(*) FROM walhook.endpoint"); n != 0 {
		t.Errorf("%d webhooks without an answer", n)
	}
	w.exec(t, "ALTER TABLE walhook.idempotency DROP CONSTRAINT none")
	first := put(201, good)
	// What was made is answered also when it could not be made any more, or is gone.
	w.exec(t, "INSERT INTO walhook.hold (account, host, reason) VALUES ('7', 'example.com', 'x')")
	w.want(t, 200, token, "DELETE", "/v2/accounts/7/webhooks/"+first.data(t)["id"].(string), "")
	if again := put(201, good); again.text != first.text {
		t.Errorf("%s, then %s", first.text, again.text)
	}
	w.exec(t, "DELETE FROM walhook.hold")
	w.exec(t, "UPDATE walhook.idempotency SET made_at = made_at - interval '24 hours'")
	if later := put(201, good); later.text == first.text || later.header.Get(replayedHeader) != "" {
		t.Error("a key is remembered beyond its day")
	}
}

// Nobody is answered by another's key.
func TestIdempotency_KeysAreOfOneTokenInOneAccount(t *testing.T) {
	w := newWorld(t)
	w.exec(t, "INSERT INTO walhook.account (id, parent) VALUES ('8', '7')")
	above := w.token(t, "7", `{"data":{"include_subaccounts":true}}`)
	body := `{"data":{"name":"n","uri":"https://example.com/"}}`
	seen := map[string]string{}
	for name, c := range map[string][2]string{
		"own": {w.token(t, "7", ""), "7"}, "another of the account": {w.token(t, "7", ""), "7"}, "operator": {adminToken, "7"},
		"the one below": {w.token(t, "8", ""), "8"}, "the one above, for the one below": {above, "8"}, "the one above": {above, "7"},
	} {
		r := w.want(t, 201, c[0], "PUT", "/v2/accounts/"+c[1]+"/webhooks", body, withKey(onceKey)...)
		id := r.data(t)["id"].(string)
		if seen[id] != "" {
			t.Errorf("%s is answered with what %s made", name, seen[id])
		}
		seen[id] = name
	}
	// A row that somebody moves to another account opens there for nobody.
	stranger := w.token(t, "9", "")
	w.exec(t, `UPDATE walhook.idempotency SET account = '9', token = (SELECT id FROM walhook.token WHERE account = '9')
		WHERE token = (SELECT id FROM walhook.token WHERE account = '8')`)
	w.want(t, 409, stranger, "PUT", "/v2/accounts/9/webhooks", body, withKey(onceKey)...)
	w.exec(t, "INSERT INTO walhook.account (id, parent) VALUES ('10', '7')")
	w.exec(t, "UPDATE walhook.idempotency SET account = '10' WHERE account = '8' AND token <> ''")
	w.want(t, 409, above, "PUT", "/v2/accounts/10/webhooks", body, withKey(onceKey)...)
}

// What is stored shows neither key nor answer.
func TestIdempotency_NothingSecretIsStored(t *testing.T) {
	w := newWorld(t)
	r := w.want(t, 201, adminToken, "PUT", "/v2/accounts/7/tokens", `{"data":{"name":"the-name"}}`, withKey(onceKey)...)
	w.want(t, 201, adminToken, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"the-name","uri":"https://me:pass-word@example.com/the-path"}}`, withKey(onceKey+"2")...)
	rows := one[string](t, w, "SELECT string_agg(i::text || convert_from(decode(replace(encode(sealed, 'hex'), '00', '01'), 'hex'), 'LATIN1'), ' ') FROM walhook.idempotency i")
	for _, secret := range []string{onceKey, r.data(t)["token"].(string), "pass-word", "the-name", "the-path"} {
		if strings.Contains(rows, secret) {
			t.Errorf("%q is stored in clear", secret)
		}
	}
	// Another secret key, and another operator's token, do not open it.
	for name, other := range map[string]*world{
		"secret key": w.second(t, func(c *outbox.Config) { c.SecretKey = slices.Repeat([]byte{1}, 32) }),
		"operator":   {conn: w.conn, admin: w.admin, destination: w.destination},
	} {
		bearer := adminToken
		if name == "operator" {
			bearer = "another-token-of-the-operator"
			other.url = other.serve(t, zap.NewNop(), func(c *Config) { c.AdminToken = bearer })
		}
		if r := other.want(t, 409, bearer, "PUT", "/v2/accounts/7/tokens", `{"data":{"name":"the-name"}}`, withKey(onceKey)...); !strings.Contains(r.text, "cannot be repeated") {
			t.Errorf("%s: %s", name, r.text)
		}
	}
}

func TestIdempotency_KeysHaveOneForm(t *testing.T) {
	w := newWorld(t)
	put := func(status int, headers ...string) {
		t.Helper()
		w.want(t, status, adminToken, "PUT", "/v2/accounts/7/webhooks", `{"data":{"name":"n","uri":"https://example.com/"}}`, headers...)
	}
	for _, key := range []string{
		`""`, `"a`, `"a"b`, `"a" "b"`, `"a\c"`, `"a\`, "a b", "a,b", `a"b`, `a\b`, "a;b", " ", "\xff", "ä", `"ä"`,
		strings.Repeat("k", 256), `"` + strings.Repeat("k", 256) + `"`, "\u2028",
	} {
		put(400, idempotencyHeader, key)
	}
	if n := one[int](t, w, "SELECT count(*) FROM walhook.endpoint"); n != 0 {
		t.Fatalf("%d webhooks are made by keys that are none", n)
	}
	request, _ := http.NewRequestWithContext(t.Context(), "PUT", w.url+"/v2/accounts/7/webhooks", strings.NewReader(`{"data":{"name":"n","uri":"https://example.com/"}}`))
	request.Header["X-Auth-Token"], request.Header[idempotencyHeader] = []string{adminToken}, []string{"a", "a"}
	if r := send(t, request); r.status != 400 {
		t.Errorf("two keys: %d", r.status)
	}
	for _, key := range []string{strings.Repeat("k", 255), `" "`, `"a;b, c"`, `"\"\\"`, "k", "0", "{}", "a:b/c=d"} {
		put(201, idempotencyHeader, key)
	}
	put(201, idempotencyHeader, `"k"`)
	if n := one[int](t, w, "SELECT count(*) FROM walhook.endpoint"); n != 8 {
		t.Errorf("%d webhooks of 8 keys: with and without quotes it is one key", n)
	}
}

// Beyond their bounds no new keys are taken, and nothing is made without one.
func TestIdempotency_WhatIsRememberedIsBounded(t *testing.T) {
	w := newWorld(t)
	body := `{"data":{"name":"n","uri":"https://example.com/"}}`
	put := func(status int, account, key string) {
		t.Helper()
		w.want(t, status, adminToken, "PUT", "/v2/accounts/"+account+"/webhooks", body, withKey(key)...)
	}
	put(201, "7", "kept")
	put(201, "8", "kept")
	const fill = `INSERT INTO walhook.idempotency (account, token, key, sealed, place) SELECT $1, 'x', convert_to(n::text, 'UTF8'), %s, nextval('walhook.idempotency_unit') FROM generate_series(1, $2::int) n`
	w.exec(t, fmt.Sprintf(fill, "'x'"), "7", 1000)
	put(429, "7", "new")
	put(201, "7", "kept")
	w.exec(t, fmt.Sprintf(fill, "convert_to(repeat('x', 1048576), 'UTF8')"), "8", 4)
	put(429, "8", "new")
	put(201, "9", "kept")
	w.exec(t, "SELECT setval('walhook.idempotency_unit', 200000)")
	put(201, "9", "last")
	put(429, "9", "new")
	w.want(t, 201, adminToken, "PUT", "/v2/accounts/9/webhooks", body)
	put(201, "9", "kept")
}
