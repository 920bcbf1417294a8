package admin

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/schemas/pgjson"
)

// The states of an event, as [EventStatus] has them.
const (
	EventDelivered = "delivered"
	EventWaiting   = "waiting"
	EventRetry     = "retry"
	EventDead      = "dead"
	EventHeld      = "held"     // nothing is sent to the endpoint now
	EventPull      = "pull"     // nothing is sent: the endpoint's receiver reads its feed
	EventReplayed  = "replayed" // a newer row with the same webhook-id says how it stands
)

// EventStatus is an event of one endpoint and how it stands.
type EventStatus struct {
	ID          int64
	WebhookID   string
	Schema      string
	Type        string
	Record      string // schema and key: the events of one record are sent in order
	CommittedAt time.Time
	AppendedAt  time.Time // zero for a dead letter whose row the event log has dropped
	Size        int64     // bytes of its body, as the event log has it
	Replayed    bool      // sent again because somebody asked for it
	State       string
	Attempts    int
	Reason      string    // of the last attempt, or of its death
	NextAt      time.Time // of the next attempt; zero for none that is set
}

// EventFilter selects events; an empty field selects all.
type EventFilter struct {
	State, Schema, Type, Record string
	// Contains is a text in the body as the event log has it, where quotes and
	// backslashes may be escaped as in JSON, or in JSON inside of JSON.
	Contains string
	// Since and Until bound when an event was appended to the event log, which is the
	// order of the list: from Since on, before Until.
	Since, Until time.Time
}

// The most rows that one page looks at. A page of a rare filter may be short, or empty,
// and says where the next one goes on.
const (
	eventLook = 10_000 // by what the row of an event says itself
	stateLook = 8_000  // by its state, which takes four more look-ups for each
)

// bodyLook bounds the bytes of the bodies that a page searches for a text. The body with
// which it reaches them is searched as a whole.
const bodyLook = 64 << 20

const (
	loggedColumns = `e.id, e.endpoint, e.webhook_id, e.schema, e.type, e.record, e.committed_at, e.appended_at, ` + outbox.SizeSQL + ` AS size, e.replayed`
	bodyColumns   = `, e.body, e.body_of`

	lookRetrySQL = `
		SELECT ` + loggedColumns + bodyColumns + `
		FROM (SELECT event_id FROM walhook.retry WHERE endpoint = $1 AND event_id < $2 AND event_id >= $3 ORDER BY event_id DESC LIMIT $4) r
		CROSS JOIN LATERAL (SELECT * FROM walhook.event e WHERE e.id = r.event_id LIMIT 1) e
		ORDER BY e.id DESC`

	// A dead letter outlives its row in the event log.
	lookDeadSQL = `
		SELECT d.event_id AS id, d.endpoint, d.webhook_id, d.schema, d.type, d.record, d.committed_at, e.appended_at, d.size, coalesce(e.replayed, false) AS replayed, d.body, NULL::bigint AS body_of
		FROM (SELECT * FROM walhook.dead_letter WHERE endpoint = $1 AND event_id < $2 AND event_id >= $3 ORDER BY event_id DESC LIMIT $4) d
		LEFT JOIN LATERAL (SELECT appended_at, replayed FROM walhook.event e WHERE e.id = d.event_id LIMIT 1) e ON true
		ORDER BY d.event_id DESC`

	// LIMIT 1 keeps each look-up on its index: a join may be made by reading a
	// whole table.
	stateJoinsSQL = `
		CROSS JOIN LATERAL (SELECT state, delivery FROM walhook.endpoint p WHERE p.id = e.endpoint LIMIT 1) p
		LEFT JOIN LATERAL (SELECT attempts, reason FROM walhook.dead_letter d WHERE d.endpoint = e.endpoint AND d.event_id = e.id LIMIT 1) d ON true
		LEFT JOIN LATERAL (SELECT number, outcome, reason FROM walhook.attempt a WHERE a.endpoint = e.endpoint AND a.event_id = e.id ORDER BY a.at DESC LIMIT 1) a ON true
		LEFT JOIN LATERAL (SELECT attempts, next_at FROM walhook.retry r WHERE r.endpoint = e.endpoint AND r.event_id = e.id LIMIT 1) r ON true
		CROSS JOIN LATERAL (SELECT CASE WHEN d.reason IS NOT NULL THEN 'dead'
			WHEN a.outcome = 'delivered' THEN 'delivered'
			WHEN (SELECT 1 FROM walhook.event n WHERE n.replayed AND n.endpoint = e.endpoint AND n.webhook_id = e.webhook_id AND n.id > e.id LIMIT 1) IS NOT NULL THEN 'replayed'
			WHEN p.delivery = 'pull' THEN 'pull'
			WHEN p.state <> 'active' THEN 'held'
			WHEN r.attempts > 0 THEN 'retry'
			ELSE 'waiting' END AS state) s`

	statusColumnsSQL = `e.id, e.webhook_id, e.schema, e.type, e.record, e.committed_at, e.appended_at, e.size, e.replayed,
			s.state, coalesce(d.attempts, a.number, 0), coalesce(d.reason, a.reason, ''), r.next_at`

	// $5 how many of them; $6 to $9 what they are to be, '' for anything; containsSQL
	// has $10.
	eventsSQL = `
		SELECT ` + statusColumnsSQL + ` FROM (
			SELECT * FROM (%s) e
			WHERE ($6::text = '' OR schema = $6) AND ($7::text = '' OR type = $7) AND ($8::text = '' OR record = $8)%s) e` + stateJoinsSQL + `
		WHERE $9::text = '' OR s.state = $9
		ORDER BY %s LIMIT $5`

	lookedSQL = `SELECT count(*), coalesce(min(id), 0), false FROM (%s) looked`

	// CASE reads no body beyond the bound. $10 are the forms of the text.
	containsSQL = ` AND CASE WHEN NOT e.beyond THEN EXISTS (SELECT FROM unnest($10::bytea[]) f WHERE position(f IN ` + outbox.BodySQL + `) > 0) END`
)

