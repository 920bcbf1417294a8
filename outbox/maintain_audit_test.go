package outbox

import (
	"slices"
	"testing"
)

// The audit list is kept for 90 days: what is older leaves, the oldest first, and nothing
// else does.
func TestAudit_IsKeptForItsTime(t *testing.T) {
	w := newWorld(t)
	const day = `INSERT INTO walhook.audit (at, actor, action) SELECT statement_timestamp() - $1::interval, 'operator', $2`
	for name, age := range map[string]string{"old": "90 days 1 minute", "very old": "5 years", "in time": "89 days 23 hours", "new": "0"} {
		w.exec(t, day, age, name)
	}
	kept := func() []string {
		t.Helper()
		return all[string](t, w, `SELECT DISTINCT action FROM walhook.audit ORDER BY 1`)
	}
	w.maintain(t)
	if got := kept(); !slices.Equal(got, []string{"in time", "new"}) {
		t.Errorf("kept are %q", got)
	}
	// One round removes a chunk, so that it never holds the outbox up, and the next ones the rest.
	w.exec(t, `INSERT INTO walhook.audit (at, actor, action) SELECT statement_timestamp() - interval '91 days', 'operator', 'many' FROM generate_series(1, $1)`, forgetAuditChunk+1)
	w.maintain(t)
	if got := kept(); !slices.Equal(got, []string{"in time", "many", "new"}) {
		t.Errorf("kept after one round are %q", got)
	}
	w.maintain(t)
	if got := kept(); !slices.Equal(got, []string{"in time", "new"}) {
		t.Errorf("kept after two rounds are %q", got)
	}
}

// However much is done, the audit list does not grow beyond its lines: the newest stay.
func TestAudit_IsBoundedInLines(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.audit (actor, action) SELECT 'operator', 'early ' || n FROM generate_series(1, 3) n`)
	w.exec(t, `SELECT setval(pg_get_serial_sequence('walhook.audit', 'id'), $1)`, AuditRows+1)
	w.exec(t, `INSERT INTO walhook.audit (actor, action) VALUES ('operator', 'late')`) // the line AuditRows + 2
	w.maintain(t)
	if left := all[string](t, w, `SELECT action FROM walhook.audit ORDER BY id`); !slices.Equal(left, []string{"early 3", "late"}) {
		t.Errorf("left are %q", left)
	}
}

// Maintenance deletes links and sessions of the portal that have expired, used or not, and
// no others.
func TestPortal_ExpiredLinksAndSessionsLeave(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.portal_link (hash, account, expires_at, used_at)
		SELECT convert_to(n::text, 'UTF8'), CASE WHEN n < 3 THEN 'expired' ELSE 'valid' END, statement_timestamp() + CASE WHEN n < 3 THEN interval '-1 s' ELSE interval '1 h' END, CASE WHEN n % 2 = 0 THEN statement_timestamp() END
		FROM generate_series(1, 4) n`)
	w.exec(t, `INSERT INTO walhook.portal_session (hash, id, account, operator, expires_at)
		SELECT convert_to(n::text, 'UTF8'), n::text, CASE WHEN n < 3 THEN 'expired' ELSE 'valid' END, false, statement_timestamp() + CASE WHEN n < 3 THEN interval '-1 s' ELSE interval '1 h' END
		FROM generate_series(1, 4) n`)
	w.maintain(t)
	if left := all[string](t, w, `SELECT account FROM walhook.portal_link UNION ALL SELECT account FROM walhook.portal_session`); !slices.Equal(left, []string{"valid", "valid", "valid", "valid"}) {
		t.Errorf("left are %q", left)
	}
}
