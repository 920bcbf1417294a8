package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

// One bad item stops nobody. Every loop that serves many works on a batch; where
// that fails because of its data, [isolate] halves it until the item is alone.
// The loop then sets that item aside, as loops says, and continues with the rest.

// loop is a loop that serves many.
type loop string

// The loops that serve many.
const (
	loopAppend    loop = "append"
	loopAccounts  loop = "accounts"
	loopWebhooks  loop = "webhooks"
	loopEndpoints loop = "endpoints"
	loopHandover  loop = "handover"
	loopTail      loop = "tail"
	loopRetries   loop = "retries"
	loopSettle    loop = "settle"
	loopLanes     loop = "lanes"
	loopInbox     loop = "inbox"
	loopReplay    loop = "replay"
	loopResync    loop = "resync"
	loopDays      loop = "days"
	loopRetention loop = "retention"
	loopMaintain  loop = "maintenance"
	loopLists     loop = "lists"

	loopDescriptions loop = "descriptions"
)

// The reasons for which an item is set aside.
const (
	asideUnstorable = "unstorable"  // the outbox's server refuses to store it
	asideUnreadable = "unreadable"  // what is stored cannot be read
	asideSecret     = "secret"      // a secret cannot be decrypted
	asideHost       = "host"        // nothing may be sent to a URL's host or port, or it is none
	asideForm       = "secret_form" // the secret in the account's column is none that can be signed with
)

// loops says what each loop sets aside, and what becomes of it. A test goes
// through it and puts a bad item into each.
func loops() map[loop]string {
	return map[loop]string{
		loopAppend:    "a change: listed as unrouted with the reason unstorable",
		loopAccounts:  "an account's stored secret, parent account, columns or token: treated as not seen yet",
		loopWebhooks:  "a webhook: it gets no new events until it can be read",
		loopEndpoints: "an endpoint: held, its events are kept until retention ends",
		loopHandover:  "a lane's stored state: the lane is read again from its cursor, or from its oldest event",
		loopTail:      "an event: a dead letter with the reason unreadable",
		loopRetries:   "an event in retry: a dead letter with the reason unreadable",
		loopSettle:    "an attempt: its texts are replaced; if that does not help its event is a dead letter",
		loopLanes:     "a lane's state: only its cursor is stored",
		loopInbox:     "an event of the inbox: skipped and listed here",
		loopReplay:    "a request: ended with its reason",
		loopResync:    "a row of a resync: left out of it",
		loopDays:      "a day of a webhook: its counts are kept, for an operator",
		loopRetention: "an expired event: a dead letter with the reason unreadable; a lane that cannot be written: its partition of the event log is kept",
		loopMaintain:  "one step of maintenance: the others run",
		loopLists:     "a row of a list: shown as far as it can be read",

		loopDescriptions: "a table description: changes of that time are read by the present description, or listed as unrouted",
	}
}

func asideReasons() []string {
	return []string{asideUnstorable, asideUnreadable, asideSecret, asideForm, asideHost}
}

// isolate works on all items at once. Where that fails because of their data it
// works on halves, in order, until the item is alone, which alone disposes of.
// Any other error ends it, and so does an error of alone.
func isolate[T any](items []T, bad func(error) bool, work func([]T) error, alone func(T, error) error) error {
	err := work(items)
	switch {
	case err == nil || len(items) == 0 || !bad(err):
		return err
	case len(items) == 1:
		return alone(items[0], err)
	}
	half := len(items) / 2
	if err := isolate(items[:half], bad, work, alone); err != nil {
		return err
	}
	return isolate(items[half:], bad, work, alone)
}

// isDataFault says whether the server refused a statement because of the values
// in it: trying again does not help, and another item may be well. What was
// refused is rolled back for certain.
func isDataFault(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return isUnencodable(err)
	}
	if len(pgErr.Code) != 5 {
		return false
	}
	switch pgErr.Code[:2] {
	case "21", "22", "44", "54": // cardinality, data, check option, a limit of the server
		return true
	case "23":
		// A row for which there is no partition violates no constraint that has
		// a name: it is the partition that is missing.
		return pgErr.ConstraintName != "" || pgErr.ColumnName != "" || pgErr.Code == "23000"
	}
	switch pgErr.Code {
	case "42804", "42846", "42P22": // datatype mismatch, cannot coerce, collation
		return true
	}
	return false
}

