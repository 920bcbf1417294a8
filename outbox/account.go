package outbox

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

const (
	parentsSQL = `SELECT id, parent, ended_in::text FROM walhook.account WHERE $1::text[] IS NULL OR id = ANY ($1)`

	parentIDsSQL = `SELECT id FROM walhook.account`

	writeParentsSQL = `
		INSERT INTO walhook.account (id, parent) SELECT * FROM unnest($1::text[], $2::text[])
		ON CONFLICT (id) DO UPDATE SET parent = excluded.parent, ended_in = NULL`

	// Those that a transaction deletes are kept while it lasts: its rest may
	// come in another batch.
	writeDepartedSQL = `
		INSERT INTO walhook.account (id, parent, ended_in)
		SELECT id, parent, $3::text::pg_lsn FROM unnest($1::text[], $2::text[]) AS w(id, parent)
		ON CONFLICT (id) DO UPDATE SET parent = excluded.parent, ended_in = excluded.ended_in`

	forgetDepartedSQL = `DELETE FROM walhook.account WHERE ended_in < $1::text::pg_lsn`

	forgetParentsSQL = `DELETE FROM walhook.account WHERE id = ANY ($1)`

	truncateParentsSQL = `DELETE FROM walhook.account`
)

// loadParents reads the account above each account that has one, and above each
// that was deleted by the transaction in which the position lies. An account whose
// row cannot be read is set aside: it is taken for one with nobody above it.
func (s *Store) loadParents(ctx context.Context, position schemas.Position) (parents map[string]string, gone departed, err error) {
	parents, gone = map[string]string{}, departed{commit: position.Commit, above: map[string]string{}}
	read := func(ids []string) error { return s.readParents(ctx, ids, parents, gone) }
	if err = read(nil); err != nil && isReadFault(err) {
		var ids []string
		if ids, err = collect[string](s.pool.Query(ctx, parentIDsSQL)); err == nil {
			err = isolate(ids, isReadFault, read, func(id string, cause error) error {
				delete(parents, id)
				s.setAside(ctx, loopAccounts, asideTree+id, 0, asideUnreadable, cause)
				return nil
			})
		}
	}
	if err != nil {
		return nil, departed{}, fmt.Errorf("read the tree of accounts: %w", err)
	}
	return parents, gone, nil
}

// What of an account the loop sets aside; its own endpoint is named by its id.
const (
	asideTree    = "above "
	asideColumns = "columns "
	asideToken   = "token with the hash "
)

// readParents reads the accounts with the ids, or all for nil.
func (s *Store) readParents(ctx context.Context, ids []string, parents map[string]string, gone departed) error {
	rows, err := s.pool.Query(ctx, parentsSQL, ids)
	if err != nil {
		return err
	}
	var id, parent string
	var endedIn *string
	var well []string
	recovers := s.aside.any()
	_, err = pgx.ForEachRow(rows, []any{&id, &parent, &endedIn}, func() error {
		if parentOf(id, parent) == "" {
			return &badItem{asideUnreadable, "the account above is none that there can be"}
		}
		switch {
		case endedIn == nil:
			parents[id] = parent
		case *endedIn == gone.commit.String():
			gone.above[id] = parent
		}
		if recovers {
			well = append(well, id)
		}
		return nil
	})
	for _, id := range well {
		s.wellAgain(ctx, loopAccounts, asideTree+id)
	}
	return err
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

func (r *router) queueParents(b *pgx.Batch, position schemas.Position) {
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
	if len(r.departed) > 0 {
		ids := slices.Collect(maps.Keys(r.departed))
		above := make([]string, len(ids))
		for i, id := range ids {
			above[i] = r.departed[id]
		}
		b.Queue(writeDepartedSQL, ids, above, r.p.departed.commit.String())
	}
	if len(gone) > 0 || len(ids) > 0 {
		b.Queue(forgetDepartedSQL, position.Commit.String())
	}
}
