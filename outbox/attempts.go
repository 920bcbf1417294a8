package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// MadeAttempt is an attempt as people look back on it.
type MadeAttempt struct {
	Attempt
	Endpoint  int64
	Webhook   string // the endpoint's id in the API
	Deleted   bool   // the webhook was deleted
	EventID   int64
	WebhookID string // the event's webhook-id; "" when the log no longer holds it
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
func (s *Store) Attempts(ctx context.Context, account string, before *AttemptKey, limit int) ([]MadeAttempt, error) {
	var endpoints []int64
	err := s.pool.QueryRow(ctx, ownEndpointsSQL, account, KeptDeleted).Scan(&endpoints)
	if err != nil {
		return nil, fmt.Errorf("list the attempts of account %s: %w", account, err)
	}
	return s.AttemptsOf(ctx, endpoints, before, limit)
}

// AttemptsOf is Attempts for endpoints.
func (s *Store) AttemptsOf(ctx context.Context, endpoints []int64, before *AttemptKey, limit int) (list []MadeAttempt, err error) {
	var at *time.Time
	var endpoint, event int64
	if before != nil {
		at, endpoint, event = &before.At, before.Endpoint, before.EventID
	}
	var bad error
	if len(endpoints) > 0 {
		err = s.byIndex(ctx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, attemptsSQL, endpoints, at, endpoint, event, limit)
			if err != nil {
				return err
			}
			list, err = collectEach(rows, scanMadeAttempt, func(_ *MadeAttempt, cause error) { bad = cause })
			return err
		})
	}
	if bad != nil {
		s.listed(ctx, "attempts", fmt.Sprint(endpoints), 0, bad)
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
