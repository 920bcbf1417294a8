package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/outbox/address"
)

// OperatorFeed is an operator's feed (docs/CONTRACT.md §10): it belongs to no account, and
// gets every account's events. Its webhook's Name is unique, and its ID is nobody's to type.
type OperatorFeed struct {
	Webhook
	Info EndpointInfo // with its lane, and without user information and query of the URL
}

// ErrNoFeed says that there is no feed of a name, and ErrFeedExists that there is one.
var (
	ErrNoFeed     = errors.New("feed not found")
	ErrFeedExists = errors.New("a feed of that name exists")
)

const (
	feedsSQL = `SELECT ` + webhookColumns + ` FROM walhook.endpoint
		WHERE account = '' AND webhook <> 'account' AND deleted_at IS NULL ORDER BY name COLLATE "C"`

	feedIDSQL = `SELECT webhook FROM walhook.endpoint WHERE account = '' AND webhook <> 'account' AND deleted_at IS NULL AND name = $1`
)

// MaxFeedName bounds the name of a feed, in bytes.
const MaxFeedName = 60

// FeedFault says what is wrong with what somebody sets of a feed.
type FeedFault struct{ text string }

func (e *FeedFault) Error() string { return e.text }

// CheckFeed returns a [*FeedFault], or nil.
func CheckFeed(w *Webhook) error {
	wrong := func(format string, args ...any) error { return &FeedFault{fmt.Sprintf(format, args...)} }
	fault := func(r rune) bool { return unicode.IsControl(r) || r == '/' || unicode.IsSpace(r) }
	switch {
	case w.Name == "" || len(w.Name) > MaxFeedName || strings.ContainsFunc(w.Name, fault) || strings.HasPrefix(w.Name, "-"):
		return wrong("name %q: want at most %d bytes, without blanks and slashes", w.Name, MaxFeedName)
	case w.Hook != HookRecords && w.Hook != HookAll:
		return wrong("hook %q: want %s or %s", w.Hook, HookRecords, HookAll)
	}
	for _, name := range w.Schemas {
		if name == "" || len(name) > 64 || strings.ContainsFunc(name, unicode.IsControl) {
			return wrong("schema %q: want the names of schemas, such as dids", name)
		}
	}
	for _, typ := range w.Types {
		if !slices.Contains([]string{"insert", "update", "delete"}, typ) {
			return wrong("type %q: want insert, update or delete", typ)
		}
	}
	if w.URL == "" {
		return wrong("the URL is missing: set --url")
	}
	if fault := address.FeedFault(w.URL); fault != "" {
		return wrong("%s", fault)
	}
	if address.IsServers(w.URL) {
		return checkPrefix(w.SubjectPrefix, wrong)
	}
	if w.SubjectPrefix != "" {
		return wrong("the prefix is for feeds over NATS (nats://… or tls://…)")
	}
	return nil
}

// checkPrefix says what is wrong with the prefix of subjects; nil for nothing.
func checkPrefix(prefix string, wrong func(string, ...any) error) error {
	if len(prefix) > 200 || strings.HasPrefix(prefix, "$") || strings.HasPrefix(prefix, "_INBOX") {
		return wrong("prefix %q: want at most 200 bytes, and no $ or _INBOX at its beginning", prefix)
	}
	for token := range strings.SplitSeq(prefix, ".") {
		if token == "" || strings.ContainsAny(token, "*>%") || strings.ContainsFunc(token, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			return wrong("prefix %q: want one or more names with dots between them, such as walhook or carrier.walhook", prefix)
		}
	}
	return nil
}

// Feeds lists the operator's feeds by name.
func (a *Admin) Feeds(ctx context.Context) ([]OperatorFeed, error) {
	list, err := a.feeds(ctx)
	var ids []int64
	for i := range list {
		ids = append(ids, list[i].Endpoint)
	}
	var infos []EndpointInfo
	if err == nil && len(ids) > 0 {
		var rows pgx.Rows
		if rows, err = a.pool.Query(ctx, infosSQL, ids); err == nil {
			infos, err = collectEach(rows, scanEndpointInfo, func(e *EndpointInfo, _ error) {
				e.State, e.Reason = outbox.EndpointUnusable, outbox.ReasonUnreadable
			})
		}
		if err == nil {
			err = a.addLanes(ctx, infos)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list the feeds: %w", err)
	}
	feeds := make([]OperatorFeed, len(list))
	for i := range list {
		feeds[i].Webhook = list[i]
		for j := range infos {
			if infos[j].ID == list[i].Endpoint {
				feeds[i].Info = infos[j]
			}
		}
	}
	return feeds, nil
}

func (a *Admin) feeds(ctx context.Context) ([]Webhook, error) {
	rows, err := a.pool.Query(ctx, feedsSQL)
	if err != nil {
		return nil, err
	}
	return a.collectWebhooks(ctx, rows)
}

// FeedNamed is the feed of a name. [ErrNoFeed] when there is none.
func (a *Admin) FeedNamed(ctx context.Context, name string) (OperatorFeed, error) {
	feeds, err := a.Feeds(ctx)
	if err != nil {
		return OperatorFeed{}, err
	}
	for i := range feeds {
		if feeds[i].Name == name {
			return feeds[i], nil
		}
	}
	return OperatorFeed{}, fmt.Errorf("%w: %s", ErrNoFeed, name)
}

// feedID is the id of a feed's webhook.
func (a *Admin) feedID(ctx context.Context, name string) (id string, err error) {
	err = a.pool.QueryRow(ctx, feedIDSQL, name).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoFeed
	}
	if err != nil {
		return "", fmt.Errorf("feed %s: %w", name, err)
	}
	return id, nil
}

