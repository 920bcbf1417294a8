package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/address"
)

// HeldError says that an operator holds an account's events, all or those for
// one host: no webhook of the account goes there until the operator enables it.
type HeldError struct{ Account, Host, Reason string }

func (e *HeldError) Error() string {
	if e.Host == "" {
		return "an operator holds all webhooks of the account: " + e.Reason
	}
	return fmt.Sprintf("an operator holds deliveries to %s: %s", e.Host, e.Reason)
}

// A hold is of an account, and of what its tokens set in accounts below: both
// count wherever it is asked what is held.
const (
	heldSQL = `SELECT account, host, reason FROM walhook.hold WHERE account = ANY ($1) AND host IN ('', $2) ORDER BY host, account LIMIT 1`

	// What is held by name stays so, for its reason, when an endpoint there is disabled.
	addHoldSQL = `
		INSERT INTO walhook.hold AS h (account, host, reason, endpoint) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, host) DO UPDATE SET held_at = clock_timestamp(),
			reason = CASE WHEN excluded.endpoint IS NOT NULL AND h.endpoint IS NULL THEN h.reason ELSE excluded.reason END,
			endpoint = CASE WHEN excluded.endpoint IS NULL THEN NULL ELSE h.endpoint END`

	// Those of one host, and of others that the endpoint was moved to; or all. A host that is
	// held by name stays so when an endpoint is enabled.
	dropHoldSQL  = `DELETE FROM walhook.hold WHERE account = $1 AND host <> '' AND (host = $2 AND ($3::bigint = 0 OR endpoint IS NOT NULL) OR endpoint = $3) RETURNING host`
	dropHoldsSQL = `DELETE FROM walhook.hold WHERE account = $1 RETURNING host`

	// Of one account, or of all where it is ''.
	underHoldSQL = `
		SELECT e.id, coalesce(e.url, ''), h.host, h.reason
		FROM walhook.hold h JOIN walhook.endpoint e ON e.account = h.account OR e.set_by <> '' AND e.set_by = h.account
		WHERE ($1 = '' OR h.account = $1) AND e.deleted_at IS NULL AND e.disabled_by <> 'operator'
		ORDER BY e.account COLLATE "C", e.id FOR NO KEY UPDATE OF e`

	// Right after an account's URL is set, in the same transaction.
	holdURLSQL = `
		UPDATE walhook.endpoint e SET ` + heldURLSQL + `
		FROM walhook.hold h
		WHERE e.account = $1 AND e.webhook = 'account' AND e.state = 'active' AND h.account = $1 AND h.host IN ('', $2)`

	// After that: where an operator disabled it before, the hold follows to the
	// new host. It answers the account's other webhooks, which may be for that
	// host too.
	followURLSQL = `
		WITH followed AS (
			INSERT INTO walhook.hold (account, host, reason, endpoint)
			SELECT account, $2, disabled_reason, id FROM walhook.endpoint e
			WHERE account = $1 AND webhook = 'account' AND disabled_by = 'operator' AND $2 <> ''
				AND NOT EXISTS (SELECT FROM walhook.hold h WHERE h.account = $1 AND h.host IN ('', $2))
			RETURNING account, reason)
		SELECT e.id, e.url, f.reason FROM followed f JOIN walhook.endpoint e ON e.account = f.account OR e.set_by <> '' AND e.set_by = f.account
		WHERE e.url <> '' AND e.deleted_at IS NULL AND e.disabled_by <> 'operator'
		ORDER BY e.account COLLATE "C", e.id FOR NO KEY UPDATE OF e`

	// What an operator disabled and no hold of the whole account covers: of one
	// account, or of all where it is ''.
	disabledHostsSQL = `
		SELECT e.id, e.account, e.url, e.disabled_reason FROM walhook.endpoint e
		WHERE ($1 = '' OR e.account = $1) AND e.disabled_by = 'operator' AND e.url <> '' AND e.deleted_at IS NULL
			AND NOT EXISTS (SELECT FROM walhook.hold h WHERE h.account IN (e.account, nullif(e.set_by, '')) AND h.host = '')`

	// The account has the hold, or the one whose token set the URL, or both: only those
	// whose hold it is that moves along.
	followHostSQL = `
		INSERT INTO walhook.hold (account, host, reason, endpoint)
		SELECT of.account, $2, $3, e.id FROM walhook.endpoint e, unnest(ARRAY[e.account, e.set_by]) AS of(account)
		WHERE e.id = $1 AND of.account <> '' AND (e.set_by = ''
			OR EXISTS (SELECT FROM walhook.hold h WHERE h.account = of.account AND (h.endpoint = e.id OR h.reason = $3))
			OR NOT EXISTS (SELECT FROM walhook.hold h WHERE h.account IN (e.account, e.set_by) AND (h.endpoint = e.id OR h.reason = $3)))
		ON CONFLICT DO NOTHING`

	operatorsSQL = `
		SELECT id, coalesce(url, ''), account, set_by FROM walhook.endpoint
		WHERE (account = $1 OR set_by <> '' AND set_by = $1) AND deleted_at IS NULL AND disabled_by = 'operator'
		ORDER BY account COLLATE "C", id FOR NO KEY UPDATE`

	// It answers whether the endpoint is enabled.
	releaseSQL = `
		UPDATE walhook.endpoint SET ` + releasedSQL + `, revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING disabled_by = ''`
)

