package outbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// The reads of the event log stop at a number of bytes as well as of rows: bodies
// may be large, and what is read is held in memory. So a body comes with its row
// only where it is so short that all of them may; longer ones are read by
// themselves, as many as there is room for.
//
// A row that is not wanted is answered without its body instead of being
// filtered out: so the event log is always read by its index in order of id, however
// many rows wait, and the answer says how far it went.
//
// On another timeline than the session's they answer nothing: what the sender would compare
// it with, ids and revisions, has another meaning there.
const (
	// Of shards, or of one endpoint: everything, or what no earlier owner settled.
	tailSQL          = readStartSQL + ofShardsSQL + readFromSQL + ` AND e.id > $1 AND e.id <= $2` + readEndSQL
	tailUnsettledSQL = readStartSQL + ofShardsSQL + ` AND ` + unsettledSQL + readFromSQL + ` AND e.id > $1 AND e.id <= $2` + readEndSQL

	readStartSQL = `
		SELECT id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, format, size,
			CASE WHEN size <= $5 AND body_of IS NULL THEN body END, body_of, account
		FROM (SELECT e.*, CASE WHEN `
	ofShardsSQL = `($3::int[] IS NULL OR e.endpoint % $7 = ANY ($3::int[]))` // NULL is all of them
	readFromSQL = ` THEN ` + SizeSQL + ` END AS size FROM walhook.event e WHERE (SELECT walhook.on_timeline($6))`
	readEndSQL  = ` ORDER BY e.id LIMIT $4) e ORDER BY id`

	// By the index alone: what is on the rows' pages may be damaged.
	tailIDsSQL = `SELECT e.id FROM walhook.event e WHERE e.id > $1 AND e.id <= $2 ORDER BY e.id LIMIT $3`
)

var (
	laneSQL          = readStartSQL + `true` + readFromSQL + ` AND ` + laneRowsSQL
	laneUnsettledSQL = readStartSQL + unsettledSQL + readFromSQL + ` AND ` + laneRowsSQL
	laneRowsSQL      = OfEndpointSQL("(SELECT $3::bigint)", "(SELECT $1::bigint)", "(SELECT $2::bigint)") + ` ORDER BY e.endpoint, e.id LIMIT (SELECT $4::bigint)) e ORDER BY id`

	// By the index alone: what is on the rows' pages may be damaged.
	laneIDsSQL = `SELECT e.id FROM walhook.event e WHERE ` + OfEndpointSQL("(SELECT $4::bigint)", "(SELECT $1::bigint)", "(SELECT $2::bigint)") + ` ORDER BY e.endpoint, e.id LIMIT (SELECT $3::bigint)`
)

// Tail reads a stretch of the event log: the events of the held shards, or of one
// endpoint, in order of id. What this process has just appended comes from memory.
func (s *Session) Tail(ctx context.Context, q TailQuery) (Stretch, error) {
	if stretch, ok := s.store.fresh.tail(s.timeline, &q); ok {
		s.store.listener.readUpTo(stretch.Upto)
		return stretch, nil
	}
	upto := q.Upto
	if upto == 0 {
		upto = math.MaxInt64
	}
	stretch := Stretch{Upto: q.After}
	whole, err := s.tail(ctx, &q, q.After, upto, &stretch)
	if err != nil && isReadFault(err) {
		whole, err = s.tailEach(ctx, &q, upto, &stretch)
	}
	if err != nil {
		return Stretch{}, fmt.Errorf("read the event log after event %d: %w", q.After, err)
	}
	if !whole {
		return s.Tail(ctx, q) // retention has dropped a partition meanwhile, and its rows
	}
	if !stretch.More && q.Upto != 0 {
		stretch.Upto = q.Upto
	}
	if q.Endpoint == 0 && q.Upto == 0 {
		s.store.listener.readUpTo(stretch.Upto)
	}
	return stretch, nil
}

