package admin

import (
	"errors"
	"slices"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/schemas"
)

// Whoever gets an account's id after it has ended gets none of its tokens and
// webhooks.
func TestAccount_ItsTokensAndWebhooksEndWithIt(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, account(8))
	for _, id := range []string{"7", "8"} {
		if _, _, err := f.admin.CreateToken(t.Context(), Token{Account: id, Subaccounts: true}, Once{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.admin.CreateWebhook(t.Context(), Webhook{Account: "7", Name: "old", URL: "https://old.example/", Enabled: true, HTTPVerb: "post", Hook: HookRecords, Delivery: "realtime", DailyZone: "UTC"}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.commit(t, users.Delete(7, "n", "https://example.com/7", nil))
	wantLines(t, all[string](t, f.world, "SELECT account FROM walhook.token"), "8")
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t, dids.Insert(1, 7, "of the new one"))
	if n := one[int](t, f.world, "SELECT count(*) FROM walhook.endpoint WHERE account = '7' AND webhook <> 'account' AND deleted_at IS NULL"); n != 0 {
		t.Errorf("%d webhooks came back", n)
	}
	if n := one[int](t, f.world, "SELECT count(*) FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint WHERE p.webhook <> 'account'"); n != 0 {
		t.Errorf("%d events of the new account for the old one's webhook", n)
	}
}

// An endpoint of an ended account delivers what was appended, and is nobody's to edit or to count.
func TestAccount_ThatEndedIsNotCountedOrEdited(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, account(8))
	for _, id := range []string{"7", "8"} {
		if _, err := f.admin.DisableEndpoint(t.Context(), id, outbox.AccountWebhook, "unpaid"); err != nil {
			t.Fatal(err)
		}
	}
	f.commit(t, users.Delete(7, "n", "https://example.com/7", nil))
	st, err := f.admin.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Endpoints[outbox.EndpointDisabled] != 1 || len(st.Disabled) != 1 || st.Disabled[0].Account != "8" {
		t.Errorf("counts %v, disabled %v: want account 8 alone", st.Endpoints, st.Disabled)
	}
	lanes := 0
	for _, n := range st.Lanes {
		lanes += n
	}
	if lanes != 1 {
		t.Errorf("lanes %v: nothing is left to deliver to account 7", st.Lanes)
	}
	if _, err := f.admin.EditWebhook(t.Context(), Caller{}, "7", outbox.AccountWebhook, anyState); !errors.Is(err, ErrAccountEnded) {
		t.Errorf("edited: %v", err)
	}
	if _, _, err := f.admin.RotateSecret(t.Context(), "7", time.Hour); !errors.Is(err, ErrAccountEnded) {
		t.Errorf("rotated: %v", err)
	}
	for _, ordering := range []outbox.Ordering{outbox.OrderingRecord, outbox.OrderingStrict} {
		if _, err := f.admin.SetOrdering(t.Context(), "7", ordering); !errors.Is(err, ErrAccountEnded) {
			t.Errorf("ordering %s: %v", ordering, err)
		}
	}
	if _, err := f.admin.EditWebhook(t.Context(), Caller{}, "8", outbox.AccountWebhook, anyState); err != nil {
		t.Errorf("the present account's: %v", err)
	}
}

// The old customer's own endpoint is not the new one's: not its secret, its
// settings, its attempts, its events. It delivers what was appended for it.
func TestAccount_ThatComesBackUnderTheSameIDStartsEmpty(t *testing.T) {
	gone := func() schemas.Change { return users.Delete(7, "n", "https://example.com/7", nil) }
	for name, commits := range map[string][][]schemas.Change{
		"later":                {{gone()}, {account(7)}},
		"in one transaction":   {{gone(), account(7)}},
		"after a cleared URL":  {{users.Update(row(7, "n", "https://example.com/7", nil), row(7, "n", "", nil))}, {users.Delete(7, "n", "", nil)}, {account(7)}},
		"after a changed key":  {{users.Update(row(7, "n", "https://example.com/7", nil), row(9, "n", "https://example.com/7", nil))}, {account(7)}},
		"after a TRUNCATE":     {{users.Truncate(), account(7)}},
		"first without an URL": {{gone(), users.Insert(7, "n", "", nil)}, {users.Update(row(7, "n", "", nil), row(7, "n", "https://example.com/7", nil))}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t, withKey(1))
			f.commit(t, account(7), dids.Insert(1, 7, "old"))
			f.commit(t, users.Update(row(7, "n", "https://example.com/7", nil), row(7, "n", "https://me:pw@example.com/7", nil)))
			old := f.EndpointOf(t, "7")
			if _, err := f.admin.SetOrdering(t.Context(), "7", outbox.OrderingStrict); err != nil {
				t.Fatal(err)
			}
			secrets := f.secretsOf(t, "7")
			for _, changes := range commits {
				f.commit(t, changes...)
			}
			f.commit(t, dids.Insert(2, 7, "new"))
			now := one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7' AND webhook = 'account'")
			if now == old {
				t.Fatal("the new account has the old one's endpoint")
			}
			fresh, err := f.admin.Endpoint(t.Context(), now)
			if err != nil || fresh.Ordering != outbox.OrderingRecord || fresh.State != outbox.EndpointActive {
				t.Errorf("the new account's endpoint is %+v, %v", fresh, err)
			}
			if slices.Equal(f.secretsOf(t, "7"), secrets) {
				t.Error("the new account signs with the old one's secret")
			}
			kept, err := f.admin.store.Endpoints(t.Context(), []int64{old})
			if err != nil || len(kept) != 1 || !slices.Equal(kept[0].Secrets, secrets) {
				t.Errorf("the old endpoint has another secret: %v", err)
			}
			if name != "after a cleared URL" && (len(kept) != 1 || kept[0].State != outbox.EndpointActive || kept[0].URL != "https://me:pw@example.com/7") {
				t.Error("the old endpoint's last events cannot be sent to its URL")
			}
			own, err := f.admin.Webhooks(t.Context(), "7", 0, 10)
			if err != nil || len(own) != 1 || own[0].Endpoint != now {
				t.Errorf("the new account sees %v, %v", own, err)
			}
			if got := one[int](t, f.world, "SELECT count(*) FROM walhook.event WHERE endpoint = $1 AND record = 'dids:1'", now); got != 0 {
				t.Errorf("%d events of the old account for the new one", got)
			}
			if got := one[int](t, f.world, "SELECT count(*) FROM walhook.event WHERE endpoint = $1 AND record = 'dids:2'", old); got != 0 {
				t.Errorf("%d events of the new account for the old one", got)
			}
			if got := one[int](t, f.world, "SELECT count(*) FROM walhook.event WHERE endpoint = $1 AND record = 'dids:2'", now); got != 1 {
				t.Errorf("%d events of the new account for it, want 1", got)
			}
			f.restart(t)
			f.commit(t, dids.Insert(3, 7, "newer"))
			if got := all[int64](t, f.world, "SELECT endpoint FROM walhook.event WHERE record = 'dids:3'"); !slices.Equal(got, []int64{now}) {
				t.Errorf("after a restart its events are for %v, want %d", got, now)
			}
		})
	}
}

