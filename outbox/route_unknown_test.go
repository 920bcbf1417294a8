package outbox

import (
	"testing"

	"walhook/outbox/route"
	"walhook/schemas"
)

// The tables of the small catalog while a column of theirs has another name.
var (
	didsRenamed  = newTable("dids", 'f', "id account_id number")
	faxesRenamed = newTable("faxes", 'f', "id number_id pages")
	notesRenamed = newTable("notes", 'd', "id account_id note")
)

func (f *feed) unrouted(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, "SELECT format('%s %s %s %s', schema, type, key, reason) FROM walhook.unrouted ORDER BY commit_lsn, ordinal")
}

func TestRoute_NothingIsSentWhileTheOwnerColumnIsMissing(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8), dids.Insert(1, 7, "312"), dids.Insert(2, 7, "313"),
			faxes.Insert(5, 1, "2"), pages.Insert(9, 5), faxes.Insert(6, 2, "2"), notes.Insert(4, 7, "x"))
		f.forget(t)
		next()
		f.commit(t, didsRenamed.Update(row(1, 7, "312"), row(1, 8, "312")), notesRenamed.Update(nil, row(4, 8, "y")))
		next()
		f.commit(t, didsRenamed.Update(row(1, 8, "312"), row(1, 8, "secret of 8")), faxes.Update(row(5, 1, "2"), row(5, 1, "secret")),
			faxes.Insert(7, 1, "secret"), pages.Insert(10, 5), pages.Update(row(9, 5), row(9, 5)), didsRenamed.Insert(3, 8, "secret"), faxes.Insert(8, 3, "secret"))
		f.commit(t, faxes.Update(row(6, 2, "2"), row(6, 2, "3"))) // its parent did not change
		wantLines(t, f.events(t), `7 _1 faxes:6 update faxes {'id':6,'did_id':2,'pages':'3'}`)
		next()
		f.commit(t, notesRenamed.Delete(4, notSent, notSent), faxes.Delete(5, 1, "secret"))
		wantLines(t, f.events(t), `7 _1 faxes:6 update faxes {'id':6,'did_id':2,'pages':'3'}`)
		wantLines(t, f.unrouted(t),
			"dids update 1 owner_column_missing", "notes update 4 owner_column_missing",
			"dids update 1 owner_column_missing", "faxes update 5 owner_unknown", "faxes insert 7 owner_unknown",
			"pages insert 10 owner_unknown", "pages update 9 owner_unknown", "dids insert 3 owner_column_missing", "faxes insert 8 owner_unknown",
			"notes delete 4 owner_column_missing", "faxes delete 5 owner_unknown")
		next()

		// The column is back: who had the record last is told the key alone.
		f.forget(t)
		f.commit(t, dids.Update(row(1, 8, "secret of 8"), row(1, 8, "secret of 8")), faxes.Update(row(7, 1, "secret"), row(7, 1, "more")),
			dids.Update(row(3, 8, "secret"), row(3, 8, "more")))
		wantLines(t, f.events(t),
			`7 _1 dids:1 delete dids {'id':1}`,
			`8 _1b dids:1 insert dids {'id':1,'user_id':8,'number':'secret of 8'}`,
			`8 _2 faxes:7 update faxes {'id':7,'did_id':1,'pages':'more'}`,
			`8 _3 dids:3 update dids {'id':3,'user_id':8,'number':'more'}`)
	})
}

func TestRoute_NothingIsSentWhileTheColumnOfTheParentIsMissing(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8), dids.Insert(1, 7, "312"), dids.Insert(2, 8, "313"), faxes.Insert(5, 1, "2"))
		f.forget(t)
		next()
		f.commit(t, faxesRenamed.Update(row(5, 1, "2"), row(5, 2, "secret of 8")), faxesRenamed.Insert(6, 2, "secret"))
		next()
		f.commit(t, pages.Insert(9, 5))
		wantLines(t, f.events(t))
		next()
		f.commit(t, faxes.Delete(5, 2, "secret of 8"))
		wantLines(t, f.events(t), `7 _1 faxes:5 delete faxes {'id':5}`)
	})
}

// A record whose owner could not be told is deleted after the column is back.
func TestRoute_TheLastKnownAccountGetsADeleteWithTheKeyAlone(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8), dids.Insert(1, 7, "312"), dids.Insert(2, 7, "313"))
		f.forget(t)
		f.commit(t, didsRenamed.Update(row(1, 7, "312"), row(1, 8, "secret")), didsRenamed.Update(row(2, 7, "313"), row(2, 7, "314")))
		next()
		f.commit(t, dids.Delete(1, 8, "secret"), dids.Delete(2, 7, "314"))
		wantLines(t, f.events(t), `7 _1 dids:1 delete dids {'id':1}`, `7 _2 dids:2 delete dids {'id':2,'user_id':7,'number':'314'}`)
	})
}

var (
	usersNoURL    = newTable("users", 'f', "id name callback web_hook_secret")
	usersNoID     = newTable("users", 'f', "uid name web_hook_url web_hook_secret")
	usersReseller = newTable("users", 'f', "id name web_hook_url web_hook_secret reseller_id")
	usersNoParent = newTable("users", 'f', "id name web_hook_url web_hook_secret above_id")
)