// isUnencodable says that a value does not fit the type of its parameter, so that
// nothing was sent.
func isUnencodable(err error) bool {
	if _, batch := errors.AsType[pgx.ErrPreprocessingBatch](err); !batch {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return !network && !pgconn.SafeToRetry(err) && !pgconn.Timeout(err) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// isReadFault says the same of a statement that only reads. A damaged row is one
// item there; on writing, damage would be an index's, and so everybody's.
func isReadFault(err error) bool {
	if isDataFault(err) {
		return true
	}
	if _, scan := errors.AsType[pgx.ScanArgError](err); scan {
		return true
	}
	if _, bad := errors.AsType[*badItem](err); bad {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "XX000" || pgErr.Code == "XX001" || pgErr.Code == "XX002")
}

// withoutValues describes an error without any value that it may quote.
func withoutValues(err error) string {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if scan, ok := errors.AsType[pgx.ScanArgError](err); ok {
			return "column " + scan.FieldName + " contains a value that cannot be read"
		}
		if reading, ok := errors.AsType[*badItem](err); ok {
			return reading.what
		}
		return "it cannot be read"
	}
	var text strings.Builder
	text.WriteString("SQLSTATE " + pgErr.Code)
	for _, part := range [][2]string{{"constraint", pgErr.ConstraintName}, {"table", pgErr.TableName}, {"column", pgErr.ColumnName}} {
		if part[1] != "" {
			text.WriteString(", " + part[0] + " " + part[1])
		}
	}
	return text.String()
}

// badItem is an item that this process itself cannot make sense of. What it says
// holds no value of the item.
type badItem struct {
	reason string
	what   string
}

func (e *badItem) Error() string { return e.what }

// maxAsideKnown bounds how many items are remembered, so that each is counted
// and logged once.
const maxAsideKnown = 10_000

// aside remembers what is set aside at the moment.
type aside struct {
	mu    sync.Mutex
	known map[asideKey]string // the reason
}

type asideKey struct {
	loop loop
	item string
}

// any says whether there is anything that may be well again.
func (a *aside) any() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.known) > 0
}

// reason says why an item is set aside, as far as this process knows; "" where it
// is not.
func (a *aside) reason(l loop, item string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known[asideKey{l, item}]
}

func (a *aside) begins(k asideKey, reason string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[k] == reason {
		return false
	}
	if len(a.known) >= maxAsideKnown || a.known == nil {
		a.known = map[asideKey]string{}
	}
	a.known[k] = reason
	return true
}

func (a *aside) ends(k asideKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.known[k]
	delete(a.known, k)
	return known
}

const (
	setAsideSQL = `
		INSERT INTO walhook.set_aside AS a (loop, item, endpoint, reason, detail) VALUES ($1, $2, nullif($3::bigint, 0), $4, $5)
		ON CONFLICT (loop, item) DO UPDATE SET reason = excluded.reason, detail = excluded.detail,
			last_at = clock_timestamp(), times = a.times + 1`

	wellAgainSQL = `DELETE FROM walhook.set_aside WHERE loop = $1 AND item = $2`

	asideSQL = `SELECT loop, item, coalesce(reason, '') FROM walhook.set_aside ORDER BY last_at DESC LIMIT $1`

	// An endpoint that is held is what its row here says, for as long as it is.
	forgetAsideSQL = `
		DELETE FROM walhook.set_aside a WHERE last_at < statement_timestamp() - $1::interval
			AND NOT (loop = 'endpoints' AND EXISTS (SELECT FROM walhook.endpoint e WHERE e.id = a.endpoint AND e.deleted_at IS NULL))`
)

