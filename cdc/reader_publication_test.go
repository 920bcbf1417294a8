package cdc

import (
	"testing"

	"walhook/internal/pgtest"
)

const faxes = `
	CREATE TABLE faxes (id int, year int, note text, PRIMARY KEY (id, year)) PARTITION BY LIST (year);
	CREATE TABLE faxes_1 PARTITION OF faxes FOR VALUES IN (1);
	CREATE TABLE faxes_2 PARTITION OF faxes FOR VALUES IN (2);
`

func TestReader_PartitionedTables(t *testing.T) {
	t.Parallel()
	activity := []string{
		"INSERT INTO faxes VALUES (1, 1, 'x')", "UPDATE faxes SET note = 'y'",
		"UPDATE faxes SET year = 2", "DELETE FROM faxes", "TRUNCATE faxes_1", "TRUNCATE faxes",
	}
	for _, test := range []struct {
		name, publication, identity string
		want                        []string
	}{
		{
			name:        "published as the partitions",
			publication: "CREATE PUBLICATION walhook FOR ALL TABLES",
			want: []string{
				"insert public.faxes new(id*=1 year*=1 note=x)",
				"update public.faxes new(id*=1 year*=1 note=y)",
				"delete public.faxes key(id*=1 year*=1 note=?)",
				"insert public.faxes new(id*=1 year*=2 note=y)",
				"delete public.faxes key(id*=1 year*=2 note=?)",
				"truncate public.faxes", "truncate public.faxes", "truncate public.faxes",
			},
		},
		{
			name:        "published as the root, in which a truncate of one partition is not sent",
			publication: "CREATE PUBLICATION walhook FOR ALL TABLES WITH (publish_via_partition_root = true)",
			want: []string{
				"insert public.faxes new(id*=1 year*=1 note=x)",
				"update public.faxes new(id*=1 year*=1 note=y)",
				"delete public.faxes key(id*=1 year*=1 note=?)",
				"insert public.faxes new(id*=1 year*=2 note=y)",
				"delete public.faxes key(id*=1 year*=2 note=?)",
				"truncate public.faxes",
			},
		},
		{
			name:        "FULL everywhere",
			publication: "CREATE PUBLICATION walhook FOR ALL TABLES WITH (publish_via_partition_root = true)",
			identity:    "ALTER TABLE faxes REPLICA IDENTITY FULL; ALTER TABLE faxes_1 REPLICA IDENTITY FULL; ALTER TABLE faxes_2 REPLICA IDENTITY FULL",
			want: []string{
				"insert public.faxes new(id*=1 year*=1 note=x)",
				"update public.faxes old(id*=1 year*=1 note=x) new(id*=1 year*=1 note=y)",
				"delete public.faxes old(id*=1 year*=1 note=y)",
				"insert public.faxes new(id*=1 year*=2 note=y)",
				"delete public.faxes old(id*=1 year*=2 note=y)",
				"truncate public.faxes",
			},
		},
		{
			name:        "FULL but for one partition: each is judged by itself, and what it does not log is absent, not null",
			publication: "CREATE PUBLICATION walhook FOR ALL TABLES WITH (publish_via_partition_root = true)",
			identity:    "ALTER TABLE faxes REPLICA IDENTITY FULL; ALTER TABLE faxes_1 REPLICA IDENTITY FULL",
			want: []string{
				"insert public.faxes new(id*=1 year*=1 note=x)",
				"update public.faxes old(id*=1 year*=1 note=x) new(id*=1 year*=1 note=y)",
				"delete public.faxes old(id*=1 year*=1 note=y)",
				"insert public.faxes new(id*=1 year*=2 note=y)",
				"delete public.faxes key(id*=1 year*=2 note=?)",
				"truncate public.faxes",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), faxes+test.identity)
			w.exec(t, test.publication)
			w.setup(t)
			w.start(t)
			w.exec(t, activity...)
			w.settle(t)
			wantLines(t, w.lines(), test.want)
		})
	}
}

// A new partition has DEFAULT, whatever its table has.
func TestReader_ANewPartitionWithoutFullIsNotTakenForNulls(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), faxes+
		"ALTER TABLE faxes REPLICA IDENTITY FULL; ALTER TABLE faxes_1 REPLICA IDENTITY FULL; ALTER TABLE faxes_2 REPLICA IDENTITY FULL")
	w.exec(t, "CREATE PUBLICATION walhook FOR ALL TABLES WITH (publish_via_partition_root = true)")
	w.setup(t)
	w.start(t)
	w.exec(t, "INSERT INTO faxes VALUES (1, 1, 'x')", "DELETE FROM faxes")
	w.settle(t)
	w.exec(t, "CREATE TABLE faxes_3 PARTITION OF faxes FOR VALUES IN (3)", "INSERT INTO faxes VALUES (1, 3, 'x')", "DELETE FROM faxes")
	w.settle(t)
	wantLines(t, w.lines(), []string{
		"insert public.faxes new(id*=1 year*=1 note=x)",
		"delete public.faxes old(id*=1 year*=1 note=x)",
		"insert public.faxes new(id*=1 year*=3 note=x)",
		"delete public.faxes key(id*=1 year*=3 note=?)",
	})
}

// A row filter turns an UPDATE into an INSERT or DELETE when the row
// enters or leaves it.
func TestReader_RowFiltersAndColumnLists(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), "ALTER TABLE items REPLICA IDENTITY FULL")
	if one[int](t, w, "SELECT current_setting('server_version_num')::int") < 150000 {
		return // there are none before PostgreSQL 15
	}
	w.exec(t, "CREATE PUBLICATION walhook FOR TABLE users, items WHERE (user_id > 0), notes (id, note)")
	w.setup(t)
	w.start(t)
	w.exec(t,
		"INSERT INTO items VALUES (1, 0, 'a')", "UPDATE items SET user_id = 7", "UPDATE items SET name = 'b'", "UPDATE items SET user_id = 0",
		"INSERT INTO notes VALUES (1, 2, 'x')", "UPDATE notes SET id = 2")
	w.settle(t)
	wantLines(t, w.lines(), []string{
		"insert public.items new(id*=1 user_id=7 name=a)",
		"update public.items old(id*=1 user_id=7 name=a) new(id*=1 user_id=7 name=b)",
		"delete public.items old(id*=1 user_id=7 name=b)",
		"insert public.notes new(id*=1 note=x)",
		"update public.notes key(id*=1 note=?) new(id*=2 note=x)",
	})
}
