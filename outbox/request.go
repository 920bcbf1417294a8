package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
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
	Rate       float64 // events a second, at most
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

// candidatesSQL are the rows of an endpoint that a request may be about, in
// order of id: those of the log, and dead letters that the log no longer holds.
// Of them those are wanted that were asked for, are delivered or dead, and have
// no newer copy, which would be what stands for them. The bound on how many are
// looked at is part of the text, so that the plan knows it; it holds for both, and
// what lies beyond where either of them came to its end is left for later.
//
// $1 endpoint, $2 cursor, $3 until, $4 since, $5 ids.
func candidatesSQL(limit int, byIDs bool) string {
	rows := rangeRowsSQL
	if byIDs {
		rows = namedRowsSQL
	}
	return fmt.Sprintf(rows+`,
	candidate AS (
		SELECT c.*, ($4::timestamptz IS NULL OR c.committed_at >= $4) AND ($5::text[] IS NULL OR c.webhook_id = ANY ($5)) AS asked
		FROM (
			SELECT * FROM logged
			UNION ALL
			SELECT * FROM died d WHERE (SELECT 1 FROM walhook.event e WHERE e.id = d.id LIMIT 1) IS NULL) c
		WHERE c.id <= least((SELECT max(id) FROM logged HAVING count(*) = %[1]d), (SELECT max(id) FROM died HAVING count(*) = %[1]d), $3)
		ORDER BY id LIMIT %[1]d),
	wanted AS (
		SELECT c.id, c.logged, c.size FROM candidate c
		WHERE asked AND (NOT logged
			OR (SELECT 1 FROM walhook.attempt a WHERE a.endpoint = $1 AND a.event_id = c.id AND a.outcome = 'delivered' LIMIT 1) IS NOT NULL
			OR (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = $1 AND d.event_id = c.id LIMIT 1) IS NOT NULL)
		AND (SELECT 1 FROM walhook.event n WHERE n.replayed AND n.endpoint = $1 AND n.webhook_id = c.webhook_id AND n.id > c.id LIMIT 1) IS NULL)`, limit)
}

const (
	rangeRowsSQL = `
	logged AS (
		SELECT e.id, true AS logged, e.webhook_id, e.committed_at, ` + sizeSQL + ` AS size FROM walhook.event e
		WHERE e.endpoint = $1 AND e.id > $2 AND e.id <= $3 ORDER BY e.id LIMIT %[1]d),
	died AS (
		SELECT d.event_id AS id, false AS logged, d.webhook_id, d.committed_at, d.size FROM walhook.dead_letter d
		WHERE d.endpoint = $1 AND d.event_id > $2 AND d.event_id <= $3 AND d.body IS NOT NULL AND d.reason <> 'unreadable'
		ORDER BY d.event_id LIMIT %[1]d)`

	// Of each id the newest row, which is what stands for it.
	namedRowsSQL = `
	named AS (SELECT DISTINCT webhook_id FROM unnest($5::text[]) AS u(webhook_id)),
	logged AS (
		SELECT e.id, true AS logged, e.webhook_id, e.committed_at, ` + sizeSQL + ` AS size
		FROM named n CROSS JOIN LATERAL (
			SELECT * FROM walhook.event e WHERE e.webhook_id = n.webhook_id AND e.endpoint = $1 ORDER BY e.id DESC LIMIT 1) e
		WHERE e.id > $2 AND e.id <= $3 ORDER BY e.id LIMIT %[1]d),
	died AS (
		SELECT d.event_id AS id, false AS logged, d.webhook_id, d.committed_at, d.size
		FROM named n CROSS JOIN LATERAL (
			SELECT * FROM walhook.dead_letter d WHERE d.webhook_id = n.webhook_id AND d.endpoint = $1
			AND d.body IS NOT NULL AND d.reason <> 'unreadable' ORDER BY d.event_id DESC LIMIT 1) d
		WHERE d.event_id > $2 AND d.event_id <= $3 ORDER BY d.event_id LIMIT %[1]d)`
)

