package outbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"walhook/outbox/address"
	"walhook/outbox/route/routetest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// setURL is an update of account 7's URL.
func setURL(from, to any) schemas.Change {
	return setAccountURL(7, from, to)
}

const (
	urlA = routetest.URLA
	urlB = routetest.URLB
)

// endpointLine is account 7's endpoint: state, who disabled it, revision, URL,
// where its feed begins.
func (f *feed) endpointLine(t *testing.T) string {
	t.Helper()
	return one[string](t, f.world, `SELECT format('%s%s %s %s from %s', state, '/' || nullif(disabled_by, ''), revision, coalesce(url, '-'), feed_from)
		FROM walhook.endpoint WHERE account = '7' AND webhook = 'account'`)
}

func (f *feed) wantEndpoint(t *testing.T, want string) {
	t.Helper()
	if got := f.endpointLine(t); got != want {
		t.Errorf("endpoint is %q, want %q", got, want)
	}
}

// revisions lists the log's records with the revision that each was appended
// under.
func (f *feed) revisions(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, "SELECT format('%s r%s', record, endpoint_revision) FROM walhook.event ORDER BY id")
}

func TestAccount_EventsFollowTheURL(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, users.Insert(7, "n", nil, nil), dids.Insert(1, 7, "1"))
		wantLines(t, f.events(t))

		next()
		f.commit(t, dids.Insert(2, 7, "2"), setURL(nil, urlA), dids.Insert(3, 7, "3"))
		f.wantEndpoint(t, "active 1 "+urlA+" from 0")
		// From the change of the URL on, the change itself included.
		wantLines(t, f.revisions(t), "users:7 r1", "dids:3 r1")

		next()
		f.commit(t, dids.Update(row(3, 7, "3"), row(3, 7, "4")), setURL(urlA, urlB))
		f.wantEndpoint(t, "active 2 "+urlB+" from 0")
		if lines := f.revisions(t); len(lines) != 4 || lines[3] != "users:7 r2" {
			t.Errorf("%v: the change of the URL goes to the new one", lines)
		}

		next()
		f.commit(t, users.Update(row(7, "n", urlB, nil), row(7, "m", urlB, nil)))
		f.wantEndpoint(t, "active 2 "+urlB+" from 0") // nothing about it changed

		next()
		f.forget(t)
		cleared := f.publisher.view.NextID + 1
		f.commit(t, dids.Insert(4, 7, "4"), setURL(urlB, nil), dids.Insert(5, 7, "5"))
		f.wantEndpoint(t, fmt.Sprintf("cleared 3 - from %d", cleared))
		wantLines(t, f.revisions(t), "dids:4 r3")
		if id := one[int64](t, f.world, "SELECT id FROM walhook.event"); id >= cleared {
			t.Errorf("event %d came before the feed's end at %d", id, cleared)
		}

		next()
		f.forget(t)
		f.commit(t, dids.Insert(6, 7, "6"), setURL(nil, urlA))
		f.commit(t, dids.Insert(7, 7, "7"))
		f.wantEndpoint(t, fmt.Sprintf("active 4 %s from %d", urlA, cleared))
		wantLines(t, f.revisions(t), "users:7 r4", "dids:7 r4")
		if n := one[int](t, f.world, "SELECT count(*) FROM walhook.event WHERE id < $1", cleared); n != 0 {
			t.Errorf("%d events of the new feed would expire", n)
		}
	})
}

func TestAccount_ChangesOfOneBatchAreOneRevision(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, users.Insert(7, "n", urlA, nil))
		next()
		f.append(t, batch(f.tx(setURL(urlA, urlB), dids.Insert(1, 7, "1")), f.tx(setURL(urlB, "https://c.example.com"), dids.Insert(2, 7, "2"))))
		f.wantEndpoint(t, "active 2 https://c.example.com from 0")
		wantLines(t, rest(f.revisions(t), 1), "users:7 r2", "dids:1 r2", "users:7 r2", "dids:2 r2")

		next()
		f.forget(t)
		from := f.publisher.view.NextID + 1
		f.append(t, batch(f.tx(dids.Insert(3, 7, "3")), f.tx(setURL(urlB, "")), f.tx(dids.Insert(4, 7, "4")), f.tx(setURL("", urlA))))
		f.wantEndpoint(t, fmt.Sprintf("active 3 %s from %d", urlA, from))
		wantLines(t, f.revisions(t), "dids:3 r3", "users:7 r3")
		if n := one[int](t, f.world, "SELECT count(*) FROM walhook.event WHERE id >= $1", from); n != 1 {
			t.Errorf("%d events belong to the new feed, want its first alone", n)
		}

		next()
		f.append(t, batch(f.tx(setURL(urlA, urlB)), f.tx(setURL(urlB, nil))))
		if line := f.endpointLine(t); !strings.HasPrefix(line, "cleared 4 - from ") {
			t.Errorf("endpoint is %s", line)
		}
	})
}

