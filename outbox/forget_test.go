package outbox

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What is too old is looked up in an index: a function that changes within a statement, such
// as clock_timestamp(), cannot be.
func TestForget_LooksUpWhatIsTooOld(t *testing.T) {
	w := newWorld(t)
	for name, one := range map[string]struct{ sql, column string }{
		"owners": {forgetDeletedSQL, "deleted_at"}, "accounts": {forgetAccountsSQL, "ended_at"}, "columns": {forgetDeletedColumnsSQL, "deleted_at"},
		"answers": {forgetOnceSQL, "made_at"}, "replays": {dueRequestSQL, "next_at"},
		"replays that are over": {forgetRequestsSQL, "done_at"}, "resyncs": {forgetResyncsSQL, "done_at"}, "days": {forgetDaysSQL, "sent_at"},
	} {
		sql := strings.NewReplacer("$1::interval", "interval '7 days'", "$1", "'{}'").Replace(one.sql)
		tx, err := w.conn.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off")
		}
		var lines []string
		if err == nil {
			lines, err = collect[string](tx.Query(t.Context(), "EXPLAIN (COSTS off) "+sql, pgx.QueryExecModeSimpleProtocol))
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if plan := strings.Join(lines, "\n"); !strings.Contains(plan, "Index Cond: (") || !strings.Contains(plan, one.column+" <") {
			t.Errorf("%s:\n%s", name, plan)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
