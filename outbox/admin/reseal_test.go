package admin

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"walhook/doctor"
	"walhook/outbox"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Whoever can write into the outbox cannot have one account's deliveries signed
// with another's secret, nor with one of his own.
func TestReseal_ASecretOfAnotherRowOrInPlainIsRefused(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	first, second := f.secretsOf(t, "7"), f.secretsOf(t, "8")
	f.open(t, withKey(1))
	resealed := func(old []byte, want Resealed) {
		t.Helper()
		got, err := f.admin.Reseal(t.Context(), old)
		if err != nil || got.Sealed != want.Sealed || got.Already != want.Already || !slices.Equal(got.Unreadable, want.Unreadable) {
			t.Errorf("resealed %+v, %v; want %+v", got, err, want)
		}
	}
	same := func(when string) {
		t.Helper()
		if !slices.Equal(f.secretsOf(t, "7"), first) || !slices.Equal(f.secretsOf(t, "8"), second) {
			t.Errorf("%s the secrets are others", when)
		}
	}
	refused := func(how string) {
		t.Helper()
		if got, err := f.admin.EndpointSecrets(t.Context(), "7"); err == nil || len(got) > 0 {
			t.Errorf("%s: %d secrets, %v", how, len(got), err)
		}
	}
	resealed(nil, Resealed{Sealed: 2})
	same("under a first key")
	resealed(nil, Resealed{Already: 2})
	stored := one[string](t, f.world, "SELECT secret FROM walhook.endpoint WHERE account = '7'")
	f.Exec(t, "UPDATE walhook.endpoint e SET secret = o.secret FROM walhook.endpoint o WHERE o.account <> e.account")
	refused("two rows exchanged")
	f.Exec(t, "UPDATE walhook.endpoint SET secret = 'whsec_b3du' WHERE account = '7'")
	refused("a plain one")
	f.Exec(t, "UPDATE walhook.endpoint e SET secret = o.secret FROM walhook.endpoint o WHERE o.account <> e.account AND e.account = '8'")
	f.Exec(t, "UPDATE walhook.endpoint SET secret = $1 WHERE account = '7'", stored)
	resealed(nil, Resealed{Already: 1, Unreadable: []string{"8/account"}})
	f.Exec(t, "DELETE FROM walhook.endpoint WHERE account = '8'")

	f.open(t, withKey(2))
	refused("the old key's")
	resealed(bytes.Repeat([]byte{1}, 32), Resealed{Sealed: 1})
	if !slices.Equal(f.secretsOf(t, "7"), first) {
		t.Error("under a second key the secret is another")
	}
}

