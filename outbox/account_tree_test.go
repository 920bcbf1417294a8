package outbox

import (
	"fmt"
	"strings"
	"testing"

	"walhook/schemas"
)

// members is the account table with the column of the account above.
var members = newTable("users", 'f', "id name web_hook_url web_hook_secret reseller_id")

func member(id int, parent any) schemas.Tuple {
	return row(id, "n", fmt.Sprint("https://example.com/", id), nil, parent)
}

func memberInsert(id int, parent any) schemas.Change {
	return schemas.Change{Kind: schemas.Insert, Relation: members.Relation, New: member(id, parent)}
}

const treeSQL = "SELECT format('%s under %s', id, parent) FROM walhook.account WHERE ended_in IS NULL ORDER BY id"

func (f *feed) wantTree(t *testing.T, want ...string) {
	t.Helper()
	wantLines(t, all[string](t, f.world, treeSQL), want...)
	if n := len(f.publisher.view.Parents); n != len(want) {
		t.Errorf("the publisher knows %d accounts under another, want %d", n, len(want))
	}
}

func TestAccounts_TheOneAboveIsFollowedInCommitOrder(t *testing.T) {
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
	f.snapshot(t, 0x9000, func(w *SnapshotWriter) error {
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

// Ids and keys may be longer than an index entry.
func TestRoute_WhatIsTooLongForAnIndexIsNamedOtherwiseOrListed(t *testing.T) {
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
