package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// EventDetail is one event with its body and all that was done with it.
type EventDetail struct {
	EventStatus
	// Event is what a sender renders; its Body is nil where none is kept.
	Event outbox.Event
	// Made are its attempts, those of its replays included, the newest first, up to
	// [MaxEventAttempts].
	Made []MadeAttempt
}

const (
	// MaxEventAttempts bounds the attempts of one event that are shown.
	MaxEventAttempts = 200
	// eventRows bounds the replays of one event whose attempts are shown.
	eventRows = 100
)

const (
	// The newest row of a webhook-id stands for it, a dead letter where the event log
	// has none.
	eventDetailSQL = `
		SELECT ` + statusColumnsSQL + `, e.format, e.body FROM (
			SELECT * FROM (
				(SELECT ` + loggedColumns + `, e.format, ` + outbox.BodySQL + ` AS body FROM walhook.event e
				WHERE e.webhook_id = $2 AND e.endpoint = $1 ORDER BY e.id DESC LIMIT 1)
				UNION ALL
				(SELECT event_id, endpoint, webhook_id, schema, type, record, committed_at, NULL, size, false, format, body FROM walhook.dead_letter
				WHERE webhook_id = $2 AND endpoint = $1 ORDER BY event_id DESC LIMIT 1)) both_of
			LIMIT 1) e` + stateJoinsSQL

	eventAttemptsSQL = `
		SELECT a.at, a.number, a.revision, a.duration, a.status, a.outcome, a.reason, a.detail, a.batch,
			a.endpoint, ''::text, false, a.event_id, $2::text, ''::text, ''::text
		FROM (
			(SELECT id FROM walhook.event WHERE webhook_id = $2 AND endpoint = $1 ORDER BY id DESC LIMIT $3)
			UNION
			(SELECT event_id FROM walhook.dead_letter WHERE webhook_id = $2 AND endpoint = $1 ORDER BY event_id DESC LIMIT $3)) i
		CROSS JOIN LATERAL (
			SELECT * FROM walhook.attempt a WHERE a.endpoint = $1 AND a.event_id = i.id ORDER BY a.at DESC LIMIT $4) a
		ORDER BY a.at DESC, a.event_id DESC LIMIT $4`
)

// EventDetail reads one event of an endpoint. [*UnknownEventError] where that has none
// with the webhook-id.
func (a *Admin) EventDetail(ctx context.Context, endpoint int64, webhookID string) (d EventDetail, err error) {
	var bad []badRow
	err = a.byIndexOfOneTime(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, eventDetailSQL, endpoint, webhookID)
		if err != nil {
			return err
		}
		list, err := collectEach(rows, func(row pgx.CollectableRow) (d EventDetail, err error) {
			d.EventStatus, err = scanEventStatus(trailing{row, []any{&d.Event.Format, &d.Event.Body}})
			return d, err
		}, func(d *EventDetail, cause error) { bad = append(bad, badRow{d.ID, cause}) })
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return &UnknownEventError{webhookID}
		}
		d = list[0]
		rows, err = tx.Query(ctx, eventAttemptsSQL, endpoint, webhookID, eventRows, MaxEventAttempts)
		if err != nil {
			return err
		}
		d.Made, err = collectEach(rows, scanMadeAttempt, func(m *MadeAttempt, cause error) { bad = append(bad, badRow{m.EventID, cause}) })
		return err
	})
	a.setEventsAside(ctx, endpoint, bad)
	if _, unknown := errors.AsType[*UnknownEventError](err); unknown {
		return d, err
	}
	if err != nil {
		return d, fmt.Errorf("read an event of endpoint %d: %w", endpoint, err)
	}
	e := &d.Event
	e.ID, e.Endpoint, e.Record, e.WebhookID, e.Schema, e.Type = d.ID, endpoint, d.Record, d.WebhookID, d.Schema, d.Type
	e.CommittedAt, e.AppendedAt = d.CommittedAt, d.AppendedAt
	return d, nil
}

// trailing is a row with more columns than its reader knows.
type trailing struct {
	pgx.CollectableRow
	more []any
}

func (t trailing) Scan(dest ...any) error { return t.CollectableRow.Scan(append(dest, t.more...)...) }
