package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// AccountOrdering is an account's ordering, which each of its webhooks has.
type AccountOrdering struct {
	Account  string
	Ordering outbox.Ordering
	Webhooks int // those that it has at present, its own URL included
}

const (
	// $1 is an account that has a webhook, or that the source has, as far as that is known.
	hasAccountSQL = `
		SELECT $1 <> '' AND (EXISTS (SELECT FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL)
			OR EXISTS (SELECT FROM walhook.known_account WHERE id = $1)
			OR EXISTS (SELECT FROM walhook.source WHERE state = 'ready' AND NOT accounts_known))`

	orderingSQL = `SELECT ` + outbox.OrderingOfSQL

	// Its last events keep the order that they have.
	orderingHasEndedSQL = `
		SELECT EXISTS (SELECT FROM walhook.ended_account WHERE account = $1)
			OR EXISTS (SELECT FROM walhook.endpoint WHERE account = $1 AND webhook = 'account' AND ended_at IS NOT NULL)`

	forgetOrderingSQL = `DELETE FROM walhook.account_ordering WHERE account = $1`
	keepOrderingSQL   = `
		INSERT INTO walhook.account_ordering (account, ordering) VALUES ($1, $2)
		ON CONFLICT (account) DO UPDATE SET ordering = excluded.ordering`

	// In the order in which every transaction locks several endpoints.
	lockOrderedSQL = `
		SELECT id, coalesce(ordering, '') FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL AND ended_at IS NULL
		ORDER BY id FOR NO KEY UPDATE`

	setOrderingSQL = `
		UPDATE walhook.endpoint SET ordering = $2, revision = ` + outbox.NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = ANY ($1)`

	// Without an order nothing waits behind another event.
	releaseParkedSQL = `
		UPDATE walhook.retry SET next_at = clock_timestamp() WHERE endpoint = ANY ($1) AND next_at IS NULL`
)

// Ordering says which of an account's events wait for each other. [ErrNoEndpoint] when
// there is no such account.
func (a *Admin) Ordering(ctx context.Context, account string) (ordering outbox.Ordering, err error) {
	if err = hasAccount(ctx, a.pool, account); err == nil {
		err = a.pool.QueryRow(ctx, orderingSQL, account).Scan(&ordering)
	}
	if err != nil {
		return "", fmt.Errorf("read the ordering of account %s: %w", account, err)
	}
	return ordering, nil
}

// hasAccount returns [ErrNoEndpoint] when there is no such account.
func hasAccount(ctx context.Context, q outbox.Querier, account string) error {
	var has bool
	err := q.QueryRow(ctx, hasAccountSQL, account).Scan(&has)
	if err == nil && !has {
		err = ErrNoEndpoint
	}
	return err
}

// SetOrdering chooses which of an account's events wait for each other, for each of its
// webhooks and for those that it makes later, from the next event on that a sender
// starts. The one that is in force changes nothing. [ErrNoEndpoint] when there is no such
// account, [ErrAccountEnded] when it ended.
func (a *Admin) SetOrdering(ctx context.Context, account string, ordering outbox.Ordering) (AccountOrdering, error) {
	switch ordering {
	case outbox.OrderingNone, outbox.OrderingRecord, outbox.OrderingStrict:
	default:
		return AccountOrdering{}, fmt.Errorf("ordering %q: want none, record or strict", string(ordering))
	}
	set := AccountOrdering{Account: account, Ordering: ordering}
	act := &Act{Action: actOrdering, Account: account, Detail: string(ordering)}
	err := a.change(ctx, act, func(tx pgx.Tx) (err error) {
		// Alone, so that no webhook is made meanwhile with the ordering before.
		if err := outbox.LockAccountsTx(ctx, tx); err != nil {
			return err
		}
		changed := false
		set.Webhooks, changed, err = setOrderingTx(ctx, tx, account, ordering)
		if !changed {
			act.Action = ""
		}
		return err
	})
	if err != nil {
		return AccountOrdering{}, fmt.Errorf("set the ordering of account %s: %w", account, err)
	}
	a.store.NotifyEndpoints()
	return set, nil
}

// setOrderingTx returns how many webhooks have the ordering, and whether that changed
// anything.
func setOrderingTx(ctx context.Context, tx pgx.Tx, account string, ordering outbox.Ordering) (webhooks int, changed bool, err error) {
	if err := hasAccount(ctx, tx, account); err != nil {
		return 0, false, err
	}
	var ended bool
	var before outbox.Ordering
	err = errors.Join(tx.QueryRow(ctx, orderingHasEndedSQL, account).Scan(&ended), tx.QueryRow(ctx, orderingSQL, account).Scan(&before))
	if err == nil && ended {
		err = ErrAccountEnded
	}
	if err != nil {
		return 0, false, err
	}
	if ordering == outbox.OrderingRecord {
		_, err = tx.Exec(ctx, forgetOrderingSQL, account)
	} else {
		_, err = tx.Exec(ctx, keepOrderingSQL, account, string(ordering))
	}
	if err != nil {
		return 0, false, err
	}
	var others []int64
	var id int64
	var has outbox.Ordering
	rows, err := tx.Query(ctx, lockOrderedSQL, account)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id, &has}, func() error {
			webhooks++
			if has != ordering {
				others = append(others, id)
			}
			return nil
		})
	}
	if err == nil && len(others) > 0 {
		_, err = tx.Exec(ctx, setOrderingSQL, others, string(ordering))
	}
	if err == nil && len(others) > 0 && ordering == outbox.OrderingNone {
		_, err = tx.Exec(ctx, releaseParkedSQL, others)
	}
	return webhooks, before != ordering || len(others) > 0, err
}