// setAside records an item that a loop skips: in the logs, in
// walhook_items_set_aside_total and for doctor. endpoint is 0 where there is
// none. It says whether it is noted down.
func (s *Store) setAside(ctx context.Context, l loop, item string, endpoint int64, reason string, cause error) (noted bool) {
	item = inASCII(item)
	if !s.aside.begins(asideKey{l, item}, reason) {
		return true
	}
	s.metrics.setAside.WithLabelValues(string(l), reason).Inc()
	detail := withoutValues(cause)
	s.log.Error("item set aside, the others continue", zap.String("loop", string(l)), zap.String("item", item),
		zap.Int64("endpoint", endpoint), zap.String("reason", reason), zap.String("detail", detail))
	if _, err := s.pool.Exec(ctx, setAsideSQL, string(l), item, endpoint, reason, inASCII(detail)); err != nil {
		s.log.Warn("cannot record an item that was set aside", zap.Error(err))
		s.aside.ends(asideKey{l, item}) // and is noted when it is met again
		return false
	}
	return true
}

// setAsideAgain is setAside for loops that leave out what is noted down. They
// meet only what is not, be it that an operator took it off the list.
func (s *Store) setAsideAgain(ctx context.Context, l loop, item string, endpoint int64, reason string, cause error) (noted bool) {
	s.aside.ends(asideKey{l, inASCII(item)})
	return s.setAside(ctx, l, item, endpoint, reason, cause)
}

// wellAgain ends what setAside began, where this process knows of it.
func (s *Store) wellAgain(ctx context.Context, l loop, item string) {
	if !s.aside.any() {
		return
	}
	item = inASCII(item)
	if !s.aside.ends(asideKey{l, item}) {
		return
	}
	s.log.Info("item that was set aside is usable again", zap.String("loop", string(l)), zap.String("item", item))
	if _, err := s.pool.Exec(ctx, wellAgainSQL, string(l), item); err != nil {
		s.log.Warn("cannot record that an item is no longer set aside", zap.Error(err))
	}
}

// loadAside learns what is set aside, by whichever process.
func (s *Store) loadAside(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, asideSQL, maxAsideKnown)
	known := map[asideKey]string{}
	var k asideKey
	var reason string
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&k.loop, &k.item, &reason}, func() error {
			known[k] = reason
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read the items set aside: %w", err)
	}
	s.aside.mu.Lock()
	defer s.aside.mu.Unlock()
	s.aside.known = known
	return nil
}

func heldReasonsSQL() string {
	return `
		SELECT endpoint, coalesce(reason, ''), coalesce(detail, ''), ` + SinceSQL("first_at") + `
		FROM walhook.set_aside WHERE loop = 'endpoints' AND endpoint = ANY ($1)`
}

// heldReasons says why endpoints are held, those of them that are.
func (s *Store) heldReasons(ctx context.Context, ids []int64) (map[int64]HeldReason, error) {
	rows, err := s.pool.Query(ctx, heldReasonsSQL(), ids)
	held := map[int64]HeldReason{}
	var id int64
	var reason, detail string
	var since time.Time
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id, &reason, &detail, &since}, func() error {
			held[id] = HeldReason{heldText(reason, detail), since}
			return nil
		})
	}
	return held, err
}

// heldText is a reason for which an endpoint is set aside, for people.
func heldText(reason, detail string) string {
	switch reason {
	case asideHost:
		return detail
	case asideSecret:
		return reasonSecret
	case asideForm:
		return reasonForm
	}
	return ReasonUnreadable
}

// ReasonUnreadable is what people read of an endpoint whose row is damaged.
const ReasonUnreadable = "its stored data cannot be read: 'walhook doctor' says where"

// maxAsideText bounds what is noted of an item.
const maxAsideText = 500

// inASCII writes a text so that every server can store it and an index hold it.
func inASCII(text string) string {
	text = text[:min(len(text), maxAsideText)]
	var b strings.Builder
	for _, r := range text {
		if r < ' ' || r > '~' {
			fmt.Fprintf(&b, `\u{%X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// AsideEndpointsSQL are the endpoints that are held because of what is stored of
// them.
const AsideEndpointsSQL = `SELECT endpoint, min(first_at) AS since FROM walhook.set_aside WHERE loop = 'endpoints' GROUP BY endpoint`

// SinceSQL is a time since when something is so. One that is none counts from
// now: a single row would make the whole list unreadable.
func SinceSQL(since string) string {
	return "CASE WHEN " + since + " BETWEEN '2000-01-01Z' AND clock_timestamp() THEN " + since + " ELSE clock_timestamp() END"
}
