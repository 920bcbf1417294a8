package outbox

import (
	"strings"
	"testing"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// A foreign key's cascade deletes the parent first.
func TestRoute_ACascadeSendsADeleteOfEveryRecord(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), dids.Insert(1, 7, "312"), faxes.Insert(5, 1, "2"), pages.Insert(9, 5))
		f.forget(t)
		next()
		f.commit(t, dids.Delete(1, 7, "312"), faxes.Delete(5, 1, "2"), pages.Delete(9, 5))
		wantLines(t, f.events(t),
			`7 _1 dids:1 delete dids {'id':1,'user_id':7,'number':'312'}`,
			`7 _2 faxes:5 delete faxes {'id':5,'did_id':1,'pages':'2'}`,
			`7 _3 pages:9 delete pages {'id':9,'fax_id':5}`)
		if gone := f.count(t, "owner WHERE deleted_at IS NOT NULL"); gone != 3 {
			t.Errorf("%d edges are kept as deleted, want 3", gone)
		}
	})
}

// Under the default identity an old row says at most its key: whose the record
// was is remembered.
func TestRoute_DefaultIdentity(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8), notes.Insert(1, 7, "a"), notes.Insert(2, 7, "b"))
		f.forget(t)
		next()
		f.commit(t, notes.Update(nil, row(1, 7, "c")))
		f.commit(t, notes.Update(nil, row(1, 8, "d")))
		next()
		f.commit(t, notes.Update(nil, row(1, 8, "e")))
		f.commit(t, notes.Delete(1, notSent, notSent))
		next()
		f.commit(t, notes.Update(nil, row(2, nil, "f")))
		f.commit(t, notes.Update(nil, row(2, 8, "g")))
		wantLines(t, f.events(t),
			`7 _1 notes:1 update notes {'id':1,'note':'c'}`,
			`7 _1 notes:1 delete notes {'id':1}`,
			`8 _1b notes:1 insert notes {'id':1,'note':'d'}`,
			`8 _1 notes:1 update notes {'id':1,'note':'e'}`,
			`8 _1 notes:1 delete notes {'id':1}`,
			`7 _1 notes:2 delete notes {'id':2}`,
			`8 _1 notes:2 insert notes {'id':2,'note':'g'}`)
	})
}

func TestRoute_AccountsLastEventIsItsOwnDelete(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8), dids.Insert(1, 7, "312"), faxes.Insert(5, 1, "2"))
		f.forget(t)
		next()
		f.commit(t, faxes.Insert(6, 1, "2"), users.Delete(7, "n", "https://example.com/7", nil),
			dids.Delete(1, 7, "312"), faxes.Delete(5, 1, "2"), dids.Insert(2, 8, "315"))
		next()
		f.commit(t, faxes.Delete(6, 1, "2"))
		wantLines(t, f.events(t),
			`7 _1 faxes:6 insert faxes {'id':6,'did_id':1,'pages':'2'}`,
			`7 _2 users:7 delete users {'id':7,'name':'n','web_hook_url':'https://example.com/7'}`,
			`8 _5 dids:2 insert dids {'id':2,'user_id':8,'number':'315'}`)
		// What was appended is still delivered.
		if got := one[string](t, f.world, "SELECT state || (ended_at IS NOT NULL) FROM walhook.endpoint WHERE account = '7'"); got != "activetrue" {
			t.Errorf("endpoint is %s", got)
		}
	})
}

func TestRoute_AccountsWithoutAnEndpointStoreNothing(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", nil, nil), users.Insert(8, "n", "", nil), dids.Insert(1, 7, "312"), dids.Insert(2, nil, "313"), ghosts.Insert(1))
	wantLines(t, f.events(t))
	if n := f.count(t, "endpoint"); n != 0 {
		t.Errorf("%d endpoints", n)
	}
	f.wantSkipped(t, map[string]int{route.SkipNoEndpoint: 3, route.SkipNoOwner: 1, route.SkipNoTable: 1})
}

