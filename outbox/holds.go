package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
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

	// What a host or an account was held for stays when it is held by name.
	addHoldSQL = `
		INSERT INTO walhook.hold AS h (account, host, reason, endpoint) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, host) DO UPDATE SET reason = excluded.reason, held_at = clock_timestamp(),
			endpoint = CASE WHEN excluded.endpoint IS NULL THEN NULL ELSE h.endpoint END`

	// Those of one host, and of others that the endpoint was moved to; or all.
	dropHoldSQL  = `DELETE FROM walhook.hold WHERE account = $1 AND host <> '' AND (host = $2 OR endpoint = $3) RETURNING host`
	dropHoldsSQL = `DELETE FROM walhook.hold WHERE account = $1 RETURNING host`

	// Of one account, or of all where it is ''.
	underHoldSQL = `
		SELECT e.id, coalesce(e.url, ''), h.host, h.reason
		FROM walhook.hold h JOIN walhook.endpoint e ON e.account = h.account OR e.set_by <> '' AND e.set_by = h.account
		WHERE ($1 = '' OR h.account = $1) AND e.deleted_at IS NULL AND e.disabled_by <> 'operator'
		ORDER BY e.account COLLATE "C", e.id FOR NO KEY UPDATE OF e`

	// What has no URL that can be used keeps its state: the word is for the next.
	holdEndpointSQL = `
		UPDATE walhook.endpoint SET disabled_by = 'operator', disabled_reason = $2,
			reason = CASE WHEN state IN ('active', 'disabled') THEN $2 ELSE reason END,
			state = CASE WHEN state = 'active' THEN 'disabled' ELSE state END,
			revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1`

	// Right after an account's URL is set, in the same transaction.
	holdURLSQL = `
		UPDATE walhook.endpoint e SET state = 'disabled', disabled_by = 'operator', reason = h.reason, disabled_reason = h.reason
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

	followHostSQL = `
		INSERT INTO walhook.hold (account, host, reason, endpoint)
		SELECT of.account, $2, $3, e.id FROM walhook.endpoint e, unnest(ARRAY[e.account, e.set_by]) AS of(account)
		WHERE e.id = $1 AND of.account <> ''
		ON CONFLICT DO NOTHING`

	operatorsSQL = `
		SELECT id, coalesce(url, ''), account, set_by FROM walhook.endpoint
		WHERE (account = $1 OR set_by <> '' AND set_by = $1) AND deleted_at IS NULL AND disabled_by = 'operator'
		ORDER BY account COLLATE "C", id FOR NO KEY UPDATE`

	releaseEndpointSQL = `
		UPDATE walhook.endpoint SET disabled_by = '', disabled_reason = '',
			reason = CASE WHEN state = 'disabled' THEN '' ELSE reason END,
			state = CASE WHEN state = 'disabled' THEN 'active' ELSE state END,
			revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1`

	endpointURLSQL = `SELECT coalesce(url, ''), set_by FROM walhook.endpoint WHERE id = $1`
)

// checkHeld is a [*HeldError] where a hold of one of the accounts covers a URL.
// In a transaction that has the [accountsLock] no hold comes or goes until it ends.
func checkHeld(ctx context.Context, q querier, url string, accounts ...string) error {
	held := &HeldError{}
	err := q.QueryRow(ctx, heldSQL, accounts, HostOf(url)).Scan(&held.Account, &held.Host, &held.Reason)
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return held
}

// CheckHeld is a [*HeldError] where a hold covers what a caller has sent to a URL
// of an account.
func (s *Store) CheckHeld(ctx context.Context, by Caller, account, url string) error {
	err := checkHeld(ctx, s.pool, url, by.holders(account)...)
	if _, held := errors.AsType[*HeldError](err); err != nil && !held {
		err = fmt.Errorf("check holds of account %s: %w", account, err)
	}
	return err
}

// holdTx holds what an account sends to a host, or all of it where host is "",
// also what it sets later, until it is released. endpoint is the disabled one
// that it is for; 0 for none. It answers how many endpoints that disabled.
func holdTx(ctx context.Context, tx pgx.Tx, account, host, reason string, endpoint int64) (n int, err error) {
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
	return len(held), err
}

// followHoldsTx holds the hosts that endpoints lead to which an operator
// disabled: those of an account, or of all where it is "". So an account gets
// nowhere by moving a disabled endpoint and making another one there.
func followHoldsTx(ctx context.Context, tx pgx.Tx, account string) error {
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
		if host := HostOf(d.url); err == nil && host != "" {
			_, err = tx.Exec(ctx, followHostSQL, d.id, host, d.reason)
		}
	}
	if err == nil && len(list) > 0 {
		_, err = applyHoldsTx(ctx, tx, account)
	}
	return err
}

// releaseTx ends holds of an account and enables what they held: those of one
// host and those that were made for an endpoint, or all of them. n is how many it
// enabled. What another account's hold covers stays disabled.
func releaseTx(ctx context.Context, tx pgx.Tx, account, host string, endpoint int64, all bool) (hosts []string, n int, err error) {
	if _, err = tx.Exec(ctx, lockAccountsSQL, accountsLock); err != nil {
		return nil, 0, err
	}
	if all {
		hosts, err = collect[string](tx.Query(ctx, dropHoldsSQL, account))
	} else {
		hosts, err = collect[string](tx.Query(ctx, dropHoldSQL, account, host, endpoint))
	}
	if err != nil {
		return nil, 0, err
	}
	type disabled struct {
		id                  int64
		url, account, setBy string
	}
	rows, err := tx.Query(ctx, operatorsSQL, account)
	if err != nil {
		return nil, 0, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d disabled, err error) {
		return d, row.Scan(&d.id, &d.url, &d.account, &d.setBy)
	})
	for _, d := range list {
		if err != nil {
			break
		}
		if !all && d.id != endpoint && !slices.Contains(hosts, HostOf(d.url)) {
			continue
		}
		if err = checkHeld(ctx, tx, d.url, d.account, d.setBy); err != nil {
			if _, held := errors.AsType[*HeldError](err); held {
				err = nil
			}
			continue
		}
		for _, sql := range []string{resetLaneSQL, releaseEndpointSQL} {
			if err == nil {
				_, err = tx.Exec(ctx, sql, d.id)
			}
		}
		n++
	}
	return hosts, n, err
}

// Hold is an operator's word that nothing an account sends goes to a host, or
// anywhere where Host is "".
type Hold struct {
	Account string
	Host    string // in its normal form
	Reason  string
	HeldAt  time.Time
}

// MaxHoldReason bounds the reason of a hold, in bytes.
const MaxHoldReason = 1000

// ErrNoHold says that there is no such hold.
var ErrNoHold = errors.New("hold not found")

// HoldAccount holds every webhook of an account, and those that it makes or sets
// later, until [Store.ReleaseAccount]. The account above is notified.
func (s *Store) HoldAccount(ctx context.Context, account, reason string) error {
	_, err := s.Hold(ctx, account, "", reason)
	return err
}

// HoldHost holds what an account sends to a host, and what its tokens set in
// accounts below, until [Store.ReleaseHost]. It answers how many webhooks that
// disabled; the account above is notified where there are any.
func (s *Store) HoldHost(ctx context.Context, account, host, reason string) (n int, err error) {
	if host = NamedHost(host); host == "" {
		return 0, fmt.Errorf("hold a host of account %s: %w", account, errNoHost)
	}
	return s.Hold(ctx, account, host, reason)
}

var errNoHost = errors.New("want the name or address of a host, such as hooks.example.com")

// Hold holds one host of an account, in its normal form, or the whole account
// where host is "". It answers how many webhooks that disabled.
func (s *Store) Hold(ctx context.Context, account, host, reason string) (n int, err error) {
	if reason == "" || len(reason) > MaxHoldReason {
		return 0, fmt.Errorf("hold account %s: want a reason of 1 to %d bytes", account, MaxHoldReason)
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		if n, err = holdTx(ctx, tx, account, host, reason, 0); err != nil || host != "" && n == 0 {
			return err
		}
		_, err = tx.Exec(ctx, tellDisabledSQL, account, reason)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("hold account %s: %w", account, err)
	}
	s.signalInbox()
	return n, nil
}

// ReleaseAccount ends all holds on an account and enables what an operator
// disabled. It answers how many webhooks that were.
func (s *Store) ReleaseAccount(ctx context.Context, account string) (n int, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		_, n, err = releaseTx(ctx, tx, account, "", 0, true)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("release account %s: %w", account, err)
	}
	return n, nil
}

// ReleaseHost ends the hold on one host of an account and enables what it held.
// [ErrNoHold] when there is none.
func (s *Store) ReleaseHost(ctx context.Context, account, host string) (n int, err error) {
	host = NamedHost(host)
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		hosts, enabled, err := releaseTx(ctx, tx, account, host, 0, false)
		if err == nil && len(hosts) == 0 {
			return ErrNoHold
		}
		n = enabled
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("release host %s of account %s: %w", host, account, err)
	}
	return n, nil
}

func holdsSQL() string {
	return `
	SELECT account, host, reason, ` + sinceSQL("held_at") + ` FROM walhook.hold
	WHERE ($1 = '' OR account = $1) AND (account, host) > ($2, $3) ORDER BY account, host LIMIT $4`
}

// Holds lists the holds of an account, or of all where it is "", in order of
// account and host, from the one after the hold after on.
func (s *Store) Holds(ctx context.Context, account string, after Hold, limit int) ([]Hold, error) {
	rows, err := s.pool.Query(ctx, holdsSQL(), account, after.Account, after.Host, limit)
	var list []Hold
	if err == nil {
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Hold, err error) {
			return h, row.Scan(&h.Account, &h.Host, &h.Reason, &h.HeldAt)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("list holds: %w", err)
	}
	return list, nil
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
		rows, err := tx.Query(ctx, heldHostsSQL)
		if err != nil {
			return err
		}
		holds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Hold, err error) { return h, row.Scan(&h.Account, &h.Host) })
		if err != nil {
			return err
		}
		for _, h := range holds {
			normal := NormalHost(h.Host)
			if normal == h.Host || normal == "" {
				continue
			}
			if _, err := tx.Exec(ctx, renameHoldSQL, h.Account, h.Host, normal); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, forgetHoldSQL, h.Account, h.Host); err != nil {
				return err
			}
		}
		if err := followHoldsTx(ctx, tx, ""); err != nil {
			return err
		}
		_, err = applyHoldsTx(ctx, tx, "")
		return err
	})
}
