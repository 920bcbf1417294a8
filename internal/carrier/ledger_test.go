package carrier_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// newCarrier is a database with the carrier's tables and no rows.
func newCarrier(t *testing.T) (*pgtest.DB, *pgx.Conn) {
	t.Helper()
	db := pgtest.Database(t)
	conn := db.Connect(t)
	if err := carrier.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return db, conn
}

// keepOldRows does what walhook's setup does.
func keepOldRows(t *testing.T, db *pgtest.DB) {
	t.Helper()
	for _, schema := range carrier.Schemas() {
		db.Exec(t, "ALTER TABLE "+schema+" REPLICA IDENTITY FULL")
	}
}

func texts(t *testing.T, conn *pgx.Conn, sql string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLedger_WritesTheBytesOfTheContract(t *testing.T) {
	t.Parallel()
	db, conn := newCarrier(t)
	keepOldRows(t, db)
	db.Exec(t, `
		SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET extra_float_digits = -3; SET IntervalStyle = 'iso_8601';
		INSERT INTO users (id, username, web_hook_url) VALUES (7, 'acme', 'http://127.0.0.1/7');
		INSERT INTO dids (id, user_id, number, state) VALUES (42, 7, '3125551212', 'IL');
		INSERT INTO did_notes (id, did_id, note) VALUES (1, 42, E'say "hi" <b>&</b>\n\\ é 王 \u2028');
		INSERT INTO transactions (id, user_id, total, summary, transaction_type) VALUES (1, 7, 1.5000, NULL, 'debit');
		INSERT INTO transaction_items (id, transaction_id, product_price, product_mrc, processing_flags) VALUES (1, 1, 'NaN', 0, '{a,"b c",NULL}');
		INSERT INTO call_flows (id, user_id, flow_name, flow_data, default_route) VALUES (1, 7, 'x', E'{ "a":\n 1.0 }', '{"b":1.0}');
		INSERT INTO channel_groups (id, user_id, name, channels) VALUES (1, 7, 'g', '{{1,2},{3,4}}');
		INSERT INTO monthly_charges (id, user_id, product_type, product_id, last_billed_dt)
			VALUES (1, 7, 'did', '11111111-2222-4333-8444-555555555555', '2024-02-03 04:05:06.700+00');
		INSERT INTO async_results (user_id, schema, type, status, "verbose") VALUES (7, 'sms_enablement', 'update', 'error', 'already provisioned');
		DELETE FROM dids WHERE id = 42;
	`)
	got := texts(t, conn, `SELECT body FROM ledger.expected WHERE schema <> 'users' ORDER BY seq`)
	did := `"data":"{\"id\":42,\"user_id\":7,\"call_flow_id\":null,\"channel_group_id\":null,\"voicemail_inbox_id\":null,\"number\":\"3125551212\",\"number_type\":\"local\",\"state\":\"IL\",\"ratecenter\":null,\"sms_enabled\":false,\"xmpp_enabled\":false,\"inbound_cnam\":null}"}`
	note := `"data":"{\"id\":1,\"did_id\":42,\"note\":\"say \\\"hi\\\" <b>&</b>\\n\\\\ é 王 ` + "\u2028" + `\"}"}`
	want := []string{
		`{"type":"insert","schema":"dids",` + did,
		`{"type":"insert","schema":"did_notes",` + note,
		`{"type":"insert","schema":"transactions","data":"{\"id\":1,\"user_id\":7,\"child_id\":null,\"referenced_transaction_id\":null,\"total\":1.5000,\"summary\":null,\"transaction_type\":\"debit\",\"transaction_status\":\"pending\"}"}`,
		`{"type":"insert","schema":"transaction_items","data":"{\"id\":1,\"transaction_id\":1,\"product_description\":null,\"product_price\":\"NaN\",\"product_mrc\":0.0000,\"processing_flags\":[\"a\",\"b c\",null],\"fail_reason\":null}"}`,
		`{"type":"insert","schema":"call_flows","data":"{\"id\":1,\"user_id\":7,\"flow_name\":\"x\",\"flow_data\":{ \"a\":\n 1.0 },\"default_route\":{\"b\": 1.0}}"}`,
		`{"type":"insert","schema":"channel_groups","data":"{\"id\":1,\"user_id\":7,\"name\":\"g\",\"channels\":[[1,2],[3,4]],\"status\":\"active\"}"}`,
		`{"type":"insert","schema":"monthly_charges","data":"{\"id\":1,\"user_id\":7,\"product_type\":\"did\",\"product_id\":\"11111111-2222-4333-8444-555555555555\",\"bill_day_of_month\":null,\"last_billed_dt\":\"2024-02-03T04:05:06.7+00:00\"}"}`,
		`{"type":"update","schema":"sms_enablement","status":"error","verbose":"already provisioned"}`,
		`{"type":"delete","schema":"dids",` + did,
		`{"type":"delete","schema":"did_notes",` + note,
	}
	// The raw line break of a json column is escaped by the outer string.
	want[4] = strings.ReplaceAll(want[4], "\n", `\n`)
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("event %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func TestLedger_FollowsTheRulesOfTheContract(t *testing.T) {
	t.Parallel()
	db, conn := newCarrier(t)
	keepOldRows(t, db)
	const empty = `TRUNCATE users, dids, async_results, ledger.expected, ledger.owner, ledger.account CASCADE`
	const setup = `
		SET ledger.silent = on;
		INSERT INTO users (id, username, web_hook_url) VALUES (1, 'a', 'http://a'), (2, 'b', 'http://b'), (3, 'none', NULL);
		INSERT INTO dids (id, user_id, number) VALUES (10, 1, '1'), (11, NULL, '2'), (12, 3, '3');
		INSERT INTO faxes (id, did_id, fax_status, direction) VALUES (20, 10, 's', 'in');
		INSERT INTO transactions (id, user_id, total, transaction_type) VALUES (30, 1, 1, 'debit');
		INSERT INTO transaction_items (id, transaction_id) VALUES (40, 30), (41, 30);
		INSERT INTO channel_groups (id, user_id, name) VALUES (50, 1, 'g');
		UPDATE dids SET channel_group_id = 50 WHERE id = 10;
		SET ledger.silent = off;
	`
	for _, test := range []struct {
		name, sql string
		want      []string // account type schema record
	}{
		{"seeded rows are expected by nobody", ``, nil},
		{"an update goes to the owner", `UPDATE dids SET state = 'IL' WHERE id = 10`, []string{"1 update dids 10"}},
		{"a record of a record goes to the parent's owner", `UPDATE faxes SET pages = 1`, []string{"1 update faxes 20"}},
		{"an account without a URL expects nothing", `UPDATE dids SET state = 'IL' WHERE id = 12`, nil},
		{"a number of the pool is nobody's", `UPDATE dids SET state = 'IL' WHERE id = 11`, nil},
		{"buying is an insert", `UPDATE dids SET user_id = 2 WHERE id = 11`, []string{"2 insert dids 11"}},
		{"releasing is a delete", `UPDATE dids SET user_id = NULL WHERE id = 10`, []string{"1 delete dids 10"}},
		{"a move is a delete and an insert", `UPDATE dids SET user_id = 2 WHERE id = 10`, []string{"1 delete dids 10", "2 insert dids 10"}},
		{"a child moves at its own next change", `UPDATE dids SET user_id = 2 WHERE id = 10; UPDATE faxes SET pages = 1; UPDATE faxes SET pages = 2`,
			[]string{"1 delete dids 10", "2 insert dids 10", "1 delete faxes 20", "2 insert faxes 20", "2 update faxes 20"}},
		{"a child's delete goes to who knew it", `UPDATE dids SET user_id = 2 WHERE id = 10; DELETE FROM faxes`,
			[]string{"1 delete dids 10", "2 insert dids 10", "1 delete faxes 20"}},
		{"a child that changes its parent", `UPDATE faxes SET did_id = 12; UPDATE faxes SET did_id = 10`, []string{"1 delete faxes 20", "1 insert faxes 20"}},
		{"a cascade: the parent first", `DELETE FROM transactions`,
			[]string{"1 delete transactions 30", "1 delete transaction_items 40", "1 delete transaction_items 41"}},
		{"a cascade that sets null", `DELETE FROM channel_groups`, []string{"1 delete channel_groups 50", "1 update dids 10"}},
		{"a change of key", `UPDATE dids SET id = 99 WHERE id = 10`, []string{"1 delete dids 10", "1 insert dids 99", "1 update faxes 20"}},
		{"a user's own row", `UPDATE users SET city = 'x' WHERE id = 1`, []string{"1 update users 1"}},
		{"a new URL counts from its own change on", `UPDATE users SET web_hook_url = 'http://c' WHERE id = 3; UPDATE dids SET state = 'IL' WHERE id = 12`,
			[]string{"3 update users 3", "3 update dids 12"}},
		{"clearing expects nothing, itself included", `UPDATE users SET web_hook_url = '' WHERE id = 1; UPDATE dids SET state = 'IL' WHERE id = 10`, nil},
		{"a new account", `INSERT INTO users (id, username, web_hook_url) VALUES (4, 'd', 'http://d'); INSERT INTO sub_users (id, parent_id, username) VALUES (1, 4, 'x')`,
			[]string{"4 insert users 4", "4 insert sub_users 1"}},
		{"the last event is the delete of one's own row", `DELETE FROM users WHERE id = 1`, []string{"1 delete users 1"}},
		{"what is rolled back is not", `BEGIN; UPDATE dids SET state = 'IL' WHERE id = 10; ROLLBACK`, nil},
		{"what a savepoint takes back is not", `BEGIN; SAVEPOINT s; UPDATE dids SET user_id = 2 WHERE id = 10; ROLLBACK TO s; UPDATE faxes SET pages = 1; COMMIT`,
			[]string{"1 update faxes 20"}},
		{"results by row", `INSERT INTO async_results (user_id, schema, type, status) VALUES (1, 'sms_enablement', 'update', 'ok'), (3, 'sms_enablement', 'update', 'ok')`,
			[]string{"1 update sms_enablement "}},
		{"results by message", `SELECT ledger.expect_result('2', 'sms_enablement', 'update', 'ok', '')`, []string{"2 update sms_enablement "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			db.Exec(t, empty)
			db.Exec(t, setup)
			db.Exec(t, test.sql)
			got := texts(t, conn, `SELECT concat_ws(' ', account, type, schema, record) FROM ledger.expected ORDER BY seq`)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLedger_KnowsWhatMayExpire(t *testing.T) {
	t.Parallel()
	db, conn := newCarrier(t)
	db.Exec(t, `
		INSERT INTO users (id, username, web_hook_url) VALUES (1, 'a', 'http://a'), (2, 'b', 'http://b');
		UPDATE users SET web_hook_url = NULL WHERE id = 1;
		UPDATE users SET web_hook_url = 'http://again' WHERE id = 1;
	`)
	all, err := carrier.Read(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, fmt.Sprint(e.Account, e.Type, e.MayExpire))
		if e.CommittedAt.IsZero() {
			t.Error("no commit time")
		}
	}
	if want := []string{"1inserttrue", "2insertfalse", "1updatefalse"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Without REPLICA IDENTITY FULL a delete carries the key alone.
func TestLedger_KnowsTheReplicaIdentity(t *testing.T) {
	t.Parallel()
	db, conn := newCarrier(t)
	db.Exec(t, `
		INSERT INTO users (id, username, web_hook_url) VALUES (1, 'a', 'http://a');
		INSERT INTO dids (id, user_id, number) VALUES (10, 1, '1');
		DELETE FROM dids;
	`)
	got := texts(t, conn, `SELECT body FROM ledger.expected WHERE type = 'delete'`)
	if want := []string{`{"type":"delete","schema":"dids","data":"{\"id\":10}"}`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The account's URL and the parent's owner are locked until commit, so what a
// concurrent transaction decides cannot come after it in the WAL and before it
// in the ledger.
func TestLedger_WaitsForTheTransactionThatDecidesTheOwner(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, first, second, want string }{
		{"a parent that moves", `UPDATE dids SET user_id = 2 WHERE id = 10`, `INSERT INTO faxes (id, did_id, fax_status, direction) VALUES (1, 10, 's', 'in')`, "2 insert faxes 1"},
		{"a URL that is cleared", `UPDATE users SET web_hook_url = '' WHERE id = 1`, `INSERT INTO ip_endpoints (id, user_id, ip_address) VALUES (1, 1, '198.51.100.1')`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db, conn := newCarrier(t)
			db.Exec(t, `
				INSERT INTO users (id, username, web_hook_url) VALUES (1, 'a', 'http://a'), (2, 'b', 'http://b');
				INSERT INTO dids (id, user_id, number) VALUES (10, 1, '1')`)
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), test.first); err != nil {
				t.Fatal(err)
			}
			second, done := db.Connect(t), make(chan error, 1)
			go func() {
				_, err := second.Exec(context.WithoutCancel(t.Context()), test.second)
				done <- err
			}()
			waiting := db.Connect(t)
			for blocked := false; !blocked; {
				err := waiting.QueryRow(t.Context(), `SELECT cardinality(pg_blocking_pids($1)) > 0`, second.PgConn().PID()).Scan(&blocked)
				if err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-done:
					t.Fatalf("it did not wait, err %v", err)
				default:
				}
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			got := texts(t, conn, `SELECT concat_ws(' ', account, type, schema, record) FROM ledger.expected WHERE schema IN ('faxes', 'ip_endpoints')`)
			if strings.Join(got, ",") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
