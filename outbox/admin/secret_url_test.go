package admin

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"walhook/outbox"
	"walhook/schemas"
)

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
		f.snapshot(t, firstLSN, func(w *outbox.SnapshotWriter) error {
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

	w, err := f.admin.CreateWebhook(t.Context(), Webhook{Account: "7", Name: "n", URL: hookA, Enabled: true, HTTPVerb: "post", Hook: HookRecords, Delivery: "realtime", DailyZone: "UTC"})
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
