package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

// changeList keeps changes of a source in memory.
type changeList struct{ list []schemas.SourceChange }

func (c *changeList) KeepSourceChange(_ context.Context, change schemas.SourceChange) (int64, error) {
	change.ID = int64(len(c.list) + 1)
	c.list = append(c.list, change)
	return change.ID, nil
}

func (c *changeList) SourceChangeUndone(_ context.Context, id int64) error {
	c.list = slices.DeleteFunc(c.list, func(change schemas.SourceChange) bool { return change.ID == id })
	return nil
}

// changedWorld is a source after setup has changed it and noted the changes.
func changedWorld(t *testing.T, extra string) (*world, *changeList, uint32) {
	t.Helper()
	w, kept := unprepared(t, pgtest.Database(t), extra), &changeList{}
	if err := planned(t, w.cfg).Apply(t.Context(), w.cfg, kept, quiet); err != nil {
		t.Fatal(err)
	}
	return w, kept, w.publicationOID(t)
}

// tearDown undoes the noted changes, and returns what was left and refused.
func (w *world) tearDown(t *testing.T, kept *changeList, publication uint32) (left string, err error) {
	t.Helper()
	plan, err := source.PlanTeardown(t.Context(), w.cfg, kept.list, publication)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(plan.Left, "\n"), plan.Apply(t.Context(), kept, func(source.TeardownStep) {})
}

const byIndex = "CREATE UNIQUE INDEX by_user ON items (user_id); ALTER TABLE items ALTER user_id SET NOT NULL; ALTER TABLE items REPLICA IDENTITY USING INDEX by_user;"

// Teardown finds objects that were renamed since, and does not touch objects that have
// their former names.
func TestTeardown_FindsWhatSetupChangedUnderAnyName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, before, since string
		table, want         string // its identity afterwards
		index               string // by which it is
		left                string
	}{
		{name: "index renamed", before: byIndex, since: "ALTER INDEX by_user RENAME TO other", want: "i", index: "other"},
		{name: "index renamed, another under its name", before: byIndex, want: "i", index: "other",
			since: "ALTER INDEX by_user RENAME TO other; CREATE UNIQUE INDEX by_user ON items (user_id, id)"},
		{name: "index built again", before: byIndex, since: "REINDEX INDEX CONCURRENTLY by_user", want: "i", index: "by_user"},
		{name: "index replaced by its like", before: byIndex, since: "CREATE UNIQUE INDEX other ON items (user_id); DROP INDEX by_user", want: "i", index: "other"},
		{name: "index replaced by one of other columns", before: byIndex, since: "DROP INDEX by_user; CREATE UNIQUE INDEX by_user ON items (user_id, id)", want: "f", left: "which no longer exists"},
		{name: "table renamed", since: "ALTER TABLE items RENAME TO things", table: "things", want: "d"},
		{name: "table moved", since: "CREATE SCHEMA other; ALTER TABLE items SET SCHEMA other", table: "other.items", want: "d"},
		{name: "table made anew", since: "DROP TABLE items; CREATE TABLE items (id int PRIMARY KEY); ALTER TABLE items REPLICA IDENTITY FULL", want: "f"},
		{name: "publication renamed", since: "ALTER PUBLICATION walhook RENAME TO other", want: "d"},
		{name: "publication renamed, another made", since: "ALTER PUBLICATION walhook RENAME TO other; CREATE PUBLICATION walhook FOR TABLE notes", want: "d",
			left: "publication walhook: somebody created it later"},
		{name: "identity chosen since", since: "ALTER TABLE items REPLICA IDENTITY NOTHING", want: "n", left: "somebody has changed it since"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w, kept, publication := changedWorld(t, test.before)
			if got := w.identity(t, "items"); got != "f" {
				t.Fatalf("after setup: %s", got)
			}
			for statement := range strings.SplitSeq(test.since, "; ") {
				w.exec(t, statement)
			}
			left, err := w.tearDown(t, kept, publication)
			if err != nil || test.left == "" && left != "" || !strings.Contains(left, test.left) {
				t.Errorf("left %q, %v", left, err)
			}
			table := test.table
			if table == "" {
				table = "items"
			}
			if got := w.identity(t, table); got != test.want {
				t.Errorf("identity %s, want %s; left %s", got, test.want, left)
			}
			if test.index != "" {
				index := one[string](t, w, "SELECT coalesce((SELECT indexrelid::regclass::text FROM pg_index WHERE indisreplident AND indrelid = 'items'::regclass), '')")
				if index != test.index {
					t.Errorf("identity by index %q, want %q", index, test.index)
				}
			}
			if got := one[int](t, w, "SELECT count(*)::int FROM pg_publication WHERE oid = $1", publication); got != 0 {
				t.Error("the publication of setup is still there")
			}
			if left, err := w.tearDown(t, kept, publication); err != nil || w.identity(t, table) != test.want {
				t.Errorf("again: left %q, %v", left, err)
			}
		})
	}
}

