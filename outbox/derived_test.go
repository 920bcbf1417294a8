package outbox

import (
	"strings"
	"testing"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// billingCatalog has rules about records of each way to be owned, and asks for
// columns of the account.
const billingCatalog = `
account: {table: users, id: id, url: web_hook_url, parent: reseller_id}
schemas:
  users: {table: users, owner: id, fields: [id, name, web_hook_url]}
  dids: {table: dids, owner: user_id, fields: [id, user_id, number]}
  faxes: {table: faxes, owner: {column: did_id, schema: dids}, fields: [id, did_id, pages]}
  notes: {table: notes, owner: user_id, fields: [id, note]}
derive:
  - hook: number
    groups: [billing, all_numbers]
    schema: dids
    when: {added: insert, removed: delete, renumbered: {changed: number}}
    fields: {account: {owner: number}, what: {case: name}, count: {count: 1}, sku: {account: sku}, plan: {account: plan, default: none}}
  - hook: number_list
    schema: dids
    when: {x: [insert, delete, changed]}
    fields: {updated_fields: {changed: fields}}
  - hook: fax
    groups: [billing]
    schema: faxes
    when: {sent: insert}
    fields: {account: {owner: text}, pages: {count: pages}, sku: {account: sku}}
  - hook: note
    schema: notes
    when: {changed: changed}
    fields: {note: {column: note}}
  - hook: account
    schema: users
    when: {new: insert, updated: changed, deleted: delete}
    fields: {id: {owner: number}, action: {case: name}, name: {column: name, default: ""}}
`

// payers is the account table with what the rules ask for.
var payers = newTable("users", 'f', "id name web_hook_url reseller_id sku plan")

func payer(id int, parent, sku, plan any) schemas.Tuple {
	return row(id, "n", nil, parent, sku, plan)
}

func newBilling(t *testing.T) *feed {
	t.Helper()
	return newFeedOf(t, newWorld(t), billingCatalog)
}

// sent lists the log, a line each: webhook, webhook-id without the commit's
// place, schema and type, and the body.
func (f *feed) sent(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, `
		SELECT format('%s %s %s/%s %s', p.webhook, substring(e.webhook_id FROM '_[0-9]+[a-z]*$'), e.schema, e.type, convert_from(e.body, 'UTF8'))
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
}

// eitherWayBilling runs a test with a publisher that saw what came before, and
// with one that has to read it back for each batch.
func eitherWayBilling(t *testing.T, run func(t *testing.T, f *feed, next func())) {
	t.Helper()
	t.Parallel()
	t.Run("remembering", func(t *testing.T) { f := newBilling(t); run(t, f, func() {}) })
	t.Run("restarted", func(t *testing.T) { f := newBilling(t); run(t, f, func() { f.restart(t) }) })
}

func TestDerived_EventsFollowTheRecordsOwn(t *testing.T) {
	eitherWayBilling(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, payers.Insert(7, "n", urlA, nil, `S-1`, nil))
		f.webhook(t, "7", "number", "hook = 'number'")
		f.webhook(t, "7", "billing", "hook = 'billing'", "format = 'form'")
		f.webhook(t, "7", "list", "hook = 'number_list'")
		f.forget(t)
		next()
		f.commit(t, dids.Insert(1, 7, "312"))
		next()
		f.commit(t, dids.Update(row(1, 7, "312"), row(1, 7, "313")), faxes.Insert(5, 1, "2"), dids.Delete(1, 7, "313"))
		wantLines(t, f.sent(t),
			`account _1 dids/insert {"type":"insert","schema":"dids","data":"{\"id\":1,\"user_id\":7,\"number\":\"312\"}"}`,
			`number _1c number/added {"account":7,"what":"added","count":1,"sku":"S-1","plan":"none"}`,
			`billing _1c number/added {"account":7,"what":"added","count":1,"sku":"S-1","plan":"none"}`,
			`list _1d number_list/x {"updated_fields":[]}`,
			`account _1 dids/update {"type":"update","schema":"dids","data":"{\"id\":1,\"user_id\":7,\"number\":\"313\"}"}`,
			`number _1c number/renumbered {"account":7,"what":"renumbered","count":1,"sku":"S-1","plan":"none"}`,
			`billing _1c number/renumbered {"account":7,"what":"renumbered","count":1,"sku":"S-1","plan":"none"}`,
			`list _1d number_list/x {"updated_fields":["number"]}`,
			`account _2 faxes/insert {"type":"insert","schema":"faxes","data":"{\"id\":5,\"did_id\":1,\"pages\":\"2\"}"}`,
			`billing _2c fax/sent {"account":"7","pages":2,"sku":"S-1"}`,
			`account _3 dids/delete {"type":"delete","schema":"dids","data":"{\"id\":1,\"user_id\":7,\"number\":\"313\"}"}`,
			`number _3c number/removed {"account":7,"what":"removed","count":1,"sku":"S-1","plan":"none"}`,
			`billing _3c number/removed {"account":7,"what":"removed","count":1,"sku":"S-1","plan":"none"}`,
			`list _3d number_list/x {"updated_fields":[]}`)
		if formats := all[string](t, f.world, "SELECT DISTINCT schema || ' ' || format FROM walhook.event ORDER BY 1"); strings.Join(formats, ",") !=
			"dids ,fax json,faxes ,number json,number_list json" {
			t.Errorf("formats are %v", formats)
		}
	})
}

// An event is called the same whoever listens.
func TestDerived_WebhookIDIsTheSameWithoutTheOtherListeners(t *testing.T) {
	f := newBilling(t)
	f.webhook(t, "7", "list", "hook = 'number_list'")
	f.commit(t, dids.Insert(1, 7, "312"))
	wantLines(t, f.sent(t), `list _1d number_list/x {"updated_fields":[]}`)
}

func TestDerived_AMoveIsARemovalForTheOneAndAnAdditionForTheOther(t *testing.T) {
	eitherWayBilling(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, payers.Insert(7, "n", nil, nil, "S-7", "p"), payers.Insert(8, "n", nil, nil, "S-8", "q"), dids.Insert(1, 7, "312"))
		f.webhook(t, "7", "a", "hook = 'number'")
		f.webhook(t, "8", "b", "hook = 'number'")
		next()
		f.commit(t, dids.Update(row(1, 7, "312"), row(1, 8, "312")))
		wantLines(t, f.sent(t),
			`a _1d number/removed {"account":7,"what":"removed","count":1,"sku":"S-7","plan":"p"}`,
			`b _1g number/added {"account":8,"what":"added","count":1,"sku":"S-8","plan":"q"}`)
	})
}

func TestDerived_TheAccountsColumnsAreThoseOfItsLatestRow(t *testing.T) {
	eitherWayBilling(t, func(t *testing.T, f *feed, next func()) {
		f.webhook(t, "7", "a", "hook = 'number'")
		f.commit(t, dids.Insert(1, 7, "1")) // an account that was never seen
		next()
		f.commit(t, payers.Insert(7, "n", nil, nil, "S-1", "p"), dids.Insert(2, 7, "2"))
		next()
		// In the middle of a batch, and what was not sent stays.
		f.append(t, batch(f.tx(dids.Insert(3, 7, "3")), f.tx(payers.Update(payer(7, nil, "S-1", notSent), payer(7, nil, "S-2", notSent)), dids.Insert(4, 7, "4")),
			f.tx(payers.Update(payer(7, nil, "S-2", notSent), payer(7, nil, nil, notSent)), dids.Insert(5, 7, "5"))))
		next()
		// A cascade deletes the account first; its columns stay known.
		f.commit(t, payers.Update(payer(7, nil, nil, "p"), payer(7, nil, "S-3", "p")))
		f.webhook(t, "1", "above", "hook = 'number'", follows)
		f.commit(t, payers.Update(payer(7, nil, "S-3", "p"), payer(7, 1, "S-3", "p")))
		next()
		f.append(t, batch(f.tx(schemas.Change{Kind: schemas.Delete, Relation: payers.Relation, Old: payer(7, 1, "S-3", "p")}, dids.Delete(5, 7, "5"))))
		wantLines(t, f.sent(t),
			`a _1c number/added {"account":7,"what":"added","count":1,"sku":null,"plan":"none"}`,
			`a _2c number/added {"account":7,"what":"added","count":1,"sku":"S-1","plan":"p"}`,
			`a _1c number/added {"account":7,"what":"added","count":1,"sku":"S-1","plan":"p"}`,
			`a _2c number/added {"account":7,"what":"added","count":1,"sku":"S-2","plan":"p"}`,
			`a _2c number/added {"account":7,"what":"added","count":1,"sku":null,"plan":"p"}`,
			`above _2c number/removed {"account":7,"what":"removed","count":1,"sku":"S-3","plan":"p"}`)
		wantLines(t, all[string](t, f.world, "SELECT account || ' ' || columns::text || ' ' || (deleted_at IS NOT NULL) FROM walhook.account_column"),
			`7 {"\"p\"","\"S-3\""} true`)
		next()
		f.commit(t, payers.Insert(7, "n", nil, nil, "S-3", "p"))
		if gone := f.count(t, "account_column WHERE deleted_at IS NOT NULL"); gone != 0 {
			t.Error("an account that is there again counts as deleted")
		}
		f.commit(t, payers.Truncate(), dids.Insert(6, 7, "6"))
		if kept := f.count(t, "account_column"); kept != 0 {
			t.Errorf("the columns of %d accounts of a truncated table are kept", kept)
		}
	})
}

func TestDerived_AccountColumnsComeFromTheSnapshotAndGoWithRetention(t *testing.T) {
	f := newBilling(t)
	f.commit(t, payers.Insert(8, "n", nil, nil, "old", "old"))
	f.snapshot(t, 0x9000, func(w catalog.SnapshotSink) error {
		return w.Account(t.Context(), schemas.Account{ID: "7", Columns: []string{`"p"`, `"S-1"`}})
	})
	f.commitLSN = 0x9000
	f.takeOver(t)
	f.webhook(t, "7", "a", "hook = 'number'")
	f.commit(t, dids.Insert(1, 7, "1"))
	wantLines(t, f.sent(t), `a _1c number/added {"account":7,"what":"added","count":1,"sku":"S-1","plan":"p"}`)
	wantLines(t, all[string](t, f.world, "SELECT account FROM walhook.account_column"), "7")
	f.commit(t, schemas.Change{Kind: schemas.Delete, Relation: payers.Relation, Old: payer(7, nil, "S-1", "p")})
	f.exec(t, "UPDATE walhook.account_column SET deleted_at = now() - interval '8 days'")
	if err := f.store.maintainOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept := f.count(t, "account_column"); kept != 0 {
		t.Error("the columns of an account that is long gone are kept")
	}
}

func TestDerived_RulesWithoutTheOldRowAreCountedAsSkipped(t *testing.T) {
	f := newBilling(t)
	f.webhook(t, "7", "a", "hook = 'note'")
	change := notes.Update(nil, row(1, 7, "x")) // the default replica identity keeps no old row
	f.commit(t, change)
	f.commit(t, notes.Update(nil, row(2, 7, "y")))
	f.wantSkipped(t, map[string]int{route.SkipOldRow: 2, route.SkipNoEndpoint: 2})
	if n := f.logs.FilterMessageSnippet("rules cannot be evaluated").Len(); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

func TestDerived_AnInvalidCountIsListed(t *testing.T) {
	f := newBilling(t)
	f.commit(t, dids.Insert(1, 7, "1"))
	f.webhook(t, "7", "now", "hook = 'fax'")
	f.webhook(t, "7", "daily", "hook = 'fax'", "delivery = 'daily'")
	f.commit(t, faxes.Insert(5, 1, "many"), faxes.Insert(6, 1, "3"))
	wantLines(t, f.sent(t), `now _2c fax/sent {"account":"7","pages":3,"sku":null}`)
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s %s', schema, type, reason) FROM walhook.unrouted"), "fax sent malformed_value", "fax sent malformed_value")
	if n := f.count(t, "daily_count WHERE n = 3"); n != 1 {
		t.Errorf("%d counts", n)
	}
}

func TestDerived_NothingIsEvaluatedWhereNobodyAsks(t *testing.T) {
	f := newBilling(t)
	f.webhook(t, "7", "a", "hook = 'records'")
	f.webhook(t, "7", "b", "hook = 'fax'")
	for schema, want := range map[string]bool{"dids": false, "faxes": true, "users": false} {
		if got := f.publisher.view.Derives(f.publisher.catalog.Schema(schema)); got != want {
			f.commit(t, dids.Insert(1, 7, "1"))
			if got := f.publisher.view.Derives(f.publisher.catalog.Schema(schema)); got != want {
				t.Errorf("%s: evaluated %t, want %t", schema, got, want)
			}
		}
	}
	f.webhook(t, "7", "c", "hook = 'all'")
	f.commit(t, dids.Insert(2, 7, "1"))
	if !f.publisher.view.Derives(f.publisher.catalog.Schema("dids")) {
		t.Error("a webhook that asks for all is not told of what is derived")
	}
}
