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
	ownEndpointsSQL = `SELECT array_agg(id) FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL AND ($2 = '' OR webhook = $2)`

	// Each endpoint's newest by its index, and of those the newest. LIMIT 1 keeps
	// the rest on an index as well.
	attemptsSQL = `
		SELECT a.at, a.number, a.revision, a.duration, a.status, a.outcome, a.reason, a.detail,
			a.endpoint, p.webhook, a.event_id, coalesce(e.webhook_id, ''), coalesce(e.schema, ''), coalesce(e.type, '')
		FROM (
			SELECT a.* FROM unnest($1::bigint[]) AS w(id) CROSS JOIN LATERAL (
				SELECT * FROM walhook.attempt a
				WHERE a.endpoint = w.id AND ($2::timestamptz IS NULL OR a.at <= $2 AND (a.at, a.endpoint, a.event_id) < ($2, $3, $4))
				ORDER BY a.at DESC, a.event_id DESC LIMIT $5) a
			ORDER BY a.at DESC, a.endpoint DESC, a.event_id DESC LIMIT $5) a
		CROSS JOIN LATERAL (SELECT webhook FROM walhook.endpoint p WHERE p.id = a.endpoint LIMIT 1) p
		LEFT JOIN LATERAL (SELECT webhook_id, schema, type FROM walhook.event e WHERE e.id = a.event_id LIMIT 1) e ON true
		ORDER BY a.at DESC, a.endpoint DESC, a.event_id DESC`
)

// Attempts lists the attempts of an account's webhooks, or of the one with an
// id, the newest first, from the one before the key on; nil begins with the
// newest.
func (s *Store) Attempts(ctx context.Context, account, webhook string, before *AttemptKey, limit int) ([]MadeAttempt, error) {
	var at *time.Time
	var endpoint, event int64
	if before != nil {
		at, endpoint, event = &before.At, before.Endpoint, before.EventID
	}
	var endpoints []int64
	err := s.pool.QueryRow(ctx, ownEndpointsSQL, account, webhook).Scan(&endpoints)
	var list []MadeAttempt
	var bad error
	if err == nil && len(endpoints) > 0 {
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
		return nil, fmt.Errorf("list the attempts of account %s: %w", account, err)
	}
	return list, nil
}

func scanMadeAttempt(row pgx.CollectableRow) (a MadeAttempt, err error) {
	err = row.Scan(&a.At, &a.Number, &a.Revision, &a.Duration, &a.Status, &a.Outcome, &a.Reason, &a.Detail,
		&a.Endpoint, &a.Webhook, &a.EventID, &a.WebhookID, &a.Schema, &a.Type)
	return a, err
}
