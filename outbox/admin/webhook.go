package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/route"
	"walhook/outbox/seal"
)

// HookRecords and HookAll are the hooks that are no event's name: the record
// feed, and every event.
const (
	HookRecords = route.HookRecords
	HookAll     = route.HookAll
)

// The ways in which a webhook gets its events.
const (
	DeliveryRealtime = "realtime"
	DeliveryDaily    = "daily"
	// DeliveryPull is of a webhook without a URL: its events are read by its feed alone.
	DeliveryPull = "pull"
)

// Webhook is what an account set of one of its endpoints (docs/CONTRACT.md §7).
type Webhook struct {
	// ID is unique within the account: [AccountWebhook], or 32 hexadecimal
	// digits.
	ID       string
	Account  string
	Name     string
	URL      string
	unopened string // the stored URL, where it cannot be decrypted
	Enabled  bool   // nobody disabled it; it may have no URL that can be used all the same
	HTTPVerb string // post, get or put
	// Hook is [HookRecords], [HookAll] or the name of an event.
	Hook string
	// ObjectType and ObjectAction are the filters type and action of the hooks
	// object and notifications; "" is any.
	ObjectType, ObjectAction string
	// Schemas and Types are filters of the record feed; empty is all.
	Schemas, Types []string
	// Target is number, extension, ringGroup or queue when the webhook is bound
	// to the one named TargetID; "" is none.
	Target, TargetID string
	Format           string // envelope, json, form or cloudevents; "" is what the event's hook says
	// Retries is 0 to 10; nil is the whole schedule.
	Retries   *int
	RateLimit float64 // attempts a second; 0 is no limit
	// Batch is how many events one request carries at most, as an array; 0 is one, and
	// no array.
	Batch int
	// CustomData is a JSON object that is merged into each event last; empty
	// for none.
	CustomData []byte
	// Headers are the static headers of its requests.
	Headers             []Header
	IncludeSubaccounts  bool
	IncludeInternalLegs bool
	// InitialState says that the webhook begins with the present state of its records
	// whenever its URL is set.
	InitialState bool
	Delivery     string // realtime, daily or pull
	// DailyAt is the time of day, since midnight, at which a daily webhook's
	// day ends in DailyZone, an IANA zone.
	DailyAt   time.Duration
	DailyZone string

	// SubjectPrefix is what the subjects of an operator's feed over NATS begin with; ""
	// for anything else.
	SubjectPrefix string

	// By is who creates or edits it.
	By Caller

	// Ask is whether it is to be enabled, where an edit says so; nil where not.
	Ask *bool

	// Edited says, for the audit, what an edit changes; "" says nothing.
	Edited string

	// What follows is not the account's to set.

	Endpoint      int64 // its row: what events, attempts and lanes are of
	Revision      int64 // every change raises it
	State         outbox.EndpointState
	DisableReason string // why nothing is sent to it; "" while it is active
	DisabledBy    string // walhook, operator or account; "" for nobody
	// AlsoDisabledBy is who has it disabled once an operator's word ends: walhook or
	// account; "" for nobody. AlsoDisableReason says why.
	AlsoDisabledBy, AlsoDisableReason string

	setBy  string // the account above whose token set the URL
	strict bool   // what is not sealed for the webhook is refused
	// HeldSince is since when nothing can be sent, because of what is stored of it
	// or, with HeldReason, by a fault of walhook's own side; zero for neither.
	HeldSince  time.Time
	HeldReason string
	Deleted    bool // it is kept for who looks back
	CreatedAt  time.Time
	ChangedAt  time.Time
}

// ErrNoWebhook says that an account has no webhook with that id.
var ErrNoWebhook = errors.New("webhook not found")

// ErrUnreadable says that what is stored of a webhook cannot be read, and so not
// be written back.
var ErrUnreadable = errors.New("the webhook's stored data cannot be read: the operator finds out where with 'walhook doctor'")