func TestRoute_UnknownOwnerIsListedAndCounted(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t, faxes.Insert(5, 1, "2"), faxes.Update(row(5, 1, "2"), row(5, 1, "3")), notes.Delete(4, notSent, notSent), dids.Insert(1, 7, "312"))
	wantLines(t, rest(f.events(t), 2), `7 _4 dids:1 insert dids {'id':1,'user_id':7,'number':'312'}`)
	f.wantSkipped(t, map[string]int{route.SkipOwnerUnknown: 1})
	wantLines(t, all[string](t, f.world, "SELECT format('%s#%s %s %s %s %s', commit_lsn, ordinal, schema, type, key, reason) FROM walhook.unrouted"),
		"0/1200#3 notes delete 4 owner_unknown")
}

func TestRoute_TruncateForgetsTheTableAndSendsNothing(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8), dids.Insert(1, 7, "312"), dids.Insert(2, 7, "313"), faxes.Insert(5, 1, "2"))
		f.forget(t)
		next()
		f.commit(t, dids.Insert(4, 7, "x"), dids.Truncate(), dids.Insert(3, 8, "314"), faxes.Insert(6, 3, "1"))
		next()
		f.commit(t, faxes.Insert(7, 2, "1"), faxes.Insert(8, 3, "1"))
		wantLines(t, rest(f.events(t), 1),
			`8 _3 dids:3 insert dids {'id':3,'user_id':8,'number':'314'}`,
			`8 _4 faxes:6 insert faxes {'id':6,'did_id':3,'pages':'1'}`,
			`8 _2 faxes:8 insert faxes {'id':8,'did_id':3,'pages':'1'}`)
		wantLines(t, all[string](t, f.world, "SELECT key FROM walhook.owner WHERE schema = 'dids'"), "3")
	})
}

// The account table need not be a schema: then its rows are followed and nobody
// is told of them.
func TestRoute_AccountsThatAreNoRecords(t *testing.T) {
	f := newFeed(t)
	catalog, err := catalog.Parse([]byte("account: {table: users, id: id, url: web_hook_url}\n" +
		"schemas: {dids: {table: dids, owner: user_id, fields: [id]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	f.exec(t, "DELETE FROM walhook.catalog") // by which it was set up
	f.publisher = f.store.Publisher(catalog)
	f.takeOver(t)
	f.commit(t, account(7), dids.Insert(1, 7, "312"), users.Update(row(7, "n", urlA, nil), row(9, "n", urlA, nil)),
		dids.Insert(2, 7, "312"), dids.Insert(3, 9, "312"), users.Delete(9, "n", urlA, nil), dids.Insert(4, 9, "312"), users.Truncate())
	wantLines(t, f.events(t), `7 _2 dids:1 insert dids {'id':1}`, `9 _5 dids:3 insert dids {'id':3}`)
	wantLines(t, all[string](t, f.world, "SELECT account || (ended_at IS NOT NULL) FROM walhook.endpoint ORDER BY 1"), "7true", "9true")
}

func TestRoute_TruncatedAccountsEnd(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8))
		f.forget(t)
		next()
		f.commit(t, users.Truncate(), dids.Insert(1, 7, "312"), account(8))
		next()
		f.commit(t, dids.Insert(2, 7, "312"), dids.Insert(3, 8, "312"))
		wantLines(t, f.events(t),
			`8 _3 users:8 insert users {'id':8,'name':'n','web_hook_url':'https://example.com/8'}`,
			`8 _2 dids:3 insert dids {'id':3,'user_id':8,'number':'312'}`)
	})
}

