package outbox

import (
	"context"
	"fmt"

	"walhook/schemas/catalog"
)

const (
	goneSQL = `
		UPDATE walhook.owner o SET deleted_at = clock_timestamp(), former = NULL
		WHERE deleted_at IS NULL AND NOT EXISTS (SELECT FROM walhook.snapshot_owner n WHERE n.schema = o.schema AND n.key = o.key)`

	// A hidden row that did not change was sent before the filter hid it.
	nowHiddenSQL = `(n.hidden AND (o.hidden OR n.changed OR o.deleted_at IS NOT NULL))`

	changedOwnersSQL = `
		UPDATE walhook.owner o SET account = n.account, deleted_at = NULL, unknown = false, former = NULL, hidden = ` + nowHiddenSQL + `
		FROM walhook.snapshot_owner n
		WHERE n.schema = o.schema AND n.key = o.key AND n.account IS NOT NULL
			AND (o.deleted_at IS NOT NULL OR o.unknown OR o.hidden <> ` + nowHiddenSQL + ` OR coalesce(o.former, o.account) <> n.account AND (n.changed OR n.schema = ANY ($1)))`

	otherOwnersSQL = `DELETE FROM walhook.owner WHERE NOT schema = ANY (coalesce($1::text[], '{}'))`

	newOwnersSQL = `
		INSERT INTO walhook.owner (schema, key, account, hidden)
		SELECT schema, key, account, hidden FROM walhook.snapshot_owner n
		WHERE account IS NOT NULL AND schema = ANY ($1) AND NOT EXISTS (SELECT FROM walhook.owner o WHERE o.schema = n.schema AND o.key = n.key)`

	dropSnapshotSQL = `DROP TABLE walhook.snapshot_owner, walhook.snapshot_parent, walhook.snapshot_begun, walhook.snapshot_recipient, walhook.snapshot_missed, walhook.snapshot_row`
)

// keepLedger makes the ledger what the snapshot says.
func (r *reconciliation) keepLedger(ctx context.Context, source catalog.GapSource, plain []string) error {
	var in []string
	for _, s := range r.catalog.Schemas {
		if source.Plan(s.Name) != nil && r.catalog.InLedger(s) {
			in = append(in, s.Name)
		}
	}
	for _, step := range []struct {
		sql  string
		args []any
	}{
		{otherOwnersSQL, []any{plain}}, {goneSQL, nil}, {changedOwnersSQL, []any{r.owned()}}, {newOwnersSQL, []any{in}}, {dropSnapshotSQL, nil},
	} {
		if _, err := r.w.tx.Exec(ctx, step.sql, step.args...); err != nil {
			return fmt.Errorf("bring the ledger up to date: %w", err)
		}
	}
	r.w.compared = true
	return nil
}