func TestAccount_URLThatCannotBeUsedIsAState(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, nil))
	for i, url := range []string{"ftp://example.com/", "example.com", "https://", "https://exa mple.com/", "https://example.com:0/",
		"https://example.com:99999/", "http://[::1", "https://example.com/" + strings.Repeat("x", address.MaxURLBytes), "http://user:secret@/"} {
		f.commit(t, setURL(urlA, url))
		f.wantEndpoint(t, fmt.Sprintf("unusable %d %s from 0", i+2, url))
		if reason := one[string](t, f.world, "SELECT reason FROM walhook.endpoint"); reason == "" || strings.Contains(reason, "secret") {
			t.Errorf("%s: reason is %q", url, reason)
		}
	}
	f.forget(t)
	f.commit(t, dids.Insert(1, 7, "1"))
	if n := f.count(t, "event"); n != 1 {
		t.Errorf("%d events are held, want 1", n)
	}
	f.commit(t, setURL("", urlB))
	if line := f.endpointLine(t); !strings.HasPrefix(line, "active ") {
		t.Errorf("endpoint is %s", line)
	}
}

func TestAccount_URLsThatLookUsable(t *testing.T) {
	for _, url := range []string{"http://example.com", "https://user:secret@example.com:8443/a?b=c#d", "HTTP://EXAMPLE.COM/", "http://127.0.0.1:9/", "https://[::1]/", "https://bücher.example/ä"} {
		if fault := address.URLFault(url); fault != "" {
			t.Errorf("%s: %s", url, fault)
		}
	}
}

func TestAccount_URLThatWasNotSentIsAsItWas(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, nil))
	f.forget(t)
	f.commit(t, users.Update(row(7, "n", notSent, notSent), row(7, "m", notSent, notSent)))
	f.wantEndpoint(t, "active 1 "+urlA+" from 0")
	wantLines(t, f.events(t), `7 _1 users:7 update users {'id':7,'name':'m'}`)
}

func TestAccount_DisablingByWalhookEndsWithTheURL(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, users.Insert(7, "n", urlA, nil))
		f.exec(t, "UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'walhook', reason = '410', revision = 2")
		next()
		f.commit(t, dids.Insert(1, 7, "1"))
		f.wantEndpoint(t, "disabled/walhook 2 "+urlA+" from 0")
		if n := f.count(t, "event"); n != 2 {
			t.Errorf("%d events: those of a disabled endpoint are held", n)
		}
		f.commit(t, setURL(urlA, urlB))
		f.wantEndpoint(t, "active 3 "+urlB+" from 0")
	})
}

func TestAccount_DisablingByAnOperatorStays(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, users.Insert(7, "n", urlA, nil))
		f.exec(t, "UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'operator', reason = 'on request', disabled_reason = 'on request', revision = 2")
		next()
		f.commit(t, setURL(urlA, urlB))
		f.wantEndpoint(t, "disabled/operator 3 "+urlB+" from 0")
		if reason := one[string](t, f.world, "SELECT reason FROM walhook.endpoint"); reason != "on request" {
			t.Errorf("reason is %q", reason)
		}
	})
}

func TestAccount_OwnSecretIsFollowed(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		s, _ := f.join(t)
		secrets := func() string {
			t.Helper()
			id := one[int64](t, f.world, "SELECT id FROM walhook.endpoint")
			endpoints, err := s.Endpoints(t.Context(), []int64{id})
			if err != nil || len(endpoints) != 1 {
				t.Fatal(endpoints, err)
			}
			return strings.Join(endpoints[0].Secrets, " ")
		}
		f.commit(t, users.Insert(7, "n", urlA, nil))
		made := secrets()
		if !strings.HasPrefix(made, "whsec_") || len(made) != 6+44 {
			t.Errorf("made secret %q", made)
		}
		next()
		f.commit(t, setURL(urlA, urlB))
		if secrets() != made {
			t.Error("the secret changed with the URL")
		}
		f.commit(t, users.Update(row(7, "n", urlB, nil), row(7, "n", urlB, "whsec_b3du")))
		f.wantEndpoint(t, "active 3 "+urlB+" from 0")
		if got := secrets(); got != "whsec_b3du "+made {
			t.Errorf("secrets are %q", got)
		}
		next()
		f.commit(t, users.Update(row(7, "n", urlB, "whsec_b3du"), row(7, "m", urlB, "whsec_b3du")))
		f.wantEndpoint(t, "active 3 "+urlB+" from 0") // nothing about it changed
		f.commit(t, users.Update(row(7, "n", urlB, "whsec_b3du"), row(7, "n", nil, "whsec_b3du")))
		next()
		f.commit(t, users.Update(row(7, "n", nil, "whsec_b3du"), row(7, "n", urlA, "whsec_b3du")))
		if got, _, _ := strings.Cut(secrets(), " "); got != "whsec_b3du" {
			t.Errorf("after the URL was cleared and set the secret is %q", got)
		}
	})
}

