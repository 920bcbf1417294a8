package admin

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/outbox/seal"
)

func TestRotate_BothSecretsSignUntilTheOverlapEnds(t *testing.T) {
	f := newFeed(t, withKey(1))
	f.commit(t, account(7))
	first := f.secretsOf(t, "7")
	began := time.Now()
	second, until, err := f.admin.RotateSecret(t.Context(), "7", 24*time.Hour)
	if err != nil || !about(until, began.Add(24*time.Hour), began) {
		t.Fatalf("until %s, %v", until, err)
	}
	if got := f.secretsOf(t, "7"); !slices.Equal(got, []string{second, first[0]}) {
		t.Errorf("%d secrets; want the new one and then the old one", len(got))
	}
	for _, stored := range all[string](t, f.world, "SELECT unnest(ARRAY[secret, previous_secret]) FROM walhook.endpoint") {
		if !seal.IsBound(stored) {
			t.Error("a secret is stored as it is")
		}
	}
	// Its time over, it is not answered any more, and wiped by and by.
	f.Exec(t, "UPDATE walhook.endpoint SET previous_until = clock_timestamp() - interval '1 ms'")
	if got := f.secretsOf(t, "7"); !slices.Equal(got, []string{second}) {
		t.Errorf("%d secrets after the overlap", len(got))
	}
	before := one[int](t, f.world, "SELECT revision FROM walhook.endpoint")
	f.wipe(t, "SELECT previous_secret IS NULL FROM walhook.endpoint")
	if one[bool](t, f.world, "SELECT previous_secret IS NOT NULL OR revision <> $1 + 1 FROM walhook.endpoint", before) {
		t.Error("the previous secret is kept, or senders are not told that it went")
	}
	for _, entry := range f.Logs.All() {
		if strings.Contains(entry.Message, "whsec_") || strings.Contains(strings.Join(fieldTexts(entry.ContextMap()), " "), "whsec_") {
			t.Errorf("logged: %s", entry.Message)
		}
	}
}

// wipe runs maintenance until expired secrets are gone.
func (f *feed) wipe(t *testing.T, goneSQL string) {
	t.Helper()
	whileRunning(t, f.store.Maintain, "expired secrets are removed", func() bool { return one[bool](t, f.world, goneSQL) })
}

func fieldTexts(fields map[string]any) (texts []string) {
	for _, value := range fields {
		if text, ok := value.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

func TestRotate_WithoutAnOverlapTheOldSecretEndsAtOnce(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	if _, _, err := f.admin.RotateSecret(t.Context(), "7", time.Hour); err != nil {
		t.Fatal(err)
	}
	secret, until, err := f.admin.RotateSecret(t.Context(), "7", 0)
	if err != nil || !until.IsZero() {
		t.Errorf("until %s, %v", until, err)
	}
	if got := f.secretsOf(t, "7"); !slices.Equal(got, []string{secret}) {
		t.Errorf("%d secrets", len(got))
	}
}

func TestRotate_RefusesWhatItCannot(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), users.Insert(8, "n", urlA, "whsec_b3du"))
	if _, _, err := f.admin.RotateSecret(t.Context(), "nobody", time.Hour); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("nobody: %v", err)
	}
	if _, _, err := f.admin.RotateSecret(t.Context(), "7", -time.Hour); err == nil {
		t.Error("an overlap of -1h")
	}
	_, _, err := f.admin.RotateSecret(t.Context(), "8", time.Hour)
	if refused, ok := errors.AsType[*StateError](err); !ok || !strings.Contains(refused.Fix, "column") {
		t.Errorf("the account's own: %v", err)
	}
}

func TestSecrets_APreviousOneUnderAnotherKeyIsNamed(t *testing.T) {
	f := newFeed(t, withKey(1))
	f.commit(t, account(7))
	f.open(t, withKey(2))
	f.Exec(t, "UPDATE walhook.endpoint SET previous_secret = secret, previous_until = now() + interval '1h', secret = 'whsec_b3du'")
	_, err := f.admin.EndpointSecrets(t.Context(), "7")
	if err == nil || !strings.Contains(err.Error(), "previous secret of account 7") || !strings.Contains(err.Error(), "--secret-key") {
		t.Errorf("got %v", err)
	}
}

