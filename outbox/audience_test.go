package outbox

import (
	"fmt"
	"testing"

	"walhook/schemas"
)

// webhook makes an endpoint as the API does; set are columns and their values.
func (f *feed) webhook(t *testing.T, account, id string, set ...string) {
	t.Helper()
	f.exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret) VALUES ($1, $2, 'https://example.com/', 'active', 'whsec_eA==')`, account, id)
	for _, one := range set {
		f.exec(t, "UPDATE walhook.endpoint SET "+one+" WHERE account = $1 AND webhook = $2", account, id)
	}
	f.touch(t)
}

// touch says that webhooks were changed.
func (f *feed) touch(t *testing.T) {
	t.Helper()
	f.exec(t, "UPDATE walhook.webhooks_version SET version = version + 1")
}

// told lists the log, a line each: account/webhook, webhook-id without the
// commit's place, record and type.
func (f *feed) told(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, `
		SELECT format('%s/%s %s %s %s', p.account, p.webhook, substring(e.webhook_id FROM '_[0-9]+[a-z]*$'), e.record, e.type)
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
}

const follows = "include_subaccounts = true"

func memberDelete(id int, parent any) schemas.Change {
	return schemas.Change{Kind: schemas.Delete, Relation: members.Relation, Old: member(id, parent)}
}

func TestRecipients_WebhooksOfTheAccountGetTheRecordFeed(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8))
		f.forget(t)
		next()
		f.webhook(t, "7", "a")
		f.webhook(t, "7", "b", "schemas = '{dids,sms_enablement}'", "types = '{insert,update}'")
		f.webhook(t, "7", "other", "hook = 'channel_create'")
		f.webhook(t, "9", "alone") // an account that set no URL of its own
		f.commit(t, dids.Insert(1, 7, "312"), dids.Delete(1, 7, "312"), notes.Insert(4, 7, "x"), dids.Insert(2, 8, "313"), dids.Insert(3, 9, "314"),
			message(`{"user_id":7,"schema":"sms_enablement","type":"update","status":"ok"}`))
		wantLines(t, f.told(t),
			"7/account _1 dids:1 insert", "7/a _1 dids:1 insert", "7/b _1 dids:1 insert",
			"7/account _2 dids:1 delete", "7/a _2 dids:1 delete",
			"7/account _3 notes:4 insert", "7/a _3 notes:4 insert",
			"8/account _4 dids:2 insert",
			"9/alone _5 dids:3 insert",
			"7/account _6 result/sms_enablement update", "7/a _6 result/sms_enablement update", "7/b _6 result/sms_enablement update")
		f.wantSkipped(t, map[string]int{})
	})
}

func TestRecipients_ChangesThroughTheAPIAreSeenByTheNextAppend(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", nil, nil))
	f.webhook(t, "7", "a")
	f.commit(t, dids.Insert(1, 7, "312"))
	f.exec(t, "UPDATE walhook.endpoint SET types = '{delete}', revision = 5")
	f.touch(t)
	f.commit(t, dids.Insert(2, 7, "312"), dids.Delete(1, 7, "312"))
	f.exec(t, "UPDATE walhook.endpoint SET deleted_at = now(), state = 'cleared', url = NULL, reason = 'deleted'")
	f.touch(t)
	f.commit(t, dids.Delete(2, 7, "312"))
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s', record, endpoint_revision) FROM walhook.event ORDER BY id"), "dids:1 1", "dids:1 5")
}

func TestRecipients_ParentAccountsFollowTheirSubaccounts(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2), memberInsert(4, nil))
		f.webhook(t, "1", "top", follows)
		f.webhook(t, "1", "own")
		f.webhook(t, "2", "middle", follows)
		f.webhook(t, "4", "stranger", follows)
		f.forget(t)
		next()
		f.commit(t, dids.Insert(1, 3, "312"), dids.Insert(2, 1, "313"))
		wantLines(t, f.told(t),
			"3/account _1 dids:1 insert", "2/middle _1 dids:1 insert", "1/top _1 dids:1 insert",
			"1/account _2 dids:2 insert", "1/top _2 dids:2 insert", "1/own _2 dids:2 insert")
		f.forget(t)
		next()

		// A moved account's events stop at the commit that moves it.
		f.commit(t, dids.Insert(3, 3, "1"), members.Update(member(3, 2), member(3, 4)), dids.Insert(4, 3, "2"))
		next()
		f.commit(t, dids.Insert(5, 3, "3"))
		wantLines(t, f.told(t),
			"3/account _1 dids:3 insert", "2/middle _1 dids:3 insert", "1/top _1 dids:3 insert",
			"3/account _2 users:3 update", "4/stranger _2 users:3 update",
			"3/account _3 dids:4 insert", "4/stranger _3 dids:4 insert",
			"3/account _1 dids:5 insert", "4/stranger _1 dids:5 insert")
	})
}