const (
	webhookColumns = `id, revision, account, webhook, name, coalesce(url, ''), state, reason, disabled_by, ` + alsoColumns + `,
		http_verb, hook, object_type, object_action, schemas, types, target, target_id, format, retries, rate_limit, batch,
		custom_data::text, header_names, header_values, include_subaccounts, include_internal_legs, delivery,
		extract(epoch FROM daily_at)::float8, daily_zone, created_at, ` + shownChangedSQL + `, set_by, deleted_at IS NOT NULL, initial_state, subject_prefix, ` + seal.StrictSQL + `, ` + seal.StrictURLSQL

	listWebhooksSQL = `SELECT ` + webhookColumns + ` FROM walhook.endpoint
		WHERE account = $1 AND deleted_at IS NULL AND id > $2 ORDER BY id LIMIT $3`

	webhookSQL = `SELECT ` + webhookColumns + ` FROM walhook.endpoint
		WHERE account = $1 AND webhook = $2 AND deleted_at IS NULL`

	// What was deleted before its account ended is not the next one's of that id.
	keptWebhookSQL = `SELECT ` + webhookColumns + ` FROM walhook.endpoint
		WHERE account = $1 AND webhook = $2 AND (deleted_at IS NULL OR ended_at IS NULL)`
)

// Webhooks lists an account's webhooks whose Endpoint is larger than after, in
// that order, which is the one they were made in.
func (a *Admin) Webhooks(ctx context.Context, account string, after int64, limit int) ([]Webhook, error) {
	rows, err := a.pool.Query(ctx, listWebhooksSQL, account, after, limit)
	var list []Webhook
	if err == nil {
		list, err = a.collectWebhooks(ctx, rows)
	}
	if err == nil {
		err = a.showHeldWebhooks(ctx, list)
	}
	if err != nil {
		return nil, fmt.Errorf("list the webhooks of account %s: %w", account, err)
	}
	return list, nil
}

// collectWebhooks reads webhooks, of a damaged one what can be read.
func (a *Admin) collectWebhooks(ctx context.Context, rows pgx.Rows) ([]Webhook, error) {
	var bad []badRow
	list, err := collectEach(rows, a.scanWebhook, func(w *Webhook, cause error) {
		w.State, w.DisableReason = outbox.EndpointUnusable, outbox.ReasonUnreadable
		bad = append(bad, badRow{w.Endpoint, cause})
	})
	for _, b := range bad {
		a.store.SetAsideRow(ctx, "webhooks", strconv.FormatInt(b.id, 10), b.id, b.cause)
	}
	return list, err
}

// Webhook reads one webhook as it stands, of a damaged one what can be read.
// [ErrNoWebhook] when there is none.
func (a *Admin) Webhook(ctx context.Context, account, id string) (Webhook, error) {
	return a.oneWebhook(ctx, webhookSQL, account, id)
}

// KeptWebhook is Webhook for who looks back: also one that was deleted, as long as
// something of it is kept.
func (a *Admin) KeptWebhook(ctx context.Context, account, id string) (Webhook, error) {
	return a.oneWebhook(ctx, keptWebhookSQL, account, id)
}

func (a *Admin) oneWebhook(ctx context.Context, sql, account, id string) (Webhook, error) {
	rows, err := a.pool.Query(ctx, sql, account, id)
	var list []Webhook
	if err == nil {
		list, err = a.collectWebhooks(ctx, rows)
	}
	if err == nil && len(list) == 0 {
		err = ErrNoWebhook
	}
	if err == nil {
		err = a.showHeldWebhooks(ctx, list)
	}
	if err != nil {
		return Webhook{}, fmt.Errorf("read webhook %s of account %s: %w", id, account, err)
	}
	return list[0], nil
}

func heldLanesSQL() string {
	return `
	SELECT l.endpoint, ` + outbox.SinceSQL("l.held_since") + ` FROM walhook.lane l JOIN walhook.endpoint p ON p.id = l.endpoint
	WHERE l.endpoint = ANY ($1) AND l.held_since IS NOT NULL AND l.revision >= p.revision`
}

