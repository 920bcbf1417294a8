package outbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// planNode is what EXPLAIN (ANALYZE, FORMAT JSON) says of a node of a plan.
type planNode struct {
	Loops    float64    `json:"Actual Loops"`
	Rows     float64    `json:"Actual Rows"` // of one loop
	Filtered float64    `json:"Rows Removed by Filter"`
	Joined   float64    `json:"Rows Removed by Join Filter"`
	Plans    []planNode `json:"Plans"`
}

// touched is how many rows the node and those below it made or threw away.
func (n *planNode) touched() float64 {
	rows := n.Loops * (n.Rows + n.Filtered + n.Joined)
	for i := range n.Plans {
		rows += n.Plans[i].touched()
	}
	return rows
}

// The outbox's statistics are often of a time when nothing was in retry. What a settlement
// reads grows with what it is about all the same, not with that times the rows of its
// endpoints.
func TestSettle_WorkGrowsWithWhatItIsAboutAlsoByTheStatisticsOfAnEmptyTable(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, "ALTER TABLE walhook.retry SET (autovacuum_enabled = off)")
	w.exec(t, "VACUUM ANALYZE walhook.retry")
	const rows, records = 900, 300 // of each endpoint
	for _, endpoint := range []int64{60, 61} {
		w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason)
			SELECT $1, i, 'dids:' || i % $3, 0, CASE WHEN i <= 150 THEN now() END, '' FROM generate_series(1, $2::int) i`, endpoint, rows, records)
	}
	var endpoints, names, events []string
	for i := range 2 * records {
		endpoints, names, events = append(endpoints, fmt.Sprint(60+i%2)), append(names, fmt.Sprintf("dids:%d", i/2)), append(events, fmt.Sprint(i/2+1))
	}
	array := func(of []string) string { return "'{" + strings.Join(of, ",") + "}'" }
	for _, q := range []struct {
		name, types, sql, args string
		freed                  int // rows that wait behind no other any more, or are gone
	}{
		{"promotion", "bigint[], text[]", promoteSQL, array(endpoints) + "," + array(names), 300},
		{"promotion of an endpoint", "bigint", promoteEndpointSQL, "60", 150},
		{"delivery", "bigint[], bigint[]", deleteRetriesSQL, array(endpoints) + "," + array(events), 300},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(q.name+", "+mode, func(t *testing.T) {
				w.exec(t, "SET plan_cache_mode = "+mode)
				w.exec(t, "PREPARE p ("+q.types+") AS "+q.sql)
				defer w.exec(t, "DEALLOCATE p")
				w.exec(t, "BEGIN")
				defer w.exec(t, "ROLLBACK")
				var explained []struct {
					Plan planNode `json:"Plan"`
				}
				text := one[string](t, w, "EXPLAIN (ANALYZE, TIMING off, FORMAT json) EXECUTE p("+q.args+")")
				if err := json.Unmarshal([]byte(text), &explained); err != nil {
					t.Fatal(err)
				}
				touched := explained[0].Plan.touched()
				if most := 20. * 2 * records; touched > most {
					t.Errorf("%.0f rows are touched of %d, want at most %.0f:\n%s", touched, 2*rows, most, text)
				}
				if waiting := one[int](t, w, "SELECT count(*) FROM walhook.retry WHERE next_at IS NULL"); 2*(rows-150)-waiting != q.freed {
					t.Errorf("%d of %d rows wait, want %d fewer", waiting, 2*(rows-150), q.freed)
				}
			})
		}
	}
}
