package cdc

import (
	"strings"
	"testing"
)

// rowCase is a set of statements on its own tables, and the changes that are stored.
type rowCase struct {
	name  string
	setup string   // tables; not looked at
	run   []string // each in a transaction of its own
	want  []string
}

// check runs cases one after the other in one world, whose reader runs.
func (w *world) check(t *testing.T, cases []rowCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w.exec(t, c.setup)
			w.settle(t)
			before := len(w.lines())
			w.exec(t, c.run...)
			w.settle(t)
			wantLines(t, w.lines()[before:], c.want)
		})
	}
}

const big = "repeat('0123456789abcdef', 1000)"

// bigTable makes a table whose column big is stored out of line and not compressed, so
// that an update that does not change it does not send it.
func bigTable(name, rest string) string {
	return "CREATE TABLE " + name + " (id int PRIMARY KEY, big text, n int" + rest + "); " +
		"ALTER TABLE " + name + " ALTER big SET STORAGE EXTERNAL;"
}

func TestReader_StoresChangesInCommitOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.start(t)
	w.check(t, []rowCase{
		{
			name: "every kind of change",
			run: []string{
				`BEGIN; INSERT INTO items VALUES (1, 7, 'a'); UPDATE items SET name = 'b';
				 SELECT pg_logical_emit_message(true, 'walhook', 'hello'); DELETE FROM items; COMMIT`,
				"TRUNCATE items, notes",
			},
			want: []string{
				"insert public.items new(id*=1 user_id=7 name=a)",
				"update public.items new(id*=1 user_id=7 name=b)",
				`message walhook "hello"`,
				"delete public.items key(id*=1 user_id=? name=?)",
				"truncate public.items", "truncate public.notes",
			},
		},
		{
			name: "rolled back subtransactions",
			run: []string{`BEGIN; INSERT INTO items VALUES (1, 7, 'kept'); SAVEPOINT s; INSERT INTO items VALUES (2, 7, 'gone');
				ROLLBACK TO s; INSERT INTO items VALUES (3, 7, 'kept'); SAVEPOINT s; INSERT INTO items VALUES (4, 7, 'kept');
				RELEASE s; COMMIT`, "BEGIN; INSERT INTO items VALUES (5, 7, 'gone'); ROLLBACK"},
			want: []string{
				"insert public.items new(id*=1 user_id=7 name=kept)",
				"insert public.items new(id*=3 user_id=7 name=kept)",
				"insert public.items new(id*=4 user_id=7 name=kept)",
			},
		},
		{
			name:  "on conflict, and an update that changes nothing",
			setup: "TRUNCATE items; INSERT INTO items VALUES (1, 7, 'a')",
			run: []string{
				"INSERT INTO items VALUES (1, 7, 'b') ON CONFLICT DO NOTHING",
				"INSERT INTO items VALUES (1, 7, 'c') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
				"UPDATE items SET name = name",
			},
			want: []string{
				"update public.items new(id*=1 user_id=7 name=c)",
				"update public.items new(id*=1 user_id=7 name=c)",
			},
		},
		{
			name: "a parent's delete comes before its children's",
			setup: `CREATE TABLE parents (id int PRIMARY KEY); INSERT INTO parents VALUES (1);
				CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE); INSERT INTO children VALUES (5, 1)`,
			run:  []string{"DELETE FROM parents"},
			want: []string{"delete public.parents key(id*=1)", "delete public.children key(id*=5 parent=?)"},
		},
		{
			name:  "names that need quotes",
			setup: `CREATE SCHEMA "Eu 1"; CREATE TABLE "Eu 1"."Num""bers" ("Id" int PRIMARY KEY, "Select" text)`,
			run:   []string{`INSERT INTO "Eu 1"."Num""bers" VALUES (1, 'x')`},
			want:  []string{`insert "Eu 1"."Num""bers" new(Id*=1 Select=x)`},
		},
		{
			name:  "a table of pg_catalog's name elsewhere",
			setup: "CREATE TABLE pg_class (id int PRIMARY KEY)",
			run:   []string{"INSERT INTO public.pg_class VALUES (1)"},
			want:  []string{"insert public.pg_class new(id*=1)"},
		},
		{
			name: "messages that are none of ours are not kept",
			run:  []string{"SELECT pg_logical_emit_message(true, 'other', repeat('x', 1000))", "SELECT pg_logical_emit_message(false, 'other', 'x')"},
		},
		{
			name: "a message outside transactions is handed on to be refused, without what it says",
			run:  []string{"SELECT pg_logical_emit_message(false, 'walhook', 'secret')"},
			want: []string{`message walhook ""`},
		},
	})
}

