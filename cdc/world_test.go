package cdc

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Most of these tests wait for a server most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(pgtest.Main(m))
}

// patience bounds every wait of a test for something that has to happen.
const patience = 90 * time.Second

// testCatalog has an account table, a record with a direct owner and one that
// is owned through it.
const testCatalog = `
account: {table: public.users, id: id, url: web_hook_url}
schemas:
  items: {table: public.items, owner: user_id, fields: [id, user_id, name]}
  notes: {table: public.notes, owner: {column: item_id, schema: items}, fields: [id, item_id, note]}
`

const testTables = `
CREATE TABLE users (id int PRIMARY KEY, web_hook_url text);
CREATE TABLE items (id int PRIMARY KEY, user_id int, name text);
CREATE TABLE notes (id int PRIMARY KEY, item_id int, note text);
`

// quiet is the log of a test that expects errors.
var quiet = zap.NewNop()

// world is a source with a slot, and a store that follows it.
type world struct {
	*pgtest.DB
	conn  *pgx.Conn // for what the test does
	watch *pgx.Conn // for what the test looks at
	cfg   source.Config
	store *recorder
	log   *zap.Logger
	marks int
}

// newWorld prepares a database of the shared server: the test's tables, then
// extra, then publication, slot and first snapshot.
func newWorld(t *testing.T, extra string) *world {
	t.Helper()
	return newWorldIn(t, pgtest.Database(t), extra)
}

func newWorldIn(t *testing.T, db *pgtest.DB, extra string) *world {
	t.Helper()
	w := unprepared(t, db, extra)
	w.setup(t)
	return w
}

// unprepared is a source before setup.
func unprepared(t *testing.T, db *pgtest.DB, extra string) *world {
	t.Helper()
	w := &world{DB: db, conn: db.Connect(t), watch: db.Connect(t), store: newRecorder(),
		log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))}
	w.cfg = source.Config{URL: db.URL, Slot: "slot_" + db.Name, Catalog: catalogOf(t, testCatalog)}
	db.Exec(t, testTables+extra)
	return w
}

func catalogOf(t *testing.T, yaml string) *catalog.Catalog {
	t.Helper()
	catalog, err := catalog.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return catalog
}

func (w *world) publicationOID(t *testing.T) (oid uint32) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), "SELECT coalesce((SELECT oid FROM pg_publication WHERE pubname = 'walhook'), 0)").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	return oid
}

// narrow makes the publication hold users and notes alone, and passes it off as
// the one that was there before: one FOR ALL TABLES cannot be narrowed.
func (w *world) narrow(t *testing.T) {
	t.Helper()
	w.exec(t, "DROP PUBLICATION walhook", "CREATE PUBLICATION walhook FOR TABLE users, notes")
	w.store.checkpoint.Source.PublicationOID = w.publicationOID(t)
}

// setup publishes every table, unless the test has made its own publication,
// and takes the first snapshot.
func (w *world) setup(t *testing.T) {
	t.Helper()
	if w.publicationOID(t) == 0 {
		w.exec(t, "CREATE PUBLICATION walhook FOR ALL TABLES")
	}
	if err := source.Snapshot(t.Context(), w.cfg, w.store, source.Refuse, w.log); err != nil {
		t.Fatal(err)
	}
}

// exec runs statements one by one, each in its own transaction unless it says
// BEGIN.
func (w *world) exec(t *testing.T, statements ...string) {
	t.Helper()
	execOn(t, w.conn, statements...)
}