// The rows that a page looks at, the newest first: $1 endpoint, $2 the id before
// which it begins, $3 the lowest id, $4 how many.
var lookLogSQL = `
		SELECT ` + loggedColumns + bodyColumns + ` FROM walhook.event e
		WHERE ` + outbox.OfEndpointSQL("(SELECT $1::bigint)", "(SELECT $3::bigint - 1)", "(SELECT $2::bigint - 1)") + ` ORDER BY ` + byEndpointSQL + ` LIMIT (SELECT $4::bigint)`

var (
	// settledUptoSQL is the id up to which all events of the endpoint $1 are settled or
	// have a row in retry.
	settledUptoSQL = `(SELECT CASE WHEN coalesce(l.behind, false) THEN l.cursor ELSE s.tail END
			FROM walhook.shard s LEFT JOIN walhook.lane l ON l.endpoint = $1 WHERE s.id = $1 % ` + strconv.Itoa(outbox.Shards) + `)`

	lookUnsettledSQL = `
		SELECT ` + loggedColumns + bodyColumns + `
		FROM (
			SELECT id FROM (
				(SELECT id FROM walhook.event e WHERE ` + outbox.OfEndpointSQL("(SELECT $1::bigint)", "(SELECT greatest($3::bigint - 1, "+settledUptoSQL+"))", "(SELECT $2::bigint - 1)") + ` ORDER BY e.endpoint DESC, e.id DESC LIMIT (SELECT $4::bigint))
				UNION
				(SELECT event_id FROM walhook.retry WHERE endpoint = $1 AND event_id < $2 AND event_id >= $3 ORDER BY event_id DESC LIMIT $4)) u
			ORDER BY id DESC LIMIT $4) u
		CROSS JOIN LATERAL (SELECT * FROM walhook.event e WHERE e.id = u.id LIMIT 1) e
		ORDER BY e.id DESC`

	// beyond says that newer bodies reach the bound. Neither a size nor IS NULL reads a
	// body.
	weighedSQL = `SELECT e.*, coalesce(sum(CASE WHEN e.body IS NULL THEN 0 ELSE e.size END) OVER (ORDER BY %[2]s ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) >= ` + strconv.Itoa(bodyLook) + ` AS beyond FROM (%[1]s) e`

	lookedInSQL = `SELECT count(*), coalesce(min(id) FILTER (WHERE NOT beyond), 0), coalesce(bool_or(beyond), false) FROM (` + weighedSQL + `) looked`
)

// The order of a list is the one in which its rows are read, so that it ends with its last
// row and nothing is sorted. [lookLogSQL] has the first one.
const (
	byEndpointSQL = "e.endpoint DESC, e.id DESC"
	byIDSQL       = "e.id DESC"
)

