package cdc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

const rowsCatalog = `
account: {table: public.users, id: id, url: web_hook_url}
schemas:
  users: {table: public.users, owner: id, fields: [id, web_hook_url]}
  items: {table: public.items, owner: user_id, fields: [id, user_id, name]}
  notes: {table: public.notes, owner: {column: item_id, schema: items}, fields: [id, item_id, note]}
  wide: {table: 'public."Wide Table"', owner: "Owner", fields: {id: id, num: num, f: f, at: at, raw: raw, list: list, pad: pad, made: made, big: big, kind: kind}}
  pairs: {table: public.pairs, key: [country, number], owner: account, fields: [country, number, label]}
  parts: {table: public.parts, owner: user_id, fields: [id, user_id, region]}
  bare: {table: public.bare, owner: user_id, fields: [user_id]}
`

const rowsTables = `
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE "Wide Table" (id text PRIMARY KEY, "Owner" int, num numeric(12, 4), f float8, at timestamptz, raw bytea, list text[], pad char(5),
	made int GENERATED ALWAYS AS (length(id)) STORED, big text, kind mood, secret text);
ALTER TABLE "Wide Table" REPLICA IDENTITY FULL;
CREATE TABLE pairs (country char(2), number numeric NOT NULL, account bigint, label text, PRIMARY KEY (country, number));
CREATE TABLE parts (id int, user_id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
CREATE TABLE bare (user_id int);
`

