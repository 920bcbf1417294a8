package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// Resync asks for the present state of the records that a webhook gets (docs/CONTRACT.md
// §8). The publisher works it off.
type Resync struct {
	ID       int64
	Endpoint int64
	Schema   string // the only one whose records are sent; "" for all
	// By is who asks for it: of a token, it is refused while the account has
	// [MaxOpenResyncs] under way.
	By Caller

	// What follows is for who looks on.

	Account, Webhook string
	Kind             string // of its events: update, or insert of an initial state
	Sent             int64  // records so far
	// Total is how many records there were when it began; 0 before.
	Total     int64
	AskedAt   time.Time
	StartedAt time.Time // zero before the first record
	DoneAt    time.Time // zero while it is worked off
	Reason    string    // why it ended before its end; "" for not
}

// MaxOpenResyncs is how many resyncs an account may have under way.
const MaxOpenResyncs = 3

// ErrTooManyResyncs says that an account has [MaxOpenResyncs] under way.
var ErrTooManyResyncs = fmt.Errorf("an account may have %d resyncs in progress", MaxOpenResyncs)

// ResyncRunsError names the resync of a webhook that is under way: a second one would tell
// nothing else.
type ResyncRunsError struct{ ID int64 }

func (e *ResyncRunsError) Error() string {
	return fmt.Sprintf("resync %d of this webhook is in progress: wait until it is done", e.ID)
}

// NoRecordsError says why a webhook gets no records that a resync could send.
type NoRecordsError struct{ Why string }

func (e *NoRecordsError) Error() string { return e.Why }

// UnknownSchemaError names a schema that the catalog in force does not have.
type UnknownSchemaError struct {
	Schema string
	Known  []string
}

func (e *UnknownSchemaError) Error() string {
	return fmt.Sprintf("the catalog has no schema %q: want one of %v", e.Schema, e.Known)
}

const (
	resyncColumns = `r.id, r.endpoint, coalesce(r.schema, ''), p.account, p.webhook, r.kind, r.sent, r.total, r.asked_at, r.started_at, r.done_at, r.reason`

	resyncTargetSQL = `SELECT ` + webhookColumns + ` FROM walhook.endpoint WHERE id = $1 FOR SHARE`

	openResyncOfSQL = `SELECT id FROM walhook.resync WHERE endpoint = $1 AND done_at IS NULL`

	countResyncsSQL = `
		SELECT count(*) FROM walhook.resync r JOIN walhook.endpoint p ON p.id = r.endpoint WHERE r.done_at IS NULL AND p.account = $1`

	createResyncSQL = `
		INSERT INTO walhook.resync (endpoint, kind, schema) VALUES ($1, 'update', nullif($2, ''))
		RETURNING id, asked_at`

	// One at a time for an account, so that the count holds.
	lockResyncsSQL = `SELECT pg_advisory_xact_lock(hashtextextended('walhook resync ' || $1, 0))`

	resyncsSQL = `SELECT ` + resyncColumns + ` FROM walhook.resync r JOIN walhook.endpoint p ON p.id = r.endpoint
		WHERE r.endpoint = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3`

	resyncSQL = `SELECT ` + resyncColumns + ` FROM walhook.resync r JOIN walhook.endpoint p ON p.id = r.endpoint WHERE r.id = $1`

	openResyncsSQL = `SELECT ` + resyncColumns + ` FROM walhook.resync r JOIN walhook.endpoint p ON p.id = r.endpoint
		WHERE r.done_at IS NULL ORDER BY r.id LIMIT $1`

	endResyncOfSQL = `UPDATE walhook.resync SET done_at = clock_timestamp(), reason = $2 WHERE endpoint = $1 AND done_at IS NULL`

	countRecordsSQL = `
		WITH RECURSIVE below AS (
			SELECT $1::text AS id
			UNION
			SELECT a.id FROM walhook.account a JOIN below b ON $2 AND a.parent = b.id WHERE a.ended_in IS NULL)
		SELECT count(*) FROM walhook.owner o JOIN below b ON b.id = o.account
		WHERE o.deleted_at IS NULL AND NOT o.unknown AND NOT o.hidden AND (cardinality($3::text[]) = 0 OR o.schema = ANY ($3))`
)

