package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// damages are values that a row of the outbox must not hold and, after a bad
// restore, a hand at work or a fault of the disk, may. {a} is the account whose
// row it is, {e} its own endpoint, {w} its webhook, {x} an event that waits.
var damages = []struct{ name, sql string }{
	{"own: no revision", `UPDATE walhook.endpoint SET revision = NULL WHERE id = {e}`},
	{"own: a negative revision", `UPDATE walhook.endpoint SET revision = -9223372036854775808 WHERE id = {e}`},
	{"own: the last revision", `UPDATE walhook.endpoint SET revision = 9223372036854775807 WHERE id = {e}`},
	{"own: changed at infinity", `UPDATE walhook.endpoint SET changed_at = 'infinity' WHERE id = {e}`},
	{"own: changed before time", `UPDATE walhook.endpoint SET changed_at = '-infinity' WHERE id = {e}`},
	{"own: changed in 294276", `UPDATE walhook.endpoint SET changed_at = '294276-12-31' WHERE id = {e}`},
	{"own: changed tomorrow", `UPDATE walhook.endpoint SET changed_at = clock_timestamp() + interval '1 day' WHERE id = {e}`},
	{"own: no change", `UPDATE walhook.endpoint SET changed_at = NULL WHERE id = {e}`},
	{"own: unusable since infinity", `UPDATE walhook.endpoint SET state = 'unusable', reason = 'x', changed_at = '-infinity' WHERE id = {e}`},
	{"own: unusable at no time", `UPDATE walhook.endpoint SET state = 'unusable', reason = NULL, changed_at = NULL WHERE id = {e}`},
	{"own: an unknown state", `UPDATE walhook.endpoint SET state = 'nonsense', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: no state", `UPDATE walhook.endpoint SET state = NULL, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: no secret", `UPDATE walhook.endpoint SET secret = NULL, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: an empty secret", `UPDATE walhook.endpoint SET secret = '', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a broken sealed secret", `UPDATE walhook.endpoint SET secret = 'sealed:v9:*', revision = revision + 1, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a secret before at infinity", `UPDATE walhook.endpoint SET previous_secret = 'sealed:v1:', previous_until = 'infinity', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a broken sealed URL", `UPDATE walhook.endpoint SET url = 'sealed:v1:AAAA', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: no URL", `UPDATE walhook.endpoint SET url = NULL, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a URL that is none", `UPDATE walhook.endpoint SET url = E'http://[::1\n', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: an unknown order", `UPDATE walhook.endpoint SET ordering = 'x', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a feed from the end", `UPDATE walhook.endpoint SET feed_from = 9223372036854775807, expire_before = 9223372036854775807, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a feed from before", `UPDATE walhook.endpoint SET feed_from = -1, expire_before = -9223372036854775808, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: ended at infinity", `UPDATE walhook.endpoint SET ended_at = 'infinity', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: an unknown verb", `UPDATE walhook.endpoint SET http_verb = E'BREW /\r\n', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: an unknown format", `UPDATE walhook.endpoint SET format = 'xml', changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a rate that is none", `UPDATE walhook.endpoint SET rate_limit = 'NaN', revision = revision + 1, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: an infinite rate", `UPDATE walhook.endpoint SET rate_limit = 'Infinity', revision = revision + 1, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: a negative rate", `UPDATE walhook.endpoint SET rate_limit = -1e308, revision = revision + 1, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: negative retries", `UPDATE walhook.endpoint SET retries = -2147483648, revision = revision + 1, changed_at = clock_timestamp() WHERE id = {e}`},
	{"own: endless retries", `UPDATE walhook.endpoint SET retries = 2147483647, revision = revision + 1, changed_at = clock_timestamp() WHERE id = {e}`},
	{"webhook: schemas of null", `UPDATE walhook.endpoint SET schemas = '{NULL}', changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: no schemas", `UPDATE walhook.endpoint SET schemas = NULL, types = NULL, changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: types in two dimensions", `UPDATE walhook.endpoint SET types = '{{a,b},{c,d}}', changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: no hook", `UPDATE walhook.endpoint SET hook = NULL, changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: custom data that are no object", `UPDATE walhook.endpoint SET custom_data = '[1]', revision = revision + 1, changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: custom data that are null", `UPDATE walhook.endpoint SET custom_data = 'null', revision = revision + 1, changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: deep custom data", `UPDATE walhook.endpoint SET custom_data = ('{"a":' || repeat('[', 5000) || repeat(']', 5000) || '}')::json, revision = revision + 1, changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: half a surrogate", `UPDATE walhook.endpoint SET custom_data = '{"\ud83d":"\udc00","\u0000":1e999999}', revision = revision + 1, changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: daily in no zone", `UPDATE walhook.endpoint SET delivery = 'daily', daily_zone = 'Mars/Olympus', daily_at = '24:00', hook = 'all', changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: daily in a zone with NULL time", `UPDATE walhook.endpoint SET delivery = 'daily', daily_at = NULL, hook = 'all', changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: daily, a day at infinity", `INSERT INTO walhook.daily VALUES ({w}, 'infinity', 'infinity'); UPDATE walhook.endpoint SET delivery = 'daily', hook = 'all', changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: daily, a day before time", `INSERT INTO walhook.daily VALUES ({w}, '-infinity', '-infinity'); UPDATE walhook.endpoint SET delivery = 'daily', hook = 'all', changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: daily, a day in 5874897", `INSERT INTO walhook.daily VALUES ({w}, '5874897-12-31', '294276-12-31'); UPDATE walhook.endpoint SET delivery = 'daily', hook = 'all', changed_at = clock_timestamp() WHERE id = {w}; UPDATE walhook.webhooks_version SET version = version + 1`},
	{"webhook: daily, a count that is none", `INSERT INTO walhook.daily VALUES ({w}, current_date - 1, now() - interval '2 days'); INSERT INTO walhook.daily_count VALUES ({w}, current_date - 2, '{a}', '\xff', 'object', 't', 'xml', -9223372036854775808, '\xff', '\x00'); INSERT INTO walhook.daily_run VALUES ({w}, current_date - 2, now() - interval '3 days', now() - interval '2 days', 'Mars', '0/0', 0, NULL, NULL)`},
	{"webhook: daily, a run from no time", `INSERT INTO walhook.daily_run VALUES ({w}, '-infinity', '-infinity', 'infinity', '', '0/0', -1, NULL, NULL)`},
	{"webhook: daily, a run of nobody", `INSERT INTO walhook.daily_run VALUES (-5, current_date - 2, now() - interval '3 days', now() - interval '2 days', 'UTC', '0/0', 0, NULL, NULL); INSERT INTO walhook.daily_count VALUES (-5, current_date - 2, '{a}', 'x', 'object', 't', 'json', 1, '{', '}')`},
	{"webhook: deleted at infinity", `UPDATE walhook.endpoint SET deleted_at = 'infinity', state = 'cleared', reason = 'x', changed_at = clock_timestamp() WHERE id = {w}`},
	{"lane: no cursor", `{lane} cursor = NULL`},
	{"lane: a negative cursor", `{lane} cursor = -1, behind = true`},
	{"lane: the last cursor", `{lane} cursor = 9223372036854775807, behind = true`},
	{"lane: a cursor behind everything", `{lane} cursor = 0, behind = true`},
	{"lane: open until infinity", `{lane} open = true, open_until = 'infinity', opens = 2147483647`},
	{"lane: open from before time", `{lane} open = true, open_until = '-infinity', opens = -5`},
	{"lane: open until 294276", `{lane} open = true, open_until = '294276-12-31', opens = 3`},
	{"lane: failing since infinity", `{lane} failing_since = 'infinity', stage = -7`},
	{"lane: failing since 4713 BC", `{lane} failing_since = '4713-01-01 BC', stage = 2147483647`},
	{"lane: paused until infinity", `{lane} paused_until = 'infinity'`},
	{"lane: held since infinity", `{lane} revision = 9223372036854775807, held_since = '-infinity', held_reason = NULL`},
	{"lane: held since 294276", `{lane} revision = 9223372036854775807, held_since = '294276-12-31', held_reason = 'x'`},
	{"lane: no revision", `{lane} revision = NULL, saved_at = NULL`},
	{"lane: saved at infinity", `{lane} saved_at = 'infinity', last_reason = repeat('x', 1000000)`},
	{"lane: of nobody", `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) VALUES (-7, 1, true, 1, false, 0, ''), (9223372036854775807, 1, true, 1, false, 0, '')`},
	{"retry: due at infinity", `DELETE FROM walhook.retry WHERE endpoint = {e}; INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ({e}, {x}, 'dids:1', 1, 'infinity', '5xx')`},
	{"retry: due before time", `DELETE FROM walhook.retry WHERE endpoint = {e}; INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ({e}, {x}, 'dids:1', -2147483648, '-infinity', '5xx')`},
	{"retry: the last attempt of all", `DELETE FROM walhook.retry WHERE endpoint = {e}; INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ({e}, {x}, 'dids:1', 2147483647, now(), '5xx')`},
	{"retry: of no event", `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason, since) VALUES ({e}, 9223372036854775807, 'dids:1', 1, now(), '5xx', 'infinity')`},
	{"retry: of a negative event", `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ({e}, -1, 'dids:1', 1, now(), '5xx')`},
	{"retry: of nobody", `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES (-7, {x}, 'dids:1', 1, now(), '5xx')`},
	{"retry: of a foreign event", `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) SELECT {e}, min(id), 'dids:1', 1, now(), '5xx' FROM walhook.event WHERE endpoint = (SELECT id FROM walhook.endpoint WHERE account = '8' AND webhook = 'account')`},
	{"retry: no record", `DELETE FROM walhook.retry WHERE endpoint = {e}; INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ({e}, {x}, NULL, 1, now(), NULL)`},
	{"event: no revision", `{event} endpoint_revision = NULL`},
	{"event: the last revision", `{event} endpoint_revision = 9223372036854775807`},
	{"event: no record", `{event} record = NULL`},
	{"event: no id", `{event} webhook_id = NULL`},
	{"event: an id with a line end", `{event} webhook_id = E'evt\r\nX: 1'`},
	{"event: no schema and type", `{event} schema = NULL, type = NULL`},
	{"event: committed at infinity", `{event} committed_at = 'infinity', appended_at = '-infinity'`},
	{"event: committed in 294276", `{event} committed_at = '294276-12-31', appended_at = '4713-01-01 BC'`},
	{"event: no body", `{event} body = NULL`},
	{"event: a body of another", `{event} body = '', body_of = -5, body_size = -5`},
	{"event: its own body", `{event} body = '', body_of = id, body_size = 2147483647`},
	{"event: a broken body", `{event} body = '\x7bff00', format = 'xml'`},
	{"event: a broken body, as a form", `{event} body = '\x5b5b', format = 'form'`},
	{"event: of nobody", `{event} endpoint = -7`},
	{"dead letter: at no time", `INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, body) VALUES ({e}, {x}, NULL, NULL, NULL, NULL, 'infinity', -1, NULL, -1, NULL)`},
	{"attempt: of no duration", `INSERT INTO walhook.attempt (at, endpoint, event_id, revision, number, duration, status, outcome, reason, detail) VALUES (now(), {e}, {x}, -1, -2147483648, '-178000000 years', -1, 'nonsense', NULL, NULL)`},
	{"inbox: a broken body", `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body, born_at) VALUES ('{a}', 'notice_x', 'x', 'x', 'x', '\xff', 'infinity'); NOTIFY walhook`},
	{"inbox: nothing at all", `INSERT INTO walhook.inbox (account, above, webhook_id, record, schema, type, body, born_at) VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`},
	{"inbox: a huge record", `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body) VALUES ('{a}', 'notice_y', repeat('x', 100000), repeat('s', 100000), 't', '{}')`},
	{"inbox: twice", `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body) VALUES ('{a}', 'notice_z', 'x', 'x', 'x', '{}'), ('{a}', 'notice_z', 'x', 'x', 'x', '{}')`},
	{"request: an infinite rate", `INSERT INTO walhook.request (endpoint, since, rate, until_id, total) VALUES ({e}, now() - interval '1 day', 'Infinity', 9223372036854775807, 1)`},
	{"request: a rate that is none", `INSERT INTO walhook.request (endpoint, since, rate, until_id, total) VALUES ({e}, now() - interval '1 day', 'NaN', 9223372036854775807, 1)`},
	{"request: a rate of nothing", `INSERT INTO walhook.request (endpoint, since, rate, until_id, total) VALUES ({e}, now() - interval '1 day', 1e-320, 9223372036854775807, 1)`},
	{"request: since infinity", `INSERT INTO walhook.request (endpoint, since, rate, until_id, cursor, total, asked_at, next_at) VALUES ({e}, '-infinity', 100, -1, 9223372036854775807, -1, 'infinity', '-infinity')`},
	{"request: due at infinity", `INSERT INTO walhook.request (endpoint, since, rate, until_id, total, next_at) VALUES ({e}, now(), 100, 1, 1, 'infinity')`},
	{"request: ids of null", `INSERT INTO walhook.request (endpoint, webhook_ids, rate, until_id, total) VALUES ({e}, '{NULL}', 100, 1000000, 1), ({e}, '{{a,b},{c,d}}', 100, 1000000, 1)`},
	{"request: of nobody", `INSERT INTO walhook.request (endpoint, since, rate, until_id, total) VALUES (-7, now() - interval '1 day', 100, 1000000, 1)`},
	{"account: below itself", `INSERT INTO walhook.account (id, parent) VALUES ('{a}', '{a}') ON CONFLICT (id) DO UPDATE SET parent = excluded.parent`},
	{"account: in a ring", `INSERT INTO walhook.account (id, parent) VALUES ('{a}', 'r{a}'), ('r{a}', '{a}') ON CONFLICT (id) DO UPDATE SET parent = excluded.parent`},
	{"account: above nobody", `INSERT INTO walhook.account (id, parent) VALUES ('n{a}', NULL), ('', '8') ON CONFLICT (id) DO UPDATE SET parent = excluded.parent`},
	{"account columns: none", `INSERT INTO walhook.account_column VALUES ('{a}', NULL, NULL) ON CONFLICT (account) DO UPDATE SET columns = NULL`},
	{"account columns: of null", `INSERT INTO walhook.account_column VALUES ('{a}', '{NULL,NULL,"{"}', 'infinity') ON CONFLICT (account) DO UPDATE SET columns = excluded.columns`},
	{"owner: nobody", `INSERT INTO walhook.owner (schema, key, account, deleted_at) VALUES ('dids', '{a}', NULL, 'infinity') ON CONFLICT (schema, key) DO UPDATE SET account = NULL`},
	{"owner: no unknown", `INSERT INTO walhook.owner (schema, key, account, unknown) VALUES ('dids', 'u{a}', '', NULL)`},
	{"token: of nobody", `INSERT INTO walhook.token (hash, id, account, subaccounts, name, created_at) VALUES ('\x01', '{a}', NULL, NULL, NULL, 'infinity')`},
	{"hold: at infinity", `INSERT INTO walhook.hold (account, host, reason, held_at) VALUES ('{a}', E'http://[::1\n', '', 'infinity')`},
	{"sender: forever", `INSERT INTO walhook.sender (name, process, started_at, lease_until) VALUES ('', '{', '-infinity', 'infinity')`},
	{"sender: of no name", `INSERT INTO walhook.sender (name, process, started_at, lease_until) VALUES (NULL, NULL, NULL, now() - interval '1 hour')`},
	{"unrouted: at no place", `INSERT INTO walhook.unrouted (at, commit_lsn, ordinal, schema, type, key, reason) VALUES (now(), 'FFFFFFFF/FFFFFFFF', -1, NULL, NULL, NULL, NULL)`},
	{"set aside: nothing", `INSERT INTO walhook.set_aside (loop, item, endpoint, reason, detail, first_at, last_at, times) VALUES ('nonsense', '', -1, NULL, NULL, NULL, NULL, NULL)`},
	{"set aside: at infinity", `INSERT INTO walhook.set_aside (loop, item, endpoint, reason, detail, first_at, last_at, times) VALUES ('endpoints', 'x', {e}, '', '', 'infinity', '-infinity', 9223372036854775807)`},
	{"description: no object", `INSERT INTO walhook.table_description (relation, from_lsn, name, description, seen_at) SELECT relation, from_lsn + 1, name, '[1]', 'infinity' FROM walhook.table_description LIMIT 1`},
	{"description: of nothing", `INSERT INTO walhook.table_description (relation, from_lsn, name, description) VALUES (4294967295, '0/0', '', 'null')`},
	{"description: of NULL", `INSERT INTO walhook.table_description (relation, from_lsn, name, description, seen_at) SELECT relation, from_lsn + 2, NULL, NULL, NULL FROM walhook.table_description LIMIT 1`},
	{"description: a surrogate", `INSERT INTO walhook.table_description (relation, from_lsn, name, description) SELECT relation, from_lsn + 3, name, '{"\ud83d":"\u0000"}' FROM walhook.table_description LIMIT 1`},
	{"source change: nothing", `INSERT INTO walhook.source_change (at, system_id, database, kind, relation, name, before, after, undone_at) VALUES ('infinity', '', '', 'nonsense', 0, '', '', '', '-infinity')`},
}

