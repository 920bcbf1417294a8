package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"walhook/cdc"
	"walhook/cdc/source"
	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/schemas/catalog"
)

// gapCatalog has keys of one column and of several, of numbers, texts, char(n), numeric
// and uuid, records that are owned through others, and one whose records are not kept.
const gapCatalog = `
account: {table: public.users, id: id, url: web_hook_url, parent: reseller_id}
schemas:
  users: {table: public.users, owner: id, fields: [id, name, web_hook_url]}
  items: {table: public.items, owner: user_id, fields: [id, user_id, name]}
  notes: {table: public.notes, owner: {column: item_id, schema: items}, fields: [id, item_id, note]}
  tags: {table: public.tags, owner: {column: note_id, schema: notes}, fields: [id, note_id, tag]}
  codes: {table: public.codes, key: [country, number], owner: user_id, fields: [country, number, note]}
  files: {table: public.files, owner: user_id, fields: [id, user_id, name]}
  calls: {table: public.calls, owner: user_id, fields: [id, user_id, name], ledger: false}
results: {table: public.async_results}
events: {table: public.events}
`

const gapTables = `
CREATE TABLE users (id int PRIMARY KEY, name text, web_hook_url text, reseller_id int, password text DEFAULT 'secret');
CREATE TABLE items (id int PRIMARY KEY, user_id int, name text, hidden text);
CREATE TABLE notes (id text PRIMARY KEY, item_id int, note text);
CREATE TABLE tags (id int PRIMARY KEY, note_id text, tag text);
CREATE TABLE codes (country char(4), number numeric(6,2), user_id int, note text, PRIMARY KEY (country, number));
CREATE TABLE files (id uuid, user_id int, name text, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE files_0 PARTITION OF files FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE files_1 PARTITION OF files FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE calls (id int PRIMARY KEY, user_id int, name text);
CREATE TABLE async_results (id int PRIMARY KEY, user_id int, schema text, type text DEFAULT 'update', status text, "verbose" text, seen boolean);
CREATE TABLE events (account_id int, hook text, payload json, internal boolean NOT NULL DEFAULT false, seen boolean);
`

// gapWorld is a source and an outbox of its own. Its reader runs in the test's process, so
// that a test can stop it at a place and drop its slot.
type gapWorld struct {
	db, outbox *pgtest.DB
	conn, box  *pgx.Conn
	cfg        source.Config
	log        *zap.Logger
}

func newGapWorld(t *testing.T, db *pgtest.DB, rows string) *gapWorld {
	t.Helper()
	w := unpreparedGapWorld(t, db, rows)
	w.setup(t, source.Refuse)
	return w
}

func unpreparedGapWorld(t *testing.T, db *pgtest.DB, rows string) *gapWorld {
	t.Helper()
	w := &gapWorld{db: db, outbox: pgtest.Database(t), log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))}
	w.conn, w.box = w.db.Connect(t), w.outbox.Connect(t)
	w.cfg = source.Config{URL: w.db.URL, Slot: "slot_" + w.db.Name + "_" + w.outbox.Name, Catalog: w.catalog(t, gapCatalog)}
	w.db.Exec(t, gapTables+rows)
	return w
}

