package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

const (
	parentsSQL = `SELECT id, parent FROM walhook.account`

	writeParentsSQL = `
		INSERT INTO walhook.account (id, parent) SELECT * FROM unnest($1::text[], $2::text[])
		ON CONFLICT (id) DO UPDATE SET parent = excluded.parent`

	forgetParentsSQL = `DELETE FROM walhook.account WHERE id = ANY ($1)`

	truncateParentsSQL = `DELETE FROM walhook.account`
)

// loadParents reads the account above each account that has one.
func (s *Store) loadParents(ctx context.Context) (map[string]string, error) {
	parents := map[string]string{}
	rows, err := s.pool.Query(ctx, parentsSQL)
	if err == nil {
		var id, parent string
		_, err = pgx.ForEachRow(rows, []any{&id, &parent}, func() error {
			parents[id] = parent
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the tree of accounts: %w", err)
	}
	return parents, nil
}

// parentOf is the account above as it is kept: none where an account names
// itself, or one that no event could be sent to.
func parentOf(account, parent string) string {
	if parent == account || len(parent) > schemas.MaxAccountBytes {
		return ""
	}
	return parent
}

// setParent notes the account above; "" for none.
func (r *router) setParent(account, parent string) {
	parent = parentOf(account, parent)
	if r.p.parents[account] == parent {
		return
	}
	r.parents[account] = parent
	if parent == "" {
		delete(r.p.parents, account)
	} else {
		r.p.parents[account] = parent
	}
}

func (r *router) queueParents(b *pgx.Batch) {
	if r.treeGone {
		b.Queue(truncateParentsSQL)
	}
	var ids, parents, gone []string
	for id, parent := range r.parents {
		if parent == "" {
			gone = append(gone, id)
		} else {
			ids, parents = append(ids, id), append(parents, parent)
		}
	}
	if len(gone) > 0 {
		b.Queue(forgetParentsSQL, gone)
	}
	if len(ids) > 0 {
		b.Queue(writeParentsSQL, ids, parents)
	}
}
