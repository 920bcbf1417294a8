package admin

import (
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
		SELECT a.at, a.number, a.revision, a.duration, a.status, a.outcome, a.reason, a.detail, a.batch,
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
	endpoints, err := a.OwnEndpoints(ctx, account)
	if err != nil {
		return nil, err
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
	err = row.Scan(&a.At, &a.Number, &a.Revision, &a.Duration, &a.Status, &a.Outcome, &a.Reason, &a.Detail, &a.Batch,
		&a.Endpoint, &a.Webhook, &a.Deleted, &a.EventID, &a.WebhookID, &a.Schema, &a.Type)
	return a, err
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
	deadLettersOfSQL = `
		SELECT d.endpoint, p.webhook, p.deleted, d.event_id, d.webhook_id, d.schema, d.type, d.committed_at, d.died_at, d.attempts, d.reason, d.size
		FROM unnest($1::bigint[]) AS w(id) CROSS JOIN LATERAL (
			SELECT * FROM walhook.dead_letter d WHERE d.endpoint = w.id AND d.event_id < $2 ORDER BY d.event_id DESC LIMIT $3) d
		CROSS JOIN LATERAL (SELECT webhook, deleted_at IS NOT NULL AS deleted FROM walhook.endpoint p WHERE p.id = d.endpoint LIMIT 1) p
		ORDER BY d.event_id DESC LIMIT $3`
)

// DeadLetters lists the dead letters of an account's webhooks, the [KeptDeleted]
// that were deleted last included, whose events have smaller ids than before, the newest event first; 0 begins with the newest.
func (a *Admin) DeadLetters(ctx context.Context, account string, before int64, limit int) ([]DeadLetter, error) {
	endpoints, err := a.OwnEndpoints(ctx, account)
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