// A damaged row of the outbox, whatever it holds, stops nobody else: not while
// walhook runs, and not when it starts. It does not hide the backlog,
// and doctor names what is set aside.
func TestDamage_OfOneRowStopsNobodyElse(t *testing.T) {
	t.Parallel()
	w := newDamageWorld(t)
	w.served(t, "no damage")
	for i := range damages {
		w.damage(t, i)
	}
	w.served(t, "all damage")
	w.process.stop(t)
	w.start(t)
	w.served(t, "a start with all damage")
	loops := []string{"webhooks", "endpoints", "inbox", "replay", "days", "descriptions", "accounts"}
	eventually(t, 30*time.Second, func() (all bool) {
		const sql = `SELECT count(DISTINCT loop) = cardinality($1::text[]) FROM walhook.set_aside WHERE loop = ANY ($1)`
		if err := w.conn.QueryRow(t.Context(), sql, loops).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	})
	for line := range strings.Lines(w.metrics(t)) {
		if strings.HasPrefix(line, "walhook_outbox_") && strings.Contains(line, "NaN") {
			t.Error("not known: " + line)
		}
	}
	mustRun(t, "endpoints", "holds", "--outbox", w.db.URL)
	mustRun(t, "status", "--source", w.db.URL, "--outbox", w.db.URL, "--slot", w.slot)
	found, _ := childCommand(t, "doctor", "--source", w.db.URL, "--outbox", w.db.URL, "--slot", w.slot).Output() // it finds faults
	for _, loop := range loops {
		if !strings.Contains(string(found), " of the loop "+loop+" ") {
			t.Errorf("doctor names nothing of the loop %s", loop)
		}
	}
	if t.Failed() {
		t.Logf("doctor says\n%s", found)
	}
}