// Setup of an older walhook noted only the name of an index.
func TestTeardown_TakesAnIndexByTheNameThatWasNoted(t *testing.T) {
	t.Parallel()
	w, kept, publication := changedWorld(t, byIndex)
	for i := range kept.list {
		if _, name, ok := strings.Cut(kept.list[i].Before, ":"); ok {
			kept.list[i].Before = "i " + strings.Split(name, " ")[1]
		}
	}
	if left, err := w.tearDown(t, kept, publication); err != nil || left != "" || w.identity(t, "items") != "i" {
		t.Errorf("left %q, %v, identity %s", left, err, w.identity(t, "items"))
	}
}

// If a table or the publication has another owner now, teardown still undoes the rest,
// and no published table loses the identity that its updates need.
func TestTeardown_UndoesTheRestWhereTheRoleLostARight(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, taken, items, notes, said string }{
		{"a table", "ALTER TABLE items OWNER TO CURRENT_USER", "f", "n", "public.items REPLICA IDENTITY DEFAULT"},
		{"the publication", "ALTER PUBLICATION walhook OWNER TO CURRENT_USER", "d", "f", "DROP PUBLICATION walhook"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w, kept := unprepared(t, pgtest.Database(t), "ALTER TABLE notes REPLICA IDENTITY NOTHING"), &changeList{}
			w.cfg.URL = w.role(t, "REPLICATION", "GRANT CREATE ON DATABASE "+w.Name+" TO %", "GRANT ALL ON SCHEMA public TO %",
				"ALTER TABLE users OWNER TO %", "ALTER TABLE items OWNER TO %", "ALTER TABLE notes OWNER TO %")
			if err := planned(t, w.cfg).Apply(t.Context(), w.cfg, kept, quiet); err != nil {
				t.Fatal(err)
			}
			publication := w.publicationOID(t)
			w.exec(t, test.taken)
			_, err := w.tearDown(t, kept, publication)
			if fault, ok := errors.AsType[*source.Fault](err); !ok || !strings.Contains(fmt.Sprint(err), test.said) {
				t.Errorf("teardown says %v (%v)", err, fault)
			}
			if got := w.identity(t, "users") + w.identity(t, "items") + w.identity(t, "notes"); got != "d"+test.items+test.notes {
				t.Errorf("identities %s: %v", got, err)
			}
			w.exec(t, "INSERT INTO notes VALUES (1, 1, 'x')", "UPDATE notes SET note = 'y'")
		})
	}
}

// A database that was renamed is found by its OID, and another one under its old
// name is left alone. What was noted before OIDs were is named.
func TestTeardown_FindsWhatSetupChangedInARenamedDatabase(t *testing.T) {
	t.Parallel()
	w, kept, publication := changedWorld(t, "")
	admin, old, renamed := pgtest.NewDatabase(t, w.Cluster), w.Name, w.Name+"_renamed"
	w.conn.Close(context.Background())
	w.watch.Close(context.Background())
	admin.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+old+"'")
	eventually(t, "the database is renamed", patience, func() bool {
		_, err := admin.Connect(t).Exec(t.Context(), "ALTER DATABASE "+old+" RENAME TO "+renamed)
		return err == nil
	})
	at := func(name string) {
		w.cfg.URL = strings.Replace(w.DB.URL, "/"+old, "/"+name, 1)
		db := *w.DB
		db.URL, db.Name = w.cfg.URL, name
		w.conn, w.watch = db.Connect(t), db.Connect(t)
	}
	at(renamed)
	noted := slices.Clone(kept.list)
	for i := range kept.list {
		kept.list[i].DatabaseOID = 0
	}
	plan, err := source.PlanTeardown(t.Context(), w.cfg, kept.list, 0)
	if err != nil {
		t.Fatal(err)
	}
	if left := strings.Join(plan.Left, "\n"); !strings.Contains(left, "database "+old) || !strings.Contains(left, "ALTER TABLE public.items REPLICA IDENTITY DEFAULT") {
		t.Errorf("without an OID: left %q", left)
	}
	admin.Exec(t, "CREATE DATABASE "+old)
	at(old)
	kept.list = noted
	w.exec(t, "CREATE TABLE items (id int PRIMARY KEY); ALTER TABLE items REPLICA IDENTITY FULL")
	if left, err := w.tearDown(t, kept, publication); err != nil || left != "" || w.identity(t, "items") != "f" {
		t.Errorf("of another database: left %q, %v, identity %s", left, err, w.identity(t, "items"))
	}
	at(renamed)
	if left, err := w.tearDown(t, kept, publication); err != nil || left != "" || w.identity(t, "items") != "d" {
		t.Errorf("renamed: left %q, %v, identity %s", left, err, w.identity(t, "items"))
	}
}