// reasonOwnFault is what an account reads of a fault of walhook's own side. What
// it is is the operator's alone.
const reasonOwnFault = "an error on the sending side, of which the operator is notified: nothing is lost, and nothing counts against this webhook"

// showHeldWebhooks shows webhooks as their senders have them.
func (a *Admin) showHeldWebhooks(ctx context.Context, list []Webhook) error {
	ids := make([]int64, len(list))
	for i := range list {
		ids[i] = list[i].Endpoint
	}
	held, err := a.store.HeldReasons(ctx, ids)
	for i := range list {
		w := &list[i]
		if reason, is := held[w.Endpoint]; is && w.State == outbox.EndpointActive {
			w.State, w.DisableReason, w.HeldSince = outbox.EndpointUnusable, reason.Text, reason.Since
		}
	}
	if err != nil {
		return err
	}
	rows, err := a.pool.Query(ctx, heldLanesSQL(), ids)
	var id int64
	var since time.Time
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id, &since}, func() error {
			w := &list[slices.Index(ids, id)]
			if w.State == outbox.EndpointActive {
				w.HeldSince, w.HeldReason = since, reasonOwnFault
			}
			return nil
		})
	}
	return err
}

func (a *Admin) scanWebhook(row pgx.CollectableRow) (w Webhook, err error) {
	var custom *string
	var dailyAt float64
	var strictURL bool
	var names, values []string
	err = row.Scan(&w.Endpoint, &w.Revision, &w.Account, &w.ID, &w.Name, &w.URL, &w.State, &w.DisableReason, &w.DisabledBy, &w.AlsoDisabledBy, &w.AlsoDisableReason,
		&w.HTTPVerb, &w.Hook, &w.ObjectType, &w.ObjectAction, &w.Schemas, &w.Types, &w.Target, &w.TargetID, &w.Format, &w.Retries, &w.RateLimit, &w.Batch,
		&custom, &names, &values, &w.IncludeSubaccounts, &w.IncludeInternalLegs, &w.Delivery,
		&dailyAt, &w.DailyZone, &w.CreatedAt, &w.ChangedAt, &w.setBy, &w.Deleted, &w.InitialState, &w.SubjectPrefix, &w.strict, &strictURL)
	if custom != nil {
		w.CustomData = []byte(*custom)
	}
	w.DailyAt = time.Duration(dailyAt) * time.Second
	w.Enabled = w.DisabledBy == ""
	if err != nil {
		return w, err
	}
	if text, bad := a.secrets.OpenURL(w.URL, seal.Holder{Account: w.Account, Webhook: w.ID}, strictURL); bad != nil {
		w.unopened = w.URL // shown without it, and stored as it is until it is another
	} else {
		w.URL = text
	}
	w.Headers = storedHeaders(w.URL, names, values)
	return w, nil
}

// Masked is how people see what is stored and not shown, and how they send it back to keep
// it: user name and password of a URL, its query, and the value of a header.
const Masked = "…"

// Unmask is the URL that a client means by one in which it left user name and password, or
// the query, as they are shown: they stay as they are stored, user name and password for
// the host that they are for, and a query for its path, too. fault says for people why that
// cannot be; "" where it can, and for a URL without the mask.
func (w *Webhook) Unmask(text string) (whole, fault string) {
	if w.URL != "" && w.IsShown(text) {
		return w.URL, ""
	}
	rest, hidden := withoutMaskedQuery(text)
	if !hidden {
		return w.unmaskUser(text)
	}
	const again = ": write the query again, or omit it"
	at := strings.IndexAny(w.URL, queryBegins)
	if at < 0 || w.unopened != "" {
		return "", "has " + Masked + " for its query, but none is stored" + again
	}
	if whole, fault = w.unmaskUser(rest); fault != "" {
		return "", fault
	}
	to, err := address.Parse(whole)
	stored, unread := address.Parse(w.URL[:at])
	switch {
	case err != nil || unread != nil:
		return "", "cannot be read" + again
	case isOtherHost(stored, to) || cmp.Or(to.EscapedPath(), "/") != cmp.Or(stored.EscapedPath(), "/"):
		return "", "has another host, port or path than the stored query, which " + Masked + " stands for" + again
	case isDowngrade(stored, to):
		return "", "would send in clear text the query that " + Masked + " stands for" + again
	}
	return whole + w.URL[at:], ""
}

