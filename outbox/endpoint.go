package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	endpointColumns = `id, account, revision, coalesce(url, ''), state, reason, secret,
		CASE WHEN previous_until > clock_timestamp() THEN previous_secret END, feed_from, expire_before, ordering,
		http_verb, format, custom_data, retries, rate_limit`

	endpointsSQL = `SELECT ` + endpointColumns + ` FROM walhook.endpoint WHERE id = ANY ($1)`

	endpointsChangedSQL = `
		SELECT id, revision FROM walhook.endpoint
		WHERE changed_at > $1::timestamptz - $2::interval AND id % 32 = ANY (SELECT s.id FROM walhook.shard s WHERE s.sender = $3)`
)

// Endpoints reads the named endpoints as they stand now.
func (s *Session) Endpoints(ctx context.Context, ids []int64) ([]Endpoint, error) {
	rows, err := s.store.pool.Query(ctx, endpointsSQL, ids)
	return s.store.readEndpoints(rows, err)
}

// The time between a change's time stamp and its commit, which is when it can be
// seen: next to nothing, and for no transaction of ours longer than
// longestChange. So each look goes a little back, and every lookBackEvery one
// goes far enough to see any.
const (
	usualChange   = 2 * time.Second
	longestChange = 2 * statementTimeout
	lookBackEvery = statementTimeout
)

// EndpointsChanged says which endpoints of the held shards changed after the
// instant since (by the outbox's clock), and the instant to ask with next: the
// same after an error. An endpoint may be reported again; its revision tells. One goroutine asks.
func (s *Session) EndpointsChanged(ctx context.Context, since time.Time) ([]EndpointRevision, time.Time, error) {
	back, asked := usualChange, time.Now()
	if asked.Sub(s.lookedBack) >= lookBackEvery {
		back = longestChange + lookBackEvery
	}
	var now time.Time
	var changed []EndpointRevision
	both := &pgx.Batch{} // one transaction: the second sees at least what was committed by then
	both.Queue("SELECT clock_timestamp()").QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	both.Queue(endpointsChangedSQL, since, back, s.id).Query(func(rows pgx.Rows) error {
		var e EndpointRevision
		_, err := pgx.ForEachRow(rows, []any{&e.ID, &e.Revision}, func() error {
			changed = append(changed, e)
			return nil
		})
		return err
	})
	if err := s.store.pool.SendBatch(ctx, both).Close(); err != nil {
		return nil, since, fmt.Errorf("read which endpoints changed: %w", err)
	}
	if back > usualChange {
		s.lookedBack = asked
	}
	return changed, now, nil
}

func (s *Store) readEndpoints(rows pgx.Rows, err error) ([]Endpoint, error) {
	var endpoints []Endpoint
	if err == nil {
		endpoints, err = pgx.CollectRows(rows, s.scanEndpoint)
	}
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	return endpoints, nil
}

func (s *Store) scanEndpoint(row pgx.CollectableRow) (e Endpoint, err error) {
	var secret string
	var previous *string
	var set EndpointSettings
	err = row.Scan(&e.ID, &e.Account, &e.Revision, &e.URL, &e.State, &e.Reason, &secret, &previous, &e.FeedFrom, &e.ExpireBefore, &e.Ordering,
		&set.HTTPVerb, &set.Format, &set.CustomData, &set.Retries, &set.RateLimit)
	if err == nil {
		e.Settings, err = set.orNone()
	}
	if err == nil {
		e.Secrets, err = s.openSecrets(e.Account, secret, previous)
	}
	return e, err
}

// orNone is nil for settings that change nothing.
func (s EndpointSettings) orNone() (*EndpointSettings, error) {
	if s.HTTPVerb == "post" && s.Format == "" && s.CustomData == nil && s.Retries == nil && s.RateLimit == 0 {
		return nil, nil
	}
	if s.CustomData != nil {
		var compact bytes.Buffer
		if err := json.Compact(&compact, s.CustomData); err != nil {
			return nil, fmt.Errorf("custom data: %w", err)
		}
		s.CustomData = compact.Bytes()
	}
	return &s, nil
}