// ResyncFault says why a webhook gets no record events of a type; nil where it gets them.
func (w *Webhook) ResyncFault(schema, kind string) error {
	why := ""
	switch {
	case w.Hook != HookRecords:
		why = fmt.Sprintf("the webhook has the hook %s: only records have a present state", w.Hook)
	case w.Delivery == DeliveryDaily:
		why = "the webhook has daily delivery: it gets counts, and no records"
	case len(w.Types) > 0 && !slices.Contains(w.Types, kind):
		why = fmt.Sprintf("the webhook's types leave out %s: the present state is sent as %s events", kind, kind)
	case schema != "" && len(w.Schemas) > 0 && !slices.Contains(w.Schemas, schema):
		why = fmt.Sprintf("the webhook's schemas leave out %s", schema)
	default:
		return nil
	}
	return &NoRecordsError{why}
}

// checkResync says what is wrong with a resync of a webhook.
func checkResync(w *Webhook, schema string) error {
	switch {
	case w.Deleted:
		return ErrWebhookDeleted
	case w.State == outbox.EndpointCleared || w.URL == "" && w.unopened == "" && w.Delivery != DeliveryPull:
		return ErrNothingToSendTo
	}
	return w.ResyncFault(schema, "update")
}

// checkSchema says whether the catalog in force has a schema.
func (a *Admin) checkSchema(ctx context.Context, schema string) error {
	cat, err := a.store.CatalogInForce(ctx)
	if err != nil || cat == nil || schema == "" || cat.Schema(schema) != nil {
		return err
	}
	unknown := &UnknownSchemaError{Schema: schema}
	for _, one := range cat.Schemas {
		unknown.Known = append(unknown.Known, one.Name)
	}
	return unknown
}

// countTimeout bounds how long the records of a resync are counted ahead.
const countTimeout = 3 * time.Second

// CountResync says how many records a resync of a webhook would send, by what the outbox
// knows; 0 where counting takes too long. It looks through all records of the outbox, so it
// is for operators. Its errors are those of [Admin.CreateResync] that concern the webhook.
func (a *Admin) CountResync(ctx context.Context, w *Webhook, schema string) (total int64, err error) {
	if err := a.checkSchema(ctx, schema); err != nil {
		return 0, err
	}
	if err := checkResync(w, schema); err != nil {
		return 0, err
	}
	wanted := w.Schemas
	if schema != "" {
		wanted = []string{schema}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, countTimeout, errors.New("count the records: timed out"))
	defer cancel()
	err = a.pool.QueryRow(ctx, countRecordsSQL, w.Account, w.IncludeSubaccounts, orEmpty(wanted)).Scan(&total)
	if err != nil && ctx.Err() != nil {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count the records of account %s: %w", w.Account, err)
	}
	return total, nil
}

// CreateResync stores a resync of a webhook, which the publisher works off whenever it
// runs. With a key in once, answer writes what is answered; the zero Once has none.
// [ErrNoEndpoint], [ErrWebhookDeleted] and [ErrNothingToSendTo] when there is nothing to
// send to, [*NoRecordsError], [*UnknownSchemaError], [*ResyncRunsError],
// [ErrTooManyResyncs], [ErrCallerGone] and [*outbox.HeldError], and with a key those of
// [Admin.CreateWebhook].
func (a *Admin) CreateResync(ctx context.Context, w *Webhook, r Resync, once Once, answer func(Resync) ([]byte, error)) (Resync, error) {
	if err := a.checkSchema(ctx, r.Schema); err != nil {
		return Resync{}, err
	}
	r.Endpoint, r.Account, r.Webhook, r.Kind = w.Endpoint, w.Account, w.ID, "update"
	act := &Act{Action: actResync, Account: w.Account, Webhook: w.ID}
	err := a.change(ctx, act, func(tx pgx.Tx) error {
		return a.onceTx(ctx, tx, r.By, w.Account, once, func() ([]byte, error) {
			if err := a.createResyncTx(ctx, tx, &r); err != nil {
				return nil, err
			}
			act.Detail = fmt.Sprintf("request %d, schema %s", r.ID, cmp.Or(r.Schema, "*"))
			if answer == nil {
				return nil, nil
			}
			return answer(r)
		})
	})
	if err != nil {
		return Resync{}, fmt.Errorf("request a resync: %w", err)
	}
	a.store.NotifyRequest()
	return r, nil
}

