package admin

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/outbox/seal"
)

// endpointIn inserts the endpoint of an account in a state, with the columns that
// the state's constraints ask for.
func (w *world) endpointIn(t *testing.T, account string, state outbox.EndpointState, by string) int64 {
	t.Helper()
	url, reason := "https://u:hunter2@example.com/hook?token=hunter2", "because"
	switch state {
	case outbox.EndpointActive:
		reason = ""
	case outbox.EndpointCleared:
		url = ""
	case outbox.EndpointUnusable:
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
		state    outbox.EndpointState
		by       string
		enabled  outbox.EndpointState // "" for refused
		disabled outbox.EndpointState
	}{
		{"active", outbox.EndpointActive, "", outbox.EndpointActive, outbox.EndpointDisabled},
		{"disabled by walhook", outbox.EndpointDisabled, "walhook", outbox.EndpointActive, outbox.EndpointDisabled},
		{"disabled by an operator", outbox.EndpointDisabled, "operator", outbox.EndpointActive, outbox.EndpointDisabled},
		{"cleared", outbox.EndpointCleared, "", "", ""},
		{"unusable", outbox.EndpointUnusable, "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(what, account string, want outbox.EndpointState, e EndpointInfo, err error) {
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
				changed := want != "" && (want != test.state || want == outbox.EndpointDisabled)
				revision := one[int64](t, w, "SELECT revision FROM walhook.endpoint WHERE account = $1", account)
				if (revision == 2) != changed {
					t.Errorf("%s: revision %d", what, revision)
				}
			}
			w.endpointIn(t, test.name+"/enable", test.state, test.by)
			e, err := w.admin.EnableEndpoint(t.Context(), test.name+"/enable", outbox.AccountWebhook)
			check("enable", test.name+"/enable", test.enabled, e, err)
			w.endpointIn(t, test.name+"/disable", test.state, test.by)
			e, err = w.admin.DisableEndpoint(t.Context(), test.name+"/disable", outbox.AccountWebhook, "asked for")
			check("disable", test.name+"/disable", test.disabled, e, err)
			if err == nil && (e.DisabledBy != "operator" || e.Reason != "asked for") {
				t.Errorf("disabled by %s: %s", e.DisabledBy, e.Reason)
			}
		})
	}
}

func TestStore_OperateRefusesUnknownAccounts(t *testing.T) {
	w := newWorld(t)
	_, enabled := w.admin.EnableEndpoint(t.Context(), "7", outbox.AccountWebhook)
	_, disabled := w.admin.DisableEndpoint(t.Context(), "7", outbox.AccountWebhook, "asked for")
	_, secrets := w.admin.EndpointSecrets(t.Context(), "7")
	for _, err := range []error{enabled, disabled, secrets} {
		if !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("got %v", err)
		}
	}
	w.endpointIn(t, "8", outbox.EndpointActive, "")
	if _, err := w.admin.DisableEndpoint(t.Context(), "8", outbox.AccountWebhook, ""); err == nil {
		t.Error("disabled without a reason")
	}
}

