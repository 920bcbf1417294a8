package cdc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// watched is a world whose log lines the test reads.
func watched(t *testing.T, extra, publication string) (*world, *observer.ObservedLogs) {
	t.Helper()
	w := unprepared(t, pgtest.Database(t), extra)
	w.exec(t, publication)
	w.setup(t)
	core, logs := observer.New(zap.WarnLevel)
	w.log = zap.New(core)
	return w, logs
}

func (w *world) identity(t *testing.T, table string) (identity string) {
	t.Helper()
	if err := w.watch.QueryRow(t.Context(), "SELECT relreplident::text FROM pg_class WHERE oid = $1::regclass", table).Scan(&identity); err != nil {
		t.Fatal(err)
	}
	return identity
}

// often makes a reader check the tables more often.
func often(r *Reader) { r.tablesEvery = 100 * time.Millisecond }

// firstLook waits until the reader has checked the tables: users and notes have no FULL.
func firstLook(t *testing.T, logs *observer.ObservedLogs) {
	t.Helper()
	named := func(table string) bool { return ofTable(logs, table).Len() > 0 }
	eventually(t, "a first look at the tables", patience, func() bool { return named("users") && named("notes") })
}

// ofTable are the lines that name a table.
func ofTable(logs *observer.ObservedLogs, table string) *observer.ObservedLogs {
	return logs.FilterField(zap.Stringer("table", schemas.TableName{Namespace: "public", Name: table}))
}

// A new partition keeps only the key of old rows, even if its siblings have FULL: the
// reader sets FULL for it, and until then reads its old rows as keys.
func TestReader_GivesANewPartitionTheIdentityOfItsTable(t *testing.T) {
	t.Parallel()
	w, logs := watched(t, dividedItems+"INSERT INTO items VALUES (1, 7, 'a')",
		"CREATE PUBLICATION walhook FOR TABLE users, items, notes WITH (publish_via_partition_root = true)")
	run := w.start(t, often)
	run.reads(t, patience)
	w.exec(t, "BEGIN; CREATE TABLE items_3 PARTITION OF items FOR VALUES FROM (20) TO (30); INSERT INTO items VALUES (21, 7, 'b'), (22, 7, 'c'); DELETE FROM items WHERE id IN (1, 21); COMMIT")
	eventually(t, "the partition is under FULL", patience, func() bool { return w.identity(t, "items_3") == "f" })
	w.exec(t, "DELETE FROM items WHERE id = 22")
	w.settle(t)
	wantLines(t, w.lines(), []string{
		"insert public.items new(id*=21 user_id=7 name=b)", "insert public.items new(id*=22 user_id=7 name=c)",
		"delete public.items old(id*=1 user_id=7 name=a)", "delete public.items key(id*=21 user_id=? name=?)",
		"delete public.items old(id*=22 user_id=7 name=c)",
	})
	eventually(t, "it is logged", patience, func() bool { return logs.FilterMessageSnippet("changed the replica identity").Len() > 0 })
	if err := run.stop(); err != nil {
		t.Error(err)
	}
	if logs.FilterMessageSnippet("changed the replica identity").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
}

// The reader logs an identity that somebody chose, and does not change it.
func TestReader_LeavesAnIdentityThatSomebodyChose(t *testing.T) {
	t.Parallel()
	w, logs := watched(t, dividedItems, "CREATE PUBLICATION walhook FOR TABLE users, items, notes WITH (publish_via_partition_root = true)")
	run := w.start(t, often)
	run.reads(t, patience)
	firstLook(t, logs)
	w.exec(t, "ALTER TABLE items_2 REPLICA IDENTITY DEFAULT")
	eventually(t, "it is named", patience, func() bool { return ofTable(logs, "items_2").Len() > 0 })
	w.exec(t, "ALTER TABLE items_1 REPLICA IDENTITY DEFAULT")
	eventually(t, "a later look", patience, func() bool { return ofTable(logs, "items_1").Len() > 0 })
	if got := w.identity(t, "items_2"); got != "d" {
		t.Errorf("identity is %q", got)
	}
}