func TestRows_AreWhatTheStreamSends(t *testing.T) {
	t.Parallel()
	for _, root := range []bool{true, false} {
		t.Run(fmt.Sprintf("publish_via_partition_root=%t", root), func(t *testing.T) {
			w := newRowsWorld(t, fmt.Sprintf("CREATE PUBLICATION walhook FOR TABLE users, items, notes, \"Wide Table\", pairs, parts, bare WITH (publish_via_partition_root = %t)", root))
			reader := w.start(t)
			if w.sendsGenerated(t) { // the reader has it published, and what follows is sent with it
				eventually(t, "the generated column is published", patience, func() bool {
					return one[bool](t, w, "SELECT pubgencols::text = 's' FROM pg_publication WHERE pubname = 'walhook'")
				})
			}
			w.exec(t,
				`INSERT INTO users VALUES (7, 'https://a.example.com/'), (8, NULL)`,
				`INSERT INTO items SELECT i, 7 + i % 2, 'item ' || i FROM generate_series(1, 12) i`,
				`INSERT INTO items VALUES (20, NULL, 'pool')`,
				`INSERT INTO notes SELECT i, i, NULL FROM generate_series(1, 12) i`,
				`INSERT INTO notes VALUES (30, 999, 'an orphan'), (31, NULL, 'of nobody')`,
				`INSERT INTO "Wide Table" VALUES ('b', 7, 1.5, 0.1, '2026-01-02 03:04:05.678+02', '\xdead', '{a,"b c",NULL}', 'x', DEFAULT, repeat('big', 20000), 'glad', 'hash'),
					('a''\"', 7, 'NaN', 'Infinity', 'infinity', NULL, '[2:3]={x,y}', '', DEFAULT, NULL, NULL, NULL), ('B', 8, -0.0001, 1e300, NULL, '', '{}', NULL, DEFAULT, '', 'sad', 'h')`,
				`INSERT INTO pairs VALUES ('DE', 49.0, 7, 'x'), ('US', 1.50, 7, 'y'), ('DE', -3, 8, NULL)`,
				`INSERT INTO parts VALUES (1, 7, 'a'), (2, 7, 'b'), (3, 8, 'b')`,
				`INSERT INTO bare VALUES (7)`)
			w.settle(t)
			rows := w.rowsNow(t)
			for _, schema := range w.cfg.Catalog.Schemas {
				relation, refused := rows.Relation(schema.Name)
				if relation == nil {
					if schema.Name != "bare" || refused != "its table has no key" {
						t.Errorf("%s is refused: %s", schema.Name, refused)
					}
					continue
				}
				var want []string
				for _, c := range w.store.stored() {
					if c.Kind == schemas.Insert && c.Relation.Table() == schema.Table {
						want = append(want, named(w.cfg.Catalog, c.Relation, c.New))
					}
				}
				all := w.readRows(t, rows, source.RowQuery{Schema: schema.Name})
				if schema.Name == "notes" { // the owners of these are not known
					want = slices.DeleteFunc(want, func(s string) bool { return strings.Contains(s, "id=30 ") || strings.Contains(s, "id=31 ") })
				}
				wantSame(t, schema.Name, all, want, w.cfg.Catalog, relation)
				w.checkPages(t, rows, schema.Name, all)
			}
			if err := reader.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkPages reads a schema's rows after each of them, each by its key, and by account.
func (w *world) checkPages(t *testing.T, rows *source.Rows, schema string, all []source.Row) {
	t.Helper()
	for i, row := range all {
		rest := w.readRows(t, rows, source.RowQuery{Schema: schema, After: row.At})
		if got, want := keysOf(rest), keysOf(all[i+1:]); !slices.Equal(got, want) {
			t.Errorf("%s behind %q: %q, want %q", schema, row.Key, got, want)
		}
	}
	if len(all) > 1 {
		picked := []source.Place{all[1].At, all[0].At}
		if got, want := keysOf(w.readRows(t, rows, source.RowQuery{Schema: schema, Keys: picked, Xmin: true})), keysOf(all[:2]); !slices.Equal(got, want) {
			t.Errorf("%s by keys: %q, want %q", schema, got, want)
		}
	}
	for _, accounts := range [][]string{{"7"}, {"8"}, {"7", "8"}, {"99999999999"}, {"x"}} {
		var want []string
		for _, row := range all {
			if slices.Contains(accounts, row.Account) {
				want = append(want, row.Key)
			}
		}
		if got := keysOf(w.readRows(t, rows, source.RowQuery{Schema: schema, Accounts: accounts})); !slices.Equal(got, want) {
			t.Errorf("%s of %s: %q, want %q", schema, accounts, got, want)
		}
	}
}

func TestRows_HoldNoMoreThanThePublication(t *testing.T) {
	t.Parallel()
	w := newRowsWorld(t, `SELECT 1`)
	if one[int](t, w, "SELECT current_setting('server_version_num')::int") < 150000 {
		t.Skip("column lists and row filters came with PostgreSQL 15")
	}
	w.exec(t, `DROP PUBLICATION walhook`, `CREATE PUBLICATION walhook FOR TABLE users, items (id, user_id) WHERE (id > 2 AND id < 100),
		notes (id, note), "Wide Table" (num, "Owner"), parts_a, parts_b WHERE (id = 3)`,
		`INSERT INTO users VALUES (7, 'https://a.example.com/')`, `INSERT INTO items VALUES (1, 7, 'x'), (3, 7, 'y'), (200, 7, 'z')`,
		`INSERT INTO parts VALUES (1, 7, 'a'), (2, 7, 'b'), (3, 7, 'b')`)
	rows := w.rowsNow(t)
	got := w.readRows(t, rows, source.RowQuery{Schema: "items", Accounts: []string{"7"}})
	relation, _ := rows.Relation("items")
	if len(got) != 1 || named(w.cfg.Catalog, relation, got[0].Tuple) != "id=3 user_id=7 " {
		t.Errorf("items are %v", got)
	}
	if got := keysOf(w.readRows(t, rows, source.RowQuery{Schema: "parts"})); !slices.Equal(got, []string{"1:11:a", "1:31:b"}) {
		t.Errorf("parts are %q", got)
	}
	for schema, want := range map[string]string{
		"notes": "its table lacks the owner's column, or the publication leaves it out", "wide": "the publication leaves out a part of its key",
		"pairs": "its table is not in the publication", "none": "the catalog does not name it",
	} {
		if relation, refused := rows.Relation(schema); relation != nil || refused != want {
			t.Errorf("%s is refused because %q, want %q", schema, refused, want)
		}
	}
}

func newRowsWorld(t *testing.T, publication string) *world {
	t.Helper()
	w := unprepared(t, pgtest.Database(t), rowsTables)
	w.cfg.Catalog = catalogOf(t, rowsCatalog)
	w.exec(t, publication)
	w.setup(t)
	return w
}

// rowsNow reads at a moment; the slot of it is gone when it returns.
func (w *world) rowsNow(t *testing.T) *source.Rows {
	t.Helper()
	moment, err := source.NewMoment(t.Context(), w.cfg, w.log)
	if err != nil {
		t.Fatal(err)
	}
	defer moment.Close(t.Context())
	rows, err := moment.Rows(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rows.Close(t.Context()) })
	return rows
}

func (w *world) readRows(t *testing.T, rows *source.Rows, query source.RowQuery) (list []source.Row) {
	t.Helper()
	if err := rows.Each(t.Context(), query, func(row source.Row) error { list = append(list, row); return nil }); err != nil {
		t.Fatalf("%+v: %v", query, err)
	}
	for _, row := range list {
		if (row.Xmin != 0) != query.Xmin {
			t.Errorf("xmin of %s is %d", row.Key, row.Xmin)
		}
	}
	return list
}

func keysOf(rows []source.Row) (keys []string) {
	for _, row := range rows {
		keys = append(keys, row.Key)
	}
	return keys
}

// named writes the values of a tuple that its schema's fields have.
func named(cat *catalog.Catalog, relation *schemas.Relation, row schemas.Tuple) string {
	var text strings.Builder
	for _, field := range cat.SchemaOf(relation.Table()).Fields {
		if at := relation.Column(field.Column); at >= 0 && row[at].State != schemas.Absent {
			fmt.Fprintf(&text, "%s=%s%s ", field.Name, row[at].Text, map[bool]string{true: "(null)"}[row[at].State == schemas.Null])
		}
	}
	return text.String()
}

func wantSame(t *testing.T, schema string, rows []source.Row, want []string, cat *catalog.Catalog, relation *schemas.Relation) {
	t.Helper()
	var got []string
	for _, row := range rows {
		got = append(got, named(cat, relation, row.Tuple))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n\t%s\nthe stream sent\n\t%s", schema, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}
