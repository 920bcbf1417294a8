package outbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"walhook/schemas"
)

const maskCatalog = `
account: {table: users, id: id, url: web_hook_url, parent: reseller_id}
schemas:
  users: {table: users, owner: id, fields: [id, name, web_hook_url, sms_post_url, support_link]}
  dids: {table: dids, owner: user_id, fields: [id, user_id, number]}
derive:
  - hook: account
    groups: [billing]
    schema: users
    when: {new: insert, updated: changed, deleted: delete}
    fields: {url: {column: web_hook_url}, before: {old: web_hook_url}, sms: {column: sms_post_url}, changed: {changed: fields}}
  - hook: number
    groups: [billing]
    schema: dids
    when: {added: insert}
    fields: {number: {column: number}, sms: {account: sms_post_url}, hook: {account: web_hook_url}, count: {count: 1}}
`

// An account above another follows it, and is shown neither the passwords nor
// the tokens of its URLs, in no kind of event; the account itself gets its row
// as it is.
func TestMask_OthersGetTheRowOfAnAccountWithoutWhatItsURLsKeepSecret(t *testing.T) {
	f := newFeedOf(t, newWorld(t), maskCatalog)
	table := newTable("users", 'f', "id name web_hook_url reseller_id sms_post_url support_link")
	const hook, sms, link = "https://u:hunter2@h.example/x?token=hunter2", "https://s.example/?key=hunter2", "https://w.example/?lang=en"
	child := func(name string, url any) schemas.Tuple { return row(7, name, url, 1, sms, link) }
	for _, account := range []string{"1", "7"} {
		for _, kind := range []string{"records", "object", "account", "number"} {
			f.webhook(t, account, kind+account, "hook = '"+kind+"'", "include_subaccounts = true")
		}
		f.webhook(t, account, "daily"+account, "hook = 'billing'", "delivery = 'daily'", "include_subaccounts = true")
	}
	f.commit(t, table.Insert(1, "r", nil, nil, nil, nil))
	f.forget(t)
	f.commit(t,
		table.Insert(7, "n", hook, 1, sms, link),
		table.Update(child("n", hook), child("m", "https://u:hunter2b@h.example/")),
		dids.Insert(5, 7, "312"),
		schemas.Change{Kind: schemas.Delete, Relation: table.Relation, Old: child("m", "https://u:hunter2b@h.example/")})
	bodies := func(account string) []string {
		return all[string](t, f.world, `SELECT e.schema || ' ' || convert_from(e.body, 'UTF8') FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint
			WHERE p.account = $1 ORDER BY e.id`, account)
	}
	above, own := bodies("1"), bodies("7")
	if len(above) < 10 || len(own) < 9 {
		t.Fatalf("%d events for the account above and %d for the account", len(above), len(own))
	}
	for _, body := range above {
		if strings.Contains(body, "hunter2") {
			t.Errorf("the account above gets %s", body)
		}
	}
	kept := strings.Join(own, "\n")
	for _, part := range []string{
		`\"web_hook_url\":\"` + hook + `\",\"sms_post_url\":\"` + sms + `\"`, `{"url":"` + hook, `"before":"` + hook + `"`, `"sms":"` + sms + `"`,
	} {
		if !strings.Contains(kept, part) {
			t.Errorf("the account itself does not get %s:\n%s", part, kept)
		}
	}
	shown := strings.Join(above, "\n")
	for _, part := range []string{
		`\"web_hook_url\":\"https://…@h.example/x?…\",\"sms_post_url\":\"https://s.example/?…\",\"support_link\":\"` + link + `\"`,
		`"before":"https://…@h.example/x?…"`, `"changed":["name","web_hook_url"]`, `"sms":"https://s.example/?…"`,
	} {
		if !strings.Contains(shown, part) {
			t.Errorf("the account above does not get %s:\n%s", part, shown)
		}
	}
	counted := func(account string) string {
		return strings.Join(all[string](t, f.world, `SELECT convert_from(head || tail, 'UTF8') FROM walhook.daily_count d JOIN walhook.endpoint p ON p.id = d.endpoint WHERE p.account = $1`, account), "\n")
	}
	if got := counted("1"); strings.Contains(got, "hunter2") || !strings.Contains(got, "s.example") {
		t.Errorf("counted for the account above: %s", got)
	}
	if got := counted("7"); !strings.Contains(got, sms) {
		t.Errorf("counted for the account: %s", got)
	}
}

