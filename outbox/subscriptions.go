package outbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

const (
	webhooksVersionSQL = `SELECT version FROM walhook.webhooks_version`

	// What is disabled, or has a URL that cannot be used, is held and not lost.
	webhooksSQL = `
		SELECT account, id, revision, hook, object_type, object_action, coalesce(custom_data ->> 'type', ''), schemas, types,
			target, target_id, include_subaccounts, include_internal_legs, delivery = 'daily', ended_at IS NOT NULL
		FROM walhook.endpoint
		WHERE webhook <> 'account' AND state <> 'cleared' AND deleted_at IS NULL ORDER BY id`
)

// followWebhooks takes up what was changed through the API since the last
// append. A change that commits while this append runs is seen by the next.
func (p *Publisher) followWebhooks(ctx context.Context) error {
	var version int64
	if err := p.store.pool.QueryRow(ctx, webhooksVersionSQL).Scan(&version); err != nil {
		return fmt.Errorf("read the version of the webhooks: %w", err)
	}
	if version == p.version {
		return nil
	}
	return p.loadWebhooks(ctx)
}

// loadWebhooks reads the webhooks of all accounts. The version comes first: what
// changes in between is read once more.
func (p *Publisher) loadWebhooks(ctx context.Context) error {
	if err := p.store.pool.QueryRow(ctx, webhooksVersionSQL).Scan(&p.version); err != nil {
		return fmt.Errorf("read the version of the webhooks: %w", err)
	}
	p.webhooks, p.wanted = map[string][]*route{}, map[string]bool{}
	rows, err := p.store.pool.Query(ctx, webhooksSQL)
	if err != nil {
		return fmt.Errorf("read the webhooks: %w", err)
	}
	var r route
	var s subscription
	var customType string
	columns := []any{&r.account, &r.endpoint, &r.revision, &s.hook, &s.objectType, &s.objectAction, &customType, &s.schemas, &s.types,
		&s.target.kind, &s.target.id, &s.subaccounts, &s.internalLegs, &s.daily, &s.ended}
	_, err = pgx.ForEachRow(rows, columns, func() error {
		one, filters := r, s
		if filters.hook == hookNotifications && customType != "" {
			filters.objectType = customType
		}
		one.subscription = &filters
		p.webhooks[one.account] = append(p.webhooks[one.account], &one)
		p.wanted[filters.hook] = true
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the webhooks: %w", err)
	}
	return nil
}

// hookNotifications is the hook whose type may be given among the custom data,
// beside fields type and action that say something else
// (docs/WEBHOOKS.md, Notifications).
const hookNotifications = "notifications"

// wants says whether any webhook, of whatever account, asks for a hook.
func (p *Publisher) wants(hook string, groups ...string) bool {
	return p.wanted[hook] || p.wanted[HookAll] || slices.ContainsFunc(groups, func(group string) bool { return p.wanted[group] })
}
