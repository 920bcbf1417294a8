package outbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/storetest"
	"walhook/schemas"
)

// SuiteWorld is the outbox on PostgreSQL as package outboxtest asks a log: the
// store itself, the publisher that appends, and SQL for what others do to it.
type SuiteWorld struct {
	*feed
	made  map[int]int64 // endpoints by shard
	known map[string]bool
	aged  bool // the log has left its first partition, which no other test expects
	stale bool // the publisher has not seen an endpoint, or how old the log is
}

// NewSuiteWorld is one that a case has to itself, in a database that served
// others before.
func NewSuiteWorld(t *testing.T) *SuiteWorld {
	t.Helper()
	s := &SuiteWorld{made: map[int]int64{}, known: map[string]bool{}}
	w := worldOf(t, storetest.NewOf(t, Migrate, func() bool { return !s.aged }))
	s.feed = newFeedIn(t, w)
	return s
}

// Store is the log itself.
func (s *SuiteWorld) Store() *Store { return s.store }

func (s *SuiteWorld) MakeEndpoint(t *testing.T, shard int) Endpoint {
	t.Helper()
	s.made[shard]++
	id := int64(shard) + Shards*s.made[shard]
	s.exec(t, `INSERT INTO walhook.endpoint (id, account, url, state, secret) VALUES ($1, $2, $3, 'active', 'whsec_eA==')`,
		id, fmt.Sprint(id), fmt.Sprint("https://example.com/", id))
	s.stale = true
	return s.endpointNow(t, id)
}

func (s *SuiteWorld) endpointNow(t *testing.T, id int64) Endpoint {
	t.Helper()
	list, err := s.store.endpoints(t.Context(), []int64{id})
	if err != nil || len(list) != 1 {
		t.Fatalf("endpoint %d is read as %+v, %v", id, list, err)
	}
	return list[0]
}

// ChangeURL does to an endpoint what a change of its account's row does.
func (s *SuiteWorld) ChangeURL(t *testing.T, id int64, url string) Endpoint {
	t.Helper()
	if url == "" {
		s.exec(t, `UPDATE walhook.endpoint SET url = '', state = 'cleared', reason = 'the account has no URL', revision = revision + 1,
			changed_at = clock_timestamp(), feed_from = (SELECT coalesce(max(id), 0) + 1 FROM walhook.event) WHERE id = $1`, id)
	} else {
		s.exec(t, `UPDATE walhook.endpoint SET url = $2, state = 'active', reason = '', revision = revision + 1,
			changed_at = clock_timestamp() WHERE id = $1`, id, url)
	}
	s.stale = true
	return s.endpointNow(t, id)
}

func (s *SuiteWorld) AwaitEndpoint(t *testing.T, id int64) Endpoint {
	t.Helper()
	s.exec(t, `UPDATE walhook.endpoint SET ended_secret_at = clock_timestamp(), revision = revision + 1, changed_at = clock_timestamp() WHERE id = $1`, id)
	s.stale = true
	return s.endpointNow(t, id)
}

func (s *SuiteWorld) ConfirmedRevision(t *testing.T, id int64) int64 {
	t.Helper()
	return one[int64](t, s.world, "SELECT confirmed_revision FROM walhook.endpoint WHERE id = $1", id)
}

// SuiteDraft is an event to append: a change of a record of an endpoint's account.
type SuiteDraft struct {
	Endpoint     int64
	Record, Size int
}

// AppendChanges has the publisher append changes as one batch, and reads what was
// stored.
func (s *SuiteWorld) AppendChanges(t *testing.T, drafts []SuiteDraft) []Event {
	t.Helper()
	if s.stale {
		s.takeOver(t)
		s.stale = false
	}
	before := one[int64](t, s.world, horizonSQL)
	changes := make([]schemas.Change, len(drafts))
	for i, d := range drafts {
		key, text := fmt.Sprint(d.Endpoint*100_000+int64(d.Record)), strings.Repeat("x", d.Size)
		if s.known[key] {
			changes[i] = dids.Update(row(key, d.Endpoint, "before"), row(key, d.Endpoint, text))
		} else {
			changes[i] = dids.Insert(key, d.Endpoint, text)
		}
		s.known[key] = true
	}
	s.commit(t, changes...)
	rows, err := s.conn.Query(t.Context(), `SELECT id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, body, account
		FROM walhook.event WHERE id > $1 ORDER BY id`, before)
	if err != nil {
		t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Event, err error) { return e, row.Scan(e.columns()...) })
	if err != nil || len(events) != len(drafts) {
		t.Fatalf("%d events of %d changes are stored, %v", len(events), len(drafts), err)
	}
	return events
}

// AgeLog makes what is in the log older than retention. The publisher moves on to
// the next partition.
func (s *SuiteWorld) AgeLog(t *testing.T) {
	t.Helper()
	s.exec(t, "UPDATE walhook.event SET appended_at = clock_timestamp() - interval '8 days'")
	s.stale, s.aged = true, true
}

// TrimLog is a round of maintenance.
func (s *SuiteWorld) TrimLog(t *testing.T) bool {
	t.Helper()
	err := s.store.maintainOnce(t.Context())
	if err != nil && !errors.Is(err, errUndelivered) {
		t.Fatal(err)
	}
	dropped := s.partitions(t, "event")[0] != "event_000000"
	if dropped != (err == nil) {
		t.Errorf("dropped %t, answered %v", dropped, err)
	}
	return dropped
}

// EndLease ends the lease of a sender by the clock of the database.
func (s *SuiteWorld) EndLease(t *testing.T, name string) {
	t.Helper()
	s.exec(t, "UPDATE walhook.sender SET lease_until = clock_timestamp() - interval '1 ms' WHERE name = $1", name)
}

func (s *SuiteWorld) AttemptsOf(t *testing.T, e Event) []Attempt {
	t.Helper()
	rows, err := s.conn.Query(t.Context(), `SELECT at, number, revision, duration, status, outcome, reason, detail
		FROM walhook.attempt WHERE endpoint = $1 AND event_id = $2 ORDER BY at`, e.Endpoint, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	attempts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Attempt, err error) {
		return a, row.Scan(&a.At, &a.Number, &a.Revision, &a.Duration, &a.Status, &a.Outcome, &a.Reason, &a.Detail)
	})
	if err != nil {
		t.Fatal(err)
	}
	return attempts
}

// SuiteDeadLetter is a row of dead_letter.
type SuiteDeadLetter struct {
	Event    Event
	Attempts int
	Reason   string
}

func (s *SuiteWorld) DeadLetters(t *testing.T) []SuiteDeadLetter {
	t.Helper()
	rows, err := s.conn.Query(t.Context(), `SELECT event_id, endpoint, record, webhook_id, schema, type, body, attempts, reason
		FROM walhook.dead_letter ORDER BY event_id`)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d SuiteDeadLetter, err error) {
		e := &d.Event
		return d, row.Scan(&e.ID, &e.Endpoint, &e.Record, &e.WebhookID, &e.Schema, &e.Type, &e.Body, &d.Attempts, &d.Reason)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dead
}
