package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/cdc"
	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/internal/pgtest"
)

// otherTables are those of gapCatalog that these tests leave in the publication.
const otherTables = "users, notes, tags, codes, calls, async_results, events"

func newPublicationWorld(t *testing.T, publication string, oldest string) *gapWorld {
	t.Helper()
	w := unpreparedGapWorld(t, pgtest.Database(t), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
		INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 9) n;
		INSERT INTO files SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 7, 'x' FROM generate_series(1, 9) n;`)
	if oldest != "" && w.text(t, w.conn, "SELECT current_setting('server_version_num')::int >= "+oldest) != "true" {
		t.Skip("the server has no such publications")
	}
	if publication != "" {
		w.exec(t, publication)
	}
	w.setup(t, source.Refuse)
	return w
}

// gapOf reads until the reader ends with a gap.
func (w *gapWorld) gapOf(t *testing.T, meanwhile func()) string {
	t.Helper()
	store := w.open(t)
	defer store.Close()
	log := zap.NewNop()
	publisher := store.Publisher(w.cfg.Catalog)
	reader, err := cdc.New(w.cfg, publisher, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended, beside := make(chan error, 1), make(chan error, 1)
	go func() { ended <- reader.Run(ctx) }()
	go func() { beside <- publisher.Run(ctx) }()
	if meanwhile != nil {
		for reader.State() != cdc.Reading {
			time.Sleep(5 * time.Millisecond)
		}
		meanwhile()
	}
	err = <-ended
	cancel()
	<-beside
	gap, ok := errors.AsType[*source.GapError](err)
	if !ok {
		t.Fatalf("the reader ended with %v, want a gap", err)
	}
	return gap.Reason
}

// publishedSays is what doctor says about what is published, where that has failed.
func (w *gapWorld) publishedSays(t *testing.T) string {
	t.Helper()
	store := w.open(t)
	defer store.Close()
	for _, f := range source.Examine(t.Context(), w.cfg, storedPosition(store, nil), doctor.Options{}) {
		if f.ID == "source.published" && f.Status == doctor.Failed {
			return f.Evidence
		}
	}
	return ""
}

// toRemember is what a reader would remember of the publication now.
func (w *gapWorld) toRemember(t *testing.T) string {
	t.Helper()
	cfg := w.cfg.WithDefaults()
	introspector, err := source.NewIntrospector(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer introspector.Close(t.Context())
	slot, err := introspector.Inspect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	holds, err := introspector.StillPublished(t.Context(), cfg, slot, w.text(t, w.box, "SELECT visible_published FROM walhook.source"), 0)
	if err != nil {
		t.Fatal(err)
	}
	return holds
}

// What was changed while the publication was altered was never published. Altered back, it
// looks as before.
func TestGap_OfAPublicationThatIsAlteredAndAlteredBack(t *testing.T) {
	t.Parallel()
	const readded, altered = "did not contain all of public.items of the catalog for a time", "was altered and altered back"
	itemsSQL := []string{"UPDATE items SET name = 'in the gap' WHERE id = 1", "INSERT INTO items VALUES (20, 7, 'in the gap')", "DELETE FROM items WHERE id = 2"}
	items := []string{`7 update items {"id":1,"user_id":7,"name":"in the gap"}`, `7 insert items {"id":20,"user_id":7,"name":"in the gap"}`, `7 delete items {"id":2}`}
	for _, test := range []struct {
		name, publication, away, back, oldest string
		reason                                string
		files, running, replaced              bool
	}{
		{name: "a table out and in", running: true, away: "ALTER PUBLICATION walhook DROP TABLE items", back: "ALTER PUBLICATION walhook ADD TABLE items", reason: readded},
		{name: "the list of tables", away: "ALTER PUBLICATION walhook SET TABLE files, " + otherTables,
			back: "ALTER PUBLICATION walhook SET TABLE files, items, " + otherTables, reason: readded},
		{name: "operations", running: true, away: "ALTER PUBLICATION walhook SET (publish = 'insert, delete')",
			back: "ALTER PUBLICATION walhook SET (publish = 'insert, update, delete, truncate')", reason: altered},
		{name: "operations of every table", publication: "CREATE PUBLICATION walhook FOR ALL TABLES", away: "ALTER PUBLICATION walhook SET (publish = 'truncate')",
			back: "ALTER PUBLICATION walhook SET (publish = 'insert, update, delete, truncate')", reason: altered},
		{name: "a row filter", running: true, oldest: "150000", away: "ALTER PUBLICATION walhook SET TABLE files, items WHERE (id > 50), " + otherTables,
			back: "ALTER PUBLICATION walhook SET TABLE files, items, " + otherTables, reason: readded},
		{name: "a column list", oldest: "150000", away: "ALTER TABLE items REPLICA IDENTITY DEFAULT; ALTER PUBLICATION walhook SET TABLE files, items (id, user_id), " + otherTables,
			back: "ALTER PUBLICATION walhook SET TABLE files, items, " + otherTables, reason: readded},
		{name: "the same row filter", oldest: "150000", publication: "CREATE PUBLICATION walhook FOR TABLE files, items WHERE (id < 50), " + otherTables,
			away: "ALTER PUBLICATION walhook DROP TABLE items", back: "ALTER PUBLICATION walhook ADD TABLE items WHERE (id < 50)", reason: readded},
		{name: "the tables of a schema", oldest: "150000", publication: "CREATE PUBLICATION walhook FOR TABLES IN SCHEMA public",
			away: "ALTER PUBLICATION walhook DROP TABLES IN SCHEMA public", back: "ALTER PUBLICATION walhook ADD TABLES IN SCHEMA public", reason: "did not contain all of "},
		{name: "a table that becomes one of a schema", oldest: "150000", away: "ALTER PUBLICATION walhook DROP TABLE items",
			back: "ALTER PUBLICATION walhook ADD TABLES IN SCHEMA public", reason: readded},
		{name: "a partitioned table", running: true, away: "ALTER PUBLICATION walhook DROP TABLE files", back: "ALTER PUBLICATION walhook ADD TABLE files",
			reason: "did not contain all of public.files of the catalog for a time", files: true},
		{name: "partitions one by one", publication: "CREATE PUBLICATION walhook FOR TABLE items, files_0, files_1, " + otherTables,
			away: "ALTER PUBLICATION walhook DROP TABLE files, files_0, files_1", back: "ALTER PUBLICATION walhook ADD TABLE files_1; ALTER PUBLICATION walhook ADD TABLE files_0",
			reason: "did not contain all of public.files of the catalog for a time", files: true},
		{name: "another table that takes the name", running: true,
			away: "CREATE TABLE fresh (LIKE items INCLUDING ALL); INSERT INTO fresh SELECT * FROM items; ALTER TABLE items RENAME TO former; ALTER TABLE fresh RENAME TO items",
			back: "ALTER TABLE items REPLICA IDENTITY FULL; ALTER PUBLICATION walhook ADD TABLE items; DROP TABLE former", reason: readded, replaced: true},
		{name: "the name", away: "ALTER PUBLICATION walhook RENAME TO other", back: "ALTER PUBLICATION other RENAME TO walhook", reason: altered},
	} {
		for _, running := range []bool{false, true} {
			if running && !test.running {
				continue
			}
			name := test.name + ", stopped"
			if running {
				name = test.name + ", running"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newPublicationWorld(t, test.publication, test.oldest)
				changes, want := itemsSQL, items
				if test.files {
					changes = []string{"UPDATE files SET name = 'in the gap' WHERE id::text ~ '[12]$'", "DELETE FROM files WHERE id::text ~ '[34]$'"}
					want = nil
					for _, n := range []string{"1", "2"} {
						want = append(want, `7 update files {"id":"00000000-0000-0000-0000-00000000000`+n+`","user_id":7,"name":"in the gap"}`)
					}
					for _, n := range []string{"3", "4"} {
						want = append(want, `7 delete files {"id":"00000000-0000-0000-0000-00000000000`+n+`"}`)
					}
				}
				if test.replaced { // of the other rows no event says what they hold
					want = slices.Clone(items)
					for n := 3; n <= 9; n++ {
						want = append(want, fmt.Sprintf(`7 update items {"id":%d,"user_id":7,"name":"x"}`, n))
					}
				}
				alter := func() {
					w.exec(t, test.away)
					w.exec(t, changes...)
					w.exec(t, test.back)
				}
				var reason string
				if running {
					reason = w.gapOf(t, alter)
				} else {
					alter()
					if err := w.trySetup(t.Context(), t, source.Refuse); err == nil || !strings.Contains(err.Error(), test.reason) {
						t.Errorf("setup says %v", err)
					}
					if says := w.publishedSays(t); !strings.Contains(says, test.reason) {
						t.Errorf("doctor says %q", says)
					}
					reason = w.gapOf(t, nil)
				}
				// One that runs may see it before it is altered back, or meet changes that it cannot decode.
				if !running && !strings.Contains(reason, test.reason) {
					t.Errorf("the reason is %q", reason)
				}
				w.setup(t, source.Reconcile)
				if !running {
					wantTold(t, w.told(t), want...)
				}
				if at := w.text(t, w.box, "SELECT count(*) FROM walhook.gap WHERE reason LIKE $1 AND accepted_at IS NOT NULL", "publication walhook%"); !running && at == "0" {
					t.Error("no such gap is stored")
				}
				w.read(t, false)
				told := []string{}
				for _, e := range w.events(t) {
					// A delete that was published before it was altered back has the whole row.
					told = append(told, strings.Replace(e.String(), `{"id":2,"user_id":7,"name":"x"}`, `{"id":2}`, 1))
				}
				wantTold(t, told, want...)
				w.setup(t, source.Refuse)
			})
		}
	}
}

// A publisher stops at a gap: what leaves every change published is none.
func TestGap_NoneOfAPublicationThatPublishedEveryChange(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ publication, oldest, change string }{
		"another table in and out": {change: "CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION walhook ADD TABLE other; ALTER PUBLICATION walhook DROP TABLE other; ALTER PUBLICATION walhook ADD TABLE other"},
		"another schema":           {oldest: "150000", change: "CREATE SCHEMA other; ALTER PUBLICATION walhook ADD TABLES IN SCHEMA other; ALTER PUBLICATION walhook DROP TABLES IN SCHEMA other"},
		"another owner":            {change: "ALTER PUBLICATION walhook OWNER TO pg_monitor"},
		"the same list":            {change: "ALTER PUBLICATION walhook SET TABLE items, files, " + otherTables},
		"by the root":              {publication: "CREATE PUBLICATION walhook FOR TABLE items, files, " + otherTables, change: "ALTER PUBLICATION walhook SET (publish_via_partition_root = true)"},
		"generated columns": {oldest: "180000", publication: "CREATE PUBLICATION walhook FOR TABLE items, files, " + otherTables,
			change: "ALTER PUBLICATION walhook SET (publish_generated_columns = stored)"},
		"the system catalog is rewritten":         {change: "VACUUM FULL pg_publication; VACUUM FULL pg_publication_rel; VACUUM FULL pg_class; VACUUM FULL pg_inherits"},
		"the system catalog is frozen":            {change: "VACUUM FREEZE pg_publication; VACUUM FREEZE pg_publication_rel"},
		"a partition beside its table":            {change: "ALTER PUBLICATION walhook ADD TABLE files_1; ALTER PUBLICATION walhook DROP TABLE files_1"},
		"a schema beside its tables":              {oldest: "150000", change: "ALTER PUBLICATION walhook ADD TABLES IN SCHEMA public; ALTER PUBLICATION walhook DROP TABLES IN SCHEMA public"},
		"a partition out and in":                  {change: "ALTER TABLE files DETACH PARTITION files_1; ALTER TABLE files ATTACH PARTITION files_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)"},
		"a partition dropped, and another":        {change: "DELETE FROM files; ALTER TABLE files DETACH PARTITION files_1; DROP TABLE files_1; CREATE TABLE files_2 PARTITION OF files FOR VALUES WITH (MODULUS 2, REMAINDER 1)"},
		"one of single partitions, and another":   {publication: "CREATE PUBLICATION walhook FOR TABLE items, files_0, files_1, " + otherTables, change: "BEGIN; DROP TABLE files_1; CREATE TABLE files_2 PARTITION OF files FOR VALUES WITH (MODULUS 2, REMAINDER 1); ALTER PUBLICATION walhook ADD TABLE files_2; COMMIT"},
		"a table beside its partitions":           {publication: "CREATE PUBLICATION walhook FOR TABLE items, files_0, files_1, " + otherTables, change: "ALTER PUBLICATION walhook DROP TABLE files; ALTER PUBLICATION walhook ADD TABLE files"},
		"a table of the catalog that is new":      {publication: "DROP TABLE calls; CREATE PUBLICATION walhook FOR TABLE users, items, notes, tags, codes, files", change: "CREATE TABLE calls (id int PRIMARY KEY, user_id int, name text); ALTER PUBLICATION walhook ADD TABLE calls"},
		"a table that becomes unlogged":           {change: "ALTER PUBLICATION walhook DROP TABLE calls; ALTER TABLE calls SET UNLOGGED"},
		"an outbox that does not remember it":     {change: "ALTER PUBLICATION walhook DROP TABLE calls; ALTER PUBLICATION walhook ADD TABLE calls; ALTER PUBLICATION walhook SET (publish_via_partition_root = true)"},
		"a row filter that stays is named in log": {oldest: "150000", change: "ALTER PUBLICATION walhook SET TABLE files, users, notes, tags, codes, async_results, events, items, calls WHERE (id < 9)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPublicationWorld(t, test.publication, test.oldest)
			w.log = zap.NewNop()
			if strings.Contains(name, "does not remember") {
				if _, err := w.box.Exec(t.Context(), "UPDATE walhook.source SET visible_published = NULL", pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatal(err)
				}
			}
			if change, whole := strings.CutPrefix(test.change, "BEGIN; "); whole {
				w.exec(t, "BEGIN; "+change)
			} else {
				for statement := range strings.SplitSeq(test.change, "; ") { // VACUUM runs alone
					w.exec(t, statement)
				}
			}
			w.exec(t, "UPDATE items SET name = 'after' WHERE id = 1")
			if says := w.publishedSays(t); says != "" {
				t.Errorf("doctor says %q", says)
			}
			w.setup(t, source.Refuse)
			w.read(t, false)
			if got := w.applied(t)["7"]["items:1"]; got != `{"id":1,"user_id":7,"name":"after"}` {
				t.Errorf("the endpoint has %s", got)
			}
			if gaps := w.text(t, w.box, "SELECT count(*) FROM walhook.gap"); gaps != "0" {
				t.Errorf("%s gaps", gaps)
			}
		})
	}
}

// A row filter that stays is named in the logs. What it kept back is told once it is gone.
func TestGap_OfARowFilterThatIsTakenAwayLater(t *testing.T) {
	t.Parallel()
	w := newPublicationWorld(t, "", "150000")
	w.log = zap.NewNop()
	w.exec(t, "ALTER PUBLICATION walhook SET TABLE files, items WHERE (id < 5), "+otherTables, "UPDATE items SET name = 'kept back' WHERE id = 8", "UPDATE items SET name = 'sent' WHERE id = 1")
	if holds := w.toRemember(t); holds != "" {
		t.Errorf("remembered is %s", holds)
	}
	w.read(t, false)
	if got := slices.Collect(maps.Keys(w.applied(t)["7"])); !slices.Equal(got, []string{"items:1"}) {
		t.Errorf("sent %s", got)
	}
	w.exec(t, "ALTER PUBLICATION walhook SET TABLE files, items, "+otherTables)
	if reason := w.gapOf(t, nil); !strings.Contains(reason, "did not contain all of public.items") {
		t.Errorf("the reason is %q", reason)
	}
	w.setup(t, source.Reconcile)
	wantTold(t, w.told(t), `7 update items {"id":8,"user_id":7,"name":"kept back"}`)
}

// A table that becomes unlogged is left out of the publication, which doctor names. Logged
// again it is a gap. Its rows were written anew, so all of them count as changed.
func TestGap_OfATableThatWasUnlogged(t *testing.T) {
	t.Parallel()
	w := newPublicationWorld(t, "", "")
	w.log = zap.NewNop()
	if holds := w.toRemember(t); holds == "" {
		t.Error("nothing is remembered of a publication that holds everything")
	}
	w.exec(t, "ALTER PUBLICATION walhook DROP TABLE items", "ALTER TABLE items SET UNLOGGED", "DELETE FROM items WHERE id > 2", "UPDATE items SET name = 'not sent' WHERE id = 1")
	w.read(t, false)
	w.exec(t, "ALTER TABLE items SET LOGGED", "ALTER PUBLICATION walhook ADD TABLE items")
	if reason := w.gapOf(t, nil); !strings.Contains(reason, "did not contain all of public.items") {
		t.Errorf("the reason is %q", reason)
	}
	w.setup(t, source.Reconcile)
	want := []string{`7 update items {"id":1,"user_id":7,"name":"not sent"}`, `7 update items {"id":2,"user_id":7,"name":"x"}`}
	for id := range 7 {
		want = append(want, fmt.Sprintf(`7 delete items {"id":%d}`, id+3))
	}
	wantTold(t, w.told(t), want...)
}
