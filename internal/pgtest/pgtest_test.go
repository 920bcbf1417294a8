package pgtest_test

import (
	"os"
	"testing"

	"walhook/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestDatabase_IsEmptyAndOnesOwn(t *testing.T) {
	for _, name := range []string{"one test", "another test"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec(t, `CREATE TABLE dids (id int); CREATE PUBLICATION walhook FOR TABLE dids`)
			var slot string
			err := db.Connect(t).QueryRow(t.Context(),
				`SELECT slot_name FROM pg_create_logical_replication_slot('slot_' || $1::text, 'pgoutput')`, db.Name).Scan(&slot)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDatabase_LeavesNoSlotBehind(t *testing.T) {
	cluster := pgtest.Cluster(t)
	var name string
	t.Run("a test with a slot", func(t *testing.T) {
		db := pgtest.NewDatabase(t, cluster)
		name = db.Name
		db.Exec(t, `SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')`)
	})
	var databases, slots int
	conn := pgtest.Database(t).Connect(t)
	err := conn.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM pg_database WHERE datname = $1),
		       (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'left_behind')`, name).Scan(&databases, &slots)
	if err != nil || databases != 0 || slots != 0 {
		t.Fatalf("left %d databases and %d slots behind, err %v", databases, slots, err)
	}
}
