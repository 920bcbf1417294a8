package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// poisonAccount is an account of which the carrier's ledger knows nothing: it is
// there to be in everybody's way.
const poisonAccount = 666_001

// poisonEvery is how often the chaos is given something bad to swallow.
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

// poison gives the fleet one bad item after the other until ctx ends: rows and
// answers that cannot be stored, damaged secrets, rows that belong to nobody, and
// messages that nobody can read. Faults of the chaos may keep it from any of them.
func (c *chaosWorld) poison(t *testing.T, ctx context.Context) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte("poison \xff\xfe \u0416 \\ud83d"))
	}))
	defer server.Close()
	c.exec(ctx, c.outbox, fmt.Sprintf(poisonSQL, poisonAccount, server.URL))
	// Behind the ledger's back.
	const unseen = "SET session_replication_role = replica; "
	c.exec(ctx, c.source.URL, unseen+fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES (%d, 'poison', '%s') ON CONFLICT DO NOTHING`, poisonAccount, server.URL))
	tick := time.NewTicker(poisonEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch n % 5 {
		case 0:
			c.exec(ctx, c.source.URL, unseen+fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, %d, 'poison')`, 6_660_000+n, poisonAccount))
		case 1:
			c.exec(ctx, c.source.URL, `SELECT pg_logical_emit_message(true, 'walhook', '{"user_id":'), pg_logical_emit_message(true, 'walhook', E'\\xff'::bytea)`)
		case 2:
			secret := "sealed:v1:AAAA"
			if n%2 == 0 {
				secret = "whsec_eA=="
			}
			c.exec(ctx, c.outbox, fmt.Sprintf(`UPDATE walhook.endpoint SET secret = '%s', revision = revision + 1, changed_at = clock_timestamp() WHERE account = '%d'`, secret, poisonAccount))
		case 3:
			c.exec(ctx, c.source.URL, unseen+fmt.Sprintf(`INSERT INTO faxes (id, did_id) VALUES (%d, 999999999)`, 6_660_000+n))
		case 4:
			c.exec(ctx, c.source.URL, unseen+fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, %d, 'ok')`, 7_770_000+n, poisonAccount)) // its receiver's answer cannot be stored
		}
		c.count("poison")
	}
}

// endPoison takes the account away again, which is no part of what is judged.
func (c *chaosWorld) endPoison(t *testing.T) {
	t.Helper()
	c.exec(t.Context(), c.outbox, fmt.Sprintf(`UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'operator', disabled_reason = 'x', reason = 'x',
		revision = revision + 1, changed_at = clock_timestamp() WHERE account = '%d' AND state = 'active'`, poisonAccount))
	c.exec(t.Context(), c.outbox, fmt.Sprintf(`DELETE FROM walhook.dead_letter WHERE endpoint IN (SELECT id FROM walhook.endpoint WHERE account = '%d')`, poisonAccount))
	if *chaosFlag > 0 {
		outbox := c.connectOutbox(t)
		var aside int
		if err := outbox.QueryRow(t.Context(), "SELECT count(*) FROM walhook.set_aside").Scan(&aside); err != nil || aside == 0 {
			t.Errorf("%d items were set aside, %v: the poison met nobody", aside, err)
		}
		t.Logf("%d items are set aside", aside)
	}
}

// exec runs statements, where the chaos lets it.
func (c *chaosWorld) exec(ctx context.Context, url, sql string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, _ = conn.PgConn().Exec(ctx, sql).ReadAll()
}
