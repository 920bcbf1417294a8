package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// Request asks for events of one endpoint to be sent again: those that were
// delivered or given up. What is still to be delivered is not sent twice.
type Request struct {
	ID       int64
	Endpoint int64
	// Since is the first commit whose events are meant; zero when WebhookIDs
	// names them.
	Since      time.Time
	WebhookIDs []string
	// Until is the newest event that is meant, by its id in the log: with Since, what a count
	// said. 0 means the newest there is.
	Until int64
	Rate  float64 // events a second, at most
	// By is who asks for it: of a token, it is refused while the account has
	// [MaxOpenRequests] under way.
	By Caller

	// What follows is for who looks on.

	Sent int64
	// Total is how many there were to send when it was asked for; countLimit
	// stands for that many or more.
	Total   int64
	AskedAt time.Time
	DoneAt  time.Time // zero while it is worked through
	Reason  string    // why it ended before its end; "" for not
}

// Bounds of a request.
const (
	MaxReplayIDs  = 1000
	MaxReplayRate = 10_000
	// ReplayCountLimit is where counting ahead ends.
	ReplayCountLimit = 10_000
	// MaxOpenRequests is how many requests an account may have under way: each shares the publisher with everybody's changes.
	MaxOpenRequests = 10
	// MinReplayRate keeps the time between two events within what can be stored.
	MinReplayRate = 0.001
)

// ErrTooManyRequests says that an account has [MaxOpenRequests] under way.
var ErrTooManyRequests = fmt.Errorf("an account may have %d replays in progress", MaxOpenRequests)

// ErrWebhookDeleted says that a webhook was deleted.
var ErrWebhookDeleted = errors.New("the webhook was deleted: nothing of it is sent again; its events and dead letters stay listed until retention ends")

// ErrNothingToSendTo says that an endpoint has no URL to send to.
var ErrNothingToSendTo = errors.New("the endpoint has no URL")

const (
	requestColumns = `r.id, r.endpoint, r.since, coalesce(r.webhook_ids, '{}'), r.rate, r.sent, r.total, r.asked_at, r.done_at, r.reason`

	createRequestSQL = `
		INSERT INTO walhook.request AS r (endpoint, since, webhook_ids, rate, until_id, total) VALUES ($1, $2, $3, $4, $5, $6)
		RETURNING ` + requestColumns

	// One at a time for an account, so that the count holds.
	lockRequestsSQL = `
		SELECT pg_advisory_xact_lock(hashtextextended('walhook request ' || account, 0)) FROM walhook.endpoint WHERE id = $1`

	accountOfSQL = `SELECT account, webhook FROM walhook.endpoint WHERE id = $1`

	countRequestsSQL = `
		SELECT count(*) FROM walhook.request r JOIN walhook.endpoint p ON p.id = r.endpoint
		WHERE r.done_at IS NULL AND p.account = (SELECT account FROM walhook.endpoint WHERE id = $1)`

	requestsSQL = `SELECT ` + requestColumns + ` FROM walhook.request r WHERE r.endpoint = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3`

	requestSQL = `SELECT ` + requestColumns + ` FROM walhook.request r WHERE r.id = $1`
)

// An event is asked for as far as there is one now.
var newestOfSQL = `
		SELECT state = 'cleared' OR coalesce(url, '') = '' AND delivery <> 'pull', state = 'cleared' AND deleted_at IS NOT NULL, greatest(
			coalesce((SELECT id FROM walhook.event e WHERE ` + outbox.OfEndpointSQL("p.id", "0", outbox.LastEventID) + ` ORDER BY e.endpoint DESC, e.id DESC LIMIT 1), 0),
			coalesce((SELECT event_id FROM walhook.dead_letter d WHERE d.endpoint = p.id ORDER BY d.event_id DESC LIMIT 1), 0))
		FROM walhook.endpoint p WHERE p.id = $1`

// Validate says what is wrong with a request.
func (r Request) Validate() error {
	switch {
	case r.Since.IsZero() == (len(r.WebhookIDs) == 0):
		return errors.New("want either a time since which events are sent again, or their ids")
	case len(r.WebhookIDs) > MaxReplayIDs:
		return fmt.Errorf("%d ids, want %d or fewer", len(r.WebhookIDs), MaxReplayIDs)
	case r.Until != 0 && r.Since.IsZero():
		return errors.New("the event to end at goes with a time since which events are sent again, not with their ids")
	case !(r.Rate >= MinReplayRate && r.Rate <= MaxReplayRate):
		return fmt.Errorf("rate %v: want %v to %d events per second", r.Rate, MinReplayRate, MaxReplayRate)
	}
	return nil
}

// ReplayCount is how many events a request would send.
type ReplayCount struct {
	// Total is how many of the first [ReplayCountLimit] that it would look at.
	Total int64
	// More says that there are further ones to look at.
	More bool
	// Until is the newest event that it would look at, by its id in the log.
	Until int64
}

// countLeeway is how much earlier than its commit an event may have been appended, by the
// two clocks, and still be counted.
const countLeeway = time.Minute

