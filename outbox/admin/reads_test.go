package admin

import (
	"fmt"
	"strings"
	"testing"

	"walhook/internal/pgtest"
	"walhook/outbox"
)

// One endpoint has most of the events, another one a few, and a third one had many. What a
// statement reads of any is no more than it asks for, whether the plan knows the endpoint
// or not.
func TestReads_OfAnEndpointPassByOthers(t *testing.T) {
	w := newWorldAlone(t)
	const events, most = 60_000, 3_000
	w.BusyAndQuiet(t, events)
	for _, q := range []struct{ name, sql, args string }{
		{"health", healthSQL, fmt.Sprintf(`('{1,2,3}', 500, 50, %d)`, outbox.Shards)},
		{"worst endpoints", worstSQL, `(100, 100)`},
		{"newest event of a quiet endpoint", newestOfSQL, `(1)`},
		{"newest event of a busy endpoint", newestOfSQL, `(2)`},
		{"newest event of one that was busy", newestOfSQL, `(3)`},
		{"newest event before another, of a quiet endpoint", lastBeforeSQL, `(1, 59999)`},
		{"newest event before another, of one that was busy", lastBeforeSQL, `(3, 59999)`},
		{"page of a quiet endpoint", lookLogSQL, `(1, 59999, 0, 500)`},
		{"page of a busy endpoint", lookLogSQL, `(2, 59999, 0, 500)`},
		{"page of one that was busy", lookLogSQL, `(3, 59999, 0, 500)`},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(q.name+", "+mode, func(t *testing.T) {
				w.Exec(t, "SET plan_cache_mode = "+mode)
				w.Exec(t, "PREPARE p AS "+q.sql)
				defer w.Exec(t, "DEALLOCATE p")
				if read := pgtest.RowsRead(t, w.Conn, "EXECUTE p"+q.args); read.Rows > most {
					t.Errorf("it reads %.0f rows: %s", read.Rows, strings.Join(read.Nodes, "; "))
				}
			})
		}
	}
}
