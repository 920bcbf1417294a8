package endtoend

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// A transaction that waits for a synchronous standby is in the WAL, and the stream has it,
// while no snapshot shows it. A position that is read beside a snapshot is then no boundary
// of what that shows. So whatever reads rows of the source takes the snapshot and the
// position of a slot, which waits for such transactions.

// hideCommits makes commits wait for a standby that does not exist, until show lets them be
// seen. hide starts a transaction and returns when it waits.
func (s *shop) hideCommits(t *testing.T) (hide func(sql string), show func()) {
	t.Helper()
	admin := s.db.Connect(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("SET synchronous_commit = local")
	exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	exec("SELECT pg_reload_conf()")
	hidden, waiting := make(chan error), 0
	hide = func(sql string) {
		t.Helper()
		waiting++
		conn := s.db.Connect(t)
		go func() {
			_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
			hidden <- err
		}()
		eventually(t, patience, func() bool {
			var n int
			if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n == waiting
		})
	}
	return hide, func() {
		t.Helper()
		exec("ALTER SYSTEM RESET synchronous_standby_names")
		exec("SELECT pg_reload_conf()")
		for range waiting {
			if err := <-hidden; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// awaitMoment waits until somebody creates a slot on the source and waits for a transaction,
// or has read what it wants without.
func (s *shop) awaitMoment(t *testing.T, done func() bool) {
	t.Helper()
	conn := s.db.Connect(t)
	eventually(t, patience, func() bool {
		var waits bool
		err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock')`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		return waits || done()
	})
}

// Hidden transactions change, move, add and delete records of account 1.
const hiddenSQL = `
	BEGIN;
	UPDATE item SET n = nextval('state') WHERE id IN (1000001, 1000002);
	UPDATE item SET account = 1, n = nextval('state') WHERE id = 2000003;
	UPDATE item SET account = 2, n = nextval('state') WHERE id = 1000004;
	DELETE FROM item WHERE id = 1000005;
	INSERT INTO item (id, account, n) VALUES (1000100, 1, nextval('state'));
	COMMIT`

func TestHiddenCommit_IsToldAfterAGap(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	s := resyncShop(t, pgtest.NewDatabase(t, cluster), pgtest.Database(t), 2, 20)
	conn := s.outbox.Connect(t)
	publisher := s.publisher(t)
	startAll(t, publisher)
	s.db.Exec(t, "UPDATE item SET n = nextval('state')") // all are told
	s.storedAll(t)
	publisher.stop(t)
	s.db.Exec(t, "SELECT pg_drop_replication_slot('"+s.slot+"')")
	hide, show := s.hideCommits(t)
	hide(hiddenSQL)
	accepted := make(chan error, 1)
	go func() {
		_, err := walhook(t, append(s.setup(), "--accept-gap")...)
		accepted <- err
	}()
	s.awaitMoment(t, func() bool { return len(accepted) > 0 })
	show()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	startAll(t, publisher)
	s.storedAll(t)
	for account := 1; account <= 2; account++ {
		want := s.present(t, account)
		maps.DeleteFunc(want, func(name, _ string) bool { return !strings.HasPrefix(name, "items:") }) // never told before
		wantRecords(t, s.toldItems(t, conn, account), want)
	}
}

// toldItems are the items of an account whose receiver applies events in their order.
func (s *shop) toldItems(t *testing.T, conn *pgx.Conn, account int) map[string]string {
	t.Helper()
	endpoint, _ := s.lastEvent(t, conn, account)
	rows, err := conn.Query(t.Context(), `
		SELECT record, b ->> 'type', b ->> 'data' FROM (SELECT id, record, convert_from(body, 'UTF8')::json AS b FROM walhook.event WHERE endpoint = $1 AND schema = 'items') e ORDER BY id`, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{}
	var record, kind, data string
	_, err = pgx.ForEachRow(rows, []any{&record, &kind, &data}, func() error {
		if records[record] = data; kind == "delete" {
			delete(records, record)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// Records of a table that a changed catalog adds: hidden while the catalog is adopted.
func TestHiddenCommit_IsKnownToAChangedCatalog(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	s := resyncShop(t, pgtest.NewDatabase(t, cluster), pgtest.Database(t), 2, 20)
	conn := s.outbox.Connect(t)
	s.db.Exec(t, "CREATE TABLE extra (id bigint PRIMARY KEY, account bigint, n bigint); ALTER TABLE extra REPLICA IDENTITY FULL")
	s.db.Exec(t, "INSERT INTO extra SELECT i, 1 + i % 2, 0 FROM generate_series(1, 20) i")
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(extraCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	s.db.Exec(t, "ALTER PUBLICATION walhook ADD TABLE extra") // which setup would wait with
	publisher := s.publisher(t)
	startAll(t, publisher)
	s.storedAll(t)
	hide, show := s.hideCommits(t)
	hide(`BEGIN; UPDATE extra SET account = 2, n = nextval('state') WHERE id = 2; INSERT INTO extra VALUES (100, 1, nextval('state')); DELETE FROM extra WHERE id = 3; COMMIT`)
	adopted := make(chan error, 1)
	go func() {
		_, err := walhook(t, "setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", changed)
		adopted <- err
	}()
	s.awaitMoment(t, func() bool { return len(adopted) > 0 })
	show()
	if err := <-adopted; err != nil {
		t.Fatal(err)
	}
	s.db.Exec(t, "DELETE FROM extra WHERE id IN (1, 2, 100)")
	s.storedAll(t)
	rows, err := conn.Query(t.Context(), `
		SELECT p.account || ' ' || (convert_from(e.body, 'UTF8')::json ->> 'type') || ' ' || e.record
		FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint WHERE e.schema = 'extras' ORDER BY e.id`)
	if err != nil {
		t.Fatal(err)
	}
	told, err := pgx.CollectRows(rows, pgx.RowTo[string])
	slices.Sort(told)
	if want := []string{"1 delete extras:100", "2 delete extras:1", "2 delete extras:2"}; err != nil || !slices.Equal(told, want) {
		t.Errorf("told is %q, want %q, err %v", told, want, err)
	}
	var owners string
	err = conn.QueryRow(t.Context(), "SELECT string_agg(key, ' ' ORDER BY key::int) FROM walhook.owner WHERE schema = 'extras' AND deleted_at IS NULL").Scan(&owners)
	if want := "4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"; err != nil || owners != want {
		t.Errorf("the owners of extras are %q, want %q, err %v", owners, want, err)
	}
}
