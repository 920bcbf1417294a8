package outbox

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/schemas/catalog"
)

// The publisher keeps the webhooks of all accounts in its view and follows them by what
// changed. Whoever changes webhooks raises the version of the webhooks first, which
// locks it until the transaction ends, and stamps each row with the new version. So
// stamps become visible in their order, and the rows stamped after a version are all
// that changed since. The publisher reads every webhook when it takes over, and when
// stamps do not tell what changed: an older process or an operator raised the version
// without a stamp, or maintenance removed rows that the publisher had not followed yet.

// RaiseWebhooksSQL is the first statement of every transaction that changes webhooks:
// one such transaction runs at a time.
const RaiseWebhooksSQL = `UPDATE walhook.webhooks_version SET version = version + 1, stamped = stamped + 1`

// ChangedInSQL is what such a transaction sets of each row, so that the next append
// sees the change.
const ChangedInSQL = `changed_in = (SELECT version FROM walhook.webhooks_version)`

// webhooksMark is how far the webhooks were followed.
type webhooksMark struct {
	version   int64
	unstamped int64 // raises of the version that stamped no row
	forgotten int64 // rows up to this version may be gone
}

const (
	webhooksMarkSQL = `SELECT version, version - stamped, forgotten FROM walhook.webhooks_version`

	// What is disabled, or has a URL that cannot be used, is held and not lost.
	// Custom data beyond what the API takes say nothing here.
	webhooksSQL = `
		SELECT account, id, revision, coalesce(state = 'cleared' OR deleted_at IS NOT NULL, true),
			hook, object_type, object_action,
			CASE WHEN hook = '` + hookNotifications + `' AND octet_length(custom_data::text) <= 65536 THEN custom_data::text ELSE '' END,
			schemas, types, target, target_id, include_subaccounts, include_internal_legs, delivery = 'daily',
			extract(epoch FROM daily_at)::int, daily_zone, ended_at IS NOT NULL, account = ''
		FROM walhook.endpoint WHERE webhook <> 'account' AND `

	webhookIDsSQL = `SELECT id FROM walhook.endpoint WHERE webhook <> 'account' AND `

	// Which webhooks.
	presentSQL   = `state <> 'cleared' AND deleted_at IS NULL`
	namedSQL     = `id = ANY ($1)`
	ofAccountSQL = `account = ANY ($1)`
	// The limit keeps the server on the index, whatever it knows of the table.
	changedSQL = `changed_in > $1 ORDER BY changed_in LIMIT $2`
)

// mostFollowed bounds how many webhooks are followed one by one; when more changed, all
// are read.
const mostFollowed = 10_000

// followWebhooks brings the webhooks of the view up to date with every change that was
// committed before: it reads those that changed. After an error all is as it was.
func (p *Publisher) followWebhooks(ctx context.Context) error {
	since, accounts := p.view.StaleWebhooks()
	if since == route.UnknownVersion || len(accounts) > mostFollowed {
		return p.loadWebhooks(ctx)
	}
	var at webhooksMark
	read := &webhooksRead{publisher: p}
	b := &pgx.Batch{} // one round trip; the rows are at least as new as the version
	b.Queue(webhooksMarkSQL).QueryRow(at.scan)
	b.Queue(webhooksSQL+changedSQL, since, mostFollowed+1).Query(func(rows pgx.Rows) error { return eachRow(rows, nil, read.take) })
	err := p.store.pool.SendBatch(ctx, b).Close()
	if isReadFault(err) {
		if at, err = p.readMark(ctx); err == nil {
			err = read.again(ctx, changedSQL, since, mostFollowed+1)
		}
	}
	switch last := p.webhooks; {
	case err != nil:
		return fmt.Errorf("read the webhooks that changed: %w", err)
	case at.version == p.view.WebhooksVersion && at.unstamped == last.unstamped:
		return nil
	case at.version < since, at.unstamped != last.unstamped, at.forgotten > since && at.forgotten != last.forgotten, read.rows() > mostFollowed:
		return p.loadWebhooks(ctx)
	}
	if len(accounts) > 0 {
		if err := read.each(ctx, ofAccountSQL, accounts); err != nil {
			return fmt.Errorf("read the webhooks of accounts that ended or began: %w", err)
		}
	}
	if err := p.lookAtDamaged(ctx, read); err != nil {
		return fmt.Errorf("read the webhooks that were set aside: %w", err)
	}
	if err := p.changeDays(ctx, read); err != nil {
		return err
	}
	p.view.ChangeWebhooks(at.version, read.changed, read.gone)
	p.webhooks = at
	p.store.metrics.webhooks.Add(float64(read.rows()))
	for _, w := range read.changed {
		delete(p.damaged, w.ID)
		p.store.wellAgain(ctx, loopWebhooks, strconv.FormatInt(w.ID, 10))
	}
	for _, id := range read.gone {
		delete(p.damaged, id.ID)
	}
	for _, id := range read.damaged {
		p.damaged[id] = true
	}
	return nil
}