// The reader never waits for a partition's lock for so long that the carrier notices.
func TestReader_PutsOffAPartitionThatSomebodyHolds(t *testing.T) {
	t.Parallel()
	w, logs := watched(t, dividedItems, "CREATE PUBLICATION walhook FOR TABLE users, items, notes WITH (publish_via_partition_root = true)")
	run := w.start(t, often)
	run.reads(t, patience)
	firstLook(t, logs)
	w.exec(t, "CREATE TABLE items_3 (LIKE items INCLUDING ALL)", "BEGIN; LOCK TABLE items_3 IN SHARE MODE")
	w.watchExec(t, "SET lock_timeout = 0")
	w.exec(t, "ALTER TABLE items ATTACH PARTITION items_3 FOR VALUES FROM (20) TO (30); COMMIT; BEGIN; LOCK TABLE items_3 IN SHARE MODE")
	eventually(t, "it is put off", patience, func() bool { return logs.FilterMessageSnippet("cannot change").Len() == 1 })
	w.exec(t, "COMMIT")
	eventually(t, "the partition is under FULL", patience, func() bool { return w.identity(t, "items_3") == "f" })
}

func (w *world) watchExec(t *testing.T, sql string) { execOn(t, w.watch, sql) }

func (w *world) generatedVersion(t *testing.T) {
	t.Helper()
	var version int
	if err := w.watch.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if version < 180000 {
		t.Skip("PostgreSQL 18 refuses updates of tables with generated columns that are not published")
	}
}

// PostgreSQL 18 refuses the carrier's own updates of a table with FULL, which setup set,
// and a generated column that is not published. The reader logs that at once and makes
// the updates work again.
func TestReader_LetsTheCarrierWriteAfterAGeneratedColumnIsAdded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ kind, publication, identity string }{
		"stored":                       {"STORED", "", "f"},
		"virtual":                      {"VIRTUAL", "", "d"},
		"stored, not published before": {"STORED", " WITH (publish_generated_columns = none)", "f"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), "INSERT INTO items VALUES (1, 7, 'a')")
			w.generatedVersion(t)
			if err := planned(t, w.cfg).Apply(t.Context(), w.cfg, noChanges{}, quiet); err != nil {
				t.Fatal(err)
			}
			if test.publication != "" {
				w.exec(t, "ALTER PUBLICATION walhook SET (publish_generated_columns = none)")
			}
			w.setup(t)
			core, logs := observer.New(zap.WarnLevel)
			w.log = zap.New(core)
			run := w.start(t, often)
			run.reads(t, patience)
			w.exec(t, fmt.Sprintf("ALTER TABLE items ADD twice int GENERATED ALWAYS AS (id * 2) %s", test.kind))
			eventually(t, "changed the replica identity", patience, func() bool {
				_, err := w.conn.Exec(t.Context(), "UPDATE items SET name = name || 'x'")
				return err == nil
			})
			eventually(t, "nothing is left to do", patience, func() bool { return len(planned(t, w.cfg).Statements) == 0 })
			if got := w.identity(t, "items"); got != test.identity {
				t.Errorf("identity is %s, want %s", got, test.identity)
			}
			refused := logs.FilterMessageSnippet("refuses the updates").Len()
			if want := test.identity == "d" || test.publication != ""; (refused > 0) != want {
				t.Errorf("named %d times: %v", refused, logs.All())
			}
		})
	}
}

// The same for a publication that gets a column list for the table.
func TestReader_LetsTheCarrierWriteAfterAListOfColumnsIsMade(t *testing.T) {
	t.Parallel()
	w, logs := watched(t, "INSERT INTO items VALUES (1, 7, 'a'); ALTER TABLE items REPLICA IDENTITY FULL", "CREATE PUBLICATION walhook FOR TABLE users, items, notes")
	if one[int](t, w, "SELECT current_setting('server_version_num')::int") < 150000 {
		t.Skip("the server has no lists of columns")
	}
	run := w.start(t, often)
	run.reads(t, patience)
	firstLook(t, logs)
	w.exec(t, "CREATE PUBLICATION another FOR TABLE items (id, name)")
	eventually(t, "changed the replica identity", patience, func() bool {
		_, err := w.conn.Exec(t.Context(), "UPDATE items SET name = name || 'x'")
		return err == nil
	})
	eventually(t, "it is named", patience, func() bool { return logs.FilterMessageSnippet("refuses the updates").Len() == 1 })
}

// Setup does not remove FULL where generated columns are published, since it works.
func TestPlanSetup_KeepsFullWhereGeneratedColumnsArePublished(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), `ALTER TABLE items ADD twice int GENERATED ALWAYS AS (id * 2) STORED; ALTER TABLE items REPLICA IDENTITY FULL;
		INSERT INTO items (id, user_id) VALUES (1, 7)`)
	w.generatedVersion(t)
	if err := planned(t, w.cfg).Apply(t.Context(), w.cfg, noChanges{}, quiet); err != nil {
		t.Fatal(err)
	}
	if got := w.identity(t, "items"); got != "f" {
		t.Errorf("identity is %s", got)
	}
	w.setup(t)
	w.start(t)
	w.exec(t, "DELETE FROM items")
	w.settle(t)
	wantLines(t, w.lines(), []string{"delete public.items old(id*=1 user_id=7 name=null twice=2)"})
	asked, err := source.NewIntrospector(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close(t.Context())
	described, err := asked.Describe(t.Context(), one[uint32](t, w, "SELECT 'items'::regclass::oid"))
	if err != nil || !slices.ContainsFunc(described.Columns, func(c catalog.DescribedColumn) bool { return c.Name == "twice" && !c.Unsent }) {
		t.Errorf("items is described as %+v: %v", described, err)
	}
}

