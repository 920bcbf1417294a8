package carrier

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Expected is an event that must be delivered.
type Expected struct {
	Seq     int64 // rises in commit order per record and per account
	Account string
	Schema  string
	Type    string
	Record  string            // the record's key; "" for an async result
	Body    [sha256.Size]byte // of the request's body; [Body] has the bytes

	CommittedAt time.Time // zero if the server no longer knows
	// MayExpire says that the account's URL was cleared after this event. If it was not
	// delivered before, it never will be, and that is correct.
	MayExpire bool
}

const expectedSQL = `
SELECT e.seq, e.account, e.schema, e.type, e.record, e.body, pg_xact_commit_timestamp(e.xid::xid),
       coalesce(e.seq < c.last, false)
FROM ledger.expected e
LEFT JOIN (SELECT account, max(seq) AS last FROM ledger.cleared GROUP BY account) c USING (account)
ORDER BY e.seq`

// Read reads the ledger, in its order.
func Read(ctx context.Context, conn *pgx.Conn) ([]Expected, error) {
	rows, err := conn.Query(ctx, expectedSQL)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	var all []Expected
	var e Expected
	var body string
	var committed *time.Time
	_, err = pgx.ForEachRow(rows, []any{&e.Seq, &e.Account, &e.Schema, &e.Type, &e.Record, &body, &committed, &e.MayExpire}, func() error {
		e.Body = sha256.Sum256([]byte(body))
		e.CommittedAt = time.Time{}
		if committed != nil {
			e.CommittedAt = *committed
		}
		all = append(all, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return all, nil
}

// Count returns how many events are expected so far.
func Count(ctx context.Context, conn *pgx.Conn) (int, error) {
	var n int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM ledger.expected`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the ledger: %w", err)
	}
	return n, nil
}

// Body returns the exact body of an expected event, for failure messages.
func Body(ctx context.Context, conn *pgx.Conn, seq int64) (string, error) {
	var body string
	err := conn.QueryRow(ctx, `SELECT body FROM ledger.expected WHERE seq = $1`, seq).Scan(&body)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read the ledger: %w", err)
	}
	return body, err
}

// Changes counts the committed row changes since Seed, by schema and type.
func Changes(ctx context.Context, conn *pgx.Conn) (map[string]map[string]int, error) {
	rows, err := conn.Query(ctx, `SELECT schema, type, count(*) FROM ledger.change GROUP BY schema, type`)
	if err != nil {
		return nil, fmt.Errorf("count changes: %w", err)
	}
	counts := map[string]map[string]int{}
	var schema, kind string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&schema, &kind, &n}, func() error {
		if counts[schema] == nil {
			counts[schema] = map[string]int{}
		}
		counts[schema][kind] = n
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count changes: %w", err)
	}
	return counts, nil
}