func execOn(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// run is a reader that runs until stop; stop returns what Run returned.
type run struct {
	*Reader
	cancel context.CancelFunc
	taken  int // how often the store had been taken over before
	done   chan struct{}
	err    error // valid once done is closed
}

// start starts a reader. It is stopped when the test ends at the latest.
func (w *world) start(t *testing.T, options ...func(*Reader)) *run {
	t.Helper()
	reader, err := New(w.cfg, w.store, w.log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range options {
		option(reader)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{Reader: reader, cancel: cancel, taken: look(w.store, func() int { return w.store.taken }), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = reader.Run(ctx)
	}()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *run) stop() error {
	r.cancel()
	<-r.done
	return r.err
}

// ends waits until the reader ends by itself.
func (r *run) ends(t *testing.T) error {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatal("the reader goes on")
	}
	return r.err
}

// readsInTime waits until the reader reads, and fails if it ends instead.
func (r *run) reads(t *testing.T, within time.Duration) {
	t.Helper()
	eventually(t, "reading", within, func() bool {
		select {
		case <-r.done:
			t.Fatalf("the reader ended: %v", r.err)
		default:
		}
		return r.State() == Reading
	})
}

// mark commits a message, which is stored once all before it is.
func (w *world) mark(t *testing.T) string {
	t.Helper()
	w.marks++
	mark := fmt.Sprintf("mark %d", w.marks)
	w.exec(t, fmt.Sprintf("SELECT pg_logical_emit_message(true, 'walhook', '%s')", mark))
	return mark
}

// settle commits a mark and waits until it is stored with all before it.
func (w *world) settle(t *testing.T) {
	t.Helper()
	mark := w.mark(t)
	w.store.wait(t, mark, func() bool { return w.store.holds(mark) })
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	for _, fault := range w.store.faults {
		t.Errorf("stored: %s", fault)
	}
}

// lines is what was stored, without marks.
func (w *world) lines() []string {
	var lines []string
	for _, change := range w.store.stored() {
		if !bytes.HasPrefix(change.Content, []byte("mark ")) {
			lines = append(lines, line(change))
		}
	}
	return lines
}

func wantLines(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("stored\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// line writes a change for people: insert items(id*=1 name=x note=null big=?),
// where * marks the primary key and ? what is absent.
func line(c schemas.Change) string {
	if c.Kind == schemas.Message {
		return fmt.Sprintf("message %s %q", c.Prefix, c.Content)
	}
	s := c.Kind.String() + " " + c.Relation.Table().String()
	if c.Old != nil && c.OldIsKey {
		s += " key" + tupleText(c.Relation, c.Old)
	} else if c.Old != nil {
		s += " old" + tupleText(c.Relation, c.Old)
	}
	if c.New != nil {
		s += " new" + tupleText(c.Relation, c.New)
	}
	return s
}

func tupleText(r *schemas.Relation, row schemas.Tuple) string {
	parts := make([]string, len(row))
	for i, value := range row {
		text := map[schemas.ValueState]string{schemas.Absent: "?", schemas.Null: "null"}[value.State]
		if value.State == schemas.Text {
			text = shorten(string(value.Text))
		}
		key := ""
		if slices.Contains(r.PrimaryKey, i) {
			key = "*"
		}
		parts[i] = r.Columns[i].Name + key + "=" + text
	}
	return "(" + strings.Join(parts, " ") + ")"
}

func shorten(text string) string {
	if len(text) > 40 {
		return fmt.Sprintf("%s…%d", text[:3], len(text))
	}
	return text
}

// eventually polls what happens in other processes.
func eventually(t *testing.T, what string, within time.Duration, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(within)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

// one reads a single value from the source.
func one[T any](t *testing.T, w *world, sql string, args ...any) T {
	t.Helper()
	var value T
	if err := w.watch.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// confirmed is the slot's confirmed_flush_lsn, walEnd the server's WAL end.
func (w *world) confirmed(t *testing.T) schemas.LSN {
	t.Helper()
	return w.lsn(t, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", w.cfg.Slot)
}

func (w *world) walEnd(t *testing.T) schemas.LSN {
	t.Helper()
	return w.lsn(t, "SELECT pg_current_wal_lsn()::text")
}

func (w *world) lsn(t *testing.T, sql string, args ...any) schemas.LSN {
	t.Helper()
	lsn, err := schemas.ParseLSN(one[string](t, w, sql, args...))
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}