// The change has to be seen by a sender that asks for what changed, and the
// lane's past must not disable the endpoint again at its first failure.
func TestStore_EnablingIsSeenAndForgetsTheLanesPast(t *testing.T) {
	w := newWorld(t)
	id := w.endpointIn(t, "7", outbox.EndpointDisabled, "walhook")
	w.Exec(t, `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, paused_until, failing_since, last_reason)
		VALUES ($1, 1, true, 42, true, now() + interval '1h', 9, now() + interval '1h', now() - interval '6 days', '5xx')`, id)
	session, _ := w.join(t)
	_, since, err := session.EndpointsChanged(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.EnableEndpoint(t.Context(), "7", outbox.AccountWebhook); err != nil {
		t.Fatal(err)
	}
	changed, _, err := session.EndpointsChanged(t.Context(), since)
	if err != nil || !slices.Contains(changed, outbox.EndpointRevision{ID: id, Revision: 2}) {
		t.Errorf("changed: %+v, %v", changed, err)
	}
	read, err := session.Endpoints(t.Context(), []int64{id})
	if err != nil || len(read) != 1 || read[0].State != outbox.EndpointActive || read[0].Reason != "" {
		t.Errorf("the endpoint is %+v, %v", read, err)
	}
	kept := one[bool](t, w, `SELECT behind AND cursor = 42 AND NOT open AND open_until IS NULL AND opens = 0
		AND paused_until IS NULL AND failing_since IS NULL AND last_reason = '' FROM walhook.lane WHERE endpoint = $1`, id)
	if !kept {
		t.Error("the lane's breaker is not reset, or its place is lost")
	}
}

func TestStore_ListsEndpointsWithoutSecrets(t *testing.T) {
	w := newWorld(t, func(c *outbox.Config) { c.SecretKey = bytes.Repeat([]byte{1}, 32) })
	w.endpointIn(t, "7", outbox.EndpointActive, "")
	w.endpointIn(t, "8", outbox.EndpointCleared, "")
	w.Exec(t, "UPDATE walhook.endpoint SET ended_at = now() WHERE account = '7'")
	got, err := w.admin.ListEndpoints(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].URL != "https://…@example.com/hook?…" || got[0].EndedAt.IsZero() || got[0].ChangedAt.IsZero() {
		t.Errorf("got %+v", got[0])
	}
	if got[1].URL != "" || got[1].State != outbox.EndpointCleared || got[1].Reason != "because" || !got[1].EndedAt.IsZero() {
		t.Errorf("got %+v", got[1])
	}
}

func TestStore_OpensSealedSecrets(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	w := newWorld(t, func(c *outbox.Config) { c.SecretKey = key })
	w.endpointIn(t, "7", outbox.EndpointActive, "")
	w.Exec(t, "UPDATE walhook.endpoint SET secret = $1, previous_secret = 'whsec_b2xk', previous_until = now() + interval '1h'", w.admin.secrets.Seal("whsec_bmV3", seal.Holder{Account: "7", Webhook: outbox.AccountWebhook}))
	secrets, err := w.admin.EndpointSecrets(t.Context(), "7")
	if err != nil || !slices.Equal(secrets, []string{"whsec_bmV3", "whsec_b2xk"}) {
		t.Errorf("got %q, %v", secrets, err)
	}
	w.open(t)
	if _, err := w.admin.EndpointSecrets(t.Context(), "7"); err == nil || !strings.Contains(err.Error(), "--secret-key") {
		t.Errorf("without the key: %v", err)
	}
}

func TestOrdering_SetToNoneReleasesWhatWaitedBehindAFailedEvent(t *testing.T) {
	w := newWorld(t)
	endpoint := w.Endpoint(t, "7")
	w.Bodies(t, 1, 3, endpoint, "dids:1", 8)
	s, _ := w.join(t)
	of := func(id int64, d outbox.Disposition) outbox.Settlement {
		return outbox.Settlement{Event: outbox.Event{ID: id, Endpoint: endpoint, Revision: 1, Record: "dids:1"}, Disposition: d}
	}
	failed := of(1, outbox.Retry)
	failed.RetryAt = time.Now().Add(time.Hour)
	failed.Attempt = &outbox.Attempt{At: time.Now(), Number: 1, Revision: 1, Status: 500, Outcome: "retry", Reason: "5xx"}
	if _, err := s.Settle(t.Context(), []outbox.Settlement{failed, of(2, outbox.Parked), of(3, outbox.Parked)}); err != nil {
		t.Fatal(err)
	}
	const account = "7"
	revision := func() int64 {
		return one[int64](t, w, "SELECT revision FROM walhook.endpoint WHERE id = $1", endpoint)
	}
	before := revision()
	if set, err := w.admin.SetOrdering(t.Context(), account, outbox.OrderingNone); err != nil || set.Ordering != outbox.OrderingNone {
		t.Fatalf("%+v, %v", set, err)
	}
	due, err := s.DueRetries(t.Context(), outbox.RetryQuery{Endpoint: endpoint, Now: time.Now().Add(time.Minute), Limit: 100, MaxBytes: 1 << 20})
	if err != nil || len(due.Events) != 2 || due.Events[0].ID != 2 || due.Events[1].ID != 3 { // 1 keeps its own time
		t.Errorf("due are %v, %v", due.Events, err)
	}
	if now := revision(); now != before+1 {
		t.Errorf("revision %d after %d: senders are not told", now, before)
	}
	if _, err := w.admin.SetOrdering(t.Context(), account, outbox.OrderingNone); err != nil || revision() != before+1 {
		t.Errorf("the ordering in force, set again: %v, revision %d", err, revision())
	}
	if got, err := w.admin.Ordering(t.Context(), account); err != nil || got != outbox.OrderingNone {
		t.Errorf("ordering %s, %v", got, err)
	}
}

func TestOrdering_RefusesWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t)
	w.Endpoint(t, "7")
	const account = "7"
	if _, err := w.admin.SetOrdering(t.Context(), account, "any"); err == nil {
		t.Error("an ordering that does not exist is set")
	}
	if _, err := w.admin.SetOrdering(t.Context(), "nobody", outbox.OrderingNone); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("nobody's: %v", err)
	}
	if _, err := w.admin.Ordering(t.Context(), "nobody"); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("nobody's: %v", err)
	}
}

func TestNotice_GoesToTheParentAccountWhereItHasAnEndpoint(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2))
	f.forget(t)
	disable := func(account string) {
		t.Helper()
		if _, err := f.admin.DisableEndpoint(t.Context(), account, outbox.AccountWebhook, "asked for"); err != nil {
			t.Fatal(err)
		}
		whileRunning(t, f.publisher.Run, "the notice is appended", func() bool { return f.Count(t, "inbox") == 0 })
	}
	told := func() []string {
		return all[string](t, f.world, `SELECT p.account || ' of ' || substring(convert_from(e.body, 'UTF8') FROM '"account":"(.*)"}')
			FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
	}
	disable("1") // nobody is above
	wantLines(t, told())
	disable("2")
	wantLines(t, told(), "1 of 2") // held: it is disabled itself
	disable("2")                   // another reason is no news
	wantLines(t, told(), "1 of 2")
	disable("3")
	wantLines(t, told(), "1 of 2", "2 of 3")

	// One that has no endpoint hides those above it: they are not told of
	// accounts that are not theirs.
	f.commit(t, members.Update(member(2, 1), row(2, "n", nil, nil, 1)))
	f.forget(t)
	if _, err := f.admin.EnableEndpoint(t.Context(), "3", outbox.AccountWebhook); err != nil {
		t.Fatal(err)
	}
	disable("3")
	wantLines(t, told())
}