// What is wrong with stored secrets is said by its kind, with the endpoints.
func TestDoctor_TellsAKeyFromRowsThatWereExchangedOrEdited(t *testing.T) {
	f := newFeed(t)
	f.open(t, withKey(1))
	f.commit(t, account(7), account(8), account(9))
	if _, err := f.admin.Reseal(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	f.Exec(t, "DELETE FROM walhook.sealing")
	f.Exec(t, "UPDATE walhook.endpoint SET url = 'https://u:hunter2@example.com/' || account")
	says := func(when string, key byte, want ...string) {
		t.Helper()
		cfg := outbox.Config{URL: f.DB.URL}
		if key != 0 {
			cfg.SecretKey = bytes.Repeat([]byte{key}, 32)
		}
		var texts []string
		for _, finding := range outbox.Examine(t.Context(), cfg, doctor.Options{}) {
			if finding.ID == "outbox.secrets" {
				texts = append(texts, string(finding.Status)+": "+finding.Evidence)
			}
		}
		got := strings.Join(texts, "\n")
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s doctor does not say %q:\n%s", when, part, got)
			}
		}
		if len(texts) != 1 || strings.Contains(got, "hunter2") {
			t.Errorf("%s doctor says %d things, or a password:\n%s", when, len(texts), got)
		}
	}
	says("before reseal", 1, "warning: 3 of 3 endpoints have user name and password of their URL in clear")
	says("another key encrypted, before reseal", 2, "failed: none of 3 secrets can be decrypted: --secret-key is not the key")
	if _, err := f.admin.Reseal(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	says("sealed", 1, "ok: 3 signing secrets, all encrypted")
	says("another key encrypted", 2, "failed: none of 3 secrets can be decrypted: --secret-key is not the key")
	says("without a key", 0, "failed: 3 of 3 secrets are encrypted, and --secret-key is not set: those endpoints are held (7/account, 8/account, 9/account)")

	f.Exec(t, "CREATE TEMP TABLE kept AS SELECT id, secret, previous_secret, url FROM walhook.endpoint")
	spoil := func(sql string) {
		t.Helper()
		f.Exec(t, "UPDATE walhook.endpoint e SET secret = k.secret, previous_secret = k.previous_secret, previous_until = NULL, url = k.url FROM kept k WHERE k.id = e.id")
		f.Exec(t, sql)
	}
	const seven = " WHERE account = '7'"
	spoil("UPDATE walhook.endpoint e SET secret = o.secret FROM walhook.endpoint o WHERE (e.account, o.account) IN (('7', '8'), ('8', '7'))")
	says("exchanged", 1, "failed: 2 of 3 secrets are stored in the row of another endpoint: rows of walhook.endpoint were exchanged or copied, and those endpoints are held (7/account has that of 8/account, 8/account has that of 7/account)")
	spoil("UPDATE walhook.endpoint e SET secret = o.secret FROM walhook.endpoint o WHERE e.account <> '9' AND o.account = '9'")
	says("copied", 1, "(7/account has that of 9/account, 8/account has that of 9/account)")
	spoil("UPDATE walhook.endpoint SET secret = overlay(secret PLACING 'AAAA' FROM 30)" + seven)
	says("edited", 1, "failed: 1 of 3 secrets is damaged: --secret-key is the right key, so somebody edited the stored text")
	spoil("UPDATE walhook.endpoint SET secret = overlay(secret PLACING 'AAAA' FROM 30)")
	says("all edited", 1, "failed: 3 of 3 secrets are damaged: --secret-key is the right key")
	if err := f.admin.CheckKey(t.Context()); err != nil {
		t.Errorf("the right key, all secrets edited: %v", err)
	}
	spoil("UPDATE walhook.endpoint SET previous_secret = 'whsec_b3du', previous_until = now() + interval '1 hour'" + seven)
	says("a previous one in plain", 1, "failed: 1 of 3 secrets is not encrypted for the endpoint, although 'endpoints reseal' has run")
	spoil("UPDATE walhook.endpoint SET older_secrets = '{whsec_b3du}', older_until = ARRAY[now() + interval '1 hour']" + seven)
	says("an older one in plain", 1, "failed: 1 of 3 secrets is not encrypted for the endpoint")
	f.Exec(t, "UPDATE walhook.endpoint SET older_secrets = '{}', older_until = '{}'")
	spoil("UPDATE walhook.endpoint SET url = 'https://u:hunter2@example.com/7'" + seven)
	says("a URL in clear", 1, "failed: 1 of 3 URLs is refused: user name and password are in clear")
	spoil("UPDATE walhook.endpoint SET url = replace(url, 'example.com', 'evil.example')" + seven)
	says("another host", 1, "failed: 1 of 3 URLs is damaged: user name and password were stored for another endpoint or another host")
	spoil("UPDATE walhook.endpoint SET secret = CASE account WHEN '7' THEN 'sealed:v2:AAAA' WHEN '8' THEN 'whsec_b3du' ELSE secret END")
	says("two kinds", 1, "1 of 3 secrets is damaged", "1 of 3 secrets is not encrypted for the endpoint")
}

