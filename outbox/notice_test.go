package outbox

import (
	"strings"
	"testing"
	"time"
)

// family is a feed of account 1, 2 below it and 3 below that.
func family(t *testing.T) (*feed, *Session) {
	f := newFeed(t)
	f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2))
	f.forget(t)
	s, _ := f.join(t)
	return f, s
}

func (f *feed) idOf(t *testing.T, account string) int64 {
	t.Helper()
	return one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = $1", account)
}

func disabling(e Event, reason string) Settlement {
	s := retry(e, time.Hour)
	s.Disable = reason
	return s
}

func TestNotice_TheAccountAboveIsToldOfADisabledEndpoint(t *testing.T) {
	f, s := family(t)
	e := f.event(t, 1000, f.idOf(t, "3"), "dids:1")
	lost := disabling(e, "the endpoint answered 410 Gone \"<&>\"\n")
	for range 3 { // settled again, as after an answer that was lost
		f.settle(t, s, lost)
		f.appendInbox(t)
	}
	f.forgetEvent(t, 1000)
	got := f.events(t)
	const body = `2  notice/3 {"type":"update","schema":"webhook.disabled","status":"disabled","verbose":"the endpoint answered 410 Gone \"<&>\"\n","account":"3"}`
	raw := all[string](t, f.world, `SELECT format('%s  %s %s', p.account, e.record, convert_from(e.body, 'UTF8'))
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint`)
	wantLines(t, raw, body)
	if len(got) != 1 {
		t.Errorf("events %v", got)
	}
	if id := one[string](t, f.world, "SELECT webhook_id FROM walhook.event"); !strings.HasPrefix(id, "notice_") || len(id) != 7+32 {
		t.Errorf("webhook-id %s", id)
	}
}

func (f *feed) forgetEvent(t *testing.T, id int64) {
	t.Helper()
	f.exec(t, "DELETE FROM walhook.event WHERE id = $1", id)
}

func TestNotice_GoesToTheAccountAboveWhereItHasAnEndpoint(t *testing.T) {
	f, _ := family(t)
	disable := func(account string) {
		t.Helper()
		if _, err := f.store.DisableEndpoint(t.Context(), account, "asked for"); err != nil {
			t.Fatal(err)
		}
		f.appendInbox(t)
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
	f.commit(t, members.update(member(2, 1), row(2, "n", nil, nil, 1)))
	f.forget(t)
	if _, err := f.store.EnableEndpoint(t.Context(), "3"); err != nil {
		t.Fatal(err)
	}
	disable("3")
	wantLines(t, told())
}

func TestNotice_OnlyWhatWasDisabledIsTold(t *testing.T) {
	f, s := family(t)
	e := f.event(t, 1000, f.idOf(t, "3"), "dids:1")
	e.Revision = 7 // another URL's
	f.settle(t, s, disabling(e, "gone"))
	if n := f.count(t, "inbox"); n != 0 {
		t.Errorf("%d notices", n)
	}
}

// Both change several endpoints in one transaction.
func TestSettle_AndAppendChangeEndpointsInOneOrder(t *testing.T) {
	f := newFeed(t)
	s, _ := f.join(t)
	f.commit(t, account(1), account(2), account(3))
	for n := range int64(20) {
		f.exec(t, "UPDATE walhook.endpoint SET state = 'active', disabled_by = '', reason = '', revision = 1")
		f.takeOver(t)
		var fates []Settlement
		for k, account := range []string{"3", "1", "2"} {
			e := f.event(t, 1000+10*n+int64(k), f.idOf(t, account), "dids:1")
			fates = append(fates, disabling(e, "gone"))
		}
		settled := make(chan error, 1)
		go func() {
			_, err := s.Settle(t.Context(), fates)
			settled <- err
		}()
		to := "https://b.example.com/" + strings.Repeat("x", int(n)+1)
		from := func(id int) any { return nil }
		f.commit(t, users.update(row(2, "n", from(2), nil), row(2, "n", to, nil)),
			users.update(row(3, "n", from(3), nil), row(3, "n", to, nil)), users.update(row(1, "n", from(1), nil), row(1, "n", to, nil)))
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
	}
}
