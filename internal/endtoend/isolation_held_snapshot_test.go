package endtoend

import (
	"slices"
	"testing"
	"time"
)

// TestHeldSnapshot_ChangesThroughputByATenthAtMost drains the same number of
// events with and without a transaction that is open on the outbox all the
// while, in turns. In short it looks for the cause instead of the time, which is
// a row that is updated again and again: its dead versions cannot be removed.
func TestHeldSnapshot_ChangesThroughputByATenthAtMost(t *testing.T) {
	turns, events, bound := 2, 2_000, 4.0
	if *fullFlag {
		turns, events, bound = 5, 60_000, 1.1
	}
	m := newMall(t, 50)
	began := time.Now()
	m.drain(t, events/2) // connections, caches
	var free, held []time.Duration
	for range turns {
		free = append(free, m.drain(t, events))
		conn := m.outbox.Connect(t)
		if _, err := conn.PgConn().Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM walhook.event").ReadAll(); err != nil {
			t.Fatal(err)
		}
		held = append(held, m.drain(t, events))
		m.trade(t, time.Second, 400) // each in a transaction of its own
		_ = conn.Close(t.Context())
	}
	slices.Sort(free)
	slices.Sort(held)
	without, with := free[turns/2], held[turns/2]
	ratio := float64(with) / float64(without)
	t.Logf("%d events, medians of %d: %s without, %s with a held snapshot (%.3f×)", events, turns,
		without.Round(time.Millisecond), with.Round(time.Millisecond), ratio)
	if ratio > bound {
		t.Errorf("a held snapshot makes draining %.2f × as long, want at most %.2f", ratio, bound)
	}
	m.close(t)
	// Tails and lanes are written every three seconds at most: 32 and 50.
	most := 100 * int(time.Since(began)/(3*time.Second)+2)
	changed, tables := m.rewritten(t)
	t.Logf("%d rows were updated or deleted for %d events in %s: %s", changed, m.server.Count(), time.Since(began), tables)
	if changed > most {
		t.Errorf("%d rows were updated or deleted, want at most %d, however many events there are", changed, most)
	}
}

// rewritten counts the rows that were updated or deleted in the outbox, once
// nobody is connected whose counts are still to come.
func (m *mall) rewritten(t *testing.T) (changed int, tables string) {
	t.Helper()
	const sql = `
		SELECT coalesce(sum(n), 0), coalesce(string_agg(relname || ' ' || n, ', ' ORDER BY n DESC), 'none') FROM (
			SELECT relname, n_tup_upd + n_tup_del AS n FROM pg_stat_user_tables WHERE schemaname = 'walhook') t WHERE n > 0`
	if err := m.outbox.Connect(t).QueryRow(t.Context(), sql).Scan(&changed, &tables); err != nil {
		t.Fatal(err)
	}
	return changed, tables
}