// Querier is a pool or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// CheckHeld is a [*HeldError] where a hold of one of the accounts covers a URL.
// In a transaction that has the [accountsLock] no hold comes or goes until it ends.
func CheckHeld(ctx context.Context, q Querier, url string, accounts ...string) error {
	held := &HeldError{}
	err := q.QueryRow(ctx, heldSQL, accounts, address.HostOf(url)).Scan(&held.Account, &held.Host, &held.Reason)
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return held
}

// HoldTx holds what an account sends to a host, or all of it where host is "",
// also what it sets later, until it is released. endpoint is the disabled one
// that it is for; 0 for none. It answers how many endpoints that disabled.
func HoldTx(ctx context.Context, tx pgx.Tx, account, host, reason string, endpoint int64) (n int, err error) {
	if _, err := tx.Exec(ctx, lockAccountsSQL, accountsLock); err != nil {
		return 0, err
	}
	var of *int64
	if endpoint != 0 {
		of = &endpoint
	}
	if _, err := tx.Exec(ctx, addHoldSQL, account, host, reason, of); err != nil {
		return 0, err
	}
	return applyHoldsTx(ctx, tx, account)
}

// applyHoldsTx disables the endpoints that a hold is about: those of an account,
// or of all where it is "".
func applyHoldsTx(ctx context.Context, tx pgx.Tx, account string) (n int, err error) {
	rows, err := tx.Query(ctx, underHoldSQL, account)
	if err != nil {
		return 0, err
	}
	held := map[int64]string{}
	var id int64
	var url, host, reason string
	_, err = pgx.ForEachRow(rows, []any{&id, &url, &host, &reason}, func() error {
		if host == "" || host == address.HostOf(url) {
			held[id] = reason
		}
		return nil
	})
	for id, reason := range held {
		if err == nil {
			_, err = tx.Exec(ctx, disabledBySQL, id, ByOperator, reason)
		}
	}
	return len(held), err
}

// FollowHoldsTx holds the hosts that endpoints lead to which an operator
// disabled: those of an account, or of all where it is "". So an account gets
// nowhere by moving a disabled endpoint and making another one there.
func FollowHoldsTx(ctx context.Context, tx pgx.Tx, account string) error {
	rows, err := tx.Query(ctx, disabledHostsSQL, account)
	if err != nil {
		return err
	}
	type disabled struct {
		id                   int64
		account, url, reason string
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d disabled, err error) {
		return d, row.Scan(&d.id, &d.account, &d.url, &d.reason)
	})
	for _, d := range list {
		if host := address.HostOf(d.url); err == nil && host != "" {
			_, err = tx.Exec(ctx, followHostSQL, d.id, host, d.reason)
		}
	}
	if err == nil && len(list) > 0 {
		_, err = applyHoldsTx(ctx, tx, account)
	}
	return err
}

// Released is what the end of holds did.
type Released struct {
	Hosts   []string // of the holds that ended; "" is the whole account
	Enabled int      // endpoints that are enabled, or will be with their next URL
	Stay    int      // endpoints that stay disabled, as the account or walhook had it
}

