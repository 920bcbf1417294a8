package endtoend

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgtest"
)

// A changed catalog adds a table with a row filter. After a gap, a row that the filter hid
// from the start has no delete, and one that moved into the filter is an insert.
func TestCatalogChange_KnowsWhatARowFilterHides(t *testing.T) {
	t.Parallel()
	s := resyncShop(t, pgtest.Database(t), pgtest.Database(t), 2, 5)
	conn := s.outbox.Connect(t)
	source := s.db.Connect(t)
	var filters bool
	if err := source.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int >= 150000").Scan(&filters); err != nil {
		t.Fatal(err)
	}
	if !filters {
		t.Skip("row filters came with PostgreSQL 15")
	}
	s.db.Exec(t, "CREATE TABLE extra (id bigint PRIMARY KEY, account bigint, n bigint); ALTER TABLE extra REPLICA IDENTITY FULL")
	s.db.Exec(t, "INSERT INTO extra SELECT i, 1 + i % 2, i % 3 FROM generate_series(1, 12) i") // n = 0: 3, 6, 9, 12
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(extraCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	s.db.Exec(t, "ALTER PUBLICATION walhook ADD TABLE extra WHERE (n > 0)")
	publisher := s.publisher(t)
	startAll(t, publisher)
	s.storedAll(t)
	mustRun(t, "setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", changed)
	s.db.Exec(t, "UPDATE extra SET n = n WHERE n > 0") // what the gap leaves alone is known by its last event
	s.storedAll(t)
	publisher.stop(t)
	var before int64
	if err := conn.QueryRow(t.Context(), "SELECT max(id) FROM walhook.event").Scan(&before); err != nil {
		t.Fatal(err)
	}
	s.db.Exec(t, "SELECT pg_drop_replication_slot('"+s.slot+"')")
	s.db.Exec(t, "DELETE FROM extra WHERE id IN (3, 4); UPDATE extra SET n = 5 WHERE id IN (5, 6); UPDATE extra SET n = 0 WHERE id IN (7, 9)")
	mustRun(t, "setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", changed, "--accept-gap")
	var detail string
	if err := conn.QueryRow(t.Context(), "SELECT detail FROM walhook.audit WHERE action = 'setup' ORDER BY at DESC LIMIT 1").Scan(&detail); err != nil || detail != "--accept-gap" {
		t.Errorf("the audit says %q: %v", detail, err)
	}
	rows, err := conn.Query(t.Context(), `
		SELECT (convert_from(body, 'UTF8')::json ->> 'type') || ' ' || record FROM walhook.event WHERE schema = 'extras' AND id > $1 ORDER BY id`, before)
	if err != nil {
		t.Fatal(err)
	}
	told, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(told)
	want := []string{"delete extras:4", "delete extras:7", "insert extras:6", "update extras:5"}
	if !slices.Equal(told, want) {
		t.Errorf("told is %q, want %q", told, want)
	}
}
