package cdc

import (
	"context"
	"fmt"
	"net/url"
	"testing"

	"walhook/cdc/source"
	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// The reader decodes a backlog by the shape that the table had then.
func TestReader_DecodesABacklogByTheShapeOfItsTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		setup string
		run   []string // while no reader runs
		want  []string
	}{
		{
			name: "columns added, renamed, retyped and dropped",
			run: []string{
				"INSERT INTO items VALUES (1, 7, 'a')",
				"ALTER TABLE items ADD extra int DEFAULT 5", "INSERT INTO items VALUES (2, 7, 'b')",
				"ALTER TABLE items RENAME name TO title", "INSERT INTO items VALUES (3, 7, 'c', 6)",
				"ALTER TABLE items ALTER extra TYPE text USING 'n' || extra", "INSERT INTO items VALUES (4, 7, 'd', 't')",
				"ALTER TABLE items DROP title", "INSERT INTO items VALUES (5, 7, 'u')",
				"BEGIN; INSERT INTO items VALUES (6, 7, 'v'); ALTER TABLE items DROP extra; INSERT INTO items VALUES (7, 7); COMMIT",
			},
			want: []string{
				"insert public.items new(id*=1 user_id=7 name=a)",
				"insert public.items new(id*=2 user_id=7 name=b extra=5)",
				"insert public.items new(id*=3 user_id=7 title=c extra=6)",
				"insert public.items new(id*=4 user_id=7 title=d extra=t)",
				"insert public.items new(id*=5 user_id=7 extra=u)",
				"insert public.items new(id*=6 user_id=7 extra=v)",
				"insert public.items new(id*=7 user_id=7)",
			},
		},
		{
			name: "the table renamed, and another in its place",
			run: []string{
				"INSERT INTO items VALUES (1, 7, 'a')",
				"ALTER TABLE items RENAME TO old_items", "INSERT INTO old_items VALUES (2, 7, 'b')",
				"CREATE TABLE items (id bigint PRIMARY KEY)", "INSERT INTO items VALUES (3)",
			},
			want: []string{
				"insert public.items new(id*=1 user_id=7 name=a)",
				"insert public.old_items new(id*=2 user_id=7 name=b)",
				"insert public.items new(id*=3)",
			},
		},
		{
			name: "the table dropped",
			run:  []string{"INSERT INTO items VALUES (1, 7, 'a')", "DROP TABLE items"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a)"},
		},
		{
			name:  "replica identity changed",
			setup: "INSERT INTO items VALUES (1, 7, 'a')",
			run: []string{
				"UPDATE items SET name = 'b'", "ALTER TABLE items REPLICA IDENTITY FULL", "UPDATE items SET name = 'c'",
				"ALTER TABLE items REPLICA IDENTITY DEFAULT", "DELETE FROM items",
			},
			want: []string{
				"update public.items new(id*=1 user_id=7 name=b)",
				"update public.items old(id*=1 user_id=7 name=b) new(id*=1 user_id=7 name=c)",
				"delete public.items key(id*=1 user_id=? name=?)",
			},
		},
		{
			name:  "under FULL the key's column renamed",
			setup: "ALTER TABLE items REPLICA IDENTITY FULL",
			run: []string{
				"INSERT INTO items VALUES (1, 7, 'a')", "ALTER TABLE items RENAME id TO nr", "UPDATE items SET name = 'b'",
			},
			want: []string{
				"insert public.items new(id*=1 user_id=7 name=a)",
				"update public.items old(nr*=1 user_id=7 name=a) new(nr*=1 user_id=7 name=b)",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, test.setup)
			// The reader must read the key of a table while it exists.
			w.exec(t, test.run...)
			w.start(t)
			w.settle(t)
			wantLines(t, w.lines(), test.want)
		})
	}
}

// The same while the reader reads.
func TestReader_FollowsATableThatChangesUnderIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "ALTER TABLE items REPLICA IDENTITY FULL")
	w.start(t)
	var want []string
	for i := range 20 {
		w.exec(t, fmt.Sprintf("ALTER TABLE items ADD c%d int DEFAULT %d", i, i), fmt.Sprintf("INSERT INTO items VALUES (%d, 7, 'x')", i),
			fmt.Sprintf("ALTER TABLE items DROP c%d", i))
		want = append(want, fmt.Sprintf("insert public.items new(id*=%d user_id=7 name=x c%d=%d)", i, i, i))
	}
	w.settle(t)
	wantLines(t, w.lines(), want)
}

func TestReader_LearnsTypesThatAreNotBuiltIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.start(t)
	w.exec(t,
		"CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE DOMAIN cents AS int", "CREATE TYPE pair AS (a int, b text)",
		"CREATE TABLE moods (id int PRIMARY KEY, m mood, ms mood[], c cents, p pair)",
		`INSERT INTO moods VALUES (1, 'ok', '{sad,ok}', 5, '(1,"x y")')`)
	w.settle(t)
	change := w.store.stored()[0]
	var json []byte
	for i, column := range change.Relation.Columns {
		if !change.Relation.Types.Known(column.Type) {
			t.Errorf("the type of column %s is not known", column.Name)
		}
		var err error
		if json, err = change.Relation.Types.AppendJSON(append(json, ' '), column.Type, change.New[i].Text); err != nil {
			t.Error(err)
		}
	}
	if got, want := string(json), ` 1 "ok" ["sad","ok"] 5 {"a":1,"b":"x y"}`; got != want {
		t.Errorf("got%s, want%s", got, want)
	}
	w.exec(t, "ALTER TYPE pair ADD ATTRIBUTE c int", `INSERT INTO moods VALUES (2, 'ok', '{}', 5, '(1,x,3)')`)
	w.settle(t)
	change = last(w.store.stored(), schemas.Insert)
	got, err := change.Relation.Types.AppendJSON(nil, change.Relation.Columns[4].Type, change.New[4].Text)
	if want := `{"a":1,"b":"x","c":3}`; err != nil || string(got) != want {
		t.Errorf("after ALTER TYPE: got %s, err %v, want %s", got, err, want)
	}
}

