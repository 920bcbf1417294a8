package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/schemas"
)

const (
	parentsSQL = `SELECT id, parent, ended_in::text FROM walhook.account WHERE $1::text[] IS NULL OR id = ANY ($1)`

	parentIDsSQL = `SELECT id FROM walhook.account`
)

// loadParents reads the parent of each account that has one, and of each that was deleted by the transaction in which the position lies. An account whose
// row cannot be read is set aside: it is taken for one without a parent account.
func (s *Store) loadParents(ctx context.Context, position schemas.Position) (parents map[string]string, deleted route.DeletedAccounts, err error) {
	parents, deleted = map[string]string{}, route.DeletedAccounts{Commit: position.Commit, Parents: map[string]string{}}
	read := func(ids []string) error { return s.readParents(ctx, ids, parents, deleted) }
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
		return nil, route.DeletedAccounts{}, fmt.Errorf("read the tree of accounts: %w", err)
	}
	return parents, deleted, nil
}

// What of an account the loop sets aside; its own endpoint is named by its id.
const (
	asideTree    = "above "
	asideColumns = "columns "
	asideToken   = "token with the hash "
)

// readParents reads the accounts with the ids, or all for nil.
func (s *Store) readParents(ctx context.Context, ids []string, parents map[string]string, deleted route.DeletedAccounts) error {
	rows, err := s.pool.Query(ctx, parentsSQL, ids)
	if err != nil {
		return err
	}
	var id, parent string
	var endedIn *string
	var well []string
	recovers := s.aside.any()
	_, err = pgx.ForEachRow(rows, []any{&id, &parent, &endedIn}, func() error {
		if route.ParentOf(id, parent) == "" {
			return &badItem{asideUnreadable, "the parent account is none that there can be"}
		}
		switch {
		case endedIn == nil:
			parents[id] = parent
		case *endedIn == deleted.Commit.String():
			deleted.Parents[id] = parent
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

// unknownSchemasSQL names the schemas of which some record's owner is not known.
const unknownSchemasSQL = `SELECT DISTINCT schema FROM walhook.owner WHERE unknown`

// loadUnknown reads which schemas have records whose owner is not known: they
// are looked for in each change, whatever its old row says.
func (p *Publisher) loadUnknown(ctx context.Context) error {
	names, err := collect[string](p.store.pool.Query(ctx, unknownSchemasSQL))
	if err != nil {
		return fmt.Errorf("read which owners are unknown: %w", err)
	}
	for _, name := range names {
		p.view.Unknown[name] = true
	}
	return nil
}