// damageWorld is a walhook with an account for each damage, and a healthy one.
type damageWorld struct {
	db      *pgtest.DB
	conn    *pgx.Conn
	slot    string
	address string
	process *childProcess

	numbers int
	arrived sync.Map // number → the method it came by
}

func newDamageWorld(t *testing.T) *damageWorld {
	t.Helper()
	w := &damageWorld{db: pgtest.Database(t), address: loopback.Address(t)}
	w.conn, w.slot = w.db.Connect(t), "damage_"+w.db.Name
	number := regexp.MustCompile(`"number\\*":\\*"(\d+)`)
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if found := number.FindSubmatch(body); found != nil && r.URL.Path == "/healthy" {
			w.arrived.Store(string(found[1]), r.Method)
		}
		if r.URL.Path == "/bad" {
			answer.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	last := 1000 + len(damages)
	w.db.Exec(t, carrier.Tables)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) SELECT n, 'u' || n, '%[1]s/bad' FROM generate_series(1000, %[2]d) n
		UNION ALL SELECT 8, 'healthy', '%[1]s/healthy'`, server.URL, last))
	w.start(t)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) SELECT 100000 + n, n, 'waits' FROM generate_series(1000, %d) n`, last))
	eventually(t, 30*time.Second, func() (stored bool) {
		if err := w.conn.QueryRow(t.Context(), `SELECT count(*) > $1 FROM walhook.event`, len(damages)).Scan(&stored); err != nil {
			t.Fatal(err)
		}
		return stored
	})
	w.db.Exec(t, damagePermit)
	w.db.Exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, schemas)
		SELECT account, 'hook', url, 'active', 'whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4', '{faxes}' FROM walhook.endpoint WHERE account <> '8'`)
	return w
}

func (w *damageWorld) start(t *testing.T) {
	t.Helper()
	w.process = startChild(t, "run", "--source", w.db.URL, "--slot", w.slot, "--setup", "--listen", w.address, "--allow-cidr", "127.0.0.0/8",
		"--retry-schedule", "1s,1h", "--admin-token", chaosOperator)
	awaitReady(t, w.address)
}

// damagePermit takes away what keeps a hand at work from such values. Damage of
// a page asks nobody. It locks one table at a time, because walhook runs meanwhile.
const damagePermit = `DO $$ DECLARE r record; BEGIN
	FOR r IN SELECT conrelid::regclass AS t, conname FROM pg_constraint WHERE connamespace = 'walhook'::regnamespace AND contype = 'c' AND conparentid = 0 AND conislocal LOOP
		EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', r.t, r.conname);
		COMMIT;
	END LOOP;
	FOR r IN SELECT a.attrelid::regclass AS t, attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'walhook'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND attnum > 0 AND attnotnull AND attidentity = ''
			AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND attnum = ANY (i.indkey)) LOOP
		EXECUTE format('ALTER TABLE %s ALTER %I DROP NOT NULL', r.t, r.attname);
		COMMIT;
	END LOOP;
