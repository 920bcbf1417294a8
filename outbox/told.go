package outbox

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// EventStatus is an event of one endpoint and how it stands.
type EventStatus struct {
	ID          int64
	WebhookID   string
	Schema      string
	Type        string
	CommittedAt time.Time
	Size        int  // bytes of its body, as the log has it
	Replayed    bool // sent again because somebody asked for it
	// State is delivered, waiting, retry, dead, held (nothing is sent to the
	// endpoint now) or replayed (a newer row with the same webhook-id says how
	// it stands).
	State    string
	Attempts int
	Reason   string    // of the last attempt, or of its death
	NextAt   time.Time // of the next attempt; zero for none that is set
}

// DeadLetter is an event that was given up.
type DeadLetter struct {
	Endpoint    int64
	Webhook     string // the endpoint's id in the API
	Deleted     bool   // the webhook was deleted
	EventID     int64
	WebhookID   string
	Schema      string
	Type        string
	CommittedAt time.Time
	DiedAt      time.Time
	Attempts    int
	Reason      string
	Size        int64 // bytes of its body; of one too large it is not kept
}

const (
	// LIMIT 1 keeps each look-up on its index: a join may be made by reading a
	// whole table.
	eventStatusSQL = `
		SELECT e.id, e.webhook_id, e.schema, e.type, e.committed_at, ` + sizeSQL + `, e.replayed,
			CASE WHEN d.reason IS NOT NULL THEN 'dead'
				WHEN a.outcome = 'delivered' THEN 'delivered'
				WHEN (SELECT 1 FROM walhook.event n WHERE n.replayed AND n.endpoint = e.endpoint AND n.webhook_id = e.webhook_id AND n.id > e.id LIMIT 1) IS NOT NULL THEN 'replayed'
				WHEN p.state <> 'active' THEN 'held'
				WHEN r.attempts > 0 THEN 'retry'
				ELSE 'waiting' END,
			coalesce(d.attempts, a.number, 0), coalesce(d.reason, a.reason, ''), r.next_at
		FROM (SELECT * FROM walhook.event WHERE endpoint = $1 AND id < $2 ORDER BY id DESC LIMIT $3) e
		CROSS JOIN LATERAL (SELECT state FROM walhook.endpoint p WHERE p.id = e.endpoint LIMIT 1) p
		LEFT JOIN LATERAL (SELECT attempts, reason FROM walhook.dead_letter d WHERE d.endpoint = e.endpoint AND d.event_id = e.id LIMIT 1) d ON true
		LEFT JOIN LATERAL (SELECT number, outcome, reason FROM walhook.attempt a WHERE a.endpoint = e.endpoint AND a.event_id = e.id ORDER BY a.at DESC LIMIT 1) a ON true
		LEFT JOIN LATERAL (SELECT attempts, next_at FROM walhook.retry r WHERE r.endpoint = e.endpoint AND r.event_id = e.id LIMIT 1) r ON true
		ORDER BY e.id DESC`

	deadLettersOfSQL = `
		SELECT d.endpoint, p.webhook, p.deleted, d.event_id, d.webhook_id, d.schema, d.type, d.committed_at, d.died_at, d.attempts, d.reason, d.size
		FROM unnest($1::bigint[]) AS w(id) CROSS JOIN LATERAL (
			SELECT * FROM walhook.dead_letter d WHERE d.endpoint = w.id AND d.event_id < $2 ORDER BY d.event_id DESC LIMIT $3) d
		CROSS JOIN LATERAL (SELECT webhook, deleted_at IS NOT NULL AS deleted FROM walhook.endpoint p WHERE p.id = d.endpoint LIMIT 1) p
		ORDER BY d.event_id DESC LIMIT $3`
)

// byIndexSQL keeps what a transaction reads on the indexes that have its order.
// How much one endpoint has the planner knows only when it sees which one it is,
// and of several at once not even then: it takes all for average ones, reads all
// they have and sorts it.
const byIndexSQL = `
	SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`

// byIndex reads in a transaction by [byIndexSQL].
func (s *Store) byIndex(ctx context.Context, read func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byIndexSQL); err != nil {
			return err
		}
		return read(tx)
	})
}

// EventStatuses lists the log's events of an endpoint with smaller ids than
// before, the newest first; 0 begins with the newest.
func (s *Store) EventStatuses(ctx context.Context, endpoint, before int64, limit int) ([]EventStatus, error) {
	var list []EventStatus
	var bad []badRow
	err := s.byIndex(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, eventStatusSQL, endpoint, orNewest(before), limit)
		if err != nil {
			return err
		}
		list, err = collectEach(rows, func(row pgx.CollectableRow) (e EventStatus, err error) {
			var next *time.Time
			err = row.Scan(&e.ID, &e.WebhookID, &e.Schema, &e.Type, &e.CommittedAt, &e.Size, &e.Replayed, &e.State, &e.Attempts, &e.Reason, &next)
			e.NextAt = zeroTime(next)
			return e, err
		}, func(e *EventStatus, cause error) { bad = append(bad, badRow{e.ID, cause}) })
		return err
	})
	for _, b := range bad {
		s.listed(ctx, "events", strconv.FormatInt(b.endpoint, 10), endpoint, b.cause)
	}
	if err != nil {
		return nil, fmt.Errorf("list the events of endpoint %d: %w", endpoint, err)
	}
	return list, nil
}

// DeadLetters lists the dead letters of an account's webhooks, the [KeptDeleted]
// that were deleted last included, whose events have smaller ids than before, the newest event first; 0 begins with the newest.
func (s *Store) DeadLetters(ctx context.Context, account string, before int64, limit int) ([]DeadLetter, error) {
	var endpoints []int64
	err := s.pool.QueryRow(ctx, ownEndpointsSQL, account, KeptDeleted).Scan(&endpoints)
	var list []DeadLetter
	var bad []badRow
	if err == nil && len(endpoints) > 0 {
		err = s.byIndex(ctx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, deadLettersOfSQL, endpoints, orNewest(before), limit)
			if err != nil {
				return err
			}
			list, err = collectEach(rows, func(row pgx.CollectableRow) (d DeadLetter, err error) {
				err = row.Scan(&d.Endpoint, &d.Webhook, &d.Deleted, &d.EventID, &d.WebhookID, &d.Schema, &d.Type, &d.CommittedAt, &d.DiedAt, &d.Attempts, &d.Reason, &d.Size)
				return d, err
			}, func(d *DeadLetter, cause error) { bad = append(bad, badRow{d.EventID, cause}) })
			return err
		})
	}
	for _, b := range bad {
		s.listed(ctx, "dead letters", strconv.FormatInt(b.endpoint, 10), 0, b.cause)
	}
	if err != nil {
		return nil, fmt.Errorf("list the dead letters of account %s: %w", account, err)
	}
	return list, nil
}

// orNewest is a bound on ids that 0 leaves open.
func orNewest(before int64) int64 {
	if before <= 0 {
		return math.MaxInt64
	}
	return before
}

// Endpoint reads one endpoint as a sender has it, secrets included.
// [ErrNoEndpoint] when there is none.
func (s *Store) Endpoint(ctx context.Context, id int64) (Endpoint, error) {
	list, err := s.endpoints(ctx, []int64{id})
	if err == nil && len(list) == 0 {
		err = ErrNoEndpoint
	}
	if err != nil {
		return Endpoint{}, err
	}
	return list[0], nil
}
