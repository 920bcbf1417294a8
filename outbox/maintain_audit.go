package outbox

import (
	"context"
	"fmt"
	"time"
)

// The audit is kept for AuditFor, and no more than AuditRows lines of it.
const (
	AuditFor  = 90 * 24 * time.Hour
	AuditRows = 1_000_000
)

// forgetAuditChunk bounds how many lines one round of maintenance removes.
const forgetAuditChunk = 10_000

const (
	// Ids rise by one, so that their distance bounds the count.
	forgetAuditSQL = `
		DELETE FROM walhook.audit WHERE id = ANY (ARRAY(
			SELECT id FROM walhook.audit
			WHERE at < statement_timestamp() - $1::interval ORDER BY at, id LIMIT $3))
		OR id = ANY (ARRAY(
			SELECT id FROM walhook.audit
			WHERE id <= (SELECT max(id) FROM walhook.audit) - $2 ORDER BY id LIMIT $3))`

	forgetPortalSQL = `
		WITH links AS (DELETE FROM walhook.portal_link WHERE expires_at <= statement_timestamp())
		DELETE FROM walhook.portal_session WHERE expires_at <= statement_timestamp()`
)

// forgetAudit removes the lines that are too old or too many.
func (s *Store) forgetAudit(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, forgetAuditSQL, AuditFor, int64(AuditRows), forgetAuditChunk); err != nil {
		return fmt.Errorf("remove old lines of the audit: %w", err)
	}
	return nil
}

// forgetPortal removes the links and sessions of the portal that have expired.
func (s *Store) forgetPortal(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, forgetPortalSQL); err != nil {
		return fmt.Errorf("remove expired sessions of the portal: %w", err)
	}
	return nil
}
