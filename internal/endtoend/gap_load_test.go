package endtoend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgtest"
)

// missedSQL is what the source's rows say was missed since before_item and before_part.
const missedSQL = `
	WITH missed AS (
		SELECT b.account, 'delete' AS type, 'items' AS schema, b.id::text, NULL::bigint AS n FROM before_item b LEFT JOIN item i USING (id) WHERE i.account IS DISTINCT FROM b.account
		UNION ALL SELECT i.account, 'insert', 'items', i.id::text, i.n FROM item i LEFT JOIN before_item b USING (id) WHERE i.account IS DISTINCT FROM b.account
		UNION ALL SELECT i.account, 'update', 'items', i.id::text, i.n FROM item i JOIN before_item b USING (id, account) WHERE i.n <> b.n OR i.id % 1000 = 18
		UNION ALL SELECT b.item / 1000000, 'delete', 'parts', b.id, NULL FROM before_part b LEFT JOIN part p USING (id) WHERE p.id IS NULL
		UNION ALL SELECT p.item / 1000000, 'insert', 'parts', p.id, p.n FROM part p LEFT JOIN before_part b USING (id) WHERE b.id IS NULL
		UNION ALL SELECT p.item / 1000000, 'update', 'parts', p.id, p.n FROM part p JOIN before_part b USING (id) WHERE p.n <> b.n
	)
	SELECT concat_ws(' ', account, type, schema, id, n) FROM missed`

const toldSQL = `
	SELECT concat_ws(' ', p.account, e.type, e.schema, d.data ->> 'id', d.data ->> 'n')
	FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint,
		LATERAL (SELECT (convert_from(e.body, 'UTF8')::json ->> 'data')::json AS data) AS d
	WHERE e.webhook_id LIKE 'gap\_%'`

// A slot is lost, and one record in a hundred changes in the gap, in every way: exactly
// those are told. With -gap-records=1000000 the log has the times, the memory and the size
// of the ledger.
func TestGap_OfALargeSource(t *testing.T) {
	t.Parallel()
	const accounts = 10
	s := resyncShop(t, pgtest.Database(t), pgtest.Database(t), accounts, 0)
	s.db.Exec(t, fmt.Sprintf("INSERT INTO item (id, account, n) SELECT a * 1000000 + i, a, nextval('state') FROM generate_series(1, %d) a, generate_series(1, %d) i", accounts, *gapRecords/accounts))
	s.db.Exec(t, "INSERT INTO part (id, item, n) SELECT 'part ' || id, id, nextval('state') FROM item WHERE id % 10 = 0; ANALYZE")
	conn, box := s.db.Connect(t), s.outbox.Connect(t)
	lose := func() {
		eventually(t, patience, func() bool {
			_, err := conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", s.slot)
			return err == nil
		})
	}
	accept := func(args ...string) (time.Duration, int64) {
		began := time.Now()
		cmd := childCommand(t, append(append(s.setup(), "--accept-gap"), args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		return time.Since(began), usage.Maxrss / 1024
	}
	lose()
	first, firstMemory := accept("--no-reconcile") // which reads everything as a first setup does
	s.db.Exec(t, "CREATE TABLE before_item AS TABLE item")
	s.db.Exec(t, "CREATE TABLE before_part AS TABLE part; ANALYZE")
	lose()
	s.changeAll(t, conn)
	took, memory := accept()

	lines := func(conn *pgx.Conn, sql string) []string {
		t.Helper()
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(list)
		return list
	}
	told, want := lines(box, toldSQL), lines(conn, missedSQL)
	if !slices.Equal(told, want) {
		for i := range min(len(told), len(want)) {
			if told[i] != want[i] {
				t.Errorf("told %q, want %q", told[i], want[i])
				break
			}
		}
		t.Errorf("%d events of the gap, want %d", len(told), len(want))
	}
	var ledger string
	if err := box.QueryRow(t.Context(), "SELECT format('%s for %s records', pg_size_pretty(pg_total_relation_size('walhook.owner')), count(*)) FROM walhook.owner").Scan(&ledger); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events told of a gap in %s, at most %d MB of memory; the first setup %s, %d MB; the ledger has %s", len(told), took, memory, first, firstMemory, ledger)
}

// changeAll changes one record in a hundred: each kind of change has a thousandth or more.
func (s *shop) changeAll(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for _, sql := range []string{
		"UPDATE item SET n = nextval('state') WHERE id % 1000 IN (11, 12, 13)",
		"UPDATE item SET n = n WHERE id % 1000 = 18", // the stream tells that, too
		"DELETE FROM item WHERE id % 1000 IN (14, 15)",
		"UPDATE item SET account = account % 10 + 1 WHERE id % 1000 = 16",
		"UPDATE item SET id = id + 500000 WHERE id % 1000 = 17",
		"INSERT INTO item (id, account, n) SELECT id + 600000, account, nextval('state') FROM item WHERE id % 1000 = 19",
		"UPDATE part SET n = nextval('state') WHERE item % 1000 = 20",
		"DELETE FROM part WHERE item % 1000 = 30",
		"DELETE FROM item WHERE id % 1000 = 40", // with its part
	} {
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
			t.Fatalf("%s: %v", strings.Fields(sql)[0], err)
		}
	}
}
