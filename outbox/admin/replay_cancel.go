package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrNoRequest says that there is no such replay.
var ErrNoRequest = errors.New("no such replay: one that is over is kept until retention ends")

// ReasonCancelled ends a request that somebody cancelled.
const ReasonCancelled = "cancelled on request"

const (
	// It waits for the step that the publisher is at, and the next one finds the request over.
	cancelRequestSQL = `
		UPDATE walhook.request r SET done_at = clock_timestamp(), reason = $3
		WHERE r.id = $1 AND r.endpoint = $2 AND r.done_at IS NULL RETURNING ` + requestColumns

	requestOfSQL = requestSQL + ` AND r.endpoint = $2`
)

// CancelRequest ends a replay of an endpoint, and returns it as it is then: Sent says how many
// events were appended to the event log, and those are delivered; the others stay as they were,
// dead letters included. cancelled is false for one that was over already, which stays as it is.
// [ErrNoRequest] where the endpoint has none of that id, [ErrCallerGone] when by may not.
func (a *Admin) CancelRequest(ctx context.Context, by Caller, endpoint, id int64) (r Request, cancelled bool, err error) {
	act := &Act{}
	err = a.change(ctx, act, func(tx pgx.Tx) error {
		var account, webhook string
		if err := tx.QueryRow(ctx, accountOfSQL, endpoint).Scan(&account, &webhook); errors.Is(err, pgx.ErrNoRows) {
			return ErrNoRequest
		} else if err != nil {
			return err
		}
		if err := admitTx(ctx, tx, by, account); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, cancelRequestSQL, id, endpoint, ReasonCancelled) // rows have its error
		r, err = pgx.CollectExactlyOneRow(rows, scanRequest)
		if errors.Is(err, pgx.ErrNoRows) {
			rows, _ = tx.Query(ctx, requestOfSQL, id, endpoint)
			r, err = pgx.CollectExactlyOneRow(rows, scanRequest)
			if errors.Is(err, pgx.ErrNoRows) {
				err = ErrNoRequest
			}
			return err
		}
		cancelled = err == nil
		*act = Act{Action: actReplayCancelled, Account: account, Webhook: webhook, Detail: fmt.Sprintf("request %d, %d of %d events sent", r.ID, r.Sent, r.Total)}
		return err
	})
	if err != nil {
		return Request{}, false, fmt.Errorf("cancel replay %d: %w", id, err)
	}
	if cancelled {
		a.store.NotifyRequest()
	}
	return r, cancelled, nil
}
