package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/outbox/seal"
	"walhook/schemas"
)

// What the publisher knows of the outbox is read here: all of it when it takes over,
// then what changes, and before each batch what the batch is about.

// loadTimeout bounds a take-over, which reads all accounts and webhooks: it ends before
// the source ends a session that answers nothing (wal_sender_timeout, 60 s by default).
// Each statement of it has a bound of its own, so a network that swallows what is sent
// is noticed as early as in an append.
const loadTimeout = 45 * time.Second

// step bounds one statement of a take-over, or a few.
func step(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errors.New("take over as publisher: the outbox does not answer"))
	defer cancel()
	return do(ctx)
}

// load reads back all that a publisher knows, and the position that it is of.
func (p *Publisher) load(ctx context.Context) (checkpoint schemas.Checkpoint, err error) {
	view := route.NewView(p.catalog)
	var position positionRow
	err = step(ctx, func(ctx context.Context) (err error) {
		if checkpoint, position, view.NextID, err = p.store.checkpoint(ctx); err != nil {
			return err
		}
		return p.store.loadAside(ctx)
	})
	if err != nil {
		return checkpoint, err
	}
	if p.view != nil {
		// What was appended, and lost with a server that failed over, has been read by
		// senders: its ids are not given again.
		view.NextID = max(view.NextID, p.view.NextID)
	}
	view.MaxEventBytes, view.StoredURL = p.store.cfg.MaxEventBytes, p.store.encoding.url
	p.view, p.flush, p.position, p.spare = view, checkpoint.Flush, position, nil
	if err := p.loadRoutes(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadWebhooks(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadParents(ctx, checkpoint.Position); err != nil {
		return checkpoint, err
	}
	return checkpoint, step(ctx, func(ctx context.Context) error {
		if err := p.loadUnknown(ctx); err != nil {
			return err
		}
		return p.loadPartition(ctx)
	})
}

// scanRows is how many rows a statement reads of a table that is read whole.
const scanRows = 10_000

// scan reads all rows of a query, a part at a time, as they were when it began. So no
// statement runs for long, however many rows there are.
func (s *Store) scan(ctx context.Context, cursor, sql string, each func(pgx.Rows) error) error {
	var tx pgx.Tx
	err := step(ctx, func(ctx context.Context) (err error) {
		if tx, err = s.pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly}); err == nil {
			_, err = tx.Exec(ctx, "DECLARE "+cursor+" NO SCROLL CURSOR FOR "+sql)
		}
		return err
	})
	if tx == nil {
		return err
	}
	for n := scanRows; err == nil && n == scanRows; {
		err = step(ctx, func(ctx context.Context) error {
			n = 0
			// Not prepared: what it returns depends on the cursor.
			rows, err := tx.Query(ctx, "FETCH "+strconv.Itoa(scanRows)+" FROM "+cursor, pgx.QueryExecModeDescribeExec)
			return eachRow(rows, err, func(rows pgx.Rows) error { n++; return each(rows) })
		})
	}
	rolled := step(ctx, tx.Rollback) // it has read only
	if err == nil {
		err = rolled
	}
	return err
}