func TestRoute_AnAccountIsHeldWhileItsURLIsNotKnown(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8))
		f.forget(t)
		states := func() []string {
			return all[string](t, f.world, "SELECT concat_ws(' ', account, state, url, nullif(reason, '')) FROM walhook.endpoint ORDER BY account")
		}
		f.commit(t, usersNoURL.Update(row(7, "n", "https://example.com/7", nil), row(7, "n", "https://example.com/new", nil)),
			usersNoURL.Update(row(8, "n", "https://example.com/8", nil), row(8, "m", "https://example.com/8", nil)))
		wantLines(t, states(), "7 unusable "+reasonUnknown, "8 active https://example.com/8")
		next()
		f.commit(t, dids.Insert(1, 7, "312"), usersNoURL.Update(row(7, "n", "x", nil), row(7, "n", "y", nil))) // held, not lost
		wantLines(t, f.unrouted(t), "users update 7 account_column_missing")
		next()
		f.commit(t, users.Update(row(7, "n", "https://example.com/new", nil), row(7, "o", "https://example.com/new", nil)))
		wantLines(t, states(), "7 active https://example.com/new", "8 active https://example.com/8")
		if lines := f.events(t); len(lines) != 5 {
			t.Errorf("events %q, want all five", lines)
		}
	})
}

func TestRoute_AnAccountWhoseIDIsNotSentIsHeldWhenItsURLChanges(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	f.forget(t)
	f.commit(t, usersNoID.Update(row(7, "n", "https://example.com/7", nil), row(7, "n", "https://example.com/new", nil)), usersNoID.Delete(8, "n", "https://example.com/8", nil))
	wantLines(t, all[string](t, f.world, "SELECT account || state FROM walhook.endpoint ORDER BY account"), "7unusable", "8active")
	wantLines(t, f.events(t))
	wantLines(t, f.unrouted(t), "users update 7 owner_column_missing", "users delete 8 owner_column_missing")
}

func TestRoute_NoParentAccountIsAssumedWhileItIsUnknown(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, usersReseller.Insert(7, "n", nil, nil, 100))
		next()
		f.commit(t, usersNoParent.Update(row(7, "n", nil, nil, 100), row(7, "n", nil, nil, 200)))
		next()
		wantLines(t, all[string](t, f.world, "SELECT id FROM walhook.account"))
		wantLines(t, f.unrouted(t), "users update 7 account_column_missing")
	})
}

func TestRoute_AKeyThatIsNotSentWholeNamesNothing(t *testing.T) {
	didsKeyCut := newTable("dids", 'f', "id user_id number")
	didsKeyCut.Relation.KeyCut = true
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), dids.Insert(1, 7, "312"), faxes.Insert(5, 1, "2"))
		f.forget(t)
		next()
		f.commit(t, didsKeyCut.Insert(1, 7, "a"), didsKeyCut.Update(row(1, 7, "a"), row(1, 7, "b")), faxes.Insert(6, 1, "2"), didsKeyCut.Delete(1, 7, "b"))
		wantLines(t, f.events(t))
		wantLines(t, f.unrouted(t), "dids insert  no_key", "dids update  no_key", "faxes insert 6 owner_unknown", "dids delete  no_key")
		f.wantSkipped(t, map[string]int{route.SkipNoKey: 3, route.SkipOwnerUnknown: 1})
	})
}

func TestRoute_RecordsWithoutAKeyDoNotShareAName(t *testing.T) {
	notesKeyless := newTable("notes", 'f', "id user_id note")
	notesKeyless.Relation.PrimaryKey = nil
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	f.forget(t)
	f.commit(t, notesKeyless.Insert(1, 7, "x"), notesKeyless.Insert(1, 7, "x"), notesKeyless.Update(row(1, 7, "x"), row(1, 8, "y")))
	wantLines(t, f.events(t),
		`7 _1 notes:0/1200#1 insert notes {'id':1,'note':'x'}`,
		`7 _2 notes:0/1200#2 insert notes {'id':1,'note':'x'}`,
		`7 _3 notes:0/1200#3 delete notes {'id':1,'note':'x'}`,
		`8 _3b notes:0/1200#3 insert notes {'id':1,'note':'y'}`)
}

// A key column of the catalog that is null or missing names nothing.
func TestRoute_AKeyOfTheCatalogThatIsIncompleteNamesNothing(t *testing.T) {
	f := newFeedOf(t, newWorld(t), "account: {table: users, id: id, url: web_hook_url}\n"+
		"schemas: {dids: {table: dids, key: [id, number], owner: user_id, fields: [id, number]}}\n")
	f.commit(t, account(7), dids.Insert(1, 7, "312"), dids.Insert(1, 7, nil), newTable("dids", 'f', "id user_id no").Insert(1, 7, "313"))
	wantLines(t, f.events(t), `7 _2 dids:1:13:312 insert dids {'id':1,'number':'312'}`)
	wantLines(t, f.unrouted(t), "dids insert  no_key", "dids insert  no_key")
}

// Where another index than the primary key's is the replica identity, its
// columns name the record: a move reaches both, and a delete has a name.
func TestRoute_TheIndexOfTheReplicaIdentityServesAsTheKey(t *testing.T) {
	for name, primary := range map[string][]int{"no primary key": nil, "another primary key": {0}} {
		t.Run(name, func(t *testing.T) {
			byIndex := newTable("notes", schemas.IdentityIndex, "id user_id note")
			byIndex.Relation.PrimaryKey = primary
			byIndex.Relation.Columns[0].Key, byIndex.Relation.Columns[2].Key = false, true
			f := newFeed(t)
			f.commit(t, account(7), account(8))
			f.forget(t)
			f.commit(t, byIndex.Insert(1, 7, "x"))
			f.restart(t)
			f.commit(t, byIndex.Update(nil, row(1, 8, "x")), byIndex.Delete(notSent, notSent, "x"))
			wantLines(t, f.events(t),
				`7 _1 notes:x insert notes {'id':1,'note':'x'}`,
				`7 _1 notes:x delete notes {'note':'x'}`,
				`8 _1b notes:x insert notes {'id':1,'note':'x'}`,
				`8 _2 notes:x delete notes {'note':'x'}`)
		})
	}
}