const (
	requestColumns = `r.id, r.endpoint, r.since, coalesce(r.webhook_ids, '{}'), r.rate, r.sent, r.total, r.asked_at, r.done_at, r.reason`

	// An event is asked for as far as there is one now.
	newestOfSQL = `
		SELECT state = 'cleared' OR coalesce(url, '') = '', state = 'cleared' AND deleted_at IS NOT NULL, greatest(
			coalesce((SELECT id FROM walhook.event e WHERE e.endpoint = p.id ORDER BY e.id DESC LIMIT 1), 0),
			coalesce((SELECT event_id FROM walhook.dead_letter d WHERE d.endpoint = p.id ORDER BY d.event_id DESC LIMIT 1), 0))
		FROM walhook.endpoint p WHERE p.id = $1`

	createRequestSQL = `
		INSERT INTO walhook.request AS r (endpoint, since, webhook_ids, rate, until_id, total) VALUES ($1, $2, $3, $4, $5, $6)
		RETURNING ` + requestColumns

	// One at a time for an account, so that the count holds.
	lockRequestsSQL = `
		SELECT pg_advisory_xact_lock(hashtextextended('walhook request ' || account, 0)) FROM walhook.endpoint WHERE id = $1`

	accountOfSQL = `SELECT account FROM walhook.endpoint WHERE id = $1`

	countRequestsSQL = `
		SELECT count(*) FROM walhook.request r JOIN walhook.endpoint p ON p.id = r.endpoint
		WHERE r.done_at IS NULL AND p.account = (SELECT account FROM walhook.endpoint WHERE id = $1)`

	requestsSQL = `SELECT ` + requestColumns + ` FROM walhook.request r WHERE r.endpoint = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3`

	requestSQL = `SELECT ` + requestColumns + ` FROM walhook.request r WHERE r.id = $1`
)

// Validate says what is wrong with a request.
func (r Request) Validate() error {
	switch {
	case r.Since.IsZero() == (len(r.WebhookIDs) == 0):
		return errors.New("want either a time since which events are sent again, or their ids")
	case len(r.WebhookIDs) > MaxReplayIDs:
		return fmt.Errorf("%d ids, want %d or fewer", len(r.WebhookIDs), MaxReplayIDs)
	case !(r.Rate >= MinReplayRate && r.Rate <= MaxReplayRate):
		return fmt.Errorf("rate %v: want %v to %d events per second", r.Rate, MinReplayRate, MaxReplayRate)
	}
	return nil
}

// CountReplay says how many events a request would send, of the first
// [ReplayCountLimit] that it would look at, and up to which id. Those that are named are all looked
// up. [ErrNothingToSendTo] and [ErrWebhookDeleted] when it could send none.
func (s *Store) CountReplay(ctx context.Context, r Request) (total, until int64, err error) {
	if err := r.Validate(); err != nil {
		return 0, 0, err
	}
	var deaf, deleted bool
	if err = s.pool.QueryRow(ctx, newestOfSQL, r.Endpoint).Scan(&deaf, &deleted, &until); isNoRows(err) {
		return 0, 0, ErrNoEndpoint
	}
	if err == nil && deleted {
		return 0, 0, ErrWebhookDeleted
	}
	if err == nil && deaf {
		return 0, 0, ErrNothingToSendTo
	}
	since, ids := r.asked()
	if err == nil {
		err = s.byIndex(ctx, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, "WITH "+candidatesSQL(ReplayCountLimit, ids != nil)+" SELECT count(*) FROM wanted", r.Endpoint, 0, until, since, ids).Scan(&total)
		})
	}
	if err != nil {
		return 0, 0, fmt.Errorf("count the events to send again: %w", err)
	}
	return total, until, nil
}

const keptEventsSQL = `
	SELECT n.webhook_id FROM (SELECT DISTINCT webhook_id FROM unnest($2::text[]) AS u(webhook_id)) n
	WHERE (SELECT 1 FROM walhook.event e WHERE e.webhook_id = n.webhook_id AND e.endpoint = $1 LIMIT 1) IS NOT NULL
		OR (SELECT 1 FROM walhook.dead_letter d WHERE d.webhook_id = n.webhook_id AND d.endpoint = $1 LIMIT 1) IS NOT NULL`

