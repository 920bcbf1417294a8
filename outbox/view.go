package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/outbox/seal"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// What the publisher knows of the outbox is read here: all of it when it takes over,
// then what changes, and before each batch what the batch is about.

// load reads back all that a publisher knows, and the position that it is of.
func (p *Publisher) load(ctx context.Context) (schemas.Checkpoint, error) {
	checkpoint, nextID, err := p.store.checkpoint(ctx)
	if err != nil {
		return checkpoint, err
	}
	if err := p.store.loadAside(ctx); err != nil {
		return checkpoint, err
	}
	view := route.NewView(p.catalog)
	view.NextID, view.MaxEventBytes, view.StoredURL = nextID, p.store.cfg.MaxEventBytes, p.store.encoding.url
	p.view, p.flush, p.spare = view, checkpoint.Flush, nil
	if err := p.loadUnknown(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadRoutes(ctx); err != nil {
		return checkpoint, err
	}
	if err := p.loadWebhooks(ctx); err != nil {
		return checkpoint, err
	}
	if view.Parents, view.Deleted, err = p.store.loadParents(ctx, checkpoint.Position); err != nil {
		return checkpoint, err
	}
	return checkpoint, p.loadPartition(ctx)
}

const (
	routesSQL = `
		SELECT account, id, revision, coalesce(url, ''), CASE WHEN own_secret THEN secret ELSE '' END, ` + seal.StrictSQL + `, ` + seal.StrictURLSQL + ` FROM walhook.endpoint
		WHERE webhook = 'account' AND state <> 'cleared' AND ended_at IS NULL AND ($1::bigint[] IS NULL OR id = ANY ($1))`

	routeIDsSQL = `SELECT id FROM walhook.endpoint WHERE webhook = 'account' AND state <> 'cleared' AND ended_at IS NULL ORDER BY id`
)

// loadRoutes reads the accounts' own endpoints. A row that cannot be read is set
// aside: its account is taken for one without an endpoint.
func (p *Publisher) loadRoutes(ctx context.Context) error {
	err := p.readRoutes(ctx, nil)
	if err != nil && isReadFault(err) {
		var ids []int64
		if ids, err = collect[int64](p.store.pool.Query(ctx, routeIDsSQL)); err == nil {
			err = isolate(ids, isReadFault, func(ids []int64) error { return p.readRoutes(ctx, ids) }, func(id int64, cause error) error {
				p.store.setAside(ctx, loopAccounts, strconv.FormatInt(id, 10), id, asideUnreadable, cause)
				return nil
			})
		}
	}
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	return nil
}

// readRoutes reads those with the ids, or all for nil.
func (p *Publisher) readRoutes(ctx context.Context, ids []int64) error {
	rows, err := p.store.pool.Query(ctx, routesSQL, ids)
	if err != nil {
		return err
	}
	r := &route.Endpoint{}
	var strict, strictURL bool
	var damaged, well []int64
	_, err = pgx.ForEachRow(rows, []any{&r.Account, &r.ID, &r.Revision, &r.URL, &r.Secret, &strict, &strictURL}, func() (err error) {
		one := *r
		of := seal.Holder{Account: r.Account, Webhook: AccountWebhook}
		var urlErr error
		if one.URL, urlErr = p.store.secrets.OpenURL(r.URL, of, strictURL); urlErr != nil {
			one.URL = r.URL // whatever comes is another
		}
		if one.Secret, err = p.store.secrets.Open(r.Secret, of, strict && r.Secret != ""); err != nil {
			one.Secret = "" // as one that was not seen yet
		}
		if err != nil || urlErr != nil {
			damaged = append(damaged, one.ID)
		} else if p.store.aside.any() {
			well = append(well, one.ID)
		}
		p.view.Endpoints[one.Account] = &one
		return nil
	})
	for _, id := range well {
		p.store.wellAgain(ctx, loopAccounts, strconv.FormatInt(id, 10))
	}
	for _, id := range damaged {
		p.store.setAside(ctx, loopAccounts, strconv.FormatInt(id, 10), id, asideSecret, &badItem{asideSecret, reasonSecret})
	}
	return err
}

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

const (
	webhooksVersionSQL = `SELECT version FROM walhook.webhooks_version`

	// What is disabled, or has a URL that cannot be used, is held and not lost.
	// Custom data beyond what the API takes say nothing here.
	webhooksSQL = `
		SELECT account, id, revision, hook, object_type, object_action,
			coalesce(CASE WHEN octet_length(custom_data::text) <= 65536 THEN custom_data::text END, ''), schemas, types,
			target, target_id, include_subaccounts, include_internal_legs, delivery = 'daily',
			extract(epoch FROM daily_at)::int, daily_zone, ended_at IS NOT NULL
		FROM walhook.endpoint
		WHERE webhook <> 'account' AND state <> 'cleared' AND deleted_at IS NULL AND id = ANY ($1) ORDER BY id`

	webhookIDsSQL = `SELECT id FROM walhook.endpoint WHERE webhook <> 'account' AND state <> 'cleared' AND deleted_at IS NULL ORDER BY id`
)

// followWebhooks takes up what was changed through the API since the last
// append. A change that commits while this append runs is seen by the next.
func (p *Publisher) followWebhooks(ctx context.Context) error {
	var version int64
	if err := p.store.pool.QueryRow(ctx, webhooksVersionSQL).Scan(&version); err != nil {
		return fmt.Errorf("read the version of the webhooks: %w", err)
	}
	if version == p.view.WebhooksVersion {
		return nil
	}
	return p.loadWebhooks(ctx)
}

// loadWebhooks reads the webhooks of all accounts. The version comes first: what
// changes in between is read again. After an error all is as it was.
func (p *Publisher) loadWebhooks(ctx context.Context) error {
	var version int64
	if err := p.store.pool.QueryRow(ctx, webhooksVersionSQL).Scan(&version); err != nil {
		return fmt.Errorf("read the version of the webhooks: %w", err)
	}
	webhooks, err := p.store.webhookRoutes(ctx, p.catalog)
	if err != nil {
		return fmt.Errorf("read the webhooks: %w", err)
	}
	if err := p.loadDays(ctx, webhooks); err != nil {
		return err
	}
	p.view.SetWebhooks(version, webhooks)
	return nil
}

// webhookRoutes reads the webhooks. One that cannot be read is notified of nothing:
// what it asks for is not known.
func (s *Store) webhookRoutes(ctx context.Context, catalog *catalog.Catalog) (map[string][]*route.Endpoint, error) {
	ids, err := collect[int64](s.pool.Query(ctx, webhookIDsSQL))
	if err != nil {
		return nil, err
	}
	webhooks := map[string][]*route.Endpoint{}
	err = isolate(ids, isReadFault, func(ids []int64) error {
		rows, err := s.pool.Query(ctx, webhooksSQL, ids)
		if err != nil {
			return err
		}
		read, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*route.Endpoint, error) { return scanWebhookRoute(row, catalog) })
		if err != nil {
			return err
		}
		for _, one := range read {
			webhooks[one.Account] = append(webhooks[one.Account], one)
			s.wellAgain(ctx, loopWebhooks, strconv.FormatInt(one.ID, 10))
		}
		return nil
	}, func(id int64, cause error) error {
		s.setAside(ctx, loopWebhooks, strconv.FormatInt(id, 10), id, asideUnreadable, cause)
		return nil
	})
	return webhooks, err
}