// The newest event before an id that the log still has; 0 where none of them is left, since
// dead letters may be.
var lastBeforeSQL = `SELECT coalesce((SELECT id FROM walhook.event e WHERE ` + outbox.OfEndpointSQL("(SELECT $1::bigint)", "0", "(SELECT $2::bigint - 1)") + ` ORDER BY e.endpoint DESC, e.id DESC LIMIT 1), 0)`

var (
	countNamedSQL = "WITH " + outbox.CandidatesSQL(ReplayCountLimit, true) + " SELECT count(*), false FROM wanted"
	countRangeSQL = "WITH " + outbox.CandidatesSQL(ReplayCountLimit, false) + fmt.Sprintf(
		" SELECT (SELECT count(*) FROM wanted), (SELECT count(*) = %[1]d FROM logged) OR (SELECT count(*) = %[1]d FROM died)", ReplayCountLimit)
)

// CountReplay counts the events that a request would send. Those that are named are all
// looked up. [ErrNothingToSendTo] and [ErrWebhookDeleted] when it could send none.
func (a *Admin) CountReplay(ctx context.Context, r Request) (counted ReplayCount, err error) {
	if err := r.Validate(); err != nil {
		return ReplayCount{}, err
	}
	var deaf, deleted bool
	if err = a.pool.QueryRow(ctx, newestOfSQL, r.Endpoint).Scan(&deaf, &deleted, &counted.Until); errors.Is(err, pgx.ErrNoRows) {
		return ReplayCount{}, ErrNoEndpoint
	}
	if err == nil && deleted {
		return ReplayCount{}, ErrWebhookDeleted
	}
	if err == nil && deaf {
		return ReplayCount{}, ErrNothingToSendTo
	}
	if r.Until > 0 {
		counted.Until = min(counted.Until, r.Until)
	}
	since, ids := r.asked()
	if err == nil {
		err = a.byIndex(ctx, func(tx pgx.Tx) error {
			counting := countNamedSQL
			var after int64
			if ids == nil {
				counting = countRangeSQL
				if err := tx.QueryRow(ctx, outbox.AppendedFromSQL, r.Endpoint, r.Since.Add(-countLeeway)).Scan(&after); err != nil {
					return err
				}
				if err := tx.QueryRow(ctx, lastBeforeSQL, r.Endpoint, after).Scan(&after); err != nil {
					return err
				}
			}
			return tx.QueryRow(ctx, counting, r.Endpoint, after, counted.Until, since, ids).Scan(&counted.Total, &counted.More)
		})
	}
	if err != nil {
		return ReplayCount{}, fmt.Errorf("count the events to send again: %w", err)
	}
	return counted, nil
}

const keptEventsSQL = `
	SELECT n.webhook_id FROM (SELECT DISTINCT webhook_id FROM unnest($2::text[]) AS u(webhook_id)) n
	WHERE (SELECT 1 FROM walhook.event e WHERE e.webhook_id = n.webhook_id AND e.endpoint = $1 LIMIT 1) IS NOT NULL
		OR (SELECT 1 FROM walhook.dead_letter d WHERE d.webhook_id = n.webhook_id AND d.endpoint = $1 LIMIT 1) IS NOT NULL`

// KeptEvents says which of these webhook-ids an endpoint has events or dead letters
// of.
func (a *Admin) KeptEvents(ctx context.Context, endpoint int64, webhookIDs []string) (kept []string, err error) {
	if len(webhookIDs) == 0 {
		return nil, nil
	}
	err = a.byIndex(ctx, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, keptEventsSQL, endpoint, webhookIDs) // rows have its error
		kept, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find %d events of endpoint %d: %w", len(webhookIDs), endpoint, err)
	}
	return kept, nil
}

// CreateRequest stores a request, which the publisher works through whenever it
// runs. With a key in once, answer writes what is answered; the zero Once has none. The
// errors are those of CountReplay, [ErrTooManyRequests], [ErrCallerGone] and
// [*outbox.HeldError], and with a key those of [Admin.CreateWebhook].
func (a *Admin) CreateRequest(ctx context.Context, r Request, once Once, answer func(Request) ([]byte, error)) (Request, error) {
	counted, err := a.CountReplay(ctx, r)
	if err != nil {
		return Request{}, err
	}
	var account, webhook string
	if err := a.pool.QueryRow(ctx, accountOfSQL, r.Endpoint).Scan(&account, &webhook); err != nil {
		return Request{}, fmt.Errorf("request a replay: %w", err)
	}
	act := &Act{Action: actReplay, Account: account, Webhook: webhook}
	err = a.change(ctx, act, func(tx pgx.Tx) error {
		return a.onceTx(ctx, tx, r.By, account, once, func() ([]byte, error) {
			if err := createRequestTx(ctx, tx, &r, account, counted); err != nil {
				return nil, err
			}
			if act.Detail = fmt.Sprintf("request %d, named events: %d", r.ID, len(r.WebhookIDs)); len(r.WebhookIDs) == 0 {
				act.Detail = fmt.Sprintf("request %d, since %s", r.ID, r.Since.UTC().Format(time.RFC3339))
			}
			if answer == nil {
				return nil, nil
			}
			return answer(r)
		})
	})
	if err != nil {
		return Request{}, fmt.Errorf("request a replay: %w", err)
	}
	a.store.NotifyRequest()
	return r, nil
}

