package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
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
