package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/schemas"
)

// What the publisher reads beside what it loaded when it took over (load.go): before each
// batch what the batch is about.

// scanRows is how many rows are read together where rows are read by their ids.
const scanRows = 10_000

// What of an account the loop sets aside; its own endpoint is named by its id.
const (
	asideTree    = "above "
	asideColumns = "columns "
	asideToken   = "token with the hash "
)

// unknownSchemasSQL names the schemas, of those given, of which some record's owner is
// not known, or was another one by the former catalog. Each is one look into an index, however many such records there are.
const unknownSchemasSQL = `
	SELECT s.name FROM unnest($1::text[]) AS s(name)
	WHERE EXISTS (SELECT FROM walhook.owner o WHERE o.unknown AND o.schema = s.name)
		OR EXISTS (SELECT FROM walhook.owner o WHERE o.former IS NOT NULL AND o.schema = s.name)`

// loadUnknown reads which schemas have records whose owner is not known: they
// are looked for in each change, whatever its old row says.
func (p *Publisher) loadUnknown(ctx context.Context) error {
	names := make([]string, len(p.catalog.Schemas))
	for i, schema := range p.catalog.Schemas {
		names[i] = schema.Name
	}
	unknown, err := collect[string](p.store.pool.Query(ctx, unknownSchemasSQL, names))
	if err != nil {
		return fmt.Errorf("read which owners are unknown: %w", err)
	}
	for _, name := range unknown {
		p.view.Unknown[name] = true
	}
	return nil
}

// fetch reads into the view's caches what routing the changes may ask for.
func (p *Publisher) fetch(ctx context.Context, changes []schemas.Change) error {
	p.view.Owners.Age()
	owners := slices.Collect(maps.Keys(p.view.OwnersNeeded(changes)))
	err := isolate(owners, isDataFault, func(keys []route.RecordKey) error { return p.readOwners(ctx, keys) },
		func(route.RecordKey, error) error { return nil }) // what depends on it is listed as unrouted
	if err != nil {
		return err
	}
	p.view.Columns.Age()
	accounts := slices.Collect(maps.Keys(p.view.ColumnsNeeded(changes)))
	err = isolate(accounts, isReadFault, func(accounts []string) error { return p.readColumns(ctx, accounts) }, func(account string, cause error) error {
		p.view.Columns.Set(account, nil)
		p.store.setAside(ctx, loopAccounts, asideColumns+account, 0, asideUnreadable, cause)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the columns of %d accounts: %w", len(accounts), err)
	}
	return nil
}

const ownersSQL = `
	SELECT o.schema, o.key, o.account, o.deleted_at IS NOT NULL, o.unknown, o.hidden, coalesce(o.former, '')
	FROM unnest($1::text[], $2::text[]) AS w(schema, key)
	JOIN walhook.owner o ON o.schema = w.schema AND o.key = w.key`

func (p *Publisher) readOwners(ctx context.Context, wanted []route.RecordKey) error {
	if len(wanted) == 0 {
		return nil
	}
	names, keys := make([]string, 0, len(wanted)), make([]string, 0, len(wanted))
	of := make(map[route.RecordKey]route.RecordKey, len(wanted)) // by their stored form
	for _, k := range wanted {
		names, keys = append(names, k.Schema), append(keys, p.store.encoding.text(k.Key))
		of[route.RecordKey{Schema: k.Schema, Key: keys[len(keys)-1]}] = k
	}
	rows, err := p.store.pool.Query(ctx, ownersSQL, names, keys)
	if err == nil {
		var k route.RecordKey
		var o route.Ownership
		_, err = pgx.ForEachRow(rows, []any{&k.Schema, &k.Key, &o.Account, &o.Deleted, &o.Unknown, &o.Hidden, &o.Former}, func() error {
			p.view.Owners.Set(of[k], o)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read the owners of %d records: %w", len(wanted), err)
	}
	return nil
}

const columnsSQL = `SELECT account, columns, coalesce(array_ndims(columns), 1) FROM walhook.account_column WHERE account = ANY ($1)`

// readColumns reads those of the accounts. What is no JSON would spoil the
// bodies that it is written into.
func (p *Publisher) readColumns(ctx context.Context, accounts []string) error {
	if len(accounts) == 0 {
		return nil
	}
	rows, err := p.store.pool.Query(ctx, columnsSQL, accounts)
	if err != nil {
		return err
	}
	var account string
	var columns []string
	var dimensions int
	found := map[string][]string{}
	_, err = pgx.ForEachRow(rows, []any{&account, &columns, &dimensions}, func() error {
		if columns == nil || dimensions != 1 { // pgx would read it as one longer list
			return &badItem{asideUnreadable, "the account's columns are not a list"}
		}
		columns, err := p.store.secrets.OpenColumns(account, columns)
		if err != nil {
			return &badItem{asideUnreadable, err.Error()}
		}
		for _, column := range columns {
			if column != "" && !json.Valid([]byte(column)) {
				return &badItem{asideUnreadable, "an account column is not JSON"}
			}
		}
		found[account] = columns
		return nil
	})
	if err != nil {
		return err
	}
	for _, account := range accounts { // also those of which nothing is stored
		p.view.Columns.Set(account, found[account])
	}
	for account := range found {
		p.store.wellAgain(ctx, loopAccounts, asideColumns+account)
	}
	return nil
}
