package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/seal"
)

// MaxWebhooks is how many webhooks an account may have besides its own.
const MaxWebhooks = 100

// ErrTooManyWebhooks says that an account has [MaxWebhooks] already.
var ErrTooManyWebhooks = fmt.Errorf("an account may have %d webhooks", MaxWebhooks)

// ErrHeldByOperator says that an operator disabled a webhook, which is not the
// account's to undo.
var ErrHeldByOperator = errors.New("an operator disabled it, and only an operator can enable it")

// reasonDeleted and reasonAccount are what people read of such a webhook.
const (
	reasonDeleted = "the webhook was deleted"
	reasonAccount = "disabled by the account"
)

const (
	countWebhooksSQL = `SELECT count(*) FROM walhook.endpoint WHERE account = $1 AND webhook <> 'account' AND deleted_at IS NULL`

	// Nothing that was appended before is for it.
	createWebhookSQL = `
		INSERT INTO walhook.endpoint (account, webhook, secret, state, reason, disabled_by, disabled_reason, ordering)
		VALUES ($1, $2, $3, 'disabled', 'not yet', 'walhook', '', ` + outbox.OrderingOfSQL + `) RETURNING id`

	lockWebhookSQL = webhookSQL + ` FOR UPDATE`

	writeWebhookSQL = `
		UPDATE walhook.endpoint SET name = $2, url = nullif($3, ''),
			http_verb = $4, hook = $5, object_type = $6, object_action = $7, schemas = $8, types = $9,
			target = $10, target_id = $11, format = $12, retries = $13, rate_limit = $14, custom_data = $15::text::json, header_names = $23, header_values = $24,
			include_subaccounts = $16, include_internal_legs = $17, delivery = $18, daily_at = $19, daily_zone = $20, set_by = $21, initial_state = $22, subject_prefix = $25, batch = $26,
			` + outbox.ChangedInSQL + `, revision = ` + outbox.NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1`

	// After that, and of the same revision.
	webhookDisabledBySQL = `UPDATE walhook.endpoint SET ` + outbox.DisabledBySQL + ` WHERE id = $1`

	// After it, of what an operator has disabled.
	webhookAlsoByAccountSQL = `UPDATE walhook.endpoint SET ` + outbox.AlsoByAccountSQL + ` WHERE id = $1`
	webhookAlsoMovedSQL     = `UPDATE walhook.endpoint SET ` + outbox.AlsoMovedSQL + ` WHERE id = $1`

	// No event is for it any more, whichever id a running append gives it.
	deleteWebhookSQL = `
		UPDATE walhook.endpoint SET ` + outbox.DeletedSQL + `$2, feed_from = $3,
			` + outbox.ChangedInSQL + `, revision = ` + outbox.NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1`
)

// CreateWebhook stores a webhook and answers it as it stands, with its id and a
// signing secret of its own. It gets what is appended from then on. With a key in
// once, answer writes what is answered; the zero Once has none. [ErrTooManyWebhooks]
// when the account may not have another, [ErrAccountEnded] when there is none of that
// id any more, [ErrCallerGone] when w.By may not; with a key also [*AnsweredError],
// [ErrOnceRunning], [ErrOnceDiffers], [ErrOnceSealed] and [ErrOnceFull].
func (a *Admin) CreateWebhook(ctx context.Context, w Webhook, once Once, answer func(Webhook) ([]byte, error)) (Webhook, error) {
	w.ID = newWebhookID()
	err := a.change(ctx, &Act{Action: actWebhookCreated, Account: w.Account, Webhook: w.ID}, func(tx pgx.Tx) error {
		return a.onceTx(ctx, tx, w.By, w.Account, once, func() ([]byte, error) {
			err := changeWebhooksTx(ctx, tx, func() error { return a.createWebhookTx(ctx, tx, &w) })
			if err != nil || answer == nil {
				return nil, err
			}
			return answer(w)
		})
	})
	if err != nil {
		return Webhook{}, fmt.Errorf("create a webhook of account %s: %w", w.Account, err)
	}
	if w.InitialState {
		a.store.NotifyRequest()
	}
	return w, nil
}

func (a *Admin) createWebhookTx(ctx context.Context, tx pgx.Tx, w *Webhook) error {
	if err := admitNewTx(ctx, tx, w.By, w.Account); err != nil { // before any endpoint
		return err
	}
	w.URL = a.store.URL(w.URL)
	if err := outbox.CheckHeld(ctx, tx, w.URL, w.By.holders(w.Account)...); err != nil {
		return err
	}
	var n int
	if err := tx.QueryRow(ctx, countWebhooksSQL, w.Account).Scan(&n); err != nil {
		return err
	}
	if n >= MaxWebhooks {
		return ErrTooManyWebhooks
	}
	if err := tx.QueryRow(ctx, createWebhookSQL, w.Account, w.ID, a.secrets.Seal(seal.NewSecret(), seal.Holder{Account: w.Account, Webhook: w.ID})).Scan(&w.Endpoint); err != nil {
		return err
	}
	w.DisabledBy, w.setBy = "", w.By.above(w.Account)
	if w.Enabled {
		w.DisabledBy = outbox.ByWalhook // until it has its URL, as createWebhookSQL says
	}
	if err := a.writeWebhookTx(ctx, tx, w); err != nil {
		return err
	}
	if err := urlSetTx(ctx, tx, w); err != nil {
		return err
	}
	return a.readWebhookTx(ctx, tx, webhookSQL, w)
}

