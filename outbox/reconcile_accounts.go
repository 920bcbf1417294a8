package outbox

import (
	"context"
	"fmt"

	"walhook/doctor"
)

const (
	// Accounts whose own row the outbox did not know: they began in the gap.
	snapshotBegunSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_begun AS
		SELECT a.account, a.url <> '' AS url FROM walhook.snapshot_account a
		WHERE (SELECT accounts_known FROM walhook.source) AND NOT EXISTS (SELECT FROM walhook.known_account k WHERE k.id = a.account)`

	// Accounts with an endpoint that existed before the gap or came with its account, or below
	// such a one; with an operator's feed, all. own says that the account's own endpoint is such a one.
	recipientsSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_recipient AS
		WITH RECURSIVE parents AS (
			SELECT id, parent FROM walhook.account
			UNION SELECT id, parent FROM walhook.snapshot_parent s WHERE NOT EXISTS (SELECT FROM walhook.snapshot_account a WHERE a.account = s.id)
		), live AS (
			SELECT account, webhook, include_subaccounts FROM walhook.endpoint
			WHERE deleted_at IS NULL AND ended_at IS NULL AND state <> 'cleared'
		), fed AS (
			SELECT account FROM walhook.snapshot_account UNION SELECT id FROM walhook.known_account UNION SELECT account FROM walhook.owner
			UNION SELECT account FROM walhook.snapshot_owner WHERE account IS NOT NULL
		), above AS (
			SELECT account FROM live WHERE webhook <> 'account' AND include_subaccounts
			UNION SELECT p.id FROM above a JOIN parents p ON p.parent = a.account
		)
		SELECT account, bool_or(own) AS own FROM (
			SELECT account, webhook = 'account' AS own FROM live UNION ALL SELECT account, false FROM above
			UNION ALL SELECT account, true FROM walhook.snapshot_begun WHERE url
			UNION ALL SELECT account, false FROM fed WHERE EXISTS (SELECT FROM live WHERE account = '')
		) AS every WHERE account <> '' GROUP BY account`

	aboutAccountsSQL = `
		SELECT (SELECT accounts_known FROM walhook.source), (SELECT count(*) FROM walhook.snapshot_begun WHERE url), (
			SELECT count(*) FROM walhook.snapshot_account a
			WHERE url <> '' AND NOT EXISTS (SELECT FROM walhook.snapshot_recipient r WHERE r.account = a.account AND r.own))`
)

// accounts finds who gets what was missed, and returns what it has to say about accounts.
// The outbox has the accounts of before the gap still.
func (r *reconciliation) accounts(ctx context.Context) (note string, err error) {
	for _, sql := range []string{snapshotBegunSQL, recipientsSQL, "ANALYZE walhook.snapshot_begun, walhook.snapshot_recipient"} {
		if _, err := r.w.tx.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("find the accounts that missed something: %w", err)
		}
	}
	var known bool
	var begun, late int
	if err := r.w.tx.QueryRow(ctx, aboutAccountsSQL).Scan(&known, &begun, &late); err != nil {
		return "", err
	}
	if begun > 0 {
		note += fmt.Sprintf("; %s with a URL began in the gap: each of its records comes as an insert", doctor.Count(begun, "account"))
	}
	if late > 0 {
		note += fmt.Sprintf("; %s got a URL in the gap and %s there", doctor.Count(late, "account"), doctor.Choose(late, "begins", "begin"))
		if !known {
			note += ", since the outbox does not know all accounts of before"
		}
	}
	return note, nil
}