// tail adds the events after one id and up to another to a stretch, up to the bounds
// of the query; false, and nothing, when a row is not there any more.
func (s *Session) tail(ctx context.Context, q *TailQuery, after, upto int64, stretch *Stretch) (whole bool, err error) {
	formats, each := pgx.QueryResultFormats{pgx.BinaryFormatCode}, q.MaxBytes/max(q.Limit, 1)
	var sql string
	var args []any
	if q.Endpoint != 0 {
		sql, args = laneSQL, []any{formats, after, upto, q.Endpoint, q.Limit, each, s.timeline}
		if q.Unsettled {
			sql = laneUnsettledSQL
		}
	} else {
		shards := q.Shards
		if len(shards) == Shards {
			shards = nil
		}
		sql, args = tailSQL, []any{formats, after, upto, shards, q.Limit, each, s.timeline, Shards}
		if q.Unsettled {
			sql = tailUnsettledSQL
		}
	}
	rows, err := s.store.pool.Query(ctx, sql, args...)
	part := Stretch{Upto: stretch.Upto}
	if err == nil {
		err = part.read(rows, q, int(s.lastRead.Load()))
		s.lastRead.Store(int32(len(part.Events)))
	}
	if err == nil {
		whole, err = s.store.readBodies(ctx, part.Events)
	}
	if err == nil && whole {
		stretch.Events, stretch.Upto, stretch.More = append(stretch.Events, part.Events...), part.Upto, part.More
	}
	return whole, err
}

// tailEach reads a stretch in which an event cannot be read: the others, up to
// the bounds of the query. Those are dead letters.
func (s *Session) tailEach(ctx context.Context, q *TailQuery, upto int64, stretch *Stretch) (whole bool, err error) {
	var ids []int64
	if q.Endpoint != 0 {
		ids, err = collect[int64](s.store.pool.Query(ctx, laneIDsSQL, q.After, upto, q.Limit, q.Endpoint))
	} else {
		ids, err = collect[int64](s.store.pool.Query(ctx, tailIDsSQL, q.After, upto, q.Limit))
	}
	if err != nil {
		return false, err
	}
	whole, size, full := true, 0, false
	err = isolate(ids, isReadFault, func(part []int64) error {
		if full || !whole || len(part) == 0 {
			return nil
		}
		before := len(stretch.Events)
		all, err := s.tail(ctx, q, part[0]-1, part[len(part)-1], stretch)
		if err != nil {
			return err
		}
		whole, stretch.Upto = all, max(stretch.Upto, part[len(part)-1])
		for i := before; i < len(stretch.Events); i++ {
			size += len(stretch.Events[i].Body)
		}
		if stretch.More && len(stretch.Events) > before { // a bound of bytes, within the part
			stretch.Upto = stretch.Events[len(stretch.Events)-1].ID
		}
		full = size >= max(q.MaxBytes, 1)
		return nil
	}, func(id int64, cause error) error {
		if full || !whole {
			return nil
		}
		stretch.Upto = id
		return s.store.bury(ctx, s.fence(), loopTail, id, q.Endpoint, cause)
	})
	stretch.More = full || len(ids) >= q.Limit
	return whole, err
}

// read takes rows up to the bound of bytes, of which so many are expected. The
// longer bodies are not with them.
func (s *Stretch) read(rows pgx.Rows, q *TailQuery, expected int) error {
	defer rows.Close()
	at := time.Now()
	count, size := 0, 0
	names := interned{}
	for rows.Next() {
		if size >= max(q.MaxBytes, 1) {
			break
		}
		count++
		values := rows.RawValues()
		for _, i := range [...]int{0, 1, 2, 7, 8} {
			if len(values[i]) != 8 {
				return &badItem{asideUnreadable, "a column of the event is null"}
			}
		}
		id, length := bigint(values[0]), values[10]
		s.Upto = id
		if length == nil {
			continue // not wanted
		}
		size += int(binary.BigEndian.Uint32(length))
		if s.Events == nil {
			s.Events = make([]Event, 0, expected+expected/4+1)
		}
		s.Events = append(s.Events, Event{
			ID: id, Endpoint: bigint(values[1]), Revision: bigint(values[2]),
			Record: string(values[3]), WebhookID: string(values[4]), Schema: names.string(values[5]), Type: names.string(values[6]),
			CommittedAt: fromMicroseconds(bigint(values[7])), AppendedAt: fromMicroseconds(bigint(values[8])), ReadAt: at,
			Format: names.string(values[9]), Body: bytes.Clone(values[11]), Account: names.string(values[13]),
		})
		if of := values[12]; of != nil {
			s.Events[len(s.Events)-1].bodyOf = bigint(of)
		}
	}
	rows.Close()
	s.More = count >= q.Limit || size >= max(q.MaxBytes, 1)
	return rows.Err()
}

