package cdc

import (
	"strings"
	"testing"

	"walhook/internal/pgtest"
	"walhook/schemas"
)

const dividedItems = `
	DROP TABLE items;
	CREATE TABLE items (id int, user_id int, name text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
	CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (10);
	CREATE TABLE items_2 PARTITION OF items FOR VALUES FROM (10) TO (20);
	ALTER TABLE items REPLICA IDENTITY FULL; ALTER TABLE items_1 REPLICA IDENTITY FULL; ALTER TABLE items_2 REPLICA IDENTITY FULL;
`

// The reader reads a backlog by the kept descriptions of its time, after the source's
// catalog has changed.
func TestReader_ReadsABacklogByTheCatalogOfItsTime(t *testing.T) {
	t.Parallel()
	const asPartitions = "CREATE PUBLICATION walhook FOR TABLE users, items, notes"
	const every = "CREATE PUBLICATION walhook FOR ALL TABLES" // another table in a published one's place is no gap
	const asRoot = asPartitions + " WITH (publish_via_partition_root = true)"
	for _, test := range []struct {
		name        string
		setup       string
		publication string
		live        []string // while the reader reads, before it is away
		run         []string // while no reader runs
		want        []string
	}{
		{
			name: "a partition detached and dropped", setup: dividedItems, publication: asPartitions,
			run: []string{"INSERT INTO items VALUES (1, 7, 'a')", "UPDATE items SET name = 'b'", "DELETE FROM items",
				"ALTER TABLE items DETACH PARTITION items_1", "DROP TABLE items_1"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a)",
				"update public.items old(id*=1 user_id=7 name=a) new(id*=1 user_id=7 name=b)", "delete public.items old(id*=1 user_id=7 name=b)"},
		},
		{
			name: "a partition detached concurrently, and kept", setup: dividedItems, publication: asPartitions,
			run:  []string{"INSERT INTO items VALUES (1, 7, 'a')", "ALTER TABLE items DETACH PARTITION items_1 CONCURRENTLY"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a)"},
		},
		{
			name: "a partition dropped, published as the root", setup: dividedItems, publication: asRoot,
			run:  []string{"INSERT INTO items VALUES (1, 7, 'a')", "DELETE FROM items", "DROP TABLE items_1"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a)", "delete public.items old(id*=1 user_id=7 name=a)"},
		},
		{
			name: "a partition that came while the reader read", setup: dividedItems, publication: asPartitions,
			live: []string{"CREATE TABLE items_3 PARTITION OF items FOR VALUES FROM (20) TO (30)"},
			run: []string{"INSERT INTO items VALUES (21, 7, 'a')",
				"ALTER TABLE items DETACH PARTITION items_3", "DROP TABLE items_3"},
			want: []string{"insert public.items new(id*=21 user_id=7 name=a)"},
		},
		{
			name: "the root renamed, and another in its place", setup: dividedItems, publication: every,
			run: []string{"INSERT INTO items VALUES (1, 7, 'a')", "ALTER TABLE items RENAME TO old_items",
				"CREATE TABLE items (id int PRIMARY KEY, user_id int, name text)"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a)"},
		},
		{
			name: "a partition of a partition, all dropped", publication: asPartitions,
			setup: dividedItems + `CREATE TABLE items_9 PARTITION OF items FOR VALUES FROM (90) TO (99) PARTITION BY RANGE (id);
				CREATE TABLE items_91 PARTITION OF items_9 FOR VALUES FROM (91) TO (92); ALTER TABLE items_91 REPLICA IDENTITY FULL`,
			run:  []string{"INSERT INTO items VALUES (91, 7, 'a')", "DROP TABLE items"},
			want: []string{"insert public.items new(id*=91 user_id=7 name=a)"},
		},
		{
			name: "a table swapped for another and dropped", publication: every,
			setup: "ALTER TABLE items REPLICA IDENTITY FULL",
			run: []string{"INSERT INTO items VALUES (1, 7, 'a')", "UPDATE items SET id = 2",
				"BEGIN; CREATE TABLE fresh (LIKE items INCLUDING ALL); ALTER TABLE items RENAME TO old_items; ALTER TABLE fresh RENAME TO items;" +
					"ALTER TABLE items REPLICA IDENTITY FULL; DROP TABLE old_items; INSERT INTO items VALUES (3, 7, 'c'); COMMIT"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a)",
				"update public.items old(id*=1 user_id=7 name=a) new(id*=2 user_id=7 name=a)", "insert public.items new(id*=3 user_id=7 name=c)"},
		},
		{
			name: "the primary key replaced under FULL", publication: asPartitions,
			setup: "ALTER TABLE items REPLICA IDENTITY FULL; ALTER TABLE items ALTER user_id SET NOT NULL",
			run: []string{"INSERT INTO items VALUES (1, 7, 'a')", "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (user_id)",
				"INSERT INTO items VALUES (2, 8, 'b')"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a)", "insert public.items new(id=2 user_id*=8 name=b)"},
		},
		{
			name: "the primary key dropped under FULL", publication: asPartitions,
			setup: "ALTER TABLE items REPLICA IDENTITY FULL",
			run:   []string{"INSERT INTO items VALUES (1, 7, 'a')", "ALTER TABLE items DROP CONSTRAINT items_pkey"},
			want:  []string{"insert public.items new(id*=1 user_id=7 name=a)"},
		},
		{
			name: "the key's names changed hands under FULL", publication: asPartitions,
			setup: "ALTER TABLE items REPLICA IDENTITY FULL; ALTER TABLE items ADD fresh int",
			run: []string{"INSERT INTO items VALUES (1, 7, 'a', 5)",
				"BEGIN; ALTER TABLE items RENAME id TO old_id; ALTER TABLE items RENAME fresh TO id; COMMIT"},
			want: []string{"insert public.items new(id*=1 user_id=7 name=a fresh=5)"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), test.setup)
			w.exec(t, test.publication)
			w.setup(t)
			if test.live != nil {
				run := w.start(t)
				run.reads(t, patience)
				before := look(w.store, func() int { return len(w.store.described) })
				w.exec(t, test.live...)
				w.store.wait(t, "the new table is described", func() bool { return len(w.store.described) > before })
				if err := run.stop(); err != nil {
					t.Fatal(err)
				}
			}
			w.exec(t, test.run...)
			w.start(t)
			w.settle(t)
			wantLines(t, w.lines(), test.want)
		})
	}
}

