package endtoend

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// poisonAccount is an account of which the carrier's ledger knows nothing: it is
// there to be in everybody's way. Its id is below those of the carrier's accounts,
// which come and go.
const poisonAccount = 666

// poisonEvery is how often the chaos is given something bad of each kind.
const poisonEvery = time.Second

// poisonSQL prepares the outbox: its server refuses some rows of one account, as
// it refuses a value that it cannot hold, and what is stored of two webhooks
// cannot be read.
const poisonSQL = `
CREATE FUNCTION public.refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	-- The carrier gives such a record to others, too: that is nobody's poison.
	IF to_jsonb(NEW) ->> 'record' LIKE 'dids:6660%%' AND NEW.endpoint IN (SELECT id FROM walhook.endpoint WHERE account = '%[1]d') OR to_jsonb(NEW) ->> 'detail' LIKE '%%poison%%' THEN
		RAISE EXCEPTION 'cannot be stored' USING ERRCODE = '22021';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER refuse_poison BEFORE INSERT ON walhook.event FOR EACH ROW EXECUTE FUNCTION public.refuse_poison();
CREATE TRIGGER refuse_poison BEFORE INSERT ON walhook.attempt FOR EACH ROW EXECUTE FUNCTION public.refuse_poison();
INSERT INTO walhook.endpoint (account, webhook, url, state, secret, custom_data) VALUES
	('%[1]d', 'surrogate', '%[2]s', 'active', 'whsec_eA==', '{"greeting":"hi \ud83d","type":"\ud83d"}');
INSERT INTO walhook.endpoint (account, webhook, url, state, secret, schemas) VALUES ('%[1]d', 'null', '%[2]s', 'active', 'whsec_eA==', '{NULL}');
UPDATE walhook.webhooks_version SET version = version + 1`

// poisonName is how the outbox knows it.
var poisonName = strconv.Itoa(poisonAccount)

// A poisonKind is one way of being bad. Each is tried once a second, and at
// least once where nothing else is broken.
type poisonKind struct {
	name string
	// inject gives the fleet one; n tells it from those before.
	inject func(ctx context.Context, n int) error
	// seen counts what the fleet made of it; null and 0 are nothing.
	seen string
}

// behind is how the poison comes into the source, behind the ledger's back.
const behind = "SET session_replication_role = replica; "

func (c *chaosWorld) poisonKinds() []poisonKind {
	source := func(sql string) func(context.Context, int) error {
		return func(ctx context.Context, n int) error {
			return runSQL(ctx, c.source.URL, behind+strings.ReplaceAll(strings.ReplaceAll(sql, "{n}", strconv.Itoa(n)), "{account}", poisonName))
		}
	}
	return []poisonKind{
		{
			"unstorable rows", source(`INSERT INTO dids (id, user_id, number) VALUES (6660000 + {n}, {account}, 'poison')`),
			`SELECT count(*) FROM walhook.unrouted WHERE reason = 'unstorable'`,
		},
		{ // its receiver's answer
			"unstorable texts", source(`INSERT INTO dids (id, user_id, number) VALUES (7770000 + {n}, {account}, 'ok')`),
			`SELECT count(*) FROM walhook.attempt WHERE detail LIKE '(replaced:%'`,
		},
		{
			"damaged secrets", func(ctx context.Context, n int) error {
				secret := []string{"sealed:v1:AAAA", "whsec_eA==", "", "sealed:v1:", "whsec_eA==", "whsec_%%%", "whsec_eA=="}[n%7]
				return runSQL(ctx, c.outbox, `UPDATE walhook.endpoint SET secret = '`+secret+`', revision = revision + 1, changed_at = clock_timestamp()
					WHERE account = '`+poisonName+`' AND webhook IN ('account', 'surrogate')`)
			},
			`SELECT sum(times) FROM walhook.set_aside WHERE loop = 'endpoints' AND reason = 'secret'`,
		},
		{
			"malformed messages", source(`SELECT pg_logical_emit_message(true, 'walhook', '{"user_id":'), pg_logical_emit_message(true, 'walhook', E'\\xff'::bytea),
				pg_logical_emit_message(true, 'walhook', repeat('[', 10000 + {n})), pg_logical_emit_message(false, 'walhook', '{"hook":"\ud83d","account_id":"{account}"}'),
				pg_logical_emit_message(true, 'walhook', '{"hook":"custom","account_id":{"a":1e400},"data":null}')`),
			`SELECT count(*) FROM walhook.unrouted WHERE reason IN ('malformed_message', 'malformed_event')`,
		},
		{
			"unroutable rows", source(`INSERT INTO faxes (id, did_id, fax_status, direction) VALUES (6660000 + {n}, 999999999, 'failed', 'in')`),
			`SELECT count(*) FROM walhook.unrouted WHERE key LIKE '%6660%' AND reason = 'owner_unknown'`,
		},
		{
			"damaged webhooks", func(ctx context.Context, n int) error {
				return runSQL(ctx, c.outbox, `UPDATE walhook.endpoint SET custom_data = '`+[]string{`{"greeting":"hi \ud83d","type":"\ud83d"}`, `[]`, `"x"`, `{"a":1e400}`}[n%4]+`',
					revision = revision + 1, changed_at = clock_timestamp() WHERE account = '`+poisonName+`' AND webhook = 'surrogate';
					UPDATE walhook.webhooks_version SET version = version + 1`)
			},
			`SELECT count(*) FROM walhook.set_aside WHERE loop = 'webhooks'`,
		},
	}
}

