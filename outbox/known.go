package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const (
	isUnknownSQL = `
		SELECT state = 'ready' AND accounts_known AND NOT EXISTS (SELECT FROM walhook.known_account WHERE id = $1)
		FROM walhook.source`

	noteKnownSQL      = `INSERT INTO walhook.known_account (id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`
	forgetKnownSQL    = `DELETE FROM walhook.known_account WHERE id = ANY ($1)`
	forgetAllKnownSQL = `DELETE FROM walhook.known_account`
	takeKnownSQL      = `INSERT INTO walhook.known_account (id) SELECT account FROM walhook.snapshot_account`
	loseKnownSQL      = `UPDATE walhook.source SET accounts_known = false WHERE accounts_known`
)

// IsUnknown says whether the source has no account of that id, by what was read of
// it so far. It is false where that cannot be told: before the first snapshot, with
// a catalog that names no account table, and after a change of an account whose id
// could not be read.
func (s *Store) IsUnknown(ctx context.Context, account string) (unknown bool, err error) {
	err = s.pool.QueryRow(ctx, isUnknownSQL, account).Scan(&unknown)
	if err != nil && !isNoRows(err) {
		return false, fmt.Errorf("look whether there is an account %s: %w", account, err)
	}
	return unknown, nil
}

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