// KeptEvents says which of these webhook-ids an endpoint has events or dead letters
// of.
func (s *Store) KeptEvents(ctx context.Context, endpoint int64, webhookIDs []string) (kept []string, err error) {
	if len(webhookIDs) == 0 {
		return nil, nil
	}
	err = s.byIndex(ctx, func(tx pgx.Tx) error {
		kept, err = collect[string](tx.Query(ctx, keptEventsSQL, endpoint, webhookIDs))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find %d events of endpoint %d: %w", len(webhookIDs), endpoint, err)
	}
	return kept, nil
}

// CreateRequest stores a request, which the publisher works through whenever it
// runs. The errors are those of CountReplay, [ErrTooManyRequests]
// and [ErrCallerGone].
func (s *Store) CreateRequest(ctx context.Context, r Request) (Request, error) {
	return s.CreateRequestOnce(ctx, r, Once{}, nil)
}

// CreateRequestOnce is CreateRequest for a request with a key: answer writes what
// is answered. The errors are also those of [Store.CreateWebhookOnce].
func (s *Store) CreateRequestOnce(ctx context.Context, r Request, once Once, answer func(Request) ([]byte, error)) (Request, error) {
	total, until, err := s.CountReplay(ctx, r)
	if err != nil {
		return Request{}, err
	}
	var account string
	if err := s.pool.QueryRow(ctx, accountOfSQL, r.Endpoint).Scan(&account); err != nil {
		return Request{}, fmt.Errorf("request a replay: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		return s.onceTx(ctx, tx, r.By, account, once, func() ([]byte, error) {
			if err := createRequestTx(ctx, tx, &r, account, until, total); err != nil || answer == nil {
				return nil, err
			}
			return answer(r)
		})
	})
	if err != nil {
		return Request{}, fmt.Errorf("request a replay: %w", err)
	}
	signal(s.requested)
	return r, nil
}

func createRequestTx(ctx context.Context, tx pgx.Tx, r *Request, account string, until, total int64) error {
	if err := admitTx(ctx, tx, r.By, account); err != nil {
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
	rows, err := tx.Query(ctx, createRequestSQL, r.Endpoint, since, ids, r.Rate, until, total)
	if err == nil {
		*r, err = pgx.CollectExactlyOneRow(rows, scanRequest)
	}
	return err
}

// Requests lists an endpoint's requests with smaller ids than before, the
// newest first; 0 begins with the newest.
func (s *Store) Requests(ctx context.Context, endpoint, before int64, limit int) ([]Request, error) {
	rows, err := s.pool.Query(ctx, requestsSQL, endpoint, orNewest(before), limit)
	var list []Request
	var bad []badRow
	if err == nil {
		list, err = collectEach(rows, scanRequest, func(r *Request, cause error) { bad = append(bad, badRow{r.ID, cause}) })
	}
	for _, b := range bad {
		s.listed(ctx, "requests", strconv.FormatInt(b.endpoint, 10), endpoint, b.cause)
	}
	if err != nil {
		return nil, fmt.Errorf("list requests of endpoint %d: %w", endpoint, err)
	}
	return list, nil
}

// Request reads one as it stands.
func (s *Store) Request(ctx context.Context, id int64) (Request, error) {
	rows, err := s.pool.Query(ctx, requestSQL, id)
	var r Request
	if err == nil {
		r, err = pgx.CollectExactlyOneRow(rows, scanRequest)
	}
	if err != nil {
		return Request{}, fmt.Errorf("read request %d: %w", id, err)
	}
	return r, nil
}

// asked are the arguments of candidatesSQL; nil for what is not asked for.
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
	r.Since, r.DoneAt = zeroTime(since), zeroTime(done)
	return r, err
}

const endpointsOfSQL = `
	SELECT DISTINCT endpoint FROM (
		SELECT endpoint FROM walhook.event WHERE webhook_id = ANY ($1)
		UNION ALL
		SELECT endpoint FROM walhook.dead_letter WHERE webhook_id = ANY ($1)) e ORDER BY endpoint`

// EndpointsOf lists the endpoints that have events with these webhook-ids.
func (s *Store) EndpointsOf(ctx context.Context, webhookIDs []string) (endpoints []int64, err error) {
	err = s.byIndex(ctx, func(tx pgx.Tx) error {
		endpoints, err = collect[int64](tx.Query(ctx, endpointsOfSQL, webhookIDs))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the endpoints of %d events: %w", len(webhookIDs), err)
	}
	return endpoints, nil
}