// lookAtDamaged reads webhooks again that could not be read: what is wrong with them
// may be mended without a stamp.
func (p *Publisher) lookAtDamaged(ctx context.Context, read *webhooksRead) error {
	if len(p.damaged) == 0 || time.Since(p.lookedAgain) < lookAgain {
		return nil
	}
	p.lookedAgain = time.Now()
	ids := maps.Clone(p.damaged)
	for _, w := range read.changed {
		delete(ids, w.ID)
	}
	for _, w := range read.gone {
		delete(ids, w.ID)
	}
	return read.each(ctx, namedSQL, slices.Collect(maps.Keys(ids)))
}

// loadWebhooks reads the webhooks of all accounts. The version comes first: what
// changes in between is read again. After an error all is as it was.
func (p *Publisher) loadWebhooks(ctx context.Context) error {
	defer p.loads()()
	at, err := p.readMark(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the webhooks: %w", err)
	}
	read := &webhooksRead{publisher: p}
	err = p.store.scan(ctx, p.loading, tableScan{table: "endpoint", id: "id", sql: webhooksSQL + presentSQL, take: read.take, mark: read.mark,
		alone: func(id string, cause error) error { return read.setAside(ctx, endpointID(id), cause) }})
	if err != nil {
		return fmt.Errorf("read the webhooks: %w", err)
	}
	if err := p.loadDays(ctx, read.changed); err != nil {
		return err
	}
	webhooks := map[string][]*route.Endpoint{}
	for _, w := range read.changed {
		webhooks[w.Account] = append(webhooks[w.Account], w)
	}
	p.view.SetWebhooks(at.version, webhooks)
	p.webhooks, p.damaged = at, map[int64]bool{}
	p.store.metrics.webhooks.Add(float64(read.rows()))
	for _, id := range read.damaged {
		p.damaged[id] = true
	}
	if p.store.aside.any() {
		for _, w := range read.changed {
			p.store.wellAgain(ctx, loopWebhooks, strconv.FormatInt(w.ID, 10))
		}
	}
	return nil
}

func (p *Publisher) readMark(ctx context.Context) (at webhooksMark, err error) {
	err = at.scan(p.store.pool.QueryRow(ctx, webhooksMarkSQL))
	return at, err
}

func (m *webhooksMark) scan(row pgx.Row) error {
	return row.Scan(&m.version, &m.unstamped, &m.forgotten)
}

// webhooksRead is what was read of webhooks.
type webhooksRead struct {
	publisher *Publisher
	changed   []*route.Endpoint
	gone      []route.WebhookID
	damaged   []int64 // they cannot be read, and are notified of nothing: what they ask for is not known

	// The memory of take.
	dest []any
	row  struct {
		account      string
		id, revision int64
		gone         bool
	}
	key []byte
}

func (r *webhooksRead) rows() int { return len(r.changed) + len(r.gone) + len(r.damaged) }

// again forgets what was read and reads the webhooks one by one where one of them
// cannot be read.
func (r *webhooksRead) again(ctx context.Context, which string, args ...any) error {
	r.changed, r.gone = nil, nil
	ids, err := collect[int64](r.publisher.store.pool.Query(ctx, webhookIDsSQL+which, args...))
	if err != nil {
		return err
	}
	return r.isolated(ctx, ids)
}

// each reads the webhooks of a list of accounts or ids.
func (r *webhooksRead) each(ctx context.Context, which string, of any) error {
	store := r.publisher.store
	ids, err := collect[int64](store.pool.Query(ctx, webhookIDsSQL+which, of))
	if err != nil {
		return err
	}
	return r.isolated(ctx, ids)
}

