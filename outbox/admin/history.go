package admin

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// MadeAttempt is an attempt as people look back on it.
type MadeAttempt struct {
	outbox.Attempt
	Endpoint  int64
	Webhook   string // the endpoint's id in the API
	Deleted   bool   // the webhook was deleted
	EventID   int64
	WebhookID string // the event's webhook-id; "" when the event log no longer holds it
	Schema    string
	Type      string
}

// AttemptKey is a place in a list of attempts.
type AttemptKey struct {
	At       time.Time
	Endpoint int64
	EventID  int64
}

const (
	// Those that are there, and the deleted ones, the newest first: an account may
	// have deleted any number.
	ownEndpointsSQL = `
		SELECT array_agg(id) FROM (
			(SELECT id FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL)
			UNION ALL
			(SELECT id FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NOT NULL AND ended_at IS NULL ORDER BY deleted_at DESC LIMIT $2)) e`

	// Each endpoint's newest by its index, and of those the newest. LIMIT 1 keeps
	// the rest on an index as well.
	attemptsSQL = `
		SELECT a.at, a.number, a.revision, a.duration, a.status, a.outcome, a.reason, a.detail,
			a.endpoint, p.webhook, p.deleted, a.event_id, coalesce(e.webhook_id, ''), coalesce(e.schema, ''), coalesce(e.type, '')
		FROM (
			SELECT a.* FROM unnest($1::bigint[]) AS w(id) CROSS JOIN LATERAL (
				SELECT * FROM walhook.attempt a
				WHERE a.endpoint = w.id AND ($2::timestamptz IS NULL OR a.at <= $2 AND (a.at, a.endpoint, a.event_id) < ($2, $3, $4))
				ORDER BY a.at DESC, a.event_id DESC LIMIT $5) a
			ORDER BY a.at DESC, a.endpoint DESC, a.event_id DESC LIMIT $5) a
		CROSS JOIN LATERAL (SELECT webhook, deleted_at IS NOT NULL AS deleted FROM walhook.endpoint p WHERE p.id = a.endpoint LIMIT 1) p
		LEFT JOIN LATERAL (SELECT webhook_id, schema, type FROM walhook.event e WHERE e.id = a.event_id LIMIT 1) e ON true
		ORDER BY a.at DESC, a.endpoint DESC, a.event_id DESC`
)

// KeptDeleted is how many of the webhooks that an account deleted are in the lists
// of all its webhooks.
const KeptDeleted = 100

// Attempts lists the attempts of an account's webhooks, those that were deleted
// last included, the newest first, from the one before the key on; nil begins with
// the newest.
func (a *Admin) Attempts(ctx context.Context, account string, before *AttemptKey, limit int) ([]MadeAttempt, error) {
	var endpoints []int64
	err := a.pool.QueryRow(ctx, ownEndpointsSQL, account, KeptDeleted).Scan(&endpoints)
	if err != nil {
		return nil, fmt.Errorf("list the attempts of account %s: %w", account, err)
	}
	return a.AttemptsOf(ctx, endpoints, before, limit)
}

// AttemptsOf is Attempts for endpoints.
func (a *Admin) AttemptsOf(ctx context.Context, endpoints []int64, before *AttemptKey, limit int) (list []MadeAttempt, err error) {
	var at *time.Time
	var endpoint, event int64
	if before != nil {
		at, endpoint, event = &before.At, before.Endpoint, before.EventID
	}
	var bad error
	if len(endpoints) > 0 {
		err = a.byIndex(ctx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, attemptsSQL, endpoints, at, endpoint, event, limit)
			if err != nil {
				return err
			}
			list, err = collectEach(rows, scanMadeAttempt, func(_ *MadeAttempt, cause error) { bad = cause })
			return err
		})
	}
	if bad != nil {
		a.store.SetAsideRow(ctx, "attempts", fmt.Sprint(endpoints), 0, bad)
	}
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	return list, nil
}

func scanMadeAttempt(row pgx.CollectableRow) (a MadeAttempt, err error) {
	err = row.Scan(&a.At, &a.Number, &a.Revision, &a.Duration, &a.Status, &a.Outcome, &a.Reason, &a.Detail,
		&a.Endpoint, &a.Webhook, &a.Deleted, &a.EventID, &a.WebhookID, &a.Schema, &a.Type)
	return a, err
}

// EventStatus is an event of one endpoint and how it stands.
type EventStatus struct {
	ID          int64
	WebhookID   string
	Schema      string
	Type        string
	CommittedAt time.Time
	Size        int  // bytes of its body, as the event log has it
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
		SELECT e.id, e.webhook_id, e.schema, e.type, e.committed_at, ` + outbox.SizeSQL + `, e.replayed,
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

// EventStatuses lists the event log's events of an endpoint with smaller ids than
// before, the newest first; 0 begins with the newest.
func (a *Admin) EventStatuses(ctx context.Context, endpoint, before int64, limit int) ([]EventStatus, error) {
	var list []EventStatus
	var bad []badRow
	err := a.byIndex(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, eventStatusSQL, endpoint, orNewest(before), limit)
		if err != nil {
			return err
		}
		list, err = collectEach(rows, func(row pgx.CollectableRow) (e EventStatus, err error) {
			var next *time.Time
			err = row.Scan(&e.ID, &e.WebhookID, &e.Schema, &e.Type, &e.CommittedAt, &e.Size, &e.Replayed, &e.State, &e.Attempts, &e.Reason, &next)
			e.NextAt = *cmp.Or(next, new(time.Time))
			return e, err
		}, func(e *EventStatus, cause error) { bad = append(bad, badRow{e.ID, cause}) })
		return err
	})
	for _, b := range bad {
		a.store.SetAsideRow(ctx, "events", strconv.FormatInt(b.id, 10), endpoint, b.cause)
	}
	if err != nil {
		return nil, fmt.Errorf("list the events of endpoint %d: %w", endpoint, err)
	}
	return list, nil
}

// DeadLetters lists the dead letters of an account's webhooks, the [KeptDeleted]
// that were deleted last included, whose events have smaller ids than before, the newest event first; 0 begins with the newest.
func (a *Admin) DeadLetters(ctx context.Context, account string, before int64, limit int) ([]DeadLetter, error) {
	var endpoints []int64
	err := a.pool.QueryRow(ctx, ownEndpointsSQL, account, KeptDeleted).Scan(&endpoints)
	var list []DeadLetter
	var bad []badRow
	if err == nil && len(endpoints) > 0 {
		err = a.byIndex(ctx, func(tx pgx.Tx) error {
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
		a.store.SetAsideRow(ctx, "dead letters", strconv.FormatInt(b.id, 10), 0, b.cause)
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
func (a *Admin) Endpoint(ctx context.Context, id int64) (outbox.Endpoint, error) {
	list, err := a.store.Endpoints(ctx, []int64{id})
	if err == nil && len(list) == 0 {
		err = ErrNoEndpoint
	}
	if err != nil {
		return outbox.Endpoint{}, err
	}
	return list[0], nil
}