// EditWebhook lets change say what becomes of a webhook, while nobody else can
// change it, and answers it as it stands then. Enabled sends what was held
// first; [ErrHeldByOperator] when an operator disabled it, unless by is one. The
// URL of an account's own webhook is not written. [ErrNoWebhook] when there is
// none, [ErrAccountEnded] when its account ended, [ErrCallerGone] when by may not; an error of change is returned as it is.
func (a *Admin) EditWebhook(ctx context.Context, by Caller, account, id string, change func(*Webhook) error) (Webhook, error) {
	return a.editWebhook(ctx, by, account, id, &Act{Action: actWebhookEdited}, func(_ pgx.Tx, w *Webhook) error { return change(w) })
}

func (a *Admin) editWebhook(ctx context.Context, by Caller, account, id string, act *Act, change func(pgx.Tx, *Webhook) error) (Webhook, error) {
	act.Account, act.Webhook = account, id
	w := Webhook{Account: account, ID: id}
	notify := false
	err := a.changeWebhooks(ctx, act, func(tx pgx.Tx) error {
		if err := outbox.LockAccountsTx(ctx, tx); err != nil { // before any endpoint
			return err
		}
		if err := admits(ctx, tx, by, account); err != nil {
			return err
		}
		if err := a.readWebhookTx(ctx, tx, lockWebhookSQL, &w); err != nil {
			return err
		}
		if err := notEnded(ctx, tx, w.Endpoint); err != nil {
			return err
		}
		before := w
		err := change(tx, &w)
		if err != nil {
			return err
		}
		if w.Edited != "" {
			act.Detail = w.Edited
		}
		if w.URL != before.URL {
			w.URL = a.store.URL(w.URL)
		}
		moved := address.HostOf(w.URL) != address.HostOf(before.URL)
		byOperators := w.DisabledBy == outbox.ByOperator
		if w.URL != before.URL && !byOperators { // what holds it has to find it again
			w.setBy = by.above(account)
		}
		if byOperators && w.Enabled && !by.isOperator() {
			return ErrHeldByOperator
		}
		// What an account above changes while it is sent counts as its own from then on.
		acts := w.URL != before.URL || w.Enabled && (!before.Enabled || by.above(account) != "")
		if !byOperators && acts {
			if err := outbox.CheckHeld(ctx, tx, w.URL, by.holders(account)...); err != nil {
				return err
			}
		}
		ask := w.Ask
		if by.isOperator() {
			w.Enabled = before.Enabled // decided below
		}
		if w.Enabled != before.Enabled || w.URL != before.URL {
			if err := outbox.ResetLaneTx(ctx, tx, w.Endpoint); err != nil {
				return err
			}
		}
		if err := a.writeWebhookTx(ctx, tx, &w); err != nil {
			return err
		}
		if w.URL != before.URL {
			err = urlSetTx(ctx, tx, &w)
		} else {
			err = filterSetTx(ctx, tx, &before, &w)
		}
		if err != nil {
			return err
		}
		if moved && byOperators {
			if err := outbox.FollowHoldsTx(ctx, tx, account); err != nil {
				return err
			}
		}
		if byOperators {
			if err := editHeldTx(ctx, tx, &before, &w, !by.isOperator() && ask != nil && !*ask); err != nil {
				return err
			}
		}
		if by.isOperator() && ask != nil {
			notify = !*ask && before.State == outbox.EndpointActive
			if err := askTx(ctx, tx, account, id, *ask); err != nil {
				return err
			}
		}
		return a.readWebhookTx(ctx, tx, webhookSQL, &w)
	})
	if err == nil && notify {
		a.store.NotifyInbox()
	}
	if err == nil && w.InitialState {
		a.store.NotifyRequest()
	}
	if err != nil {
		return Webhook{}, fmt.Errorf("edit webhook %s of account %s: %w", id, account, err)
	}
	return w, nil
}

// editHeldTx keeps what an edit means for a webhook once an operator's word on it ends: the
// account wants it disabled, or it has another URL than the one that walhook disabled.
func editHeldTx(ctx context.Context, tx pgx.Tx, before, after *Webhook, disable bool) error {
	if after.URL != before.URL {
		if _, err := tx.Exec(ctx, webhookAlsoMovedSQL, after.Endpoint); err != nil {
			return err
		}
	}
	if !disable {
		return nil
	}
	_, err := tx.Exec(ctx, webhookAlsoByAccountSQL, after.Endpoint, reasonAccount)
	return err
}

