package admin

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// Health is how delivery to an endpoint goes, as its sender stored it some seconds ago.
type Health struct {
	Endpoint    int64
	Lane        outbox.LaneState // zero where the sender keeps nothing, or of an earlier state of the endpoint alone
	LastSuccess time.Time        // before the present failures; zero for none
	// LastReason is of the last attempt, where that failed, as the account may see it.
	LastReason string
	// How many events wait for their first attempt, wait for a retry, and are dead
	// letters, each up to the bound that was asked for.
	Waiting, Retrying, Dead int64

	current bool // breaker and pause are about the endpoint as it stands now
}

// successLook is how many attempts are looked at for the last success: before the first of
// the present failures it is the newest, unless that one was held or dead.
const successLook = 50

const lanesOfSQL = `SELECT ` + outbox.LaneColumnsSQL + ` FROM walhook.lane WHERE endpoint = ANY ($1)`

// $2 bounds each count, and $3 how far to look for a success; there are $4 shards.
var healthSQL = `
		SELECT w.id,
			(SELECT a.at FROM (
				SELECT at, outcome FROM walhook.attempt a
				WHERE a.endpoint = w.id AND a.at <= coalesce(l.failing_since + interval '1 s', 'infinity') ORDER BY a.at DESC LIMIT $3) a
			WHERE a.outcome = 'delivered' LIMIT 1),
			coalesce((SELECT a.reason FROM (
				SELECT reason, outcome FROM walhook.attempt a WHERE a.endpoint = w.id ORDER BY a.at DESC LIMIT 1) a
			WHERE a.outcome <> 'delivered'), ''),
			(SELECT count(*) FROM (
				SELECT id FROM walhook.event e WHERE ` + outbox.OfEndpointSQL("w.id", "CASE WHEN coalesce(l.behind, false) THEN l.cursor ELSE s.tail END", outbox.LastEventID) + `
				ORDER BY e.endpoint, e.id LIMIT (SELECT $2::bigint)) e
			WHERE (SELECT 1 FROM walhook.attempt a WHERE a.endpoint = w.id AND a.event_id = e.id LIMIT 1) IS NULL
				AND (SELECT 1 FROM walhook.retry r WHERE r.endpoint = w.id AND r.event_id = e.id LIMIT 1) IS NULL
				AND (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = w.id AND d.event_id = e.id LIMIT 1) IS NULL) + r.parked,
			r.retrying, coalesce(l.revision >= (SELECT revision FROM walhook.endpoint p WHERE p.id = w.id LIMIT 1), false),
			(SELECT count(*) FROM (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = w.id ORDER BY d.event_id LIMIT $2) d)
		FROM unnest($1::bigint[]) AS w(id)
		CROSS JOIN LATERAL (SELECT tail FROM walhook.shard s WHERE s.id = w.id % $4 LIMIT 1) s
		LEFT JOIN LATERAL (SELECT revision, behind, cursor, failing_since FROM walhook.lane l WHERE l.endpoint = w.id LIMIT 1) l ON true
		CROSS JOIN LATERAL (
			SELECT count(*) FILTER (WHERE attempts = 0) AS parked, count(*) FILTER (WHERE attempts > 0) AS retrying
			FROM (SELECT attempts FROM walhook.retry r WHERE r.endpoint = w.id ORDER BY r.event_id LIMIT $2) r) r`

// HealthOf reads the health of endpoints, by id. Each number counts up to most.
func (a *Admin) HealthOf(ctx context.Context, endpoints []int64, most int) (map[int64]Health, error) {
	all := make(map[int64]Health, len(endpoints))
	var bad []badRow
	err := a.byIndex(ctx, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, healthSQL, endpoints, most, successLook, outbox.Shards) // rows have its error
		list, err := collectEach(rows, func(row pgx.CollectableRow) (h Health, err error) {
			var success *time.Time
			err = row.Scan(&h.Endpoint, &success, &h.LastReason, &h.Waiting, &h.Retrying, &h.current, &h.Dead)
			h.Waiting = min(h.Waiting, int64(most)) // of two counts
			if success != nil {
				h.LastSuccess = *success
			}
			return h, err
		}, func(h *Health, cause error) { bad = append(bad, badRow{h.Endpoint, cause}) })
		if err != nil {
			return err
		}
		for _, h := range list {
			all[h.Endpoint] = h
		}
		rows, _ = tx.Query(ctx, lanesOfSQL, endpoints)
		lanes, err := collectEach(rows, outbox.ScanLane, func(l *outbox.LaneState, cause error) { bad = append(bad, badRow{l.Endpoint, cause}) })
		for _, l := range lanes {
			h := all[l.Endpoint]
			if h.current {
				h.Lane = l
			}
			all[l.Endpoint] = h
		}
		return err
	})
	for _, b := range bad {
		a.store.SetAsideRow(ctx, "health", strconv.FormatInt(b.id, 10), b.id, b.cause)
	}
	if err != nil {
		return nil, fmt.Errorf("read the health of %d endpoints: %w", len(endpoints), err)
	}
	return all, nil
}
