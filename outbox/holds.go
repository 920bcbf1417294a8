package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// HeldError says that an operator holds an account's events, all or those for
// one host: no webhook of the account goes there until the operator enables it.
type HeldError struct{ Host, Reason string }

func (e *HeldError) Error() string {
	if e.Host == "" {
		return "an operator holds all webhooks of the account: " + e.Reason
	}
	return fmt.Sprintf("an operator holds what is sent to %s: %s", e.Host, e.Reason)
}

// holdLock is held while a hold comes or goes, and shared by whoever sets a URL:
// so no URL is set beside a hold that is being made.
const holdLock = 0x77_61_6c_07

const (
	lockHoldsSQL  = `SELECT pg_advisory_xact_lock($1)`
	shareHoldsSQL = `SELECT pg_advisory_xact_lock_shared($1)`

	heldSQL = `SELECT host, reason FROM walhook.hold WHERE account = $1 AND host IN ('', $2) ORDER BY host LIMIT 1`

	addHoldSQL = `
		INSERT INTO walhook.hold (account, host, reason) VALUES ($1, $2, $3)
		ON CONFLICT (account, host) DO UPDATE SET reason = excluded.reason, held_at = clock_timestamp()`

	dropHoldSQL  = `DELETE FROM walhook.hold WHERE account = $1 AND host = $2`
	dropHoldsSQL = `DELETE FROM walhook.hold WHERE account = $1`

	// Of one account, or of all where it is ''.
	underHoldSQL = `
		SELECT e.id, coalesce(e.url, ''), h.host, h.reason FROM walhook.endpoint e JOIN walhook.hold h ON h.account = e.account
		WHERE ($1 = '' OR e.account = $1) AND e.deleted_at IS NULL AND e.disabled_by <> 'operator'
		ORDER BY e.account COLLATE "C", e.id FOR NO KEY UPDATE OF e`

	// What has no URL that can be used keeps its state: the word is for the next.
	holdEndpointSQL = `
		UPDATE walhook.endpoint SET disabled_by = 'operator', disabled_reason = $2,
			reason = CASE WHEN state IN ('active', 'disabled') THEN $2 ELSE reason END,
			state = CASE WHEN state = 'active' THEN 'disabled' ELSE state END,
			revision = revision + 1, changed_at = clock_timestamp()
		WHERE id = $1`

	// Right after an account's URL is set, in the same transaction.
	holdURLSQL = `
		UPDATE walhook.endpoint e SET state = 'disabled', disabled_by = 'operator', reason = h.reason, disabled_reason = h.reason
		FROM walhook.hold h
		WHERE e.account = $1 AND e.webhook = 'account' AND e.state = 'active' AND h.account = $1 AND h.host IN ('', $2)`

	operatorsSQL = `
		SELECT id, coalesce(url, '') FROM walhook.endpoint
		WHERE account = $1 AND deleted_at IS NULL AND disabled_by = 'operator' ORDER BY id FOR NO KEY UPDATE`

	releaseEndpointSQL = `
		UPDATE walhook.endpoint SET disabled_by = '', disabled_reason = '',
			reason = CASE WHEN state = 'disabled' THEN '' ELSE reason END,
			state = CASE WHEN state = 'disabled' THEN 'active' ELSE state END,
			revision = revision + 1, changed_at = clock_timestamp()
		WHERE id = $1`

	endpointURLSQL = `SELECT coalesce(url, '') FROM walhook.endpoint WHERE id = $1`
)

// checkHeldTx is a [*HeldError] where nothing of an account may go to a URL. No
// hold comes or goes until the transaction ends.
func checkHeldTx(ctx context.Context, tx pgx.Tx, account, url string) error {
	if _, err := tx.Exec(ctx, shareHoldsSQL, holdLock); err != nil {
		return err
	}
	held := &HeldError{}
	err := tx.QueryRow(ctx, heldSQL, account, HostOf(url)).Scan(&held.Host, &held.Reason)
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return held
}

// holdTx holds what an account sends to a host, or all of it where host is "",
// also what it sets later, until it is released.
func holdTx(ctx context.Context, tx pgx.Tx, account, host, reason string) error {
	if _, err := tx.Exec(ctx, lockHoldsSQL, holdLock); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, addHoldSQL, account, host, reason); err != nil {
		return err
	}
	return applyHoldsTx(ctx, tx, account)
}

// applyHoldsTx disables the endpoints that a hold is about: those of an account,
// or of all where it is "".
func applyHoldsTx(ctx context.Context, tx pgx.Tx, account string) error {
	rows, err := tx.Query(ctx, underHoldSQL, account)
	if err != nil {
		return err
	}
	held := map[int64]string{}
	var id int64
	var url, host, reason string
	_, err = pgx.ForEachRow(rows, []any{&id, &url, &host, &reason}, func() error {
		if host == "" || host == HostOf(url) {
			held[id] = reason
		}
		return nil
	})
	for id, reason := range held {
		if err == nil {
			_, err = tx.Exec(ctx, holdEndpointSQL, id, reason)
		}
	}
	return err
}

// releaseTx enables the endpoints of an account that an operator disabled, those
// of one host or all, and ends the holds on them.
func releaseTx(ctx context.Context, tx pgx.Tx, account, host string, all bool) (n int, err error) {
	if _, err = tx.Exec(ctx, lockHoldsSQL, holdLock); err != nil {
		return 0, err
	}
	if all {
		_, err = tx.Exec(ctx, dropHoldsSQL, account)
	} else {
		_, err = tx.Exec(ctx, dropHoldSQL, account, host)
	}
	if err != nil {
		return 0, err
	}
	rows, err := tx.Query(ctx, operatorsSQL, account)
	if err != nil {
		return 0, err
	}
	var ids []int64
	var id int64
	var url string
	if _, err = pgx.ForEachRow(rows, []any{&id, &url}, func() error {
		if all || HostOf(url) == host {
			ids = append(ids, id)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for _, id := range ids {
		for _, sql := range []string{resetLaneSQL, releaseEndpointSQL} {
			if _, err = tx.Exec(ctx, sql, id); err != nil {
				return 0, err
			}
		}
	}
	return len(ids), nil
}

// HoldAccount holds every webhook of an account, and those that it makes or sets
// later, until [Store.ReleaseAccount]. The account above is notified.
func (s *Store) HoldAccount(ctx context.Context, account, reason string) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := holdTx(ctx, tx, account, "", reason); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, tellDisabledSQL, account, reason)
		return err
	})
	if err != nil {
		return fmt.Errorf("hold account %s: %w", account, err)
	}
	s.signalInbox()
	return nil
}

// ReleaseAccount ends all holds on an account and enables what an operator
// disabled. It answers how many webhooks that were.
func (s *Store) ReleaseAccount(ctx context.Context, account string) (n int, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		n, err = releaseTx(ctx, tx, account, "", true)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("release account %s: %w", account, err)
	}
	return n, nil
}
