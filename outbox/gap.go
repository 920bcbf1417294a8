package outbox

import (
	"context"
	"fmt"

	"walhook/schemas"
)

// A gap that is found again, as at every start until somebody acts, is one.
const (
	recordGapSQL = `
		INSERT INTO walhook.gap (from_lsn, to_lsn, reason)
		SELECT $1::text::pg_lsn, nullif($2::text, '0/0')::pg_lsn, $3
		WHERE NOT EXISTS (SELECT FROM walhook.gap WHERE accepted_at IS NULL AND from_lsn = $1::text::pg_lsn)`

	acceptGapSQL = `
		WITH noted AS (UPDATE walhook.gap SET accepted_at = clock_timestamp() WHERE accepted_at IS NULL AND from_lsn = $1::text::pg_lsn RETURNING id)
		INSERT INTO walhook.gap (from_lsn, to_lsn, reason, accepted_at)
		SELECT $1::text::pg_lsn, nullif($2::text, '0/0')::pg_lsn, $3, clock_timestamp() WHERE NOT EXISTS (SELECT FROM noted)`

	acceptGapsSQL = `UPDATE walhook.gap SET accepted_at = clock_timestamp() WHERE accepted_at IS NULL`
)

// RecordGap keeps a durable note of a gap until it is accepted.
func (p *Publisher) RecordGap(ctx context.Context, gap schemas.Gap) error {
	sql := recordGapSQL
	if gap.Accepted {
		sql = acceptGapSQL
	}
	_, err := p.store.pool.Exec(ctx, sql, gap.From.String(), gap.To.String(), gap.Reason)
	if err != nil {
		return fmt.Errorf("record the gap after %s: %w", gap.From, err)
	}
	return nil
}
