package admin

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"walhook/doctor"
	"walhook/outbox"
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