func TestRoute_TooLargeIsADeadLetterWithoutABody(t *testing.T) {
	f := newFeed(t, func(c *Config) { c.MaxEventBytes = 2000 })
	large := strings.Repeat("x", 3000)
	f.commit(t, users.Insert(7, "n", "https://example.com/7", nil), dids.Insert(1, 7, large), dids.Insert(2, 7, "312"))
	wantLines(t, rest(f.events(t), 1), `7 _3 dids:2 insert dids {'id':2,'user_id':7,'number':'312'}`)
	wantLines(t, all[string](t, f.world, `SELECT format('%s %s %s %s %s %s %s %s', p.account, d.record, substring(d.webhook_id FROM 21), d.schema, d.type,
		d.reason, d.body IS NULL, d.size > 3000) FROM walhook.dead_letter d JOIN walhook.endpoint p ON p.id = d.endpoint`),
		"7 dids:1 _2 dids insert too_large t t")
	f.wantSkipped(t, map[string]int{route.SkipTooLarge: 1})
	if ids := all[int64](t, f.world, "SELECT id FROM walhook.event UNION SELECT event_id FROM walhook.dead_letter ORDER BY 1"); len(ids) != 3 {
		t.Errorf("ids %v, want three", ids)
	}
}

func TestRoute_ValueThatCannotBeReadIsListed(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), dids.Insert(1, 7, "\xff\xfe"), dids.Insert(2, 7, "312"))
	wantLines(t, rest(f.events(t), 1), `7 _3 dids:2 insert dids {'id':2,'user_id':7,'number':'312'}`)
	f.wantSkipped(t, map[string]int{route.SkipMalformed: 1})
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s %s %s', schema, type, key, reason) FROM walhook.unrouted"),
		"dids insert 1 malformed_value")
}

// A source whose encoding is SQL_ASCII may send what is no text to the outbox:
// that costs the change, not the feed.
func TestRoute_BytesThatAreNoTextDoNotStopTheFeed(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7))
		f.forget(t)
		f.commit(t, dids.Insert("\xff", 7, "312"), notes.Insert("\xff", 7, "x"), notes.Insert(1, "\xff", "x"), notes.Insert(1, 7, "\xff"),
			faxes.Insert(5, "\xff", "1"), users.Insert("\xff", "n", urlA, nil), users.Insert(9, "n", "https://\xff/", "\xff"))
		next()
		f.commit(t, notes.Delete("\xff", notSent, notSent), dids.Insert(1, 7, "312"))
		lines := f.events(t)
		if n := len(lines); n == 0 || lines[n-1] != `7 _2 dids:1 insert dids {'id':1,'user_id':7,'number':'312'}` {
			t.Errorf("events %v", lines)
		}
	})
}

// Whose a record is follows from a change that was too long to be kept, as from
// any other; the change itself is listed, and everything else goes on.
func TestRoute_ALongChangeIsListedAndItsOwnerFollowed(t *testing.T) {
	f := newFeed(t)
	long := func(c schemas.Change) schemas.Change {
		c.Oversize = 1 << 30
		return c
	}
	f.commit(t, account(7), account(8), dids.Insert(1, 7, "312"), long(dids.Update(row(1, 7, notSent), row(1, 8, notSent))), faxes.Insert(5, 1, "2"),
		long(schemas.Change{Kind: schemas.Message, Prefix: schemas.MessagePrefix, Transactional: true}),
		long(schemas.Change{Kind: schemas.Message, Prefix: schemas.EventPrefix, Transactional: true}), long(dids.Insert(2, 8, notSent)))
	wantLines(t, rest(f.events(t), 2), `7 _3 dids:1 insert dids {'id':1,'user_id':7,'number':'312'}`, `8 _5 faxes:5 insert faxes {'id':5,'did_id':1,'pages':'2'}`)
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s %s %s %s', ordinal, schema, type, key, reason) FROM walhook.unrouted ORDER BY ordinal, type"),
		"4 dids delete 1 too_large", "4 dids insert 1 too_large", "6  message  too_large", "7  message  too_large", "8 dids insert 2 too_large")
}