// ReleaseTx ends holds of an account, and the operator's word on what they disabled: those
// of one host and those that were made for an endpoint, or all of them. What the account or
// walhook has disabled too stays so, but for the endpoint itself, which the operator names.
// What another account's hold covers stays disabled by the operator.
func ReleaseTx(ctx context.Context, tx pgx.Tx, account, host string, endpoint int64, all bool) (r Released, err error) {
	if _, err = tx.Exec(ctx, lockAccountsSQL, accountsLock); err != nil {
		return r, err
	}
	if all {
		r.Hosts, err = collect[string](tx.Query(ctx, dropHoldsSQL, account))
	} else {
		r.Hosts, err = collect[string](tx.Query(ctx, dropHoldSQL, account, host, endpoint))
	}
	if err != nil {
		return r, err
	}
	type disabled struct {
		id                  int64
		url, account, setBy string
	}
	rows, err := tx.Query(ctx, operatorsSQL, account)
	if err != nil {
		return r, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d disabled, err error) {
		return d, row.Scan(&d.id, &d.url, &d.account, &d.setBy)
	})
	for _, d := range list {
		if err != nil {
			break
		}
		if !all && d.id != endpoint && !slices.Contains(r.Hosts, address.HostOf(d.url)) {
			continue
		}
		if err = CheckHeld(ctx, tx, d.url, d.account, d.setBy); err != nil {
			if held, is := errors.AsType[*HeldError](err); is {
				_, err = tx.Exec(ctx, heldForSQL, d.id, ByOperator, held.Reason)
			}
			continue
		}
		err = r.releaseTx(ctx, tx, d.id, d.id == endpoint)
	}
	return r, err
}

// releaseTx ends the operator's word on one endpoint, or enables it, whoever else has it
// disabled.
func (r *Released) releaseTx(ctx context.Context, tx pgx.Tx, id int64, enable bool) error {
	enabled := true
	var err error
	if enable {
		_, err = tx.Exec(ctx, disabledBySQL, id, "", "")
	} else {
		err = tx.QueryRow(ctx, releaseSQL, id).Scan(&enabled)
	}
	switch {
	case err != nil:
		return err
	case !enabled:
		r.Stay++
		return nil
	}
	r.Enabled++
	return ResetLaneTx(ctx, tx, id)
}

// A sender that runs resets its lane when it learns of the change; this is
// for the one that starts later. Where delivery stands is left alone.
const resetLaneSQL = `
	UPDATE walhook.lane SET open = false, open_until = NULL, opens = 0, paused_until = NULL,
		failing_since = NULL, stage = 0, last_reason = '', held_since = NULL, held_reason = ''
	WHERE endpoint = $1`

// ResetLaneTx forgets what a lane held against its endpoint, which is enabled or has
// another URL now.
func ResetLaneTx(ctx context.Context, tx pgx.Tx, endpoint int64) error {
	_, err := tx.Exec(ctx, resetLaneSQL, endpoint)
	return err
}

const (
	heldHostsSQL = `SELECT account, host FROM walhook.hold WHERE host <> '' FOR UPDATE`

	renameHoldSQL = `
		INSERT INTO walhook.hold (account, host, reason, endpoint, held_at)
		SELECT account, $3, reason, endpoint, held_at FROM walhook.hold WHERE account = $1 AND host = $2
		ON CONFLICT DO NOTHING`
	forgetHoldSQL = `DELETE FROM walhook.hold WHERE account = $1 AND host = $2`
)

// normalizeHolds puts the hosts of holds into their normal form, which SQL alone
// could not when migration 7 made them, and applies them.
func normalizeHolds(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockAccountsSQL, accountsLock); err != nil {
			return err
		}
		type hold struct{ account, host string }
		rows, err := tx.Query(ctx, heldHostsSQL)
		if err != nil {
			return err
		}
		holds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h hold, err error) { return h, row.Scan(&h.account, &h.host) })
		if err != nil {
			return err
		}
		for _, h := range holds {
			normal := address.NormalHost(h.host)
			if normal == h.host || normal == "" {
				continue
			}
			if _, err := tx.Exec(ctx, renameHoldSQL, h.account, h.host, normal); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, forgetHoldSQL, h.account, h.host); err != nil {
				return err
			}
		}
		if err := FollowHoldsTx(ctx, tx, ""); err != nil {
			return err
		}
		_, err = applyHoldsTx(ctx, tx, "")
		return err
	})
}