// AddFeed stores a feed, which gets what is appended from then on. [ErrFeedExists] when
// its name is taken; a [*FeedFault] says what is wrong with it.
func (a *Admin) AddFeed(ctx context.Context, w Webhook) (Webhook, error) {
	w.Account, w.Enabled, w.HTTPVerb, w.Delivery, w.DailyZone = outbox.NoAccount, true, "post", DeliveryRealtime, "UTC"
	if err := CheckFeed(&w); err != nil {
		return Webhook{}, err
	}
	w.ID = newWebhookID()
	act := &Act{Action: actFeedAdded, Webhook: w.ID, Detail: "feed: " + w.Name}
	err := a.changeWebhooks(ctx, act, func(tx pgx.Tx) error {
		var taken string
		switch err := tx.QueryRow(ctx, feedIDSQL, w.Name).Scan(&taken); {
		case err == nil:
			return ErrFeedExists
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
		if err := a.checkStreamTx(ctx, tx, nil, &w); err != nil {
			return err
		}
		return a.createWebhookTx(ctx, tx, &w)
	})
	if err != nil {
		return Webhook{}, fmt.Errorf("add feed %s: %w", w.Name, err)
	}
	return w, nil
}

// UnknownSchemas are those of a feed's filter that the catalog in force does not have: they
// match only async results of their name.
func (a *Admin) UnknownSchemas(ctx context.Context, w *Webhook) (unknown []*UnknownSchemaError, err error) {
	for _, name := range w.Schemas {
		fault := a.checkSchema(ctx, name)
		if one, is := errors.AsType[*UnknownSchemaError](fault); is {
			unknown = append(unknown, one)
		} else if fault != nil {
			return nil, fmt.Errorf("read the catalog's schemas: %w", fault)
		}
	}
	return unknown, nil
}

// ChangeFeed lets change say what becomes of a feed. [ErrNoFeed] when there is none; a
// [*FeedFault] says what is wrong with what it became.
func (a *Admin) ChangeFeed(ctx context.Context, name string, change func(*Webhook) error) (Webhook, error) {
	id, err := a.feedID(ctx, name)
	if err != nil {
		return Webhook{}, err
	}
	act := &Act{Action: actFeedChanged, Detail: "feed: " + name}
	return a.editWebhook(ctx, Caller{}, outbox.NoAccount, id, act, func(tx pgx.Tx, w *Webhook) error {
		before := *w
		if err := change(w); err != nil {
			return err
		}
		if err := CheckFeed(w); err != nil {
			return err
		}
		return a.checkStreamTx(ctx, tx, &before, w)
	})
}

// RemoveFeed ends a feed. What was not delivered is not sent, but kept as expired until
// retention ends. [ErrNoFeed] when there is none.
func (a *Admin) RemoveFeed(ctx context.Context, name string) error {
	id, err := a.feedID(ctx, name)
	if err != nil {
		return err
	}
	w := Webhook{Account: outbox.NoAccount, ID: id}
	err = a.changeWebhooks(ctx, &Act{Action: actFeedRemoved, Webhook: id, Detail: "feed: " + name}, func(tx pgx.Tx) error {
		if err := a.readWebhookTx(ctx, tx, lockWebhookSQL, &w); err != nil && (w.Endpoint == 0 || !errors.Is(err, ErrUnreadable)) {
			return err
		}
		_, err := tx.Exec(ctx, deleteWebhookSQL, w.Endpoint, reasonFeedRemoved, int64(math.MaxInt64))
		return err
	})
	if err != nil {
		return fmt.Errorf("remove feed %s: %w", name, err)
	}
	return nil
}

const reasonFeedRemoved = "the feed was removed"

// EnableFeed sends to a disabled feed again, first of all what was held. [ErrNoFeed] when
// there is none.
func (a *Admin) EnableFeed(ctx context.Context, name string) (EndpointInfo, error) {
	id, err := a.feedID(ctx, name)
	if err != nil {
		return EndpointInfo{}, err
	}
	return a.enableEndpoint(ctx, outbox.NoAccount, id, &Act{Action: actFeedEnabled, Detail: "feed: " + name})
}

// DisableFeed holds what is for a feed until it is enabled or retention ends. [ErrNoFeed]
// when there is none.
func (a *Admin) DisableFeed(ctx context.Context, name, reason string) (EndpointInfo, error) {
	id, err := a.feedID(ctx, name)
	if err != nil {
		return EndpointInfo{}, err
	}
	return a.disableEndpoint(ctx, outbox.NoAccount, id, reason, &Act{Action: actFeedDisabled, Detail: "feed: " + name + "; reason: " + reason})
}

// FeedSecrets are the whsec_ secrets that sign what a feed over HTTP gets, the newest
// first. [ErrNoFeed] when there is none.
func (a *Admin) FeedSecrets(ctx context.Context, name string) ([]string, error) {
	id, err := a.feedID(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := a.Audit(ctx, Act{Action: ActSecretRead, Webhook: id, Detail: "feed: " + name}); err != nil {
		return nil, err
	}
	secrets, _, err := a.WebhookSecrets(ctx, outbox.NoAccount, id)
	return secrets, err
}
