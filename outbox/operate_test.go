package outbox

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// endpointIn inserts the endpoint of an account in a state, with the columns that
// the state's constraints ask for.
func (w *world) endpointIn(t *testing.T, account string, state EndpointState, by string) int64 {
	t.Helper()
	url, reason := "https://u:hunter2@example.com/hook?token=hunter2", "because"
	switch state {
	case EndpointActive:
		reason = ""
	case EndpointCleared:
		url = ""
	case EndpointUnusable:
		url = "ftp://example.com/hook"
	}
	return one[int64](t, w, `
		INSERT INTO walhook.endpoint (account, url, state, reason, disabled_by, disabled_reason, secret)
		VALUES ($1, nullif($2, ''), $3, $4, $5, CASE WHEN $5 = 'operator' THEN $4 ELSE '' END, 'whsec_c2VjcmV0') RETURNING id`, account, url, string(state), reason, by)
}

func TestStore_EnablesAndDisablesWhatCanBe(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name     string
		state    EndpointState
		by       string
		enabled  EndpointState // "" for refused
		disabled EndpointState
	}{
		{"active", EndpointActive, "", EndpointActive, EndpointDisabled},
		{"disabled by walhook", EndpointDisabled, "walhook", EndpointActive, EndpointDisabled},
		{"disabled by an operator", EndpointDisabled, "operator", EndpointActive, EndpointDisabled},
		{"cleared", EndpointCleared, "", "", ""},
		{"unusable", EndpointUnusable, "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(what, account string, want EndpointState, e EndpointInfo, err error) {
				t.Helper()
				if refused, ok := errors.AsType[*StateError](err); want == "" && (!ok || refused.Fix == "") {
					t.Errorf("%s: %v, want a StateError", what, err)
				}
				if want != "" && (err != nil || e.State != want || e.Account != account) {
					t.Errorf("%s: %+v, %v", what, e, err)
				}
				stored := one[string](t, w, "SELECT state FROM walhook.endpoint WHERE account = $1", account)
				if (want == "" && stored != string(test.state)) || (want != "" && stored != string(want)) {
					t.Errorf("%s: stored as %s", what, stored)
				}
				changed := want != "" && (want != test.state || want == EndpointDisabled)
				revision := one[int64](t, w, "SELECT revision FROM walhook.endpoint WHERE account = $1", account)
				if (revision == 2) != changed {
					t.Errorf("%s: revision %d", what, revision)
				}
			}
			w.endpointIn(t, test.name+"/enable", test.state, test.by)
			e, err := w.store.EnableEndpoint(t.Context(), test.name+"/enable", AccountWebhook)
			check("enable", test.name+"/enable", test.enabled, e, err)
			w.endpointIn(t, test.name+"/disable", test.state, test.by)
			e, err = w.store.DisableEndpoint(t.Context(), test.name+"/disable", AccountWebhook, "asked for")
			check("disable", test.name+"/disable", test.disabled, e, err)
			if err == nil && (e.DisabledBy != "operator" || e.Reason != "asked for") {
				t.Errorf("disabled by %s: %s", e.DisabledBy, e.Reason)
			}
		})
	}
}

func TestStore_OperateRefusesUnknownAccounts(t *testing.T) {
	w := newWorld(t)
	_, enabled := w.store.EnableEndpoint(t.Context(), "7", AccountWebhook)
	_, disabled := w.store.DisableEndpoint(t.Context(), "7", AccountWebhook, "asked for")
	_, secrets := w.store.EndpointSecrets(t.Context(), "7")
	for _, err := range []error{enabled, disabled, secrets} {
		if !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("got %v", err)
		}
	}
	w.endpointIn(t, "8", EndpointActive, "")
	if _, err := w.store.DisableEndpoint(t.Context(), "8", AccountWebhook, ""); err == nil {
		t.Error("disabled without a reason")
	}
}