// eachRow takes all rows of a query.
func eachRow(rows pgx.Rows, err error, each func(pgx.Rows) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

const (
	routesSQL = `
		SELECT account, id, revision, coalesce(url, ''), CASE WHEN own_secret THEN secret ELSE '' END, ` + seal.StrictSQL + `, ` + seal.StrictURLSQL + ` FROM walhook.endpoint
		WHERE webhook = 'account' AND state <> 'cleared' AND ended_at IS NULL`

	routeIDsSQL = `SELECT id FROM walhook.endpoint WHERE webhook = 'account' AND state <> 'cleared' AND ended_at IS NULL ORDER BY id`
)

// loadRoutes reads the accounts' own endpoints. A row that cannot be read is set
// aside: its account is taken for one without an endpoint.
func (p *Publisher) loadRoutes(ctx context.Context) error {
	r := &routesRead{publisher: p}
	err := p.store.scan(ctx, "routes", routesSQL, r.take)
	if isReadFault(err) {
		err = r.isolated(ctx)
	}
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	for _, id := range r.well {
		p.store.wellAgain(ctx, loopAccounts, strconv.FormatInt(id, 10))
	}
	for _, id := range r.damaged {
		p.store.setAside(ctx, loopAccounts, strconv.FormatInt(id, 10), id, asideSecret, &badItem{asideSecret, reasonSecret})
	}
	return nil
}

// routesRead is what was read of the accounts' own endpoints, beside those in the view.
type routesRead struct {
	publisher     *Publisher
	row           route.Endpoint
	strict        bool
	strictURL     bool
	well, damaged []int64
}

func (r *routesRead) isolated(ctx context.Context) error {
	store := r.publisher.store
	ids, err := collect[int64](store.pool.Query(ctx, routeIDsSQL))
	if err != nil {
		return err
	}
	for part := range slices.Chunk(ids, scanRows) {
		err := isolate(part, isReadFault, func(ids []int64) error {
			rows, err := store.pool.Query(ctx, routesSQL+" AND id = ANY ($1)", ids)
			return eachRow(rows, err, r.take)
		}, func(id int64, cause error) error {
			store.setAside(ctx, loopAccounts, strconv.FormatInt(id, 10), id, asideUnreadable, cause)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *routesRead) take(rows pgx.Rows) error {
	if err := rows.Scan(&r.row.Account, &r.row.ID, &r.row.Revision, &r.row.URL, &r.row.Secret, &r.strict, &r.strictURL); err != nil {
		return err
	}
	one, store := r.row, r.publisher.store
	of := seal.Holder{Account: one.Account, Webhook: AccountWebhook}
	url, urlErr := store.secrets.OpenURL(one.URL, of, r.strictURL)
	if urlErr == nil {
		one.URL = url // otherwise whatever comes is another
	}
	var err error
	if one.Secret, err = store.secrets.Open(one.Secret, of, r.strict && one.Secret != ""); err != nil {
		one.Secret = "" // as one that was not seen yet
	}
	switch {
	case err != nil || urlErr != nil:
		r.damaged = append(r.damaged, one.ID)
	case store.aside.any() && store.aside.reason(loopAccounts, strconv.FormatInt(one.ID, 10)) != "":
		r.well = append(r.well, one.ID)
	}
	r.publisher.view.Endpoints[one.Account] = &one
	return nil
}

const (
	parentsSQL   = `SELECT id, parent, ended_in::text FROM walhook.account`
	parentIDsSQL = `SELECT id FROM walhook.account`
)

// loadParents reads the parent of each account that has one, and of each that was
// deleted by the transaction in which the position lies. An account whose row cannot be
// read is set aside: it is taken for one without a parent account.
func (p *Publisher) loadParents(ctx context.Context, position schemas.Position) error {
	p.view.Deleted = route.DeletedAccounts{Commit: position.Commit, Parents: map[string]string{}}
	r := &parentsRead{publisher: p}
	err := p.store.scan(ctx, "parents", parentsSQL, r.take)
	if isReadFault(err) {
		err = r.isolated(ctx)
	}
	if err != nil {
		return fmt.Errorf("read the tree of accounts: %w", err)
	}
	for _, id := range r.well {
		p.store.wellAgain(ctx, loopAccounts, asideTree+id)
	}
	return nil
}

// parentsRead is what was read of the tree of accounts, beside what is in the view.
type parentsRead struct {
	publisher *Publisher
	well      []string
}

func (r *parentsRead) isolated(ctx context.Context) error {
	store := r.publisher.store
	ids, err := collect[string](store.pool.Query(ctx, parentIDsSQL))
	if err != nil {
		return err
	}
	for part := range slices.Chunk(ids, scanRows) {
		err := isolate(part, isReadFault, func(ids []string) error {
			rows, err := store.pool.Query(ctx, parentsSQL+" WHERE id = ANY ($1)", ids)
			return eachRow(rows, err, r.take)
		}, func(id string, cause error) error {
			delete(r.publisher.view.Parents, id)
			store.setAside(ctx, loopAccounts, asideTree+id, 0, asideUnreadable, cause)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *parentsRead) take(rows pgx.Rows) error {
	p := r.publisher
	raw := rows.RawValues()
	if raw[0] == nil || raw[1] == nil {
		return &badItem{asideUnreadable, "the account, or its parent account, is NULL"}
	}
	id, parent := p.accountText(raw[0]), p.accountText(raw[1])
	if route.ParentOf(id, parent) == "" {
		return &badItem{asideUnreadable, "the parent account is none that there can be"}
	}
	switch deleted := p.view.Deleted; {
	case raw[2] == nil:
		p.view.Parents[id] = parent
	case string(raw[2]) == deleted.Commit.String():
		deleted.Parents[id] = parent
	}
	if p.store.aside.any() && p.store.aside.reason(loopAccounts, inASCII(asideTree+id)) != "" {
		r.well = append(r.well, id)
	}
	return nil
}

// What of an account the loop sets aside; its own endpoint is named by its id.
const (
	asideTree    = "above "
	asideColumns = "columns "
	asideToken   = "token with the hash "
)

// unknownSchemasSQL names the schemas, of those given, of which some record's owner is
// not known. Each is one look into an index, however many such records there are.
const unknownSchemasSQL = `
	SELECT s.name FROM unnest($1::text[]) AS s(name)
	WHERE EXISTS (SELECT FROM walhook.owner o WHERE o.unknown AND o.schema = s.name)`

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
	SELECT o.schema, o.key, o.account, o.deleted_at IS NOT NULL, o.unknown
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
		_, err = pgx.ForEachRow(rows, []any{&k.Schema, &k.Key, &o.Account, &o.Deleted, &o.Unknown}, func() error {
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