// Each of several accounts of one id in one transaction has its own events,
// and the old one still gets the delete of its own row.
func TestAccount_TwoOfOneIDInOneTransactionAreApart(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	gone := users.Delete(7, "n", "https://example.com/7", nil)
	f.commit(t, dids.Insert(1, 7, "a"), gone, account(7), dids.Insert(2, 7, "b"), gone, account(7), dids.Insert(3, 7, "c"))
	wantLines(t, all[string](t, f.world, `SELECT format('%s', string_agg(CASE WHEN e.schema = 'dids' THEN e.record ELSE e.type END, ' ' ORDER BY e.id))
		FROM walhook.endpoint p JOIN walhook.event e ON e.endpoint = p.id WHERE p.account = '7' AND p.state = 'active' GROUP BY p.id ORDER BY min(e.id)`),
		"insert dids:1 delete", "insert dids:2 delete", "insert dids:3")
}

// Accounts that have no endpoint end with the account table's TRUNCATE as well,
// and with a snapshot that they are not in.
func TestAccount_TokensEndWithTruncateAndSnapshot(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", "", nil), account(8))
	token := func(account string) {
		t.Helper()
		if _, _, err := f.admin.CreateToken(t.Context(), Token{Account: account}, Once{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	token("7")
	token("8")
	f.snapshot(t, 0x9000, load(t, map[string]string{"8": "https://example.com/8"}))
	f.takeOver(t)
	f.commitLSN = 0x9000
	wantLines(t, all[string](t, f.world, "SELECT account FROM walhook.token"), "8")
	token("7")
	f.commit(t, users.Truncate())
	wantLines(t, all[string](t, f.world, "SELECT account FROM walhook.token"))
}

// What is kept of a webhook that an account deleted is not the next account's of
// its id, however the one before ended.
func TestAccount_OneUnderTheSameIDCannotReachWhatTheEarlierOneDeleted(t *testing.T) {
	for name, end := range map[string]func(*feed){
		"deleted":   func(f *feed) { f.commit(t, users.Delete(7, "n", "https://example.com/7", nil)) },
		"truncated": func(f *feed) { f.commit(t, users.Truncate()) },
		"not in the snapshot": func(f *feed) {
			f.snapshot(t, 0x9000, load(t, map[string]string{"8": "https://example.com/8"}))
			f.takeOver(t)
			f.commitLSN = 0x9000
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t)
			f.commit(t, account(7))
			w, err := f.admin.CreateWebhook(t.Context(), Webhook{Account: "7", Name: "n", URL: "https://h.example/", Enabled: true, HTTPVerb: "post", Hook: HookRecords, Delivery: "realtime", DailyZone: "UTC"}, Once{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			f.Exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body)
				VALUES ($1, 1, 'dids:1', 'evt_1', 'dids', 'insert', now(), 1, '5xx', 2, '{}')`, w.Endpoint)
			if _, err := f.admin.DeleteWebhook(t.Context(), Caller{}, "7", w.ID, anyState); err != nil {
				t.Fatal(err)
			}
			seen := func() (n int) {
				list, err := f.admin.DeadLetters(t.Context(), "7", 0, 10)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.admin.KeptWebhook(t.Context(), "7", w.ID); err == nil {
					n++
				}
				return n + len(list)
			}
			if n := seen(); n != 2 {
				t.Errorf("the account itself sees %d of 2", n)
			}
			end(f)
			f.commit(t, account(7))
			if n := seen(); n != 0 {
				t.Errorf("the next account sees %d", n)
			}
		})
	}
}

// anyState lets a webhook be deleted however it stands.
func anyState(*Webhook) error { return nil }