// Types that a migration replaced are read as they were.
func TestReader_ReadsValuesOfTypesThatAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE DOMAIN cents AS int; CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a cents, b text);
		ALTER TABLE items ADD c cents, ADD ms mood[], ADD p pair; INSERT INTO items (id) VALUES (0)`)
	w.exec(t, `INSERT INTO items VALUES (1, 7, 'a', 5, '{sad,ok}', '(1,x)')`,
		`ALTER TABLE items ALTER c TYPE int, ALTER ms TYPE text[] USING '{}', DROP p`, "DROP TYPE pair", "DROP DOMAIN cents", "DROP TYPE mood")
	w.start(t)
	w.settle(t)
	change := last(w.store.stored(), schemas.Insert)
	var got []byte
	for i := 3; i < 6; i++ {
		var err error
		if got, err = change.Relation.Types.AppendJSON(append(got, ' '), change.Relation.Columns[i].Type, change.New[i].Text); err != nil {
			t.Fatal(err)
		}
	}
	if want := ` 5 ["sad","ok"] {"a":1,"b":"x"}`; string(got) != want || change.Relation.Unknown != "" {
		t.Errorf("got%s, want%s; unknown: %q", got, want, change.Relation.Unknown)
	}
}

// The text of a composite value has no names in it: where the type was altered
// since, a value is its text, and never under the name of another. An enum's
// value is what it was called.
func TestReader_NeverNamesTheFieldsOfAnAlteredTypeWrongly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, alter, fresh, want, then string }{
		{"dropped and added", "ALTER TYPE pair DROP ATTRIBUTE a, ADD ATTRIBUTE c text", "(y,z)", ` "(1,x)" ["(2,x)"] "sad"`, ` {"b":"y","c":"z"} [] "blue"`},
		{"dropped and added in two", "ALTER TYPE pair DROP ATTRIBUTE a; ALTER TYPE pair ADD ATTRIBUTE c text", "(y,z)", ` "(1,x)" ["(2,x)"] "sad"`, ` {"b":"y","c":"z"} [] "blue"`},
		{"added", "ALTER TYPE pair ADD ATTRIBUTE c text", "(3,y,z)", ` "(1,x)" ["(2,x)"] "sad"`, ` {"a":3,"b":"y","c":"z"} [] "blue"`},
		{"names swapped", "ALTER TYPE pair RENAME ATTRIBUTE a TO c; ALTER TYPE pair RENAME ATTRIBUTE b TO a; ALTER TYPE pair RENAME ATTRIBUTE c TO b", "(3,y)", ` "(1,x)" ["(2,x)"] "sad"`, ` {"b":3,"a":"y"} [] "blue"`},
		{"not altered", "ALTER TYPE pair OWNER TO CURRENT_USER", "(3,y)", ` {"a":1,"b":"x"} [{"a":2,"b":"x"}] "sad"`, ` {"a":3,"b":"y"} [] "blue"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, `CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('sad', 'ok');
				ALTER TABLE items ADD p pair, ADD ps pair[], ADD m mood; INSERT INTO items (id) VALUES (0)`)
			w.exec(t, `INSERT INTO items VALUES (1, 7, 'a', '(1,x)', '{"(2,x)"}', 'sad')`)
			w.exec(t, strings.Split(test.alter, "; ")...)
			w.exec(t, "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "INSERT INTO items VALUES (2, 7, 'a', '"+test.fresh+"', '{}', 'blue')")
			w.start(t)
			w.settle(t)
			var got []string
			for _, change := range w.store.stored() {
				if change.Kind != schemas.Insert {
					continue
				}
				var text []byte
				for i := 3; i < 6; i++ {
					var err error
					if text, err = change.Relation.Types.AppendJSON(append(text, ' '), change.Relation.Columns[i].Type, change.New[i].Text); err != nil {
						t.Fatal(err)
					}
				}
				got = append(got, string(text))
			}
			wantLines(t, got, []string{test.want, test.then})
		})
	}
}

// What nobody saw while it was there is said to be unknown, and not passed off
// as no table of the catalog.
func TestReader_ReportsATableThatWasNeverDescribed(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), dividedItems)
	w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, items, notes")
	w.setup(t)
	w.exec(t, "CREATE TABLE items_3 PARTITION OF items FOR VALUES FROM (20) TO (30)", "INSERT INTO items VALUES (21, 7, 'a')", "DROP TABLE items_3",
		"INSERT INTO items VALUES (1, 7, 'b')")
	w.start(t)
	w.settle(t)
	stored := w.store.stored()
	if r := stored[0].Relation; r.Name != "items_3" || !strings.Contains(r.Unknown, "a part of") {
		t.Errorf("table %s, unknown %q", r.Table(), r.Unknown)
	}
	if r := stored[1].Relation; r.Name != "items" || r.Unknown != "" {
		t.Errorf("table %s, unknown %q", r.Table(), r.Unknown)
	}
}