// look says what a page of a filter looks at, in which order, and how many rows of that.
func (f EventFilter) look(limit int) (sql, order string, most int) {
	switch f.State {
	case EventRetry:
		return lookRetrySQL, byIDSQL, stateLook
	case EventDead:
		return lookDeadSQL, byIDSQL, stateLook
	case EventWaiting, EventHeld:
		return lookUnsettledSQL, byIDSQL, stateLook
	case "":
		if f.Schema+f.Type+f.Record+f.Contains == "" {
			return lookLogSQL, byEndpointSQL, limit
		}
		return lookLogSQL, byEndpointSQL, eventLook
	}
	return lookLogSQL, byEndpointSQL, stateLook
}

// forms are the texts that a body has where it contains a text: as it is, and as a JSON
// string has it, once for the body and twice for a record inside of it.
func (f EventFilter) forms() (forms [][]byte) {
	form := []byte(f.Contains)
	for range 3 {
		if len(forms) > 0 && bytes.Equal(form, forms[len(forms)-1]) {
			break
		}
		forms = append(forms, form)
		form = pgjson.AppendEscaped(nil, form)
	}
	return forms
}

// Events lists the events of an endpoint that a filter selects and whose ids are smaller
// than before, the newest first; 0 begins with the newest. rest is the id before which
// to go on where it looked at as many as it may and found fewer than limit; 0 where the
// list has limit events, or ends.
func (a *Admin) Events(ctx context.Context, endpoint int64, filter EventFilter, before int64, limit int) (list []EventStatus, rest int64, err error) {
	var bad []badRow
	sql, order, most := filter.look(limit)
	listing, looking := fmt.Sprintf(eventsSQL, sql, "", order), fmt.Sprintf(lookedSQL, sql)
	selected := []any{filter.Schema, filter.Type, filter.Record, filter.State}
	if filter.Contains != "" {
		listing, looking = fmt.Sprintf(eventsSQL, fmt.Sprintf(weighedSQL, sql, order), containsSQL, order), fmt.Sprintf(lookedInSQL, sql, order)
		selected = append(selected, filter.forms())
	}
	before = orNewest(before)
	err = a.byIndexOfOneTime(ctx, func(tx pgx.Tx) error {
		lowest := int64(0)
		if !filter.Since.IsZero() {
			if err := tx.QueryRow(ctx, outbox.AppendedFromSQL, endpoint, filter.Since).Scan(&lowest); err != nil {
				return err
			}
		}
		if !filter.Until.IsZero() {
			var end int64
			if err := tx.QueryRow(ctx, outbox.AppendedFromSQL, endpoint, filter.Until).Scan(&end); err != nil {
				return err
			}
			before = min(before, end)
		}
		rows, err := tx.Query(ctx, listing, append([]any{endpoint, before, lowest, most, limit}, selected...)...)
		if err != nil {
			return err
		}
		list, err = collectEach(rows, scanEventStatus, func(e *EventStatus, cause error) { bad = append(bad, badRow{e.ID, cause}) })
		if err != nil || len(list) >= limit || most == limit {
			return err
		}
		var looked int
		var heavy bool
		err = tx.QueryRow(ctx, looking, endpoint, before, lowest, most).Scan(&looked, &rest, &heavy)
		if looked < most && !heavy {
			rest = 0
		}
		return err
	})
	a.setEventsAside(ctx, endpoint, bad)
	if err != nil {
		return nil, 0, fmt.Errorf("list the events of endpoint %d: %w", endpoint, err)
	}
	return list, rest, nil
}

func (a *Admin) setEventsAside(ctx context.Context, endpoint int64, bad []badRow) {
	for _, b := range bad {
		a.store.SetAsideRow(ctx, "events", strconv.FormatInt(b.id, 10), endpoint, b.cause)
	}
}

func scanEventStatus(row pgx.CollectableRow) (e EventStatus, err error) {
	var appended, next *time.Time
	err = row.Scan(&e.ID, &e.WebhookID, &e.Schema, &e.Type, &e.Record, &e.CommittedAt, &appended, &e.Size, &e.Replayed, &e.State, &e.Attempts, &e.Reason, &next)
	e.AppendedAt, e.NextAt = *cmp.Or(appended, new(time.Time)), *cmp.Or(next, new(time.Time))
	return e, err
}