func TestSecrets_UnderAnotherKeyHoldTheirEndpoint(t *testing.T) {
	f := newFeed(t, withKey(1))
	f.commit(t, users.Insert(7, "n", urlA, "whsec_b3du"))
	for name, change := range map[string]func(*outbox.Config){"another key": withKey(2), "no key": func(*outbox.Config) {}} {
		f.open(t, change)
		s, _ := f.join(t)
		endpoints, err := s.Endpoints(t.Context(), []int64{1})
		if err != nil || len(endpoints) != 1 || endpoints[0].State != outbox.EndpointUnusable || !strings.Contains(endpoints[0].Reason, "--secret-key") {
			t.Errorf("%s: read %v, %v", name, endpoints, err)
		}
		if err := f.admin.CheckKey(t.Context()); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := f.newPublisher(t).TakeOver(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = s.Leave(t.Context())
	}
}

const (
	hookA = "https://MARKuser:MARKpass@example.com/a?q=1"
	hookB = "https://MARKuser:MARKother@example.com/a?q=1"
)

// wantNoMark looks through every column of every table but the events, whose
// bodies hold the account's own row.
func (f *feed) wantNoMark(t *testing.T, when string) {
	t.Helper()
	for _, table := range all[string](t, f.world, `SELECT c.oid::regclass::text FROM pg_catalog.pg_class c
		WHERE relnamespace = 'walhook'::regnamespace AND relkind IN ('r', 'p') AND relname !~ '^event'`) {
		n := one[int](t, f.world, fmt.Sprintf("SELECT count(*) FROM %s t WHERE t::text LIKE '%%MARK%%' OR t::text LIKE '%%%s%%'", table, hex.EncodeToString([]byte("MARK"))))
		if n != 0 {
			t.Errorf("%s: %d rows of %s show user name or password", when, n, table)
		}
	}
}

// wantURL wants the URL that the sender has of an endpoint; "" for one that is held.
func (f *feed) wantURL(t *testing.T, when string, endpoint int64, want string) {
	t.Helper()
	s, _ := f.join(t)
	endpoints, err := s.Endpoints(t.Context(), []int64{endpoint})
	if err != nil || len(endpoints) != 1 {
		t.Fatal(when, endpoints, err)
	}
	if e := endpoints[0]; want == "" && (e.State == outbox.EndpointActive || strings.Contains(e.URL, "MARK")) {
		t.Errorf("%s: the sender has %s (%s)", when, e.URL, e.State)
	} else if want != "" && (e.URL != want || e.State != outbox.EndpointActive) {
		t.Errorf("%s: the sender has %s (%s, %s), want %s", when, e.URL, e.State, e.Reason, want)
	}
}

// Whoever reads the outbox learns no user name and no password of a URL, and
// whoever writes it cannot have them sent to another host.
func TestURLs_UserInformationIsSealedUnderAKey(t *testing.T) {
	f := newFeed(t, withKey(1))
	load := func(url string) {
		f.snapshot(t, firstLSN, func(w catalog.SnapshotSink) error {
			return w.Account(t.Context(), schemas.Account{ID: "9", URL: url})
		})
		f.takeOver(t)
	}
	revision := func(account string) int {
		return one[int](t, f.world, "SELECT revision::int FROM walhook.endpoint WHERE webhook = 'account' AND account = $1", account)
	}
	load(hookA)
	first := revision("9")
	load(hookA)
	if revision("9") != first {
		t.Error("the same snapshot raises the revision")
	}
	load(hookB)
	if revision("9") == first {
		t.Error("a snapshot with another password does not raise the revision")
	}
	f.wantURL(t, "snapshot", f.EndpointOf(t, "9"), hookB)

	f.commit(t, users.Insert(7, "n", hookA, nil), users.Insert(8, "n", hookA, nil), users.Insert(6, "n", "https://MARKuser:MARK %zz@x/", nil))
	f.wantURL(t, "inserted", f.EndpointOf(t, "7"), hookA)
	seven := revision("7")
	f.restart(t)
	f.commit(t, users.Update(row(7, "n", hookA, nil), row(7, "m", hookA, nil)))
	if revision("7") != seven {
		t.Error("the same URL after a restart raises the revision")
	}
	f.commit(t, users.Update(row(7, "m", hookA, nil), row(7, "m", hookB, nil)))
	if revision("7") == seven {
		t.Error("another password does not raise the revision")
	}
	f.wantURL(t, "updated", f.EndpointOf(t, "7"), hookB)

	w, err := f.admin.CreateWebhook(t.Context(), Webhook{Account: "7", Name: "n", URL: hookA, Enabled: true, HTTPVerb: "post", Hook: HookRecords, Delivery: "realtime", DailyZone: "UTC"}, Once{}, nil)
	if err != nil || w.URL != hookA || strings.Contains(w.ShownURL(), "MARK") {
		t.Fatal(w.URL, w.ShownURL(), err)
	}
	w, err = f.admin.EditWebhook(t.Context(), Caller{}, "7", w.ID, func(w *Webhook) error { w.URL = hookB; return nil })
	if err != nil || w.URL != hookB {
		t.Fatal(w.URL, err)
	}
	f.wantURL(t, "edited", w.Endpoint, hookB)
	f.wantNoMark(t, "under a key")

	// What was stored in clear, reseal and another key.
	f.Exec(t, "UPDATE walhook.endpoint SET url = $1 WHERE account = '8'", hookA)
	f.wantURL(t, "in clear before reseal", f.EndpointOf(t, "8"), hookA)
	if got, err := f.admin.Reseal(t.Context(), nil); err != nil || got.Sealed != 1 {
		t.Errorf("resealed %+v, %v", got, err)
	}
	f.wantNoMark(t, "after reseal")
	f.open(t, withKey(2))
	f.wantURL(t, "under a key that it was not stored under", w.Endpoint, "")
	if got, err := f.admin.Reseal(t.Context(), bytes.Repeat([]byte{1}, 32)); err != nil || len(got.Unreadable) > 0 {
		t.Errorf("resealed %+v, %v", got, err)
	}
	f.wantURL(t, "another key encrypted", w.Endpoint, hookB)
	f.wantURL(t, "another key encrypted", f.EndpointOf(t, "7"), hookB)

	stored := one[string](t, f.world, "SELECT url FROM walhook.endpoint WHERE account = '8'")
	for how, url := range map[string]string{
		"in clear":     hookA,
		"another host": strings.Replace(stored, "example.com", "evil.example", 1),
		"another's":    one[string](t, f.world, "SELECT url FROM walhook.endpoint WHERE account = '9'"),
	} {
		f.Exec(t, "UPDATE walhook.endpoint SET url = $1 WHERE account = '8'", url)
		f.wantURL(t, how, f.EndpointOf(t, "8"), "")
	}
	f.wantURL(t, "beside one that is refused", f.EndpointOf(t, "7"), hookB)
}
