package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas/catalog"
)

// A changed catalog may give records to other accounts: a schema has another owner column,
// or another parent. To tell all of them at once would take a body of each row of a table
// while the stream stands. So the ledger keeps the account that was last sent a record
// (walhook.owner.former), and the record's next change is a delete for that one and an
// insert for the new one.

const (
	// It exists only inside the transaction, as snapshotTableSQL. Nobody got a hidden row.
	keepFormerOwnersSQL = `
		CREATE UNLOGGED TABLE walhook.former_owner (schema text NOT NULL, key text NOT NULL, account text NOT NULL)`

	fillFormerOwnersSQL = `
		INSERT INTO walhook.former_owner
		SELECT schema, key, coalesce(former, account) FROM walhook.owner
		WHERE schema = ANY ($1) AND deleted_at IS NULL AND NOT hidden AND coalesce(former, account) <> ''`

	noteFormerOwnersSQL = `
		UPDATE walhook.owner o SET former = f.account FROM walhook.former_owner f
		WHERE f.schema = o.schema AND f.key = o.key AND f.account <> o.account`
)

// keepFormerOwnersTx keeps who was sent the records whose owners are read again.
func keepFormerOwnersTx(ctx context.Context, tx pgx.Tx, difference catalog.Difference) error {
	if len(difference.Moved) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, keepFormerOwnersSQL)
	if err == nil {
		_, err = tx.Exec(ctx, fillFormerOwnersSQL, difference.Moved)
	}
	if err != nil {
		return fmt.Errorf("keep the former owners: %w", err)
	}
	return nil
}

// noteFormerOwnersTx notes them with the records that have another owner now.
func noteFormerOwnersTx(ctx context.Context, tx pgx.Tx, difference catalog.Difference) error {
	if len(difference.Moved) == 0 {
		return nil
	}
	for _, sql := range []string{"ANALYZE walhook.former_owner", noteFormerOwnersSQL, "DROP TABLE walhook.former_owner"} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("note the former owners: %w", err)
		}
	}
	return nil
}