func (a *Admin) createResyncTx(ctx context.Context, tx pgx.Tx, r *Resync) error {
	if err := admitTx(ctx, tx, r.By, r.Account); err != nil {
		return err
	}
	if err := checkHeldAboveTx(ctx, tx, r.By, r.Account, r.Endpoint); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, lockResyncsSQL, r.Account); err != nil {
		return err
	}
	// Again, since now nobody changes it.
	rows, err := tx.Query(ctx, resyncTargetSQL, r.Endpoint)
	if err != nil {
		return err
	}
	list, err := collectEach(rows, a.scanWebhook, func(*Webhook, error) {})
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return ErrNoEndpoint
	}
	if err := checkResync(&list[0], r.Schema); err != nil {
		return err
	}
	var running int64
	err = tx.QueryRow(ctx, openResyncOfSQL, r.Endpoint).Scan(&running)
	if err == nil {
		return &ResyncRunsError{running}
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	var open int
	if err := tx.QueryRow(ctx, countResyncsSQL, r.Account).Scan(&open); err != nil {
		return err
	}
	if !r.By.isOperator() && open >= MaxOpenResyncs {
		return ErrTooManyResyncs
	}
	return tx.QueryRow(ctx, createResyncSQL, r.Endpoint, r.Schema).Scan(&r.ID, &r.AskedAt)
}

// Resyncs lists a webhook's resyncs with smaller ids than before, the newest first; 0
// begins with the newest.
func (a *Admin) Resyncs(ctx context.Context, endpoint, before int64, limit int) ([]Resync, error) {
	rows, err := a.pool.Query(ctx, resyncsSQL, endpoint, orNewest(before), limit)
	var list []Resync
	if err == nil {
		list, err = pgx.CollectRows(rows, scanResync)
	}
	if err != nil {
		return nil, fmt.Errorf("list resyncs of endpoint %d: %w", endpoint, err)
	}
	return list, nil
}

// Resync reads one as it stands.
func (a *Admin) Resync(ctx context.Context, id int64) (Resync, error) {
	rows, err := a.pool.Query(ctx, resyncSQL, id)
	var r Resync
	if err == nil {
		r, err = pgx.CollectExactlyOneRow(rows, scanResync)
	}
	if err != nil {
		return Resync{}, fmt.Errorf("read resync %d: %w", id, err)
	}
	return r, nil
}

// OpenResyncs lists the resyncs under way, the oldest first, at most limit.
func (a *Admin) OpenResyncs(ctx context.Context, limit int) ([]Resync, error) {
	rows, err := a.pool.Query(ctx, openResyncsSQL, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanResync)
}

func scanResync(row pgx.CollectableRow) (r Resync, err error) {
	var started, done *time.Time
	err = row.Scan(&r.ID, &r.Endpoint, &r.Schema, &r.Account, &r.Webhook, &r.Kind, &r.Sent, &r.Total, &r.AskedAt, &started, &done, &r.Reason)
	r.StartedAt, r.DoneAt = *cmp.Or(started, new(time.Time)), *cmp.Or(done, new(time.Time))
	return r, err
}

// urlSetTx has a webhook whose URL was set get the present state from its beginning, where it
// is to have that.
func urlSetTx(ctx context.Context, tx pgx.Tx, w *Webhook) error {
	b := new(pgx.Batch)
	outbox.QueueURLSet(b, w.Account, w.ID)
	return tx.SendBatch(ctx, b).Close()
}

// filterSetTx has a resync send all records again where the webhook wants records that it may
// have passed.
func filterSetTx(ctx context.Context, tx pgx.Tx, before, after *Webhook) error {
	isNew := func(schema string) bool { return !slices.Contains(before.Schemas, schema) }
	schemas := len(before.Schemas) > 0 && (len(after.Schemas) == 0 || slices.ContainsFunc(after.Schemas, isNew))
	others := after.IncludeSubaccounts && !before.IncludeSubaccounts ||
		after.Target != before.Target || after.TargetID != before.TargetID || after.Hook != before.Hook
	if !schemas && !others {
		return nil
	}
	b := new(pgx.Batch)
	outbox.QueueFilterWidened(b, after.Account, after.ID, !others)
	return tx.SendBatch(ctx, b).Close()
}