// preparePoison makes the account and its receiver, whose answers cannot be
// stored.
func (c *chaosWorld) preparePoison(t *testing.T) {
	t.Helper()
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1)%2 == 0 { // or else its breaker would keep everything from it
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write([]byte("poison \xff\xfe \u0416 \\ud83d"))
	}))
	t.Cleanup(server.Close)
	c.poisoned = server.URL
	if err := runSQL(t.Context(), c.outbox, fmt.Sprintf(poisonSQL, poisonAccount, server.URL)); err != nil {
		t.Fatal(err)
	}
	user := fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES (%d, 'poison', '%s')`, poisonAccount, server.URL)
	if err := runSQL(t.Context(), c.source.URL, behind+user); err != nil {
		t.Fatal(err)
	}
}

// poison gives the fleet a bad item of each kind a second until ctx ends. Faults
// of the chaos may keep it from any of them.
func (c *chaosWorld) poison(ctx context.Context) {
	var all sync.WaitGroup
	for i, kind := range c.poisonKinds() {
		all.Go(func() {
			linger(ctx, time.Duration(i)*poisonEvery/8)
			for n := 0; linger(ctx, poisonEvery); n++ {
				if kind.inject(ctx, n) == nil {
					c.count("poison: " + kind.name)
				}
			}
		})
	}
	all.Wait()
}

// endPoison wants each kind of poison to have been met. Then it takes the account
// away again, which is no part of what is judged.
func (c *chaosWorld) endPoison(t *testing.T) {
	t.Helper()
	outbox := c.connectOutbox(t)
	for _, kind := range c.poisonKinds() {
		if n := c.counted("poison: " + kind.name); n < int(c.duration/poisonEvery)/4 {
			t.Errorf("%s: only %d were injected", kind.name, n)
		}
		seen := 0
		// Of n the worst of its kind each time: others of it may be harmless.
		for n, end := 7_000_000, time.Now().Add(30*time.Second); seen == 0 && time.Now().Before(end); n += 28 {
			if err := outbox.QueryRow(t.Context(), "SELECT coalesce(("+kind.seen+"), 0)").Scan(&seen); err != nil {
				t.Error(err)
			}
			if seen == 0 { // the chaos kept it from all that were injected
				if err := kind.inject(t.Context(), n); err != nil {
					t.Error(err)
				}
				linger(t.Context(), 500*time.Millisecond)
			}
		}
		if seen == 0 {
			t.Errorf("%s: nobody met them", kind.name)
		}
		t.Logf("%s: %d injected, %d met", kind.name, c.counted("poison: "+kind.name), seen)
	}
	disable := `UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'operator', disabled_reason = 'x', reason = 'x',
		revision = revision + 1, changed_at = clock_timestamp() WHERE account = '` + poisonName + `' AND state = 'active';
		DELETE FROM walhook.dead_letter WHERE endpoint IN (SELECT id FROM walhook.endpoint WHERE account = '` + poisonName + `')`
	if err := runSQL(t.Context(), c.outbox, disable); err != nil {
		t.Error(err)
	}
}

// runSQL runs statements, where the chaos lets it.
func runSQL(ctx context.Context, url, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}
