package bench

import (
	"context"
	"fmt"

	"walhook/internal/carrier"
)

// insertDID inserts a telephone number of an account. A carrier changes this table most.
// Other records point to it, so walhook stores its owners. %[1]s is the record's id and
// %[2]s the account's.
const insertDID = `INSERT INTO dids (id, user_id, number, number_type, state, ratecenter, sms_enabled, inbound_cnam)
	SELECT %[1]s, %[2]s, '312555' || lpad((%[1]s %% 10000)::text, 4, '0'), 'local', 'IL', 'CHICGOZN01', %[1]s %% 3 = 0,
		CASE %[1]s %% 4 WHEN 0 THEN NULL ELSE %[1]s %% 4 = 1 END`

// backlog commits records from first on, each in a transaction of its own, for all
// accounts in turn. It does not wait for the disk, since the measure does not include
// making the backlog.
func (w *world) backlog(ctx context.Context, first int64, records int) error {
	insert := fmt.Sprintf(insertDID, "i", w.owner("i", first))
	for _, sql := range []string{
		"SET synchronous_commit = off",
		fmt.Sprintf("DO $$ BEGIN FOR i IN %d .. %d LOOP %s; COMMIT; END LOOP; END $$", first, first+int64(records)-1, insert),
		"SET synchronous_commit = on",
		"CHECKPOINT",
	} {
		if _, err := w.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("commit %d transactions: %w", records, err)
		}
	}
	return nil
}

// bulk commits records from first on in one transaction.
func (w *world) bulk(ctx context.Context, first int64, records int) error {
	insert := fmt.Sprintf(insertDID, "i", w.owner("i", first))
	for _, sql := range []string{
		fmt.Sprintf("%s FROM generate_series(%d, %d) i", insert, first, first+int64(records)-1),
		"CHECKPOINT",
	} {
		if _, err := w.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("commit a transaction of %d rows: %w", records, err)
		}
	}
	return nil
}

// owner returns SQL for the account of a record.
func (w *world) owner(record string, first int64) string {
	return fmt.Sprintf("%d + (%s - %d) %% %d", carrier.AccountID(0), record, first, w.accounts)
}
