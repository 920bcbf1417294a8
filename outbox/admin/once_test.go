package admin

import (
	"testing"
)

// Answers end with their account, however that ends, and with their day.
func TestIdempotency_StoredAnswersEndWithTheirAccountAndAfterADay(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	ask := func(account, key string) {
		t.Helper()
		w := hook(account, "https://h.example/")
		if _, err := f.admin.CreateWebhook(t.Context(), w, Once{Key: key}, func(Webhook) ([]byte, error) { return []byte("{}"), nil }); err != nil {
			t.Fatal(err)
		}
	}
	answers := func(want ...string) {
		t.Helper()
		wantLines(t, all[string](t, f.world, "SELECT account FROM walhook.idempotency ORDER BY account"), want...)
	}
	ask("7", "a")
	ask("8", "a")
	ask("later", "a")
	f.commit(t, users.Delete(7, "n", "https://example.com/7", nil))
	answers("8", "later")
	f.commit(t, account(7))
	ask("7", "a") // of the next account of that id
	f.snapshot(t, 0x9000, load(t, map[string]string{"8": "https://example.com/8"}))
	f.takeOver(t)
	f.commitLSN = 0x9000
	answers("8")
	f.commit(t, users.Truncate())
	answers()
	f.commit(t, account(9))
	ask("9", "a")
	ask("9", "b")
	f.Exec(t, "UPDATE walhook.idempotency SET made_at = made_at - interval '24 hours' WHERE key = $1", Once{Key: "a"}.name())
	whileRunning(t, f.store.Maintain, "the expired answer is removed", func() bool { return f.Count(t, "idempotency") < 2 })
	answers("9")
}