// reasonOperator is what people read where an operator gave no reason.
const reasonOperator = "disabled by the operator"

// askTx is an operator's word on a webhook, the same as by command.
func askTx(ctx context.Context, tx pgx.Tx, account, id string, enabled bool) error {
	rows, err := tx.Query(ctx, lockEndpointSQL, account, id)
	if err != nil {
		return err
	}
	e, err := pgx.CollectExactlyOneRow(rows, scanEndpointInfo)
	switch {
	case err != nil:
	case enabled:
		_, err = enableTx(ctx, tx, e)
	default:
		_, err = disableTx(ctx, tx, e, reasonOperator)
	}
	return err
}

// DeleteWebhook ends a webhook and answers it as it stood. What was not
// delivered is not sent, but kept as expired until retention ends. may is asked
// while nobody else can change the webhook, and its error is returned as it is.
// [ErrNoWebhook] when there is none, [ErrCallerGone] when by may not; an account's
// own cannot be deleted here.
func (a *Admin) DeleteWebhook(ctx context.Context, by Caller, account, id string, may func(*Webhook) error) (Webhook, error) {
	w := Webhook{Account: account, ID: id}
	err := a.changeWebhooks(ctx, &Act{Action: actWebhookDeleted, Account: account, Webhook: id}, func(tx pgx.Tx) error {
		if err := admitTx(ctx, tx, by, account); err != nil {
			return err
		}
		if err := a.readWebhookTx(ctx, tx, lockWebhookSQL, &w); err != nil && (w.Endpoint == 0 || !errors.Is(err, ErrUnreadable)) {
			return err
		}
		if err := may(&w); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, endResyncOfSQL, w.Endpoint, reasonDeleted); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, deleteWebhookSQL, w.Endpoint, reasonDeleted, int64(math.MaxInt64))
		return err
	})
	if err != nil {
		return Webhook{}, fmt.Errorf("delete webhook %s of account %s: %w", id, account, err)
	}
	return w, nil
}

// changeWebhooks runs f in a transaction that publisher and senders learn of.
func (a *Admin) changeWebhooks(ctx context.Context, act *Act, f func(pgx.Tx) error) error {
	err := a.change(ctx, act, func(tx pgx.Tx) error {
		return changeWebhooksTx(ctx, tx, func() error { return f(tx) })
	})
	if err == nil {
		a.store.NotifyEndpoints()
	}
	return err
}

// changeWebhooksTx runs f, which stamps each webhook that it changes, once no other
// transaction changes webhooks.
func changeWebhooksTx(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, outbox.RaiseWebhooksSQL); err != nil {
		return err
	}
	return f()
}

// readWebhookTx reads one webhook. [ErrUnreadable] with what can be read of it
// when it is damaged.
func (a *Admin) readWebhookTx(ctx context.Context, tx pgx.Tx, sql string, w *Webhook) error {
	rows, err := tx.Query(ctx, sql, w.Account, w.ID)
	if err != nil {
		return err
	}
	var damage error
	list, err := collectEach(rows, a.scanWebhook, func(*Webhook, error) { damage = ErrUnreadable })
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return ErrNoWebhook
	}
	*w = list[0]
	return damage
}

// writeWebhookTx stores what w says, and the state that follows from Enabled: what
// somebody disabled already stays as it is.
func (a *Admin) writeWebhookTx(ctx context.Context, tx pgx.Tx, w *Webhook) error {
	stored := w.URL
	if stored != w.unopened {
		stored = a.secrets.SealURL(stored, seal.Holder{Account: w.Account, Webhook: w.ID})
	}
	var custom *string
	if len(w.CustomData) > 0 {
		custom = new(a.store.JSON(string(w.CustomData)))
	}
	names, values, err := a.sealHeaders(w)
	if err != nil {
		return err
	}
	dailyAt := pgtype.Time{Microseconds: int64(w.DailyAt / time.Microsecond), Valid: true}
	_, err = tx.Exec(ctx, writeWebhookSQL, w.Endpoint, w.Name, stored,
		w.HTTPVerb, w.Hook, w.ObjectType, w.ObjectAction, orEmpty(w.Schemas), orEmpty(w.Types),
		w.Target, w.TargetID, w.Format, w.Retries, w.RateLimit, custom,
		w.IncludeSubaccounts, w.IncludeInternalLegs, w.Delivery, dailyAt, w.DailyZone, w.setBy, w.InitialState, names, values, w.SubjectPrefix, w.Batch)
	switch {
	case err != nil:
	case w.Enabled && w.DisabledBy != "":
		_, err = tx.Exec(ctx, webhookDisabledBySQL, w.Endpoint, "", "")
	case !w.Enabled && w.DisabledBy == "":
		_, err = tx.Exec(ctx, webhookDisabledBySQL, w.Endpoint, outbox.ByAccount, reasonAccount)
	}
	return err
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// newWebhookID makes an id as the documents of Kazoo show them: 32 hexadecimal
// digits.
func newWebhookID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand
	return hex.EncodeToString(id[:])
}