func createRequestTx(ctx context.Context, tx pgx.Tx, r *Request, account string, counted ReplayCount) error {
	if err := admitTx(ctx, tx, r.By, account); err != nil {
		return err
	}
	if err := checkHeldAboveTx(ctx, tx, r.By, account, r.Endpoint); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, lockRequestsSQL, r.Endpoint); err != nil {
		return err
	}
	var open int
	if err := tx.QueryRow(ctx, countRequestsSQL, r.Endpoint).Scan(&open); err != nil {
		return err
	}
	if !r.By.isOperator() && open >= MaxOpenRequests {
		return ErrTooManyRequests
	}
	since, ids := r.asked()
	rows, err := tx.Query(ctx, createRequestSQL, r.Endpoint, since, ids, r.Rate, counted.Until, counted.Total)
	if err != nil {
		return err
	}
	created, err := pgx.CollectExactlyOneRow(rows, scanRequest)
	if err == nil {
		*r = created
	}
	return err
}

// Requests lists an endpoint's requests with smaller ids than before, the
// newest first; 0 begins with the newest.
func (a *Admin) Requests(ctx context.Context, endpoint, before int64, limit int) ([]Request, error) {
	rows, err := a.pool.Query(ctx, requestsSQL, endpoint, orNewest(before), limit)
	var list []Request
	var bad []badRow
	if err == nil {
		list, err = collectEach(rows, scanRequest, func(r *Request, cause error) { bad = append(bad, badRow{r.ID, cause}) })
	}
	for _, b := range bad {
		a.store.SetAsideRow(ctx, "requests", strconv.FormatInt(b.id, 10), endpoint, b.cause)
	}
	if err != nil {
		return nil, fmt.Errorf("list requests of endpoint %d: %w", endpoint, err)
	}
	return list, nil
}

// Request reads one as it stands; [ErrNoRequest] for none.
func (a *Admin) Request(ctx context.Context, id int64) (Request, error) {
	rows, err := a.pool.Query(ctx, requestSQL, id)
	var r Request
	if err == nil {
		r, err = pgx.CollectExactlyOneRow(rows, scanRequest)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoRequest
	}
	if err != nil {
		return Request{}, fmt.Errorf("read request %d: %w", id, err)
	}
	return r, nil
}

// asked are the arguments of [outbox.CandidatesSQL]; nil for what is not asked for.
func (r Request) asked() (since *time.Time, ids []string) {
	if !r.Since.IsZero() {
		since = &r.Since
	}
	if len(r.WebhookIDs) > 0 {
		ids = r.WebhookIDs
	}
	return since, ids
}

func scanRequest(row pgx.CollectableRow) (r Request, err error) {
	var since, done *time.Time
	err = row.Scan(&r.ID, &r.Endpoint, &since, &r.WebhookIDs, &r.Rate, &r.Sent, &r.Total, &r.AskedAt, &done, &r.Reason)
	r.Since, r.DoneAt = *cmp.Or(since, new(time.Time)), *cmp.Or(done, new(time.Time))
	return r, err
}

const endpointsOfSQL = `
	SELECT DISTINCT endpoint, webhook_id FROM (
		SELECT endpoint, webhook_id FROM walhook.event WHERE webhook_id = ANY ($1)
		UNION ALL
		SELECT endpoint, webhook_id FROM walhook.dead_letter WHERE webhook_id = ANY ($1)) e ORDER BY endpoint, webhook_id`

// EndpointsOf lists the endpoints that have events with these webhook-ids. An id that
// no event has is an [UnknownEventError].
func (a *Admin) EndpointsOf(ctx context.Context, webhookIDs []string) (endpoints []int64, err error) {
	unknown := slices.Clone(webhookIDs)
	err = a.byIndex(ctx, func(tx pgx.Tx) error {
		var endpoint int64
		var id string
		rows, _ := tx.Query(ctx, endpointsOfSQL, webhookIDs) // rows have its error
		_, err := pgx.ForEachRow(rows, []any{&endpoint, &id}, func() error {
			endpoints = append(endpoints, endpoint)
			unknown = slices.DeleteFunc(unknown, func(one string) bool { return one == id })
			return nil
		})
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("find the endpoints of %d events: %w", len(webhookIDs), err)
	case len(unknown) > 0:
		return nil, &UnknownEventError{unknown[0]}
	}
	return slices.Compact(endpoints), nil
}

// UnknownEventError names a webhook-id that no event and no dead letter has.
type UnknownEventError struct{ WebhookID string }

func (e *UnknownEventError) Error() string {
	return fmt.Sprintf("no event has the webhook-id %q: compare it with the header webhook-id of the delivery; walhook keeps an event until retention ends", e.WebhookID)
}