const bodiesSQL = `SELECT id, body FROM walhook.event WHERE id = ANY ($1) AND id BETWEEN $2 AND $3`

// readBodies reads the bodies that did not come with their rows, those that
// several events share once; false when a row is not there any more.
func (s *Store) readBodies(ctx context.Context, events []Event) (whole bool, err error) {
	var ids []int64
	without := map[int64][]*Event{}
	for i := range events {
		e := &events[i]
		if e.Body != nil {
			continue
		}
		of := cmp.Or(e.bodyOf, e.ID)
		if without[of] == nil {
			ids = append(ids, of)
		}
		without[of] = append(without[of], e)
	}
	if len(ids) == 0 {
		return true, nil
	}
	rows, err := s.pool.Query(ctx, bodiesSQL, ids, slices.Min(ids), slices.Max(ids))
	if err != nil {
		return false, err
	}
	var id int64
	var body []byte
	if _, err = pgx.ForEachRow(rows, []any{&id, &body}, func() error {
		for _, e := range without[id] {
			e.Body = body
		}
		delete(without, id)
		return nil
	}); err != nil || len(without) == 0 {
		return err == nil, err
	}
	return false, s.missingBodies(ctx, slices.Collect(maps.Values(without)))
}

// An event whose body is another's, which is gone.
const lostBodiesSQL = `
	SELECT EXISTS (SELECT FROM walhook.event e WHERE e.id = ANY ($1) AND e.body_of IS NOT NULL
		AND NOT EXISTS (SELECT FROM walhook.event o WHERE o.id = e.body_of))`

