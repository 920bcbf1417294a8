package outbox

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap/zaptest/observer"

	"walhook/internal/pgtest"
	"walhook/outbox/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// world is an outbox that one test has to itself.
type world struct {
	*storetest.World
	db    *pgtest.DB
	conn  *pgx.Conn // the test's own
	store *Store
	reg   *prometheus.Registry
	logs  *observer.ObservedLogs
}

// newWorld is an empty outbox.
func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	return worldOf(t, storetest.New(t, Migrate), change...)
}

// newWorldAlone is one whose test changes the outbox's tables.
func newWorldAlone(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	return worldOf(t, storetest.NewAlone(t, Migrate), change...)
}

func worldOf(t *testing.T, base *storetest.World, change ...func(*Config)) *world {
	t.Helper()
	w := &world{World: base, db: base.DB, conn: base.Conn}
	w.open(t, change...)
	return w
}

// worldIn is a database that need be no outbox yet, and no store.
func worldIn(t *testing.T, db *pgtest.DB) *world {
	t.Helper()
	base := &storetest.World{DB: db, Conn: db.Connect(t)}
	return &world{World: base, db: db, conn: base.Conn}
}

// open gives the world a store, in place of the one that it has.
func (w *world) open(t *testing.T, change ...func(*Config)) {
	t.Helper()
	cfg := Config{URL: w.db.URL}
	for _, f := range change {
		f(&cfg)
	}
	log := w.Log()
	w.logs, w.reg = w.Logs, w.Reg
	store, err := Open(t.Context(), cfg, log, w.reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.store = store
}

// The world's own words for what storetest has.

var wantLines, rest, eventually, execTx, commit = storetest.WantLines, storetest.Rest, storetest.Eventually, storetest.ExecTx, storetest.Commit

func one[T any](t *testing.T, w *world, sql string, args ...any) T {
	t.Helper()
	return storetest.One[T](t, w.World, sql, args...)
}

func all[T any](t *testing.T, w *world, sql string, args ...any) []T {
	t.Helper()
	return storetest.All[T](t, w.World, sql, args...)
}

func (w *world) exec(t *testing.T, sql string, args ...any) { t.Helper(); w.Exec(t, sql, args...) }
func (w *world) count(t *testing.T, table string) int       { t.Helper(); return w.Count(t, table) }
func (w *world) blocked(t *testing.T, text string)          { t.Helper(); w.Blocked(t, text) }
func (w *world) begin(t *testing.T) pgx.Tx                  { t.Helper(); return w.Begin(t) }

func (w *world) endpoint(t *testing.T, account string) int64 {
	t.Helper()
	return w.Endpoint(t, account)
}

func (w *world) endpointID(t *testing.T, id int64) int64 { t.Helper(); return w.EndpointID(t, id) }

func (w *world) bodies(t *testing.T, first, last, endpoint int64, record string, size int) {
	t.Helper()
	w.Bodies(t, first, last, endpoint, record, size)
}

// skipped reads walhook_changes_skipped_total, without the zeros.
func (w *world) skipped(t *testing.T) map[string]int {
	t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, family := range families {
		if family.GetName() == "walhook_changes_skipped_total" {
			for _, m := range family.GetMetric() {
				if n := int(m.GetCounter().GetValue()); n > 0 {
					got[label(m, "reason")] = n
				}
			}
		}
	}
	return got
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func (w *world) wantSkipped(t *testing.T, want map[string]int) {
	t.Helper()
	if got := w.skipped(t); !maps.Equal(got, want) {
		t.Errorf("skipped %v, want %v", got, want)
	}
}

// event puts an event into the log.
func (w *world) event(t *testing.T, id, endpoint int64, record string) Event {
	t.Helper()
	w.bodies(t, id, id, endpoint, record, 8)
	return Event{ID: id, Endpoint: endpoint, Revision: 1, Record: record}
}

// lease is longer than any test takes. A test of its end ends it. Beyond ten minutes it
// would be taken for one without end.
const lease = 9 * time.Minute

// join is a session that holds every shard that is free for it.
func (w *world) join(t *testing.T) (*Session, Handover) {
	t.Helper()
	s, err := w.store.Join(t.Context(), "test", lease)
	if err != nil {
		t.Fatal(err)
	}
	gained, _, err := s.Rebalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, gained
}

// expire ends a lease by the clock of the database.
func (w *world) expire(t *testing.T, s *Session) {
	t.Helper()
	w.exec(t, "UPDATE walhook.sender SET lease_until = clock_timestamp() - interval '1 ms' WHERE id = $1", s.id)
}

func (w *world) settle(t *testing.T, s *Session, batch ...Settlement) []RecordState {
	t.Helper()
	states, err := s.Settle(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	return states
}

// The fates of an event, as a sender puts them.

func delivered(e Event) Settlement {
	return Settlement{Event: e, Disposition: Delivered, Attempt: attempt(e, "delivered", "2xx")}
}

func retried(e Event, in time.Duration) Settlement {
	return Settlement{Event: e, Disposition: Retry, Attempt: attempt(e, "retry", "5xx"), RetryAt: time.Now().Add(in)}
}

func dead(e Event) Settlement {
	return Settlement{Event: e, Disposition: Dead, Attempt: attempt(e, "dead", "5xx")}
}

func parked(e Event) Settlement { return Settlement{Event: e, Disposition: Parked} }

func fromRetry(s Settlement) Settlement {
	s.FromRetry = true
	return s
}

func attempt(e Event, outcome, reason string) *Attempt {
	return &Attempt{At: time.Now(), Number: e.Attempts + 1, Revision: e.Revision, Duration: 5 * time.Millisecond,
		Status: 500, Outcome: outcome, Reason: reason, Detail: "detail"}
}

func ids(events []Event) []int64 {
	var list []int64
	for _, e := range events {
		list = append(list, e.ID)
	}
	return list
}

func wantIDs(t *testing.T, got []Event, want ...int64) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Errorf("events %v, want %v", ids(got), want)
	}
}

func (r RecordState) String() string {
	return fmt.Sprintf("%d %s blocked=%t", r.Endpoint, r.Record, r.Blocked)
}

// counter reads a metric without labels.
func counter(t *testing.T, w *world, name string) float64 {
	t.Helper()
	metric := map[string]prometheus.Metric{
		"walhook_dead_letters_total":    w.store.metrics.deadLetters,
		"walhook_outbox_backlog":        w.store.metrics.backlog,
		"walhook_outbox_oldest_seconds": w.store.metrics.oldest,
	}[name]
	var m dto.Metric
	if err := metric.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}