func (r *webhooksRead) isolated(ctx context.Context, ids []int64) error {
	store := r.publisher.store
	for part := range slices.Chunk(ids, scanRows) {
		err := isolate(part, isReadFault, func(ids []int64) error {
			some := &webhooksRead{publisher: r.publisher}
			rows, err := store.pool.Query(ctx, webhooksSQL+namedSQL, ids)
			if err = eachRow(rows, err, some.take); err == nil {
				r.changed, r.gone = append(r.changed, some.changed...), append(r.gone, some.gone...)
			}
			return err
		}, func(id int64, cause error) error { return r.setAside(ctx, id, cause) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *webhooksRead) mark() func() {
	changed, gone := len(r.changed), len(r.gone)
	return func() { r.changed, r.gone = r.changed[:changed], r.gone[:gone] }
}

func (r *webhooksRead) setAside(ctx context.Context, id int64, cause error) error {
	r.publisher.store.setAside(ctx, loopWebhooks, strconv.FormatInt(id, 10), id, asideUnreadable, cause)
	r.damage(id)
	return nil
}

// damage notes a webhook that cannot be read. It leaves the view: which account it is
// of, the view alone can tell for certain.
func (r *webhooksRead) damage(id int64) {
	r.damaged = append(r.damaged, id)
	if r.publisher.damaged[id] {
		return // it has left
	}
	if account, known := r.publisher.view.AccountOfWebhook(id); known {
		r.gone = append(r.gone, route.WebhookID{Account: account, ID: id})
	}
}

// webhookFilters is where the columns begin that make a subscription.
const webhookFilters = 4

// take takes one row. Most webhooks ask for the same, and share a subscription: what
// the server sent of its columns is the key by which it is found.
func (r *webhooksRead) take(rows pgx.Rows) error {
	p, raw, row := r.publisher, rows.RawValues(), &r.row
	if r.dest == nil {
		r.dest = make([]any, len(raw))
		r.dest[1], r.dest[2], r.dest[3] = &row.id, &row.revision, &row.gone
	}
	if r.dest[0] = nil; raw[0] == nil {
		r.dest[0] = &row.account // to say what is wrong
	}
	if err := rows.Scan(r.dest...); err != nil {
		return err
	}
	account := p.accountText(raw[0])
	if row.gone {
		r.gone = append(r.gone, route.WebhookID{Account: account, ID: row.id})
		return nil
	}
	w := &route.Endpoint{Account: account, ID: row.id, Revision: row.revision}
	r.key = r.key[:0]
	for _, column := range raw[webhookFilters:] {
		size := len(column)
		if column == nil {
			size = -1
		}
		r.key = append(binary.AppendVarint(r.key, int64(size)), column...)
	}
	if w.Subscription = p.subscriptions[string(r.key)]; w.Subscription == nil {
		s, err := scanSubscription(rows, p.catalog)
		if err != nil {
			return err
		}
		if len(p.subscriptions) >= mostShared || p.subscriptions == nil {
			p.subscriptions = map[string]*route.Subscription{} // those in use stay with their webhooks
		}
		p.subscriptions[string(r.key)], w.Subscription = s, s
	}
	r.changed = append(r.changed, w)
	return nil
}

// mostShared bounds the subscriptions that are remembered for other webhooks.
const mostShared = 10_000

// accountText is the id of an account, in the memory that the view has for it.
func (p *Publisher) accountText(id []byte) string {
	if own := p.view.Endpoints[string(id)]; own != nil {
		return own.Account
	}
	if list := p.view.Webhooks[string(id)]; len(list) > 0 {
		return list[0].Account
	}
	return string(id)
}

func scanSubscription(rows pgx.Rows, catalog *catalog.Catalog) (*route.Subscription, error) {
	f := &route.Subscription{}
	var custom string
	var dailyAt int
	dest := make([]any, webhookFilters, webhookFilters+15)
	err := rows.Scan(append(dest, &f.Hook, &f.ObjectType, &f.ObjectAction, &custom, &f.Schemas, &f.Types,
		&f.Target.Kind, &f.Target.ID, &f.Subaccounts, &f.InternalLegs, &f.Daily, &dailyAt, &f.DailyZone, &f.Ended, &f.Feed)...)
	if f.Hook == hookNotifications {
		f.ObjectType = notificationType(catalog, f.ObjectType, customType(custom))
	}
	f.DailyAt = time.Duration(dailyAt) * time.Second
	return f, err
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
