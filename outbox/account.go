package outbox

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// accountsLock is held alone while accounts begin, end or are held, and shared
// while tokens and webhooks are made. So nothing is made beside the end of its
// account, nor beside a hold. Whoever takes it takes it before any endpoint.
const accountsLock = 0x77_61_6c_07

const (
	lockAccountsSQL  = `SELECT pg_advisory_xact_lock($1)`
	shareAccountsSQL = `SELECT pg_advisory_xact_lock_shared($1)`
)

// LockAccountsTx keeps every account from ending and every hold from coming or
// going until the transaction ends. It comes before any lock on an endpoint.
func LockAccountsTx(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, lockAccountsSQL, accountsLock)
	return err
}

// ShareAccountsTx is LockAccountsTx for whoever makes something of an account:
// those do not wait for one another.
func ShareAccountsTx(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, shareAccountsSQL, accountsLock)
	return err
}

const (
	noteKnownSQL      = `INSERT INTO walhook.known_account (id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`
	forgetKnownSQL    = `DELETE FROM walhook.known_account WHERE id = ANY ($1)`
	forgetAllKnownSQL = `DELETE FROM walhook.known_account`
	takeKnownSQL      = `INSERT INTO walhook.known_account (id) SELECT account FROM walhook.snapshot_account`
	loseKnownSQL      = `UPDATE walhook.source SET accounts_known = false WHERE accounts_known`
)

// queueKnown writes which accounts came and went.
func (w *planWrite) queueKnown(b *pgx.Batch) {
	if w.plan.AllEnded {
		b.Queue(forgetAllKnownSQL)
	}
	var there, gone []string
	for id, is := range w.plan.KnownAccounts {
		if is {
			there = append(there, id)
		} else {
			gone = append(gone, id)
		}
	}
	if len(there) > 0 {
		b.Queue(noteKnownSQL, there)
	}
	if len(gone) > 0 {
		b.Queue(forgetKnownSQL, gone)
	}
	if w.plan.LosesAccounts {
		b.Queue(loseKnownSQL)
	}
}