// missingBodies says whether an event is there whose body is not, which no
// reading again changes. Retention drops both together.
func (s *Store) missingBodies(ctx context.Context, without [][]*Event) error {
	var ids []int64
	for _, of := range without {
		for _, e := range of {
			if e.bodyOf != 0 {
				ids = append(ids, e.ID)
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var lost bool
	if err := s.pool.QueryRow(ctx, lostBodiesSQL, ids).Scan(&lost); err != nil || !lost {
		return err
	}
	return errCarrierGone
}

// interned keeps one string of those that are alike.
type interned map[string]string

func (n interned) string(b []byte) string {
	s, known := n[string(b)]
	if !known {
		s = string(b)
		n[s] = s
	}
	return s
}

// bigint is a column of that type, or a timestamptz, in binary.
func bigint(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// columns are where a row of dueRetriesSQL is scanned to.
func (e *Event) columns() []any {
	return []any{&e.ID, &e.Endpoint, &e.Revision, &e.Record, &e.WebhookID, &e.Schema, &e.Type, &e.CommittedAt, &e.AppendedAt, &e.Format, &e.Body, &e.Account}
}

const (
	// Only lengths are summed, so a row that is left out is not fetched. One
	// clock says what is due, the outbox's: senders' may disagree.
	// This and nextRetrySQL go by now(), the clock of the one transaction that
	// they are asked in: a row that becomes due between the two is in neither
	// by a running clock, and would be forgotten.
	//
	// $6 names some rows alone; NULL is all.
	dueRetriesSQL = `
		SELECT e.id, e.endpoint, e.endpoint_revision, e.record, e.webhook_id, e.schema, e.type, e.committed_at, e.appended_at, e.format, ` + BodySQL + `, e.account, e.attempts, e.batch
		FROM (
			SELECT e.*, r.attempts, r.next_at, coalesce(r.batch, 0) AS batch,
				sum(` + SizeSQL + `) OVER (ORDER BY r.next_at, r.event_id) - ` + SizeSQL + ` AS before
			FROM (
				SELECT * FROM walhook.retry r
				WHERE r.endpoint = $1 AND r.next_at <= now() + $2::interval AND r.event_id <> ALL ($3)
					AND ($6::bigint[] IS NULL OR r.event_id = ANY ($6)) AND (SELECT walhook.on_timeline($7))
				ORDER BY r.next_at, r.event_id LIMIT $4) r
			JOIN walhook.event e ON e.id = r.event_id) e
		WHERE before < $5 ORDER BY next_at, id`

	dueIDsSQL = `
		SELECT r.event_id FROM walhook.retry r
		WHERE r.endpoint = $1 AND r.next_at <= now() + $2::interval AND r.event_id <> ALL ($3) ORDER BY r.next_at, r.event_id LIMIT $4`

	nextRetrySQL = `
		SELECT walhook.until(min(next_at)) FROM walhook.retry
		WHERE endpoint = $1 AND next_at > now() + $2::interval`
)

// DueRetries reads an endpoint's retry rows that are due. An event that cannot be
// read becomes a dead letter.
func (s *Session) DueRetries(ctx context.Context, q RetryQuery) (Retries, error) {
	if q.Exclude == nil {
		q.Exclude = []int64{}
	}
	due, err := s.dueRetries(ctx, q, nil)
	if err != nil && isReadFault(err) {
		due, err = s.dueEach(ctx, q)
	}
	if err == nil && q.Batches {
		err = s.readBatches(ctx, &q, &due)
	}
	if err != nil {
		return Retries{}, fmt.Errorf("read due retries of endpoint %d: %w", q.Endpoint, err)
	}
	return due, nil
}

func (s *Session) dueEach(ctx context.Context, q RetryQuery) (due Retries, err error) {
	ids, err := collect[int64](s.store.pool.Query(ctx, dueIDsSQL, q.Endpoint, max(time.Until(q.Now), 0), q.Exclude, q.Limit))
	if err != nil {
		return due, err
	}
	more := len(ids) >= q.Limit
	err = isolate(ids, isReadFault, func(part []int64) error {
		if len(part) == 0 {
			return nil
		}
		read, err := s.dueRetries(ctx, q, part)
		due.Events, due.Next, more = append(due.Events, read.Events...), read.Next, more || read.More
		return err
	}, func(id int64, cause error) error {
		more = true // what waited behind it is due
		return s.store.bury(ctx, s.fence(), loopRetries, id, q.Endpoint, cause)
	})
	due.More = more
	return due, err
}

// dueRetries reads those with the ids, or all that are due for nil.
func (s *Session) dueRetries(ctx context.Context, q RetryQuery, ids []int64) (Retries, error) {
	ahead, maxBytes := max(time.Until(q.Now), 0), max(q.MaxBytes, 1)
	var due Retries
	size := 0
	var next *time.Duration
	both := &pgx.Batch{} // without a BEGIN it is one transaction all the same
	limit := q.Limit
	if ids != nil {
		limit = min(limit, len(ids)) // nobody looks for more beyond them
	}
	both.Queue(dueRetriesSQL, q.Endpoint, ahead, q.Exclude, limit, maxBytes, ids, s.timeline).Query(func(rows pgx.Rows) (err error) {
		due.Events, err = pgx.CollectRows(rows, scanDue)
		for i := range due.Events {
			size += len(due.Events[i].Body)
		}
		return err
	})
	both.Queue(nextRetrySQL, q.Endpoint, ahead).QueryRow(func(row pgx.Row) error { return row.Scan(&next) })
	if err := s.store.pool.SendBatch(ctx, both).Close(); err != nil {
		return Retries{}, err
	}
	due.Next = fromNow(next)
	due.More = len(due.Events) >= q.Limit || size >= maxBytes
	return due, nil
}

// scanDue reads a row of dueRetriesSQL or batchSQL.
func scanDue(row pgx.CollectableRow) (e Event, err error) {
	err = row.Scan(append(e.columns(), &e.Attempts, &e.Batch)...)
	e.ReadAt = time.Now()
	if err == nil && e.Body == nil {
		err = errCarrierGone
	}
	return e, err
}
