package outbox

import "testing"

// Whoever gets an account's id after it has ended gets none of its tokens and
// webhooks.
func TestAccount_ItsTokensAndWebhooksEndWithIt(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, account(8))
	for _, id := range []string{"7", "8"} {
		if _, _, err := f.store.CreateToken(t.Context(), Token{Account: id, Subaccounts: true}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.store.CreateWebhook(t.Context(), Webhook{Account: "7", Name: "old", URL: "https://old.example/", Enabled: true, HTTPVerb: "post", Hook: HookRecords, Delivery: "realtime", DailyZone: "UTC"})
	if err != nil {
		t.Fatal(err)
	}
	f.commit(t, users.delete(7, "n", "https://example.com/7", nil))
	wantLines(t, all[string](t, f.world, "SELECT account FROM walhook.token"), "8")
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t, dids.insert(1, 7, "of the new one"))
	if n := one[int](t, f.world, "SELECT count(*) FROM walhook.endpoint WHERE account = '7' AND webhook <> 'account' AND deleted_at IS NULL"); n != 0 {
		t.Errorf("%d webhooks came back", n)
	}
	if n := one[int](t, f.world, "SELECT count(*) FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint WHERE p.webhook <> 'account'"); n != 0 {
		t.Errorf("%d events of the new account for the old one's webhook", n)
	}
}