END $$`

// damage does the i-th damage to the i-th account.
func (w *damageWorld) damage(t *testing.T, i int) {
	t.Helper()
	account := fmt.Sprint(1000 + i)
	var e, hook, event int64
	const sql = `
		SELECT e.id, h.id, (SELECT min(v.id) FROM walhook.event v WHERE v.endpoint = e.id)
		FROM walhook.endpoint e JOIN walhook.endpoint h ON h.account = e.account AND h.webhook = 'hook'
		WHERE e.account = $1 AND e.webhook = 'account'`
	if err := w.conn.QueryRow(t.Context(), sql, account).Scan(&e, &hook, &event); err != nil {
		t.Fatal(err)
	}
	statement := damages[i].sql
	if set, is := strings.CutPrefix(statement, "{lane} "); is {
		statement = `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) VALUES ({e}, 1, false, 1, false, 0, '')
			ON CONFLICT DO NOTHING; UPDATE walhook.lane SET ` + set + ` WHERE endpoint = {e}`
	}
	if set, is := strings.CutPrefix(statement, "{event} "); is {
		statement = `UPDATE walhook.event SET ` + set + ` WHERE id = {x}`
	}
	statement = strings.NewReplacer("{a}", account, "{e}", fmt.Sprint(e), "{w}", fmt.Sprint(hook), "{x}", fmt.Sprint(event)).Replace(statement)
	if _, err := w.conn.PgConn().Exec(t.Context(), statement).ReadAll(); err != nil {
		t.Fatalf("%s: %v", damages[i].name, err)
	}
}

// served changes the healthy account's endpoint, and wants its next events sent
// as it is from then on.
func (w *damageWorld) served(t *testing.T, after string) {
	t.Helper()
	var method string
	const sql = `UPDATE walhook.endpoint SET http_verb = CASE http_verb WHEN 'post' THEN 'put' ELSE 'post' END, revision = revision + 1, changed_at = clock_timestamp()
		WHERE account = '8' AND webhook = 'account' RETURNING upper(http_verb)`
	if err := w.conn.QueryRow(t.Context(), sql).Scan(&method); err != nil {
		t.Fatal(err)
	}
	came := any("nothing")
	for end := time.Now().Add(patience); came != method; {
		if time.Now().After(end) {
			t.Fatalf("after %s: %s comes to the healthy account, want %s", after, came, method)
		}
		w.numbers++
		number := fmt.Sprint(w.numbers)
		w.db.Exec(t, "INSERT INTO dids (id, user_id, number) VALUES ("+number+", 8, '"+number+"')")
		for there := false; !there && time.Now().Before(end); linger(t.Context(), 20*time.Millisecond) {
			came, there = w.arrived.Load(number)
		}
	}
}

func (w *damageWorld) metrics(t *testing.T) string {
	t.Helper()
	response, err := http.Get("http://" + w.address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