func TestAccount_UnderANewIDIsAnother(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, users.Insert(7, "n", urlA, nil), dids.Insert(1, 7, "1"))
		f.forget(t)
		next()
		f.commit(t, users.Update(row(7, "n", urlA, nil), row(9, "n", urlA, nil)), dids.Update(row(1, 7, "1"), row(1, 9, "1")))
		next()
		f.commit(t, dids.Insert(2, 9, "2"))
		wantLines(t, f.events(t),
			`7 _1 users:7 delete users {'id':7,'name':'n','web_hook_url':'`+urlA+`'}`,
			`9 _1b users:9 insert users {'id':9,'name':'n','web_hook_url':'`+urlA+`'}`,
			`9 _2b dids:1 insert dids {'id':1,'user_id':9,'number':'1'}`,
			`9 _1 dids:2 insert dids {'id':2,'user_id':9,'number':'2'}`)
	})
}

func TestAccount_DeletedAndMadeAgain(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, users.Insert(7, "n", urlA, nil))
		f.forget(t)
		next()
		f.commit(t, users.Delete(7, "n", urlA, nil))
		next()
		f.commit(t, users.Insert(7, "m", urlB, nil), dids.Insert(1, 7, "1"))
		f.wantEndpoint(t, "active 1 "+urlB+" from 0")
		if ended := one[bool](t, f.world, "SELECT ended_at IS NOT NULL FROM walhook.endpoint WHERE webhook = 'account'"); ended {
			t.Error("the feed is ended")
		}
		wantLines(t, f.revisions(t), "users:7 r2", "users:7 r1", "dids:1 r1")
		f.append(t, batch(f.tx(users.Delete(7, "m", urlB, nil), users.Insert(7, "o", urlA, nil)), f.tx(dids.Insert(2, 7, "2"))))
		f.wantEndpoint(t, "active 1 "+urlA+" from 0")
	})
}

func TestAccount_ChangesReachTheSenders(t *testing.T) {
	f := newFeed(t)
	s, _ := f.join(t)
	_, since, err := s.EndpointsChanged(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	f.commit(t, users.Insert(7, "n", "https://user:secret@a.example.com/", nil))
	changed, _, err := s.EndpointsChanged(t.Context(), since)
	if err != nil || len(changed) != 1 {
		t.Fatalf("changed are %+v, %v", changed, err)
	}
	read, err := s.Endpoints(t.Context(), []int64{changed[0].ID})
	if err != nil || len(read) != 1 || read[0].Account != "7" || read[0].URL != "https://user:secret@a.example.com/" || read[0].State != EndpointActive {
		t.Errorf("the endpoint is %+v, %v", read, err)
	}
	select {
	case <-f.store.Appended():
	default:
		t.Error("the append was not signalled")
	}
}

var members, member, memberInsert = routetest.Members, routetest.Member, routetest.MemberInsert

const treeSQL = "SELECT format('%s under %s', id, parent) FROM walhook.account WHERE ended_in IS NULL ORDER BY id"

func (f *feed) wantTree(t *testing.T, want ...string) {
	t.Helper()
	wantLines(t, all[string](t, f.world, treeSQL), want...)
	if n := len(f.publisher.view.Parents); n != len(want) {
		t.Errorf("the publisher knows %d accounts under another, want %d", n, len(want))
	}
}

func TestAccounts_AChangedParentCountsInCommitOrder(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2), memberInsert(4, 4))
		f.wantTree(t, "2 under 1", "3 under 2") // nobody is above itself
		next()
		f.commit(t, members.Update(member(3, 2), member(3, 1)), members.Update(member(2, 1), member(2, nil)))
		f.wantTree(t, "3 under 1")
		next()
		// The last word of a batch counts, and a column that was not sent says nothing.
		f.append(t, batch(f.tx(members.Update(member(2, nil), member(2, 3))), f.tx(members.Update(member(2, 3), member(2, 1))),
			f.tx(members.Update(member(3, 1), member(3, notSent)))))
		f.wantTree(t, "2 under 1", "3 under 1")
		next()
		f.commit(t, members.Update(member(2, 1), member(5, 1)))
		f.wantTree(t, "3 under 1", "5 under 1")
		next()
		f.commit(t, schemas.Change{Kind: schemas.Delete, Relation: members.Relation, Old: member(3, 1)})
		f.wantTree(t, "5 under 1")
		next()
		f.commit(t, members.Truncate(), memberInsert(7, 1))
		f.wantTree(t, "7 under 1")
	})
}

