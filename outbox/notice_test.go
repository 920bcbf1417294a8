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
	return one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = $1 ORDER BY webhook <> 'account', id", account)
}

func disabling(e Event, reason string) Settlement {
	s := retried(e, time.Hour)
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
		if _, err := f.store.DisableEndpoint(t.Context(), account, AccountWebhook, "asked for"); err != nil {
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
	f.commit(t, members.Update(member(2, 1), row(2, "n", nil, nil, 1)))
	f.forget(t)
	if _, err := f.store.EnableEndpoint(t.Context(), "3", AccountWebhook); err != nil {
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

// Whoever changes several endpoints takes them in order of account: none waits
// for another that waits for it.
func TestSettle_AndAppendTakeEndpointsInOneOrder(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, f *feed, s *Session) error{
		"append": func(t *testing.T, f *feed, _ *Session) error {
			return f.publisher.Append(t.Context(), batch(f.tx(setAccountURL(3, nil, urlB), setAccountURL(1, nil, urlB))))
		},
		"settle": func(t *testing.T, f *feed, s *Session) error {
			_, err := s.Settle(t.Context(), []Settlement{
				disabling(Event{ID: 1001, Endpoint: f.publisher.view.Endpoints["3"].ID, Revision: 1, Record: "dids:1"}, "gone"),
				disabling(Event{ID: 1002, Endpoint: f.publisher.view.Endpoints["1"].ID, Revision: 1, Record: "dids:1"}, "gone")})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t)
			f.commit(t, account(3))
			f.commit(t, account(1))
			s, _ := f.join(t)
			first := f.begin(t)
			execTx(t, first, "SELECT FROM walhook.endpoint WHERE account = '1' FOR UPDATE")
			changed := make(chan error, 1)
			go func() { changed <- change(t, f, s) }()
			f.blocked(t, "walhook.endpoint")
			execTx(t, first, "SELECT FROM walhook.endpoint WHERE account = '3' FOR UPDATE NOWAIT")
			commit(t, first)
			if err := <-changed; err != nil {
				t.Error(err)
			}
		})
	}
}