// Wherever in the outbox something of an account's URLs is kept, under a key no
// password shows, but in the bodies of the account's own feed; nor in what others
// get, whatever happens to the account.
func TestURLs_NoTableOfTheOutboxShowsAPassword(t *testing.T) {
	f := newFeedOf(t, newWorld(t, withKey(1)), maskCatalog)
	table := newTable("users", 'f', "id name web_hook_url reseller_id sms_post_url support_link")
	const sms, link = "HTTPS://u:hunter2@s.example?t0ken", "//u:hunter2@w.example/#t0ken"
	hook := func(n int) string { return fmt.Sprintf("https://u:hunter2%d@h.example/x?token=t0ken#t0ken", n) }
	child := func(id int, name string, url, parent any) schemas.Tuple { return row(id, name, url, parent, sms, link) }
	for _, account := range []string{"1", "2", "7"} {
		for _, kind := range []string{"records", "object", "account", "number"} {
			f.webhook(t, account, kind+account, "hook = '"+kind+"'", "include_subaccounts = true")
		}
		f.webhook(t, account, "daily"+account, "hook = 'billing'", "delivery = 'daily'", "include_subaccounts = true")
	}
	f.commit(t, table.Insert(1, "r", nil, nil, nil, nil), table.Insert(2, "s", nil, nil, nil, nil))
	f.forget(t)
	f.commit(t, table.Insert(7, "n", hook(1), 1, sms, link), dids.Insert(5, 7, "312"))
	f.commit(t, table.Update(child(7, "n", hook(1), 1), child(7, "m", hook(2), 1)))
	f.restart(t)
	f.commit(t, table.Update(child(7, "m", hook(2), 1), child(7, "m", hook(2), 2)), dids.Insert(6, 7, "313")) // to another account above
	f.commit(t, table.Update(child(7, "m", hook(2), 2), child(9, "m", hook(2), 2)), dids.Insert(7, 9, "314")) // another key
	f.commit(t, table.Insert(8, "bad", "ftp://u:hunter2@h.example/", 1, sms, link),                           // unusable
		table.Update(child(8, "bad", "ftp://u:hunter2@h.example/", 1), child(8, "bad", "https://u:hunter2 @/%zz", 1)),
		table.Update(child(8, "bad", "https://u:hunter2 @/%zz", 1), child(8, "bad", nil, 1)))
	s, _ := f.join(t)
	for i, e := range f.tail(t, s, TailQuery{Shards: allShards()}) {
		switch i % 3 {
		case 0:
			f.settle(t, s, dead(e))
		case 1:
			f.settle(t, s, retried(e, time.Hour))
		default:
			f.settle(t, s, delivered(e))
		}
	}
	f.ask(t, request{Endpoint: f.idOf(t, "9"), Since: time.Unix(1_600_000_000, 0)})
	f.work(t)
	f.commit(t, schemas.Change{Kind: schemas.Delete, Relation: table.Relation, Old: child(9, "m", hook(2), 2)})

	const columns = `SELECT string_agg(format('%I', attname), ', ') FROM pg_catalog.pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND (atttypid = 'bytea'::regtype) = $2`
	rows := 0
	for _, table := range all[string](t, f.world, `SELECT c.oid::regclass::text FROM pg_catalog.pg_class c
		WHERE relnamespace = 'walhook'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition`) {
		rows += one[int](t, f.world, "SELECT count(*)::int FROM "+table)
		if names := one[*string](t, f.world, columns, table, false); names != nil {
			for _, shown := range all[string](t, f.world, fmt.Sprintf("SELECT text FROM (SELECT ROW(%s)::text AS text FROM %s) t WHERE text ~ 'hunter2'", *names, table)) {
				t.Errorf("%s shows a password: %s", table, shown)
			}
		}
		names := one[*string](t, f.world, columns, table, true)
		switch table {
		case "walhook.catalog", "walhook.taken_row", "walhook.missed_row": // nobody's data, digests, and what one account is told
			continue
		}
		if names == nil {
			continue
		}
		whose := "p.account FROM " + table + " b JOIN walhook.endpoint p ON p.id = b.endpoint"
		switch table {
		case "walhook.inbox", "walhook.token", "walhook.idempotency", "walhook.missed", "walhook.portal_link", "walhook.portal_session", "walhook.audit":
			whose = "b.account FROM " + table + " b"
		}
		for _, account := range all[string](t, f.world, fmt.Sprintf("SELECT DISTINCT account FROM (SELECT concat(%s) AS text, %s) t WHERE text ~ '%x|%x'",
			strings.ReplaceAll(*names, ", ", "::text, ")+"::text", whose, "hunter2", "t0ken")) {
			if account == "1" || account == "2" {
				t.Errorf("a body in %s shows account %s a password of another's", table, account)
			}
		}
	}
	if rows < 150 {
		t.Errorf("%d rows in all: nothing has happened", rows)
	}
}
