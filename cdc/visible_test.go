package cdc

import (
	"testing"
	"time"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// The server streams a transaction before it shows it to others. What the
// transaction did to a table is read as it did it all the same.
func TestReader_ReadsATransactionByTheCatalogThatShowsIt(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "ALTER TABLE items REPLICA IDENTITY FULL")
	w.start(t)
	w.exec(t, "SET synchronous_commit = local", "INSERT INTO items VALUES (1, 7, 'a')")
	w.settle(t)
	w.exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	committed := make(chan error)
	go func() {
		_, err := w.Connect(t).Exec(t.Context(), "BEGIN; ALTER TABLE items DROP CONSTRAINT items_pkey; ALTER TABLE items ADD PRIMARY KEY (name); UPDATE items SET name = 'b'; COMMIT")
		committed <- err
	}()
	eventually(t, "the commit waits for a standby", patience, func() bool {
		return one[bool](t, w, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')")
	})
	sent := w.walEnd(t)
	eventually(t, "it is sent", patience, func() bool {
		return one[bool](t, w, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sent_lsn >= $1::text::pg_lsn)", sent.String())
	})
	time.Sleep(100 * time.Millisecond) // a reader that does not wait has read it by then
	w.exec(t, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	w.settle(t)
	wantLines(t, w.lines(), []string{"insert public.items new(id*=1 user_id=7 name=a)",
		"update public.items old(id=1 user_id=7 name*=a) new(id=1 user_id=7 name*=b)"})
}

// A commit that a standby holds for long keeps nobody's changes.
func TestReader_ContinuesWhereAStandbyHoldsACommit(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newWorldIn(t, pgtest.NewDatabase(t, cluster), "ALTER TABLE items REPLICA IDENTITY FULL")
	w.start(t)
	w.exec(t, "SET synchronous_commit = local", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	committed := make(chan error)
	go func() {
		_, err := w.Connect(t).Exec(t.Context(), "INSERT INTO items VALUES (1, 7, 'a')")
		committed <- err
	}()
	eventually(t, "the commit waits for a standby", patience, func() bool {
		return one[bool](t, w, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')")
	})
	w.settle(t)
	if r := w.store.stored()[0].Relation; r.Name != "items" || len(r.PrimaryKey) != 1 {
		t.Errorf("the table is described as %v", r)
	}
	w.exec(t, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
}