// unmaskUser is Unmask for user name and password alone.
func (w *Webhook) unmaskUser(text string) (whole, fault string) {
	before, after, hidden := strings.Cut(text, "://"+Masked+"@")
	if !hidden {
		before, after, hidden = strings.Cut(text, "://"+encodedMask+"@")
	}
	if !hidden || strings.ContainsAny(before, "/?#@") {
		return text, ""
	}
	const again = ": write user name and password again, or omit them"
	to, err := url.Parse(before + "://" + after)
	stored, unread := url.Parse(w.URL)
	switch {
	case err != nil || to.User != nil:
		return "", "cannot be read" + again
	case w.URL == "" || w.unopened != "" || unread != nil || stored.User == nil:
		return "", "has " + Masked + " for user name and password, but none are stored" + again
	case isOtherHost(stored, to):
		return "", "has another host or port than the stored user name and password, which " + Masked + " stands for" + again
	case isDowngrade(stored, to):
		return "", "would send in clear text the user name and password that " + Masked + " stands for" + again
	}
	return before + "://" + stored.User.String() + "@" + after, ""
}

// encodedMask is Masked as programs that encode a URL send it back.
const encodedMask = "%E2%80%A6"

// queryBegins are the characters at which what follows a URL's path begins.
const queryBegins = "?#"

// withoutQuery is a shown URL with the mask in place of its query and fragment.
func withoutQuery(shown string) string {
	if at := strings.IndexAny(shown, queryBegins); at >= 0 {
		return shown[:at] + "?" + Masked
	}
	return shown
}

// withoutMaskedQuery is a URL up to its query, and whether that is the mask.
func withoutMaskedQuery(text string) (rest string, hidden bool) {
	for _, mask := range []string{Masked, encodedMask} {
		rest, hidden = strings.CutSuffix(text, "?"+mask)
		if hidden && !strings.ContainsAny(rest, queryBegins) {
			return rest, true
		}
	}
	return text, false
}

// isOtherHost reports whether what is stored for one URL is not for the host or the port of
// another. The default port of https is that of http too.
func isOtherHost(stored, to *url.URL) bool {
	return !strings.EqualFold(to.Hostname(), stored.Hostname()) || portOf(to) != portOf(stored) && !(to.Port() == "" && stored.Port() == "")
}

// isDowngrade reports whether what was set for https would be sent without it.
func isDowngrade(stored, to *url.URL) bool {
	return strings.EqualFold(stored.Scheme, "https") && !strings.EqualFold(to.Scheme, "https")
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
}

// ShownURLTo is the URL as a caller is shown it. One that acts as an account above the
// webhook's own sees no query either, since that too may hold what only the account knows.
func (w *Webhook) ShownURLTo(by Caller) string {
	if by.above(w.Account) != "" {
		return withoutQuery(w.ShownURL())
	}
	return w.ShownURL()
}

// IsShown reports whether a text is the URL as somebody is shown it.
func (w *Webhook) IsShown(text string) bool {
	return text == w.ShownURL() || text == withoutQuery(w.ShownURL())
}

// ShownURL is the URL without user name and password, which are shown nowhere.
// The account that set it is shown the rest. What cannot be read, and so may
// hold them anywhere, is not shown at all.
func (w *Webhook) ShownURL() string {
	u, err := address.Parse(w.URL)
	switch {
	case w.URL == "":
		return ""
	case err != nil || u.Host == "":
		return address.Redact(w.URL)
	case u.User == nil:
		return w.URL
	}
	u.User = nil
	return strings.Replace(u.String(), "://", "://…@", 1)
}