// A cascade deletes the account first: those above it are told of the rest of
// the transaction, also when that comes in another batch.
func TestRecipients_ParentAccountsGetTheRestOfADeletedAccountsTransaction(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, memberInsert(1, nil), memberInsert(2, 1), memberInsert(3, 2), dids.Insert(1, 2, "1"), dids.Insert(2, 2, "1"), dids.Insert(3, 3, "1"))
		f.webhook(t, "1", "top", follows)
		f.webhook(t, "2", "own")
		f.forget(t)
		next()
		whole := f.tx(memberDelete(2, 1), dids.Delete(1, 2, "1"), dids.Delete(3, 3, "1"), dids.Delete(2, 2, "1"))
		f.append(t, batch(whole[:2]))
		next()
		f.append(t, batch(whole[2:]))
		next()
		f.commit(t, dids.Insert(9, 2, "1"), dids.Insert(10, 3, "1")) // what is under it has nobody above now
		next()
		f.commit(t, memberInsert(2, 1), dids.Insert(11, 2, "1")) // there again
		wantLines(t, f.told(t),
			"2/ended-2 _1 users:2 delete", "2/own _1 users:2 delete", "1/top _1 users:2 delete",
			"1/top _2 dids:1 delete",
			"3/account _3 dids:3 delete", "1/top _3 dids:3 delete",
			"1/top _4 dids:2 delete",
			"3/account _2 dids:10 insert",
			"2/account _1 users:2 insert", "1/top _1 users:2 insert",
			"2/account _2 dids:11 insert", "1/top _2 dids:11 insert")
		f.wantTree(t, "2 under 1", "3 under 2")
		if n := f.count(t, "account WHERE ended_in IS NOT NULL"); n != 0 {
			t.Errorf("%d accounts are kept as deleted", n)
		}
	})
}

func TestRecipients_LoopsInTheAccountTreeAreCut(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(1, 3), memberInsert(2, 1), memberInsert(3, 2), memberInsert(4, 3))
	for id := range 4 {
		f.webhook(t, fmt.Sprint(id+1), "w", follows)
	}
	f.forget(t)
	f.commit(t, dids.Insert(1, 2, "1"), dids.Insert(2, 4, "1"))
	wantLines(t, f.told(t),
		"2/account _1 dids:1 insert", "2/w _1 dids:1 insert", "1/w _1 dids:1 insert", "3/w _1 dids:1 insert",
		"4/account _2 dids:2 insert", "4/w _2 dids:2 insert", "3/w _2 dids:2 insert", "2/w _2 dids:2 insert", "1/w _2 dids:2 insert")
}

func TestRecipients_ASnapshotEndsTheWebhooksOfDeletedAccountsForGood(t *testing.T) {
	f := newFeed(t)
	f.webhook(t, "7", "a")
	f.webhook(t, "8", "b")
	states := func(want ...string) {
		t.Helper()
		wantLines(t, all[string](t, f.world, "SELECT format('%s %s', account, ended_at IS NOT NULL) FROM walhook.endpoint WHERE webhook <> 'account' ORDER BY 1"), want...)
	}
	f.snapshot(t, 0x2000, load(t, map[string]string{"7": ""}))
	states("7 f", "8 t")
	f.snapshot(t, 0x2100, load(t, map[string]string{"7": "", "8": urlA}))
	states("7 f", "8 t")
}

func TestRecipients_ObjectEventsFollowTheRecordsOwn(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8), dids.Insert(1, 7, "1"))
		f.webhook(t, "7", "a", "hook = 'object'")
		f.webhook(t, "8", "b", "hook = 'object'", "object_action = 'doc_created'")
		f.forget(t)
		next()
		f.commit(t, dids.Update(row(1, 7, "1"), row(1, 7, "2")))
		f.commit(t, dids.Update(row(1, 7, "2"), row(1, 8, "2")), users.Delete(7, "n", urlA, nil))
		wantLines(t, f.told(t),
			"7/account _1 dids:1 update", "7/a _1b object/dids:1 doc_edited",
			"7/account _1 dids:1 delete", "8/account _1b dids:1 insert",
			"7/a _1c object/dids:1 doc_deleted", "8/b _1d object/dids:1 doc_created",
			"7/account _2 users:7 delete", "7/a _2b object/users:7 doc_deleted")
	})
}