// The change has to be seen by a sender that asks for what changed, and the
// lane's past must not disable the endpoint again at its first failure.
func TestStore_EnablingIsSeenAndForgetsTheLanesPast(t *testing.T) {
	w := newWorld(t)
	id := w.endpointIn(t, "7", EndpointDisabled, "walhook")
	w.exec(t, `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, paused_until, failing_since, last_reason)
		VALUES ($1, 1, true, 42, true, now() + interval '1h', 9, now() + interval '1h', now() - interval '6 days', '5xx')`, id)
	session, _ := w.join(t)
	_, since, err := session.EndpointsChanged(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.EnableEndpoint(t.Context(), "7", AccountWebhook); err != nil {
		t.Fatal(err)
	}
	changed, _, err := session.EndpointsChanged(t.Context(), since)
	if err != nil || !slices.Contains(changed, EndpointRevision{ID: id, Revision: 2}) {
		t.Errorf("changed: %+v, %v", changed, err)
	}
	read, err := session.Endpoints(t.Context(), []int64{id})
	if err != nil || len(read) != 1 || read[0].State != EndpointActive || read[0].Reason != "" {
		t.Errorf("the endpoint is %+v, %v", read, err)
	}
	kept := one[bool](t, w, `SELECT behind AND cursor = 42 AND NOT open AND open_until IS NULL AND opens = 0
		AND paused_until IS NULL AND failing_since IS NULL AND last_reason = '' FROM walhook.lane WHERE endpoint = $1`, id)
	if !kept {
		t.Error("the lane's breaker is not reset, or its place is lost")
	}
}

func TestStore_ListsEndpointsWithoutSecrets(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.SecretKey = bytes.Repeat([]byte{1}, 32) })
	w.endpointIn(t, "7", EndpointActive, "")
	w.endpointIn(t, "8", EndpointCleared, "")
	w.exec(t, "UPDATE walhook.endpoint SET ended_at = now() WHERE account = '7'")
	got, err := w.store.ListEndpoints(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].URL != "https://…@example.com/hook?…" || got[0].EndedAt.IsZero() || got[0].ChangedAt.IsZero() {
		t.Errorf("got %+v", got[0])
	}
	if got[1].URL != "" || got[1].State != EndpointCleared || got[1].Reason != "because" || !got[1].EndedAt.IsZero() {
		t.Errorf("got %+v", got[1])
	}
}

func TestStore_OpensSealedSecrets(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	w := newWorld(t, func(c *Config) { c.SecretKey = key })
	w.endpointIn(t, "7", EndpointActive, "")
	w.exec(t, "UPDATE walhook.endpoint SET secret = $1, previous_secret = 'whsec_b2xk', previous_until = now() + interval '1h'", w.store.secrets.seal("whsec_bmV3", holder{"7", AccountWebhook}))
	secrets, err := w.store.EndpointSecrets(t.Context(), "7")
	if err != nil || !slices.Equal(secrets, []string{"whsec_bmV3", "whsec_b2xk"}) {
		t.Errorf("got %q, %v", secrets, err)
	}
	w.open(t)
	if _, err := w.store.EndpointSecrets(t.Context(), "7"); err == nil || !strings.Contains(err.Error(), "--secret-key") {
		t.Errorf("without the key: %v", err)
	}
}

func TestRedactURL_ShowsNoSecret(t *testing.T) {
	for given, want := range map[string]string{
		"":                                  "",
		"https://example.com":               "https://example.com",
		"https://example.com:8443/a%2Fb/c":  "https://example.com:8443/a%2Fb/c",
		"http://u:hunter2@example.com/":     "http://…@example.com/",
		"http://hunter2@example.com":        "http://…@example.com",
		"http://[::1]:80/x?key=hunter2#x":   "http://[::1]:80/x?…",
		"u:hunter2@example.com/hook":        "(not shown: no URL)",
		"hunter2@example.com":               "(not shown: no URL)",
		"http:/u:hunter2@example.com/":      "(not shown: no URL)",
		"mailto:hunter2@example.com":        "(not shown: no URL)",
		"http://u:hunter2@exa mple.com/":    "(not shown: no URL)",
		"http://example.com/\nhunter2":      "(not shown: no URL)",
		"//u:hunter2@example.com/hook?t=u2": "//example.com/hook?…",
	} {
		if got := redactURL(given); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}
