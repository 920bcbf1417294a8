package admin

import (
	"testing"

	"walhook/outbox"
)

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
