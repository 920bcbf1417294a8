package admin

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/outbox/address"
)

// EndpointInfo is an endpoint as people see it: no secret, and a URL without
// what may be one.
type EndpointInfo struct {
	ID         int64
	Account    string
	Webhook    string // its id in the API; [outbox.AccountWebhook] for the account's own URL
	URL        string // user information and query left out; "" for none
	State      outbox.EndpointState
	Reason     string // why it is not active
	DisabledBy string // walhook or operator; an operator's word also holds for the next URL
	// AlsoDisabledBy is who has it disabled once an operator's word ends: walhook or
	// account; "" for nobody. AlsoDisableReason says why.
	AlsoDisabledBy, AlsoDisableReason string

	Ordering  outbox.Ordering // which of its events wait for each other
	EndedAt   time.Time       // when the account was deleted; zero for not
	ChangedAt time.Time
	Revision  int64
	HeldSince time.Time // when what is stored of it was found to be of no use; zero for not

	// What follows is set by ListEndpoints only.

	// Lane is as its sender last stored it, a few seconds ago.
	Lane outbox.LaneState
	// Retries and Dead count what is in retry, or waits behind that, and the
	// dead letters that are kept; CountLimit stands for that many or more.
	Retries, Dead int
}

// LaneStatus is how its lane is called, as its sender last stored it.
func (e *EndpointInfo) LaneStatus(now time.Time) outbox.LaneStatus {
	return outbox.LaneFacts{
		Endpoint: e.State, Current: e.Lane.Revision >= e.Revision, Behind: e.Lane.Behind,
		Open: e.Lane.Open, Waits: now.Before(e.Lane.OpenUntil), Paused: now.Before(e.Lane.PausedUntil),
	}.Status()
}

// CountLimit is where the counts of EndpointInfo end.
const CountLimit = 10_000

const (
	// What a process of an older release left there means nothing.
	alsoColumns = `CASE WHEN disabled_by = 'operator' THEN also_disabled_by ELSE '' END, CASE WHEN disabled_by = 'operator' THEN also_disable_reason ELSE '' END`

	infoColumns = `id, account, webhook, coalesce(url, ''), state, reason, disabled_by, ` + alsoColumns + `, ordering, ended_at, ` + shownChangedSQL + `, revision`

	listEndpointsSQL = `SELECT ` + infoColumns + ` FROM walhook.endpoint WHERE deleted_at IS NULL OR webhook LIKE 'ended-%' ORDER BY id`

	listLanesSQL = `SELECT ` + outbox.LaneColumnsSQL + ` FROM walhook.lane`

	// Goes from one endpoint that has rows to the next by index, and counts
	// no further than the limit.
	countRowsSQL = `
		WITH RECURSIVE holder AS (
			(SELECT endpoint FROM walhook.%[1]s ORDER BY endpoint LIMIT 1)
			UNION ALL
			SELECT (SELECT t.endpoint FROM walhook.%[1]s t WHERE t.endpoint > h.endpoint ORDER BY t.endpoint LIMIT 1)
			FROM holder h WHERE h.endpoint IS NOT NULL)
		SELECT h.endpoint, (SELECT count(*) FROM (SELECT FROM walhook.%[1]s t WHERE t.endpoint = h.endpoint LIMIT $1) AS counted)
		FROM holder h WHERE h.endpoint IS NOT NULL`
)

// ListEndpoints lists every endpoint, the oldest first.
func (a *Admin) ListEndpoints(ctx context.Context) ([]EndpointInfo, error) {
	rows, err := a.pool.Query(ctx, listEndpointsSQL)
	var endpoints []EndpointInfo
	var bad []badRow
	if err == nil {
		endpoints, err = collectEach(rows, scanEndpointInfo, func(e *EndpointInfo, cause error) {
			e.State, e.Reason = outbox.EndpointUnusable, outbox.ReasonUnreadable
			bad = append(bad, badRow{e.ID, cause})
		})
	}
	for _, b := range bad {
		a.store.SetAsideRow(ctx, "endpoints", strconv.FormatInt(b.id, 10), b.id, b.cause)
	}
	if err == nil {
		err = a.addLanes(ctx, endpoints)
	}
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return endpoints, nil
}

func (a *Admin) addLanes(ctx context.Context, endpoints []EndpointInfo) error {
	rows, err := a.pool.Query(ctx, listLanesSQL)
	if err != nil {
		return err
	}
	list, err := collectEach(rows, outbox.ScanLane, func(*outbox.LaneState, error) {}) // whoever takes it over sets it aside
	if err != nil {
		return err
	}
	lanes := make(map[int64]outbox.LaneState, len(list))
	for _, lane := range list {
		lanes[lane.Endpoint] = lane
	}
	retries, err := a.countRows(ctx, "retry")
	if err != nil {
		return err
	}
	dead, err := a.countRows(ctx, "dead_letter")
	if err != nil {
		return err
	}
	held, err := a.store.HeldReasons(ctx, idsOf(endpoints))
	if err != nil {
		return err
	}
	for i := range endpoints {
		e := &endpoints[i]
		e.showHeld(held)
		e.Lane, e.Retries, e.Dead = lanes[e.ID], retries[e.ID], dead[e.ID]
	}
	return nil
}

func idsOf(endpoints []EndpointInfo) []int64 {
	ids := make([]int64, len(endpoints))
	for i := range endpoints {
		ids[i] = endpoints[i].ID
	}
	return ids
}

// showHeld shows an endpoint as its sender has it.
func (e *EndpointInfo) showHeld(held map[int64]outbox.HeldReason) {
	if reason, is := held[e.ID]; is && e.State == outbox.EndpointActive {
		e.State, e.Reason, e.HeldSince = outbox.EndpointUnusable, reason.Text, reason.Since
	}
}

// countRows counts the rows of each endpoint in a table of ours.
func (a *Admin) countRows(ctx context.Context, table string) (map[int64]int, error) {
	counts := map[int64]int{}
	rows, err := a.pool.Query(ctx, fmt.Sprintf(countRowsSQL, table), CountLimit)
	if err != nil {
		return nil, err
	}
	var endpoint int64
	var n int
	_, err = pgx.ForEachRow(rows, []any{&endpoint, &n}, func() error {
		counts[endpoint] = n
		return nil
	})
	return counts, err
}

func scanEndpointInfo(row pgx.CollectableRow) (e EndpointInfo, err error) {
	var ended *time.Time
	err = row.Scan(&e.ID, &e.Account, &e.Webhook, &e.URL, &e.State, &e.Reason, &e.DisabledBy, &e.AlsoDisabledBy, &e.AlsoDisableReason, &e.Ordering, &ended, &e.ChangedAt, &e.Revision)
	e.URL, e.EndedAt = address.Redact(e.URL), *cmp.Or(ended, new(time.Time))
	return e, err
}