// Unchanged TOAST has kind u even under FULL. Under DEFAULT there is an old tuple only
// after a change of the key. Under FULL every column has the key flag.
func TestReader_OldRowIsWhatTheReplicaIdentityKeeps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.start(t)
	w.check(t, []rowCase{
		{
			name:  "unchanged TOAST under FULL is filled from the old row",
			setup: bigTable("full_toast", "") + "ALTER TABLE full_toast REPLICA IDENTITY FULL; INSERT INTO full_toast VALUES (1, " + big + ", 1)",
			run:   []string{"UPDATE full_toast SET n = 2", "UPDATE full_toast SET big = NULL", "DELETE FROM full_toast"},
			want: []string{
				"update public.full_toast old(id*=1 big=012…16000 n=1) new(id*=1 big=012…16000 n=2)",
				"update public.full_toast old(id*=1 big=012…16000 n=2) new(id*=1 big=null n=2)",
				"delete public.full_toast old(id*=1 big=null n=2)",
			},
		},
		{
			name:  "unchanged TOAST under DEFAULT is absent",
			setup: bigTable("default_toast", "") + "INSERT INTO default_toast VALUES (1, " + big + ", 1)",
			run:   []string{"UPDATE default_toast SET n = 2", "UPDATE default_toast SET id = 2", "DELETE FROM default_toast"},
			want: []string{
				"update public.default_toast new(id*=1 big=? n=2)",
				"update public.default_toast key(id*=1 big=? n=?) new(id*=2 big=? n=2)",
				"delete public.default_toast key(id*=2 big=? n=?)",
			},
		},
		{
			name: "a TOASTed key is taken from the key tuple",
			setup: `CREATE TABLE toast_key (a text, n int, PRIMARY KEY (a)); ALTER TABLE toast_key ALTER a SET STORAGE EXTERNAL;
				INSERT INTO toast_key VALUES (repeat('k', 2600), 1)`,
			run: []string{"UPDATE toast_key SET n = 2"},
			want: []string{
				"update public.toast_key key(a*=kkk…2600 n=?) new(a*=kkk…2600 n=2)",
			},
		},
		{
			name:  "a key change under DEFAULT: outside the key the old row is absent, not null",
			setup: "CREATE TABLE moves (id int, country text, note text, PRIMARY KEY (id, country)); INSERT INTO moves VALUES (1, 'de', 'x')",
			run:   []string{"UPDATE moves SET country = 'fr'", "UPDATE moves SET note = NULL"},
			want: []string{
				"update public.moves key(id*=1 country*=de note=?) new(id*=1 country*=fr note=x)",
				"update public.moves new(id*=1 country*=fr note=null)",
			},
		},
		{
			name: "USING INDEX keeps the index's columns, and the key stays the primary key",
			setup: `CREATE TABLE by_index (id int PRIMARY KEY, number text NOT NULL UNIQUE, note text); INSERT INTO by_index VALUES (1, '312', 'x');
				ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_number_key`,
			run: []string{"UPDATE by_index SET number = '313'", "UPDATE by_index SET note = 'y'", "DELETE FROM by_index"},
			want: []string{
				"update public.by_index key(id*=? number=312 note=?) new(id*=1 number=313 note=x)",
				"update public.by_index new(id*=1 number=313 note=y)",
				"delete public.by_index key(id*=? number=313 note=?)",
			},
		},
		{
			name:  "NOTHING keeps nothing",
			setup: "CREATE TABLE kept_nothing (id int PRIMARY KEY); ALTER TABLE kept_nothing REPLICA IDENTITY NOTHING",
			run:   []string{"INSERT INTO kept_nothing VALUES (1)"},
			want:  []string{"insert public.kept_nothing new(id*=1)"},
		},
		{
			name: "FULL without a primary key",
			setup: "CREATE TABLE keyless (id int, note text); ALTER TABLE keyless REPLICA IDENTITY FULL; " +
				"INSERT INTO keyless VALUES (1, NULL)",
			run:  []string{"UPDATE keyless SET note = 'x'"},
			want: []string{"update public.keyless old(id=1 note=null) new(id=1 note=x)"},
		},
		{
			name: "columns that a key's index only includes are no part of the key",
			setup: `CREATE TABLE covering (id int, note text, PRIMARY KEY (id) INCLUDE (note)); ALTER TABLE covering REPLICA IDENTITY FULL;
				INSERT INTO covering VALUES (1, 'x')`,
			run:  []string{"UPDATE covering SET note = 'y'"},
			want: []string{"update public.covering old(id*=1 note=x) new(id*=1 note=y)"},
		},
		{
			name: "generated and dropped columns are not sent",
			setup: `CREATE TABLE shapes (dropped int, id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, note text);
				ALTER TABLE shapes DROP dropped`,
			run: []string{"INSERT INTO shapes VALUES (1, DEFAULT, 'x')", "UPDATE shapes SET note = 'y'"},
			want: []string{
				"insert public.shapes new(id*=1 note=x)",
				"update public.shapes new(id*=1 note=y)",
			},
		},
	})
}