func TestAccounts_TheTreeComesFromTheSnapshot(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(8, 1))
	f.snapshot(t, 0x9000, func(w catalog.SnapshotSink) error {
		for _, a := range []schemas.Account{{ID: "1", URL: urlA}, {ID: "2", Parent: "1"}, {ID: "3", Parent: "3"},
			{ID: "4", Parent: strings.Repeat("x", 2000)}, {ID: strings.Repeat("y", 2000), URL: urlA, Parent: "1"}} {
			if err := w.Account(t.Context(), a); err != nil {
				return err
			}
		}
		return nil
	})
	f.takeOver(t)
	f.wantTree(t, "2 under 1")
	if n := f.logs.FilterMessage("account left out: its id is too long").Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// An empty id names no account, and whoever has it learns why it gets nothing.
func TestRoute_AnAccountWithAnEmptyIDIsListed(t *testing.T) {
	users, dids := users.OfText(), dids.OfText()
	f := newFeed(t)
	f.commit(t, users.Insert("", "n", urlA, nil), dids.Insert(1, "", "1"))
	f.commit(t, users.Update(row("", "n", urlA, nil), row("", "m", urlB, nil)))
	f.wantSkipped(t, map[string]int{"account_id_empty": 2, "no_owner": 1})
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s', schema, reason) FROM walhook.unrouted ORDER BY commit_lsn, ordinal"),
		"users account_id_empty", "users account_id_empty")
	if got := f.logs.FilterMessage("change unrouted: its account id is empty").Len(); got != 2 {
		t.Errorf("%d warnings", got)
	}
	f.commit(t, users.Update(row("", "n", urlB, nil), row("7", "n", urlB, nil)), dids.Insert(2, "7", "1")) // now it has one
	if got := f.events(t); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "7 _2 dids:2") {
		t.Errorf("events\n%s", strings.Join(got, "\n"))
	}
	f.snapshot(t, 0x9000, load(t, map[string]string{"": urlA, "8": urlB}))
	if got := f.logs.FilterMessage("account left out: its id is empty, give it one in the source").Len(); got != 1 {
		t.Errorf("%d warnings of the snapshot", got)
	}
	if n := one[int](t, f.world, "SELECT count(*) FROM walhook.endpoint WHERE account = ''"); n != 0 {
		t.Errorf("%d endpoints without an account", n)
	}
}

// Ids and keys may be longer than an index entry.
func TestRoute_KeysTooLongForAnIndexAreHashedOrListed(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		long := strings.Repeat("x", 5000)
		users, dids, faxes := users.OfText(), dids.OfText(), faxes.OfText()
		f.commit(t, account(7), dids.Insert(long, 7, "1"))
		next()
		f.commit(t, faxes.Insert(5, long, "2")) // through a parent whose key is long
		if got := f.events(t); len(got) != 3 || !strings.HasPrefix(got[1], "7 _2 dids:sha256:") || !strings.HasPrefix(got[2], "7 _1 faxes:5 ") {
			t.Errorf("events\n%.300s", strings.Join(got, "\n"))
		}
		f.wantSkipped(t, map[string]int{})
		next()
		f.commit(t, dids.Insert(2, long, "1"), account(8), users.Insert(long, "n", urlA, nil))
		next()
		f.commit(t, dids.Update(row(3, 7, "1"), row(3, long, "1"))) // the old owner is told
		if got := f.events(t); len(got) != 5 || !strings.HasPrefix(got[4], "7 _1 dids:3 delete") {
			t.Errorf("%d events: %.100s", len(got), got[len(got)-1])
		}
		f.wantSkipped(t, map[string]int{"account_id_too_long": 3})
		wantLines(t, all[string](t, f.world, "SELECT format('%s %s %s', schema, left(key, 10), reason) FROM walhook.unrouted ORDER BY commit_lsn, ordinal"),
			"dids 2 account_id_too_long", "users sha256:c59 account_id_too_long", "dids 3 account_id_too_long")
		if n := f.count(t, "endpoint"); n != 2 {
			t.Errorf("%d endpoints", n)
		}
	})
}