// PostgreSQL 15.0 to 15.5, and 16.0 and 16.1, send nulls for columns that are younger
// than the row.
func TestReader_DoesNotBelieveANullThatAnOldRowMayLack(t *testing.T) {
	seven := "7"
	s := detached(schemas.Checkpoint{}, 0)
	relation := testRelation(t, 'f')
	for name, test := range map[string]struct {
		column catalog.DescribedColumn
		want   schemas.Value
	}{
		"not null": {catalog.DescribedColumn{Name: "name", NotNull: true, Missing: &seven}, schemas.Value{State: schemas.Text, Text: []byte("7")}},
		"nullable": {catalog.DescribedColumn{Name: "name", Missing: &seven}, schemas.Value{}},
		"another":  {catalog.DescribedColumn{Name: "other", Missing: &seven}, schemas.Value{State: schemas.Null}},
	} {
		s.missing[relation.OID] = map[string]catalog.DescribedColumn{test.column.Name: test.column}
		change := schemas.Change{Kind: schemas.Delete, Relation: relation, Old: schemas.Tuple{{State: schemas.Text, Text: []byte("1")}, {State: schemas.Null}}}
		s.downgradeMixedIdentity(&change)
		if got := change.Old[1]; got.State != test.want.State || string(got.Text) != string(test.want.Text) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The reader logs at once that a DBA has changed the publication or a table so that rows
// or columns are not sent any more.
func TestReader_NamesWhatIsNoLongerSent(t *testing.T) {
	t.Parallel()
	const list = "CREATE PUBLICATION walhook FOR TABLE users, items, notes"
	for _, test := range []struct {
		name, publication, change, want string
		oldest                          int
	}{
		{name: "a child that inherits later", publication: list, want: "inherits from a published one",
			change: "CREATE TABLE more (id int PRIMARY KEY, user_id int, name text); ALTER TABLE more INHERIT items"},
		{name: "a child of another schema", publication: "CREATE PUBLICATION walhook FOR TABLES IN SCHEMA public", oldest: 150000, want: "inherits from a published one",
			change: "CREATE SCHEMA apart; CREATE TABLE apart.more (PRIMARY KEY (id)) INHERITS (items)"},
		{name: "a row filter", publication: list, oldest: 150000, want: "has a row filter",
			change: "ALTER PUBLICATION walhook SET TABLE users, items WHERE (id > 5), notes"},
		{name: "a list of columns", publication: list, oldest: 150000, want: "has a column list",
			change: "ALTER PUBLICATION walhook SET TABLE users, items (id, user_id), notes"},
		{name: "a table of another name", publication: list, want: "has disappeared", change: "ALTER TABLE items RENAME TO things"},
		{name: "a table of another schema", publication: "CREATE PUBLICATION walhook FOR TABLES IN SCHEMA public", oldest: 150000, want: "has disappeared",
			change: "CREATE SCHEMA apart; ALTER TABLE items SET SCHEMA apart"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), "")
			if one[int](t, w, "SELECT current_setting('server_version_num')::int") < test.oldest {
				t.Skip("the server has no such publications")
			}
			w.exec(t, test.publication)
			w.setup(t)
			core, logs := observer.New(zap.ErrorLevel)
			w.log = zap.New(core)
			run := w.start(t, often)
			run.reads(t, patience)
			w.exec(t, "ALTER TABLE notes REPLICA IDENTITY NOTHING")
			eventually(t, "a first look at the tables", patience, func() bool { return logs.FilterMessageSnippet("refuses the updates").Len() > 0 })
			for statement := range strings.SplitSeq(test.change, "; ") {
				w.exec(t, statement)
			}
			eventually(t, "it is named", patience, func() bool {
				named := logs.FilterMessageSnippet(test.want).All()
				return len(named) == 1 && named[0].ContextMap()["reason"] != "" && named[0].ContextMap()["fix"] != ""
			})
			w.settle(t)
		})
	}
}