// A change's own LSN does not identify it: rows of one COPY share it, and interleaved
// transactions arrive with decreasing change LSNs.
func TestReader_PositionsAreUniqueAndRise(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.start(t)
	other := w.Connect(t)

	if _, err := w.conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\t7\ta\n2\t7\tb\n3\t7\tc\n"), "COPY items FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	w.settle(t)
	copied := w.store.stored()
	for i, change := range copied[:3] {
		if change.Position.Commit != copied[0].Position.Commit || change.Position.Ordinal != int64(i+1) {
			t.Errorf("row %d of a COPY stands at %s", i+1, change.Position)
		}
	}

	// The first to begin is the last to commit.
	w.exec(t, "BEGIN", "INSERT INTO items VALUES (10, 7, 'began first')")
	execOn(t, other, "BEGIN", "INSERT INTO items VALUES (20, 7, 'began second')")
	w.exec(t, "INSERT INTO items VALUES (11, 7, 'began first')")
	execOn(t, other, "INSERT INTO items VALUES (21, 7, 'began second')", "COMMIT")
	w.exec(t, "COMMIT")
	w.settle(t)
	wantLines(t, w.lines()[3:], []string{
		"insert public.items new(id*=20 user_id=7 name=began second)",
		"insert public.items new(id*=21 user_id=7 name=began second)",
		"insert public.items new(id*=10 user_id=7 name=began first)",
		"insert public.items new(id*=11 user_id=7 name=began first)",
	})
	changes := w.store.stored()
	for i := range changes[1:] {
		if changes[i].Position.Compare(changes[i+1].Position) >= 0 {
			t.Errorf("%s stands at %s, the next at %s", line(changes[i]), changes[i].Position, changes[i+1].Position)
		}
	}
}

// The ordinal counts all changes that the server streams, also those that are not kept.
func TestReader_OrdinalsCountWhatIsNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.start(t)
	w.exec(t, `BEGIN; INSERT INTO items VALUES (1, 7, 'a'); SELECT pg_logical_emit_message(true, 'other', 'x');
		TRUNCATE items, notes; INSERT INTO items VALUES (2, 7, 'b'); COMMIT`)
	w.settle(t)
	var ordinals []int64
	for _, change := range w.store.stored() {
		ordinals = append(ordinals, change.Position.Ordinal)
	}
	want := []int64{1, 3, 3, 4, 1} // the last is the mark's
	for i := range want {
		if len(ordinals) != len(want) || ordinals[i] != want[i] {
			t.Fatalf("ordinals %v, want %v", ordinals, want)
		}
	}
}

func TestReader_PreparedTransactionsCountWhenTheyCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.start(t)
	w.exec(t,
		"BEGIN", "INSERT INTO items VALUES (1, 7, 'prepared')", "PREPARE TRANSACTION '"+w.Name+" a'",
		"BEGIN", "INSERT INTO items VALUES (2, 7, 'given up')", "PREPARE TRANSACTION '"+w.Name+" b'",
		"INSERT INTO items VALUES (3, 7, 'between')",
		"COMMIT PREPARED '"+w.Name+" a'",
		"ROLLBACK PREPARED '"+w.Name+" b'",
	)
	w.settle(t)
	wantLines(t, w.lines(), []string{
		"insert public.items new(id*=3 user_id=7 name=between)",
		"insert public.items new(id*=1 user_id=7 name=prepared)",
	})
}