func TestAccount_AColumnsSecretRotatesByBeingChanged(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		own := func(secret any) []any { return []any{7, "n", urlA, secret} }
		f.commit(t, users.Insert(own("whsec_b25l")...))
		next()
		f.commit(t, users.Update(row(own("whsec_b25l")...), row(own("whsec_dHdv")...)))
		if got := f.secretsOf(t, "7"); !slices.Equal(got, []string{"whsec_dHdv", "whsec_b25l"}) {
			t.Errorf("changed: %q", got)
		}
		next()
		f.commit(t, users.Update(row(own("whsec_dHdv")...), row(own(nil)...)))
		got := f.secretsOf(t, "7")
		if len(got) != 3 || got[1] != "whsec_dHdv" || got[2] != "whsec_b25l" || len(got[0]) != 6+44 {
			t.Errorf("taken away: %q", got)
		}
		next()
		f.commit(t, users.Update(row(own(nil)...), row(7, "m", urlA, nil)))
		if again := f.secretsOf(t, "7"); !slices.Equal(again, got) {
			t.Error("a change of something else changed the secret")
		}
		// It is walhook's now.
		if _, _, err := f.admin.RotateSecret(t.Context(), "7", time.Hour); err != nil {
			t.Error(err)
		}
		next()
		rotated := f.secretsOf(t, "7")
		f.commit(t, users.Update(row(7, "m", urlA, nil), row(7, "o", urlA, nil)))
		if again := f.secretsOf(t, "7"); !slices.Equal(again, rotated) {
			t.Error("a change of something else undid the rotation")
		}
		// Taken away while there is no URL.
		f.commit(t, users.Update(row(7, "o", urlA, nil), row(7, "o", urlA, "whsec_b25l")))
		f.commit(t, users.Update(row(7, "o", urlA, "whsec_b25l"), row(7, "o", nil, "whsec_b25l")))
		next()
		f.commit(t, users.Update(row(7, "o", nil, "whsec_b25l"), row(7, "o", nil, nil)))
		f.commit(t, users.Update(row(7, "o", nil, nil), row(7, "o", urlB, nil)))
		if got := f.secretsOf(t, "7"); got[0] == "whsec_b25l" {
			t.Error("a secret that the account took away is in use")
		}
	})
}

func TestSnapshot_ASecretThatIsGoneFromTheColumnIsReplacedByANewOne(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, "whsec_b25l"))
	f.snapshot(t, 0x9000, load(t, map[string]string{"7": urlA}))
	got := f.secretsOf(t, "7")
	if len(got) != 2 || got[0] == "whsec_b25l" || got[1] != "whsec_b25l" {
		t.Errorf("secrets are %q", got)
	}
}

// Each secret signs until its own time, however often another follows; the newest
// comes first, and how many may is bounded.
func TestRotate_EachSecretSignsUntilItsOwnTime(t *testing.T) {
	f := newFeed(t, withKey(1))
	f.commit(t, account(7))
	secrets := f.secretsOf(t, "7")
	began := time.Now()
	overlaps := []time.Duration{24 * time.Hour, time.Hour, 48 * time.Hour}
	for _, overlap := range overlaps {
		next, _, err := f.admin.RotateSecret(t.Context(), "7", overlap)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append([]string{next}, secrets...)
		if got := f.secretsOf(t, "7"); !slices.Equal(got, secrets) {
			t.Fatalf("%d secrets, want all %d, the newest first", len(got), len(secrets))
		}
	}
	_, until, err := f.admin.WebhookSecrets(t.Context(), "7", outbox.AccountWebhook)
	if err != nil || len(until) != 3 || !about(until[0], began.Add(48*time.Hour), began) || !about(until[1], began.Add(time.Hour), began) || !about(until[2], began.Add(24*time.Hour), began) {
		t.Errorf("they end at %v, %v", until, err)
	}
	// An hour later the one in the middle is over, and gone once it is wiped.
	f.Exec(t, "UPDATE walhook.endpoint SET older_until[1] = clock_timestamp() - interval '1 ms'")
	want := []string{secrets[0], secrets[1], secrets[3]}
	if got := f.secretsOf(t, "7"); !slices.Equal(got, want) {
		t.Errorf("%d secrets after one ended", len(got))
	}
	f.wipe(t, "SELECT cardinality(older_secrets) = 1 FROM walhook.endpoint")
	if got := f.secretsOf(t, "7"); !slices.Equal(got, want) || one[int](t, f.world, "SELECT cardinality(older_secrets) FROM walhook.endpoint") != 1 {
		t.Errorf("%d secrets after it was wiped", len(got))
	}
	f.Exec(t, "UPDATE walhook.endpoint SET previous_until = clock_timestamp() - interval '1 ms'")
	f.wipe(t, "SELECT previous_secret IS NULL FROM walhook.endpoint")
	if got := f.secretsOf(t, "7"); !slices.Equal(got, []string{secrets[0], secrets[3]}) {
		t.Errorf("%d secrets after the previous one ended", len(got))
	}
	for len(f.secretsOf(t, "7")) < MaxSecrets {
		if _, _, err := f.admin.RotateSecret(t.Context(), "7", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = f.admin.RotateSecret(t.Context(), "7", time.Hour)
	if refused, ok := errors.AsType[*StateError](err); !ok || !strings.Contains(refused.Fix, "wait until") {
		t.Errorf("one too many: %v", err)
	}
	if _, err := f.admin.Reseal(t.Context(), nil); err != nil || len(f.secretsOf(t, "7")) != MaxSecrets {
		t.Errorf("after reseal: %d secrets, %v", len(f.secretsOf(t, "7")), err)
	}
	if _, _, err := f.admin.RotateSecret(t.Context(), "7", 0); err != nil || len(f.secretsOf(t, "7")) != 1 {
		t.Errorf("all ended: %v", err)
	}
}
