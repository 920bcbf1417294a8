package outbox

import "testing"

// TestPartitions_NeverDelayAnAppendWhateverIsHeldOpen does all of a round of
// maintenance, the dropping of a partition included, while somebody holds a
// transaction open. Appends must go on, and the partition go once it has ended.
func TestPartitions_NeverDelayAnAppendWhateverIsHeldOpen(t *testing.T) {
	for name, held := range map[string][]string{
		"a snapshot":                         {"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM walhook.endpoint"},
		"a serializable reader":              {"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT count(*) FROM walhook.event", "SELECT count(*) FROM walhook.attempt"},
		"a reader of the partition":          {"SELECT count(*) FROM walhook.event_000000"},
		"rows locked":                        {"SELECT FROM walhook.event FOR KEY SHARE", "SELECT FROM walhook.position FOR UPDATE"},
		"writers":                            {"DELETE FROM walhook.event WHERE false", "DELETE FROM walhook.attempt WHERE false", "DELETE FROM walhook.dead_letter WHERE false", "DELETE FROM walhook.unrouted WHERE false"},
		"a vacuum of the log":                {"LOCK TABLE walhook.event, walhook.attempt IN SHARE UPDATE EXCLUSIVE MODE"},
		"the old partition altered":          {"LOCK TABLE walhook.event_000000 IN ACCESS EXCLUSIVE MODE"},
		"an index being made on old records": {"LOCK TABLE walhook.event_000000 IN SHARE MODE"},
	} {
		t.Run(name, func(t *testing.T) {
			f := aged(t)
			f.allDelivered(t)
			holder := f.begin(t)
			for _, sql := range held {
				execTx(t, holder, sql)
			}
			done := make(chan error, 1)
			go func() { done <- f.store.maintainOnce(t.Context()) }()
			var err error
			n := 0
			for running := true; running; n++ {
				f.unqueued(t, n)
				select {
				case err = <-done:
					running = false
				default:
				}
			}
			commit(t, holder)
			gone := func() bool { return f.partitions(t, "event")[0] != "event_000000" }
			for round := 0; round < 10 && !gone(); round++ { // the server's own vacuum may hold one up
				_ = f.store.maintainOnce(t.Context())
			}
			f.unqueued(t, n)
			if !gone() {
				t.Error("the partition is still there once nobody holds it up")
			}
			t.Logf("%d appends meanwhile; maintenance: %v", n, err)
		})
	}
}
