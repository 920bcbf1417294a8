package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
)

// accountsBelowSQL lists an account and those below it.
const accountsBelowSQL = `
	WITH RECURSIVE below AS (
		SELECT $1::text AS id
		UNION
		SELECT a.id FROM walhook.account a JOIN below b ON a.parent = b.id WHERE a.ended_in IS NULL)
	SELECT id FROM below`

// accountsOf lists the accounts whose records the endpoint gets.
func (s *resyncPass) accountsOf(ctx context.Context) ([]string, error) {
	if !s.below {
		return []string{s.account}, nil
	}
	accounts, err := collect[string](s.p.store.pool.Query(ctx, accountsBelowSQL, s.account))
	if err != nil {
		return nil, fmt.Errorf("list the sub-accounts of account %s: %w", s.account, err)
	}
	return accounts, nil
}

// ownedAsKnown leaves out the records of which the outbox knows another owner than the
// source has: their parent record has moved. They keep the account that they were last sent
// to, and move with their own next change.
func (s *resyncPass) ownedAsKnown(ctx context.Context, rows []SourceRow) ([]SourceRow, error) {
	if s.catalog.Schema(s.atSchema).Owner.Schema == "" {
		return rows, nil
	}
	enc := s.p.store.encoding
	names, keys := make([]string, len(rows)), make([]string, len(rows))
	for i := range rows {
		names[i], keys[i] = s.atSchema, enc.text(rows[i].Key)
	}
	found, err := s.p.store.pool.Query(ctx, ownersSQL, names, keys)
	others := map[string]bool{}
	if err == nil {
		accounts := map[string]string{}
		for i := range rows {
			accounts[keys[i]] = rows[i].Account
		}
		var schema, key string
		var o route.Ownership
		_, err = pgx.ForEachRow(found, []any{&schema, &key, &o.Account, &o.Deleted, &o.Unknown, &o.Hidden, &o.Former}, func() error {
			others[key] = o.Unknown || o.Account != accounts[key]
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the owners of %d records: %w", len(rows), err)
	}
	kept := rows[:0]
	for i := range rows {
		if !others[keys[i]] {
			kept = append(kept, rows[i])
		}
	}
	return kept, nil
}