func (w *gapWorld) catalog(t *testing.T, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *gapWorld) open(t *testing.T) *outbox.Store {
	t.Helper()
	store, err := outbox.Open(t.Context(), outbox.Config{URL: w.outbox.URL}, w.log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func (w *gapWorld) trySetup(ctx context.Context, t *testing.T, over source.Over) error {
	store := w.open(t)
	defer store.Close()
	asked, err := prepare(ctx, w.cfg, store, w.outbox.URL, over, w.log)
	if err == nil && asked {
		err = adopt(ctx, w.cfg, store, w.log)
	}
	return err
}

func (w *gapWorld) setup(t *testing.T, over source.Over) {
	t.Helper()
	if err := w.trySetup(t.Context(), t, over); err != nil {
		t.Fatal(err)
	}
}

// read publishes until all that the source committed before is stored, and with remember
// until the outbox knows a snapshot of the source from after that.
func (w *gapWorld) read(t *testing.T, remember bool) {
	t.Helper()
	store := w.open(t)
	defer store.Close()
	publisher := store.Publisher(w.cfg.Catalog)
	reader, err := cdc.New(w.cfg, publisher, w.log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := w.text(t, w.conn, "SELECT pg_current_wal_insert_lsn()")
	ended := make(chan error, 1)
	go func() { ended <- reader.Run(ctx) }()
	beside := make(chan error, 1)
	go func() { beside <- publisher.Run(ctx) }()
	w.conn.Exec(t.Context(), "SELECT pg_logical_emit_message(true, 'mark', 'x')")
	await := func(sql string) {
		t.Helper()
		for until := time.Now().Add(60 * time.Second); w.text(t, w.box, sql, end) != "true"; {
			select {
			case err := <-ended:
				t.Fatalf("the reader ended: %v", err)
			case <-time.After(5 * time.Millisecond):
			}
			if time.Now().After(until) {
				t.Fatalf("waited in vain for %s of %s", sql, end)
			}
		}
	}
	await("SELECT flush_lsn >= $1::text::pg_lsn FROM walhook.position ORDER BY id DESC LIMIT 1")
	if remember {
		await("SELECT coalesce(visible_lsn >= $1::text::pg_lsn, false) FROM walhook.source")
	}
	cancel()
	if err := errors.Join(<-ended, <-beside); err != nil {
		t.Fatal(err)
	}
}

func (w *gapWorld) text(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var text *string
	if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text", args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if text == nil {
		return "NULL"
	}
	return *text
}

func (w *gapWorld) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := w.conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// loseSlot begins a gap.
func (w *gapWorld) loseSlot(t *testing.T) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; {
		_, err := w.conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", w.cfg.Slot)
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // the server has not noticed yet that the reader is gone
	}
}

// gapEvent is an event of the log, as a test writes it.
type gapEvent struct {
	id, account, webhook, kind, schema, record, data string
}

func (e gapEvent) String() string {
	return fmt.Sprintf("%s%s %s %s", e.account, e.webhook, e.kind, e.schema+" "+e.data)
}

const gapEventsSQL = `
	SELECT e.webhook_id, p.account, CASE WHEN p.webhook = 'account' THEN '' ELSE '/' || p.webhook END, e.type, e.schema, e.record,
		convert_from(CASE WHEN e.body_of IS NULL THEN e.body ELSE (SELECT o.body FROM walhook.event o WHERE o.id = e.body_of) END, 'UTF8')
	FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`

func (w *gapWorld) events(t *testing.T) (list []gapEvent) {
	t.Helper()
	rows, err := w.box.Query(t.Context(), gapEventsSQL)
	if err != nil {
		t.Fatal(err)
	}
	var e gapEvent
	_, err = pgx.ForEachRow(rows, []any{&e.id, &e.account, &e.webhook, &e.kind, &e.schema, &e.record, &e.data}, func() error {
		var body struct{ Type, Schema, Data string }
		if err := json.Unmarshal([]byte(e.data), &body); err != nil {
			return err
		}
		if body.Type != e.kind || body.Schema != e.schema {
			t.Errorf("%s: body says %s %s", e, body.Type, body.Schema)
		}
		e.data = body.Data
		list = append(list, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// told are the events of gaps.
func (w *gapWorld) told(t *testing.T) (lines []string) {
	t.Helper()
	for _, e := range w.events(t) {
		if strings.HasPrefix(e.id, "gap_") {
			lines = append(lines, e.String())
		}
	}
	return lines
}

func wantTold(t *testing.T, got []string, want ...string) {
	t.Helper()
	got = slices.Clone(got)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("told:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// gap is what the newest gap's row says: inserts, updates, deletes, whether it is ended.
func (w *gapWorld) gap(t *testing.T) string {
	t.Helper()
	return w.text(t, w.box, "SELECT format('%s %s %s %s', inserts, updates, deletes, reconciled_at IS NOT NULL) FROM walhook.gap ORDER BY id DESC LIMIT 1")
}

// applied is what a receiver has that applies its events in order, by account.
func (w *gapWorld) applied(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, e := range w.events(t) {
		at := e.account + e.webhook
		if all[at] == nil {
			all[at] = map[string]string{}
		}
		if e.kind == "delete" {
			delete(all[at], e.record)
		} else {
			all[at][e.record] = e.data
		}
	}
	return all
}