func scanWebhookRoute(row pgx.CollectableRow, catalog *catalog.Catalog) (*route.Endpoint, error) {
	r, f := &route.Endpoint{}, &route.Subscription{}
	var custom string
	var dailyAt int
	err := row.Scan(&r.Account, &r.ID, &r.Revision, &f.Hook, &f.ObjectType, &f.ObjectAction, &custom, &f.Schemas, &f.Types,
		&f.Target.Kind, &f.Target.ID, &f.Subaccounts, &f.InternalLegs, &f.Daily, &dailyAt, &f.DailyZone, &f.Ended)
	if f.Hook == hookNotifications {
		f.ObjectType = notificationType(catalog, f.ObjectType, customType(custom))
	}
	f.DailyAt, r.Subscription = time.Duration(dailyAt)*time.Second, f
	return r, err
}

// customType is the member type of custom data, as the server's ->> has it. The
// server refuses to read some of what it stores; this reads anything.
func customType(custom string) string {
	var members map[string]json.RawMessage
	var text string
	if custom == "" || json.Unmarshal([]byte(custom), &members) != nil || json.Unmarshal(members["type"], &text) != nil {
		return ""
	}
	return text
}

const (
	// hookNotifications is the hook whose type may be given among the custom
	// data, beside fields type and action that say something else.
	hookNotifications = "notifications"

	// typeAccount is what clients of Kazoo give there as the type: the account
	// that they are about, and no kind of notification.
	typeAccount = "account"
)

// notificationType is the kind of notification that a webhook picks; "" for all
// of them. What the field type says comes first. A type among the custom data
// that is no kind of notification is data, and picks nothing.
func notificationType(catalog *catalog.Catalog, typ, customType string) string {
	if typ != "" && typ != typeAccount {
		return typ
	}
	if h := catalog.Hook(customType); h != nil && slices.Contains(h.Groups, hookNotifications) {
		return customType
	}
	return ""
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
