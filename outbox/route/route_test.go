package route

import (
	"strconv"
	"testing"

	"walhook/schemas"
)

func TestRoute_RecordGoesToTheAccountInItsOwnerColumn(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), account(8))
		f.forget()
		next()
		f.commit(dids.Insert(1, 7, "312"), dids.Insert(2, 8, "313"))
		next()
		f.commit(dids.Update(row(1, 7, "312"), row(1, 7, "314")))
		next()
		f.commit(dids.Delete(1, 7, "314"))
		wantLines(t, f.events(),
			`7 _1 dids:1 insert dids {'id':1,'user_id':7,'number':'312'}`,
			`8 _2 dids:2 insert dids {'id':2,'user_id':8,'number':'313'}`,
			`7 _1 dids:1 update dids {'id':1,'user_id':7,'number':'314'}`,
			`7 _1 dids:1 delete dids {'id':1,'user_id':7,'number':'314'}`)
	})
}

func TestRoute_RecordGoesToItsParentsAccount(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), dids.Insert(1, 7, "312"))
		f.forget()
		next()
		f.commit(faxes.Insert(5, 1, "2"))
		next()
		f.commit(pages.Insert(9, 5))
		next()
		f.commit(faxes.Update(row(5, 1, "2"), row(5, 1, "3")))
		wantLines(t, f.events(),
			`7 _1 faxes:5 insert faxes {'id':5,'did_id':1,'pages':'2'}`,
			`7 _1 pages:9 insert pages {'id':9,'fax_id':5}`,
			`7 _1 faxes:5 update faxes {'id':5,'did_id':1,'pages':'3'}`)
	})
}

// Children that were never seen, such as those of before an owner's schema was
// known, are found through a parent that the same cascade deleted before.
func TestRoute_ParentDeletedBeforeItsUnknownChild(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), dids.Insert(1, 7, "312"))
		f.forget()
		f.commit(dids.Delete(1, 7, "312"))
		next() // a large transaction comes in chunks
		f.commit(faxes.Delete(5, 1, "2"))
		wantLines(t, f.events(),
			`7 _1 dids:1 delete dids {'id':1,'user_id':7,'number':'312'}`,
			`7 _1 faxes:5 delete faxes {'id':5,'did_id':1,'pages':'2'}`)
	})
}

func TestRoute_ChildBeforeItsParentInOneTransaction(t *testing.T) {
	f := newFeed(t)
	f.commit(account(7))
	f.forget()
	f.commit(pages.Insert(9, 5), faxes.Insert(5, 1, "2"), dids.Insert(1, 7, "312"))
	wantLines(t, f.events(),
		`7 _1 pages:9 insert pages {'id':9,'fax_id':5}`,
		`7 _2 faxes:5 insert faxes {'id':5,'did_id':1,'pages':'2'}`,
		`7 _3 dids:1 insert dids {'id':1,'user_id':7,'number':'312'}`)
	f.wantSkipped(t, map[Reason]int{})
}

func TestRoute_ParentOfALaterTransactionDoesNotCount(t *testing.T) {
	f := newFeed(t)
	f.commit(account(7))
	f.forget()
	f.append(f.tx(faxes.Insert(5, 1, "2")), f.tx(dids.Insert(1, 7, "312")))
	wantLines(t, f.events(), `7 _1 dids:1 insert dids {'id':1,'user_id':7,'number':'312'}`)
	f.wantSkipped(t, map[Reason]int{SkipOwnerUnknown: 1})
}

// The key of a deleted parent is used again, by another account: a child that
// comes before the new parent is the new parent's.
func TestRoute_ChildBeforeAParentWhoseKeyServedAnother(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), account(8), dids.Insert(1, 7, "312"))
		f.commit(dids.Delete(1, 7, "312"))
		f.forget()
		next()
		f.commit(faxes.Insert(5, 1, "2"), dids.Insert(1, 8, "313"))
		wantLines(t, f.events(),
			`8 _1 faxes:5 insert faxes {'id':5,'did_id':1,'pages':'2'}`,
			`8 _2 dids:1 insert dids {'id':1,'user_id':8,'number':'313'}`)
	})
}

func TestRoute_MoveIsADeleteForTheOneAndAnInsertForTheOther(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), account(8), dids.Insert(1, 7, "312"))
		f.forget()
		next()
		f.commit(notes.Insert(1, 7, "x"), dids.Update(row(1, 7, "312"), row(1, 8, "399")))
		f.commit(dids.Update(row(1, 8, "399"), row(1, 8, "400")))
		wantLines(t, rest(f.events(), 1),
			`7 _2 dids:1 delete dids {'id':1,'user_id':7,'number':'312'}`,
			`8 _2b dids:1 insert dids {'id':1,'user_id':8,'number':'399'}`,
			`8 _1 dids:1 update dids {'id':1,'user_id':8,'number':'400'}`)
	})
}

