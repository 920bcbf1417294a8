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
	"walhook/schemas/catalog"
)

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