// Composite types are looked up once for a relation and again after ALTER TYPE,
// not for each transaction.
func TestReader_TypesAreLookedUpOncePerRelation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TYPE inner_pair AS (x int, y int); CREATE TYPE pair AS (a int, b inner_pair);
		CREATE TABLE pairs (id int PRIMARY KEY, p pair[])`)
	introspector, err := source.NewIntrospector(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer introspector.Close(context.Background())
	counted := &countedCatalog{Introspector: introspector}
	s := &stream{source: counted, builtin: pgjson.NewTypes(), history: &history{}, relations: map[uint32]*schemas.Relation{}, composites: map[uint32]*compositeTypes{}}
	relation := &schemas.Relation{OID: one[uint32](t, w, "SELECT 'pairs'::regclass::oid"), Columns: []schemas.Column{
		{Name: "p", Type: one[uint32](t, w, "SELECT 'pair[]'::regtype::oid")}}}
	last := func() uint32 { // transaction
		return one[uint32](t, w, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1")
	}
	if s.composites[relation.OID], err = s.describeTypes(t.Context(), relation, keptTypes{tx: begin{xid: last()}}); err != nil {
		t.Fatal(err)
	}
	transactions := func(n, want int) {
		t.Helper()
		s.tx.xid = last()
		for range n {
			s.tx.commit++
			if relation, err = s.refresh(t.Context(), relation, s.composites[relation.OID]); err != nil {
				t.Fatal(err)
			}
		}
		if counted.lookups != want {
			t.Errorf("%d look-ups, want %d", counted.lookups, want)
		}
	}
	transactions(10, 1)
	for i, sql := range []string{"ALTER TYPE pair ADD ATTRIBUTE c int", "ALTER TYPE inner_pair RENAME ATTRIBUTE x TO z",
		"ALTER TYPE inner_pair ADD ATTRIBUTE w int", "ALTER TYPE pair DROP ATTRIBUTE c"} {
		w.exec(t, sql)
		transactions(10, i+2)
	}
	got, err := relation.Types.AppendJSON(nil, relation.Columns[0].Type, []byte(`{"(1,\"(2,3,4)\")"}`))
	if want := `[{"a":1,"b":{"z":2,"y":3,"w":4}}]`; err != nil || string(got) != want {
		t.Errorf("got %s, err %v, want %s", got, err, want)
	}
}

// countedCatalog counts look-ups of types.
type countedCatalog struct {
	*source.Introspector
	lookups int
}

func (c *countedCatalog) ReadTypes(ctx context.Context, oids []uint32) ([]pgjson.TypeRow, map[uint32][]int64, string, error) {
	c.lookups++
	return c.Introspector.ReadTypes(ctx, oids)
}

// last is the last change of a kind.
func last(changes []schemas.Change, kind schemas.Kind) schemas.Change {
	for i := len(changes) - 1; i >= 0; i-- {
		if changes[i].Kind == kind {
			return changes[i]
		}
	}
	return schemas.Change{}
}

const values = `
	CREATE TABLE vals (id int PRIMARY KEY, ts timestamptz, d date, f float8, i interval, b bytea, m money);
`

// The walsender prints values under the role's and the database's settings.
func TestReader_TheRolesSettingsChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, values)
	role := "german_" + w.Name
	w.exec(t, "CREATE ROLE "+role+" SUPERUSER LOGIN PASSWORD 'secret'")
	t.Cleanup(func() { _, _ = w.conn.Exec(context.Background(), "DROP ROLE "+role) })
	for _, setting := range []string{
		"datestyle = 'German, DMY'", "extra_float_digits = 0", "intervalstyle = 'iso_8601'", "timezone = 'Asia/Tokyo'",
		"bytea_output = 'escape'", "client_encoding = 'LATIN1'", "statement_timeout = '1ms'", "lock_timeout = '1ms'", "row_security = on",
		"idle_in_transaction_session_timeout = '100ms'", "idle_session_timeout = '100ms'", "default_transaction_read_only = on",
		"search_path = 'nowhere'", "standard_conforming_strings = off",
	} {
		w.exec(t, "ALTER ROLE "+role+" SET "+setting, "ALTER DATABASE "+w.Name+" SET "+setting)
	}
	source, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	source.User = url.UserPassword(role, "secret")
	w.cfg.URL = source.String()
	w.start(t)
	w.exec(t, "INSERT INTO vals VALUES (1, '2026-03-04 05:06:07.089+00', '2026-03-04', 0.1::float8 + 0.2::float8, '1 day 02:03', '\\xC3A9', 1)")
	w.exec(t, "INSERT INTO items VALUES (1, 7, U&'\\00e9\\20ac')")
	w.settle(t)
	wantLines(t, w.lines(), []string{
		`insert public.vals new(id*=1 ts=2026-03-04 05:06:07.089+00 d=2026-03-04 f=0.30000000000000004 i=1 day 02:03:00 b=\xc3a9 m=$1.00)`,
		"insert public.items new(id*=1 user_id=7 name=é€)",
	})
}
