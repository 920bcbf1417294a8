package admin

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/address"
	"walhook/schemas"
)

// Gap is a stretch of the source's WAL whose changes walhook may never see, accepted or
// not, and how much of it was sent afterwards.
type Gap struct {
	ID int64
	GapInfo
	AcceptedAt   time.Time // zero until an operator accepts it
	Reconciling  bool      // some of what was missed is not appended yet
	ReconciledAt time.Time
	Missed       int64 // how many changes there were to append; 0 where they were not compared
	Inserts      int64
	Updates      int64
	Deletes      int64
	Results      int64
	Events       int64
	Note         string // what is missed for good
}

const allGapsSQL = `
	SELECT id, found_at, from_lsn::text, coalesce(to_lsn, '0/0')::text, reason, accepted_at, missed IS NOT NULL AND reconciled_at IS NULL, reconciled_at,
		coalesce(missed, 0), coalesce(inserts, 0), coalesce(updates, 0), coalesce(deletes, 0), coalesce(results, 0), coalesce(events, 0), coalesce(note, '')
	FROM walhook.gap WHERE id < $1 ORDER BY id DESC LIMIT $2`

// Gaps lists the gaps with smaller ids than before, the newest first; 0 begins with the
// newest.
func (a *Admin) Gaps(ctx context.Context, before int64, limit int) ([]Gap, error) {
	rows, _ := a.pool.Query(ctx, allGapsSQL, orNewest(before), limit) // rows have its error
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g Gap, err error) {
		var from, to string
		var accepted, reconciled *time.Time
		err = row.Scan(&g.ID, &g.FoundAt, &from, &to, &g.Reason, &accepted, &g.Reconciling, &reconciled,
			&g.Missed, &g.Inserts, &g.Updates, &g.Deletes, &g.Results, &g.Events, &g.Note)
		if err == nil {
			g.From, err = schemas.ParseLSN(from)
		}
		if err == nil {
			g.To, err = schemas.ParseLSN(to)
		}
		if accepted != nil {
			g.AcceptedAt = *accepted
		}
		if reconciled != nil {
			g.ReconciledAt = *reconciled
		}
		return g, err
	})
	if err != nil {
		return nil, fmt.Errorf("list gaps: %w", err)
	}
	return list, nil
}

// DeadEndpoint is an endpoint that has dead letters.
type DeadEndpoint struct {
	Endpoint int64
	Account  string
	Webhook  string
	Name     string
	URL      string // user information and query left out
	Deleted  bool   // the webhook was deleted
	Count    int64  // to [DeadCountLimit]
	DiedAt   time.Time
	Reason   string // of the newest
}

// DeadCountLimit is where the count of a DeadEndpoint ends.
const DeadCountLimit = 1000

// It goes from one endpoint that has dead letters to the next by the index.
const deadEndpointsSQL = `
	WITH RECURSIVE found AS (
		(SELECT endpoint, 1 AS n FROM walhook.dead_letter WHERE endpoint > $1 ORDER BY endpoint LIMIT 1)
		UNION ALL
		SELECT next.endpoint, f.n + 1 FROM found f
		CROSS JOIN LATERAL (SELECT endpoint FROM walhook.dead_letter d WHERE d.endpoint > f.endpoint ORDER BY d.endpoint LIMIT 1) next
		WHERE f.n < $2)
	SELECT p.id, p.account, p.webhook, p.name, coalesce(p.url, ''), p.deleted_at IS NOT NULL, c.n, d.died_at, d.reason
	FROM found f
	CROSS JOIN LATERAL (SELECT * FROM walhook.endpoint p WHERE p.id = f.endpoint LIMIT 1) p
	CROSS JOIN LATERAL (SELECT count(*) AS n FROM (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = f.endpoint LIMIT $3) kept) c
	CROSS JOIN LATERAL (SELECT died_at, reason FROM walhook.dead_letter d WHERE d.endpoint = f.endpoint ORDER BY d.event_id DESC LIMIT 1) d
	ORDER BY f.endpoint`

// DeadEndpoints lists the endpoints of all accounts that have dead letters, from the one
// behind the number after on.
func (a *Admin) DeadEndpoints(ctx context.Context, after int64, limit int) (list []DeadEndpoint, err error) {
	after = min(max(after, 0), math.MaxInt64)
	err = a.byIndex(ctx, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, deadEndpointsSQL, after, limit, DeadCountLimit) // rows have its error
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d DeadEndpoint, err error) {
			err = row.Scan(&d.Endpoint, &d.Account, &d.Webhook, &d.Name, &d.URL, &d.Deleted, &d.Count, &d.DiedAt, &d.Reason)
			d.URL = address.Redact(d.URL)
			return d, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list endpoints with dead letters: %w", err)
	}
	return list, nil
}
