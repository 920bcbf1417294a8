package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/outbox/address"
)

// CheckHeld is a [*HeldError] where a hold covers what a caller has sent to a URL
// of an account.
func (a *Admin) CheckHeld(ctx context.Context, by Caller, account, url string) error {
	err := outbox.CheckHeld(ctx, a.pool, url, by.holders(account)...)
	if _, held := errors.AsType[*outbox.HeldError](err); err != nil && !held {
		err = fmt.Errorf("check holds of account %s: %w", account, err)
	}
	return err
}

const urlOfSQL = `SELECT url FROM walhook.endpoint WHERE id = $1`

// checkHeldAboveTx is a [*outbox.HeldError] where a caller acts for an account below its own,
// and a hold of its own account covers the URL that an endpoint sends to. What the
// account itself has held waits in the log.
func checkHeldAboveTx(ctx context.Context, tx pgx.Tx, by Caller, account string, endpoint int64) error {
	above := by.above(account)
	if above == "" {
		return nil
	}
	var url string
	if err := tx.QueryRow(ctx, urlOfSQL, endpoint).Scan(&url); err != nil {
		return err
	}
	return outbox.CheckHeld(ctx, tx, url, above)
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
// later, until [Admin.ReleaseAccount]. The account above is notified.
func (a *Admin) HoldAccount(ctx context.Context, account, reason string) error {
	_, err := a.Hold(ctx, account, "", reason)
	return err
}

// HoldHost holds what an account sends to a host, and what its tokens set in
// accounts below, until [Admin.ReleaseHost]. It answers how many webhooks that
// disabled; the account above is notified where there are any.
func (a *Admin) HoldHost(ctx context.Context, account, host, reason string) (n int, err error) {
	if host = address.NamedHost(host); host == "" {
		return 0, fmt.Errorf("hold a host of account %s: %w", account, errNoHost)
	}
	return a.Hold(ctx, account, host, reason)
}

var errNoHost = errors.New("want the name or address of a host, such as hooks.example.com")

// Hold holds one host of an account, in its normal form, or the whole account
// where host is "". It answers how many webhooks that disabled.
func (a *Admin) Hold(ctx context.Context, account, host, reason string) (n int, err error) {
	return a.HoldOnce(ctx, account, host, reason, Once{}, nil)
}

// HoldOnce is Hold with a key in once: answer writes what is answered. Its errors are also
// those of a key, as of [Admin.CreateWebhook].
func (a *Admin) HoldOnce(ctx context.Context, account, host, reason string, once Once, answer func(disabled int) ([]byte, error)) (n int, err error) {
	if reason == "" || len(reason) > MaxHoldReason {
		return 0, fmt.Errorf("hold account %s: want a reason of 1 to %d bytes", account, MaxHoldReason)
	}
	act := &Act{Action: actHeld, Account: account}
	if host != "" {
		act.Action = actHostHeld
	}
	err = a.change(ctx, act, func(tx pgx.Tx) (err error) {
		return a.onceTx(ctx, tx, Caller{}, account, once, func() ([]byte, error) { // only an operator makes one
			if n, err = outbox.HoldTx(ctx, tx, account, host, reason, 0); err != nil {
				return nil, err
			}
			act.Detail = holdDetail(host, "disabled", n) + "; reason: " + reason
			if host == "" || n > 0 {
				if err := outbox.TellDisabledTx(ctx, tx, account, reason); err != nil {
					return nil, err
				}
			}
			if answer == nil {
				return nil, nil
			}
			return answer(n)
		})
	})
	if err != nil {
		return 0, fmt.Errorf("hold account %s: %w", account, err)
	}
	a.store.NotifyInbox()
	a.store.NotifyEndpoints()
	return n, nil
}

// ReleaseAccount ends all holds on an account and enables what an operator disabled. What
// the account or walhook has disabled too stays so.
func (a *Admin) ReleaseAccount(ctx context.Context, account string) (r outbox.Released, err error) {
	act := &Act{Action: actReleased, Account: account}
	err = a.change(ctx, act, func(tx pgx.Tx) (err error) {
		r, err = outbox.ReleaseTx(ctx, tx, account, "", 0, true)
		act.Detail = releaseDetail("", r)
		return err
	})
	if err != nil {
		return outbox.Released{}, fmt.Errorf("release account %s: %w", account, err)
	}
	a.store.NotifyEndpoints()
	return r, nil
}

// ReleaseHost ends the hold on one host of an account and enables what it held, as
// [Admin.ReleaseAccount] does. [ErrNoHold] when there is none.
func (a *Admin) ReleaseHost(ctx context.Context, account, host string) (r outbox.Released, err error) {
	if host = address.NamedHost(host); host == "" { // which stands for the whole account
		return r, fmt.Errorf("release a host of account %s: %w", account, ErrNoHold)
	}
	act := &Act{Action: actHostReleased, Account: account}
	err = a.change(ctx, act, func(tx pgx.Tx) (err error) {
		r, err = outbox.ReleaseTx(ctx, tx, account, host, 0, false)
		if err == nil && len(r.Hosts) == 0 {
			return ErrNoHold
		}
		act.Detail = releaseDetail(host, r)
		return err
	})
	if err != nil {
		return outbox.Released{}, fmt.Errorf("release host %s of account %s: %w", host, account, err)
	}
	a.store.NotifyEndpoints()
	return r, nil
}

func releaseDetail(host string, r outbox.Released) string {
	detail := holdDetail(host, "enabled", r.Enabled)
	if r.Stay > 0 {
		detail += fmt.Sprintf("; webhooks that stay disabled: %d", r.Stay)
	}
	return detail
}

// holdDetail says in the audit which host is meant, and how many webhooks were enabled or
// disabled by it; host "" is the whole account.
func holdDetail(host, what string, webhooks int) string {
	if host == "" {
		host = "all hosts"
	}
	return fmt.Sprintf("%s; webhooks %s: %d", host, what, webhooks)
}

func holdsSQL() string {
	return `
	SELECT account, host, reason, ` + outbox.SinceSQL("held_at") + ` FROM walhook.hold
	WHERE ($1 = '' OR account = $1) AND (account, host) > ($2, $3) ORDER BY account, host LIMIT $4`
}

// Holds lists the holds of an account, or of all where it is "", in order of
// account and host, from the one after the hold after on.
func (a *Admin) Holds(ctx context.Context, account string, after Hold, limit int) ([]Hold, error) {
	rows, err := a.pool.Query(ctx, holdsSQL(), account, after.Account, after.Host, limit)
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
