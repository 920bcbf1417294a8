package admin

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Act is a line of the audit: who did what, when, to which account and webhook. It holds
// no secret, no body and no URL.
type Act struct {
	ID        int64
	At        time.Time
	Actor     string
	Action    string // one of [Actions]
	Account   string // "" for no single one
	Webhook   string // its id, "account" for the account's own; "" for none
	RequestID string // of the API's request, as in the logs
	Detail    string // for people
}

// The actions.
const (
	actWebhookCreated  = "webhook created"
	actWebhookEdited   = "webhook edited"
	actWebhookDeleted  = "webhook deleted"
	actWebhookEnabled  = "webhook enabled"
	actWebhookDisabled = "webhook disabled"
	actOrdering        = "ordering changed"
	actSecretRotated   = "secret rotated"
	actReplay          = "replay"
	actReplayCancelled = "replay cancelled"
	actResync          = "resync"
	actRetry           = "retry"
	actTokenCreated    = "token created"
	actTokenDeleted    = "token deleted"
	actHeld            = "account held"
	actHostHeld        = "host held"
	actReleased        = "account released"
	actHostReleased    = "host released"
	actPortalLink      = "portal link created"
	actPortalEntered   = "portal entered"
	actResealed        = "secrets encrypted"
	actFeedAdded       = "feed added"
	actFeedChanged     = "feed changed"
	actFeedRemoved     = "feed removed"
	actFeedEnabled     = "feed enabled"
	actFeedDisabled    = "feed disabled"

	ActSecretRead    = "secret read"
	ActWebhookTested = "webhook tested"
	ActSetup         = "setup"
	ActTeardown      = "teardown"
	ActDoctor        = "doctor run"
)

// Actions lists every action.
func Actions() []string {
	return []string{
		actWebhookCreated, actWebhookEdited, actWebhookDeleted, actWebhookEnabled, actWebhookDisabled, ActWebhookTested, actOrdering,
		ActSecretRead, actSecretRotated, actReplay, actReplayCancelled, actResync, actRetry, actTokenCreated, actTokenDeleted,
		actHeld, actHostHeld, actReleased, actHostReleased, actPortalLink, actPortalEntered, actResealed, actFeedAdded, actFeedChanged, actFeedRemoved, actFeedEnabled, actFeedDisabled, ActSetup, ActTeardown, ActDoctor,
	}
}

// Actor is who stands in the audit for what is done with a context.
type Actor struct {
	Name      string
	RequestID string
	Detail    string // of the one change that the context is for
}

// operatorActor is who acts where a context names nobody.
const operatorActor = "operator"

type actorKey struct{}

// WithActor returns a context for what somebody does.
func WithActor(ctx context.Context, by Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, by)
}

// WithDetail returns a context for one change, about which the audit says more.
func WithDetail(ctx context.Context, detail string) context.Context {
	by := actorOf(ctx)
	by.Detail = detail
	return WithActor(ctx, by)
}

func actorOf(ctx context.Context) Actor {
	by, _ := ctx.Value(actorKey{}).(Actor)
	return by
}

const writeActSQL = `
	INSERT INTO walhook.audit (actor, action, account, webhook, request_id, detail) VALUES ($1, $2, $3, $4, $5, $6)`

// executor is a transaction, or the pool where there is none.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// auditTx writes a line of the audit, in the transaction of what it tells of.
func auditTx(ctx context.Context, tx executor, act Act) error {
	by := actorOf(ctx)
	for _, of := range []struct {
		to *string
		or string
	}{{&act.Actor, by.Name}, {&act.Actor, operatorActor}, {&act.RequestID, by.RequestID}, {&act.Detail, by.Detail}} {
		if *of.to == "" {
			*of.to = of.or
		}
	}
	_, err := tx.Exec(ctx, writeActSQL, oneLine(act.Actor, maxActText), act.Action, act.Account, act.Webhook, oneLine(act.RequestID, maxActText), oneLine(act.Detail, maxActText))
	if err != nil {
		return fmt.Errorf("write the audit: %w", err)
	}
	return nil
}

// maxActText bounds each text of a line, in bytes.
const maxActText = 500

// oneLine cuts a text and replaces what a list in a terminal or a log cannot show.
func oneLine(text string, most int) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, " "))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Audit writes a line about what changes nothing in the outbox.
func (a *Admin) Audit(ctx context.Context, act Act) error { return auditTx(ctx, a.pool, act) }

// change runs f in a transaction that also writes act, which f may complete. Without an
// action nothing has changed, and nothing is written.
func (a *Admin) change(ctx context.Context, act *Act, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		if err := f(tx); err != nil || act.Action == "" {
			return err
		}
		return auditTx(ctx, tx, *act)
	})
}

// ActFilter selects lines of the audit; what is zero selects all.
type ActFilter struct {
	Account, Actor, Action string
	Since, Until           time.Time // from Since on, before Until
}

// ActKey is the place of a line in the list.
type ActKey struct {
	At time.Time `json:"at"`
	ID int64     `json:"id"`
}

// Key is the line's place.
func (act *Act) Key() ActKey { return ActKey{act.At, act.ID} }

// Acts lists the audit, the newest first, from behind the line before on; nil begins with
// the newest.
func (a *Admin) Acts(ctx context.Context, f ActFilter, before *ActKey, limit int) (list []Act, err error) {
	where, args := []string{"true"}, []any{limit}
	add := func(condition string, values ...any) {
		for _, value := range values {
			args = append(args, value)
			condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(args)), 1)
		}
		where = append(where, condition)
	}
	for _, one := range []struct{ column, value string }{{"account", f.Account}, {"actor", f.Actor}, {"action", f.Action}} {
		if one.value != "" {
			add(one.column+" = ?", one.value)
		}
	}
	if !f.Since.IsZero() {
		add("at >= ?", f.Since)
	}
	if !f.Until.IsZero() {
		add("at < ?", f.Until)
	}
	if before != nil {
		add("(at, id) < (?, ?)", before.At, before.ID)
	}
	sql := `SELECT id, at, actor, action, account, webhook, request_id, detail FROM walhook.audit
		WHERE ` + strings.Join(where, " AND ") + ` ORDER BY at DESC, id DESC LIMIT $1`
	err = a.byIndex(ctx, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, sql, args...) // rows have its error
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (act Act, err error) {
			return act, row.Scan(&act.ID, &act.At, &act.Actor, &act.Action, &act.Account, &act.Webhook, &act.RequestID, &act.Detail)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the audit: %w", err)
	}
	return list, nil
}