// What an event is called depends on nothing but its change.
func TestRoute_WebhookIDOfAMoveIsTheSameWithoutTheOldOwnersEndpoint(t *testing.T) {
	f := newFeed(t)
	f.commit(account(8))
	f.forget()
	f.commit(dids.Update(row(1, 7, "312"), row(1, 8, "399")))
	wantLines(t, f.events(), `8 _1b dids:1 insert dids {'id':1,'user_id':8,'number':'399'}`)
}

func TestRoute_ComingFromOrGoingToNoOwnerIsAnInsertOrADelete(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), dids.Insert(1, nil, "312"))
		f.forget()
		next()
		f.commit(dids.Update(row(1, nil, "312"), row(1, nil, "313"))) // nobody's, still
		f.commit(dids.Update(row(1, nil, "313"), row(1, 7, "313")))
		next()
		f.commit(dids.Update(row(1, 7, "313"), row(1, nil, "314")))
		f.commit(dids.Delete(1, nil, "314"))
		wantLines(t, f.events(),
			`7 _1 dids:1 insert dids {'id':1,'user_id':7,'number':'313'}`,
			`7 _1 dids:1 delete dids {'id':1,'user_id':7,'number':'313'}`)
	})
}

func TestRoute_ChildOfAMovedParentMovesWithItsOwnNextChange(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), account(8), dids.Insert(1, 7, "312"), faxes.Insert(5, 1, "2"), faxes.Insert(6, 1, "2"))
		f.forget()
		next()
		f.commit(dids.Update(row(1, 7, "312"), row(1, 8, "312")))
		f.forget()
		next()
		f.commit(faxes.Update(row(5, 1, "2"), row(5, 1, "3")))
		next()
		f.commit(faxes.Update(row(5, 1, "3"), row(5, 1, "4")))
		next()
		f.commit(faxes.Delete(6, 1, "2")) // known to 7 only
		wantLines(t, f.events(),
			`7 _1 faxes:5 delete faxes {'id':5,'did_id':1,'pages':'2'}`,
			`8 _1b faxes:5 insert faxes {'id':5,'did_id':1,'pages':'3'}`,
			`8 _1 faxes:5 update faxes {'id':5,'did_id':1,'pages':'4'}`,
			`7 _1 faxes:6 delete faxes {'id':6,'did_id':1,'pages':'2'}`)
	})
}

func TestRoute_ChangeOfKeyIsADeleteAndAnInsert(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), account(8), dids.Insert(1, 7, "312"), notes.Insert(3, 7, "x"), faxes.Insert(5, 1, "2"))
		f.forget()
		next()
		f.commit(
			dids.Update(row(1, 7, "312"), row(2, 7, "312")),
			notes.Update(row(3, notSent, notSent), row(4, 7, "x")), // the default identity sends the old key
			faxes.Update(row(5, 1, "2"), row(6, 2, "2")))
		next()
		f.commit(dids.Update(row(2, 7, "312"), row(3, 8, "312"))) // to another account, too
		wantLines(t, f.events(),
			`7 _1 dids:1 delete dids {'id':1,'user_id':7,'number':'312'}`,
			`7 _1b dids:2 insert dids {'id':2,'user_id':7,'number':'312'}`,
			`7 _2 notes:3 delete notes {'id':3}`,
			`7 _2b notes:4 insert notes {'id':4,'note':'x'}`,
			`7 _3 faxes:5 delete faxes {'id':5,'did_id':1,'pages':'2'}`,
			`7 _3b faxes:6 insert faxes {'id':6,'did_id':2,'pages':'2'}`,
			`7 _1 dids:2 delete dids {'id':2,'user_id':7,'number':'312'}`,
			`8 _1b dids:3 insert dids {'id':3,'user_id':8,'number':'312'}`)
	})
}

func TestRoute_ValueThatWasNotSentIsAbsent(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(account(7), dids.Insert(1, 7, "312"), notes.Insert(2, 7, "x"))
		f.forget()
		next()
		f.commit(dids.Update(row(1, 7, notSent), row(1, 7, notSent)))
		next()
		f.commit(notes.Update(nil, row(2, notSent, nil))) // not even the owner
		wantLines(t, f.events(),
			`7 _1 dids:1 update dids {'id':1,'user_id':7}`,
			`7 _1 notes:2 update notes {'id':2,'note':null}`)
	})
}

// One batch may hold more records than a generation of the cache.
func TestRoute_OwnersOfALargeBatchAreAllKnown(t *testing.T) {
	const records = OwnerGeneration + 15_000
	f := newFeed(t)
	f.commit(account(7))
	var changes []schemas.Change
	for id := range records {
		f.owners[RecordKey{"notes", strconv.Itoa(id)}] = Ownership{Account: "7"}
		changes = append(changes, notes.Delete(id, notSent, notSent))
	}
	f.forget()
	f.commit(changes...)
	f.wantSkipped(t, map[Reason]int{})
	if n := len(f.log); n != records || f.asked != records {
		t.Errorf("%d events, %d records are looked for, want %d", n, f.asked, records)
	}
}
