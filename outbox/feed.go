package outbox

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A feed is read by a receiver itself. Its place is the id of an event, and that is safe
// to go on from: one publisher at a time appends, behind its fence, so events become
// visible in the order of their ids. Ids that were read before a failover are not given
// again (timeline.go), and a copy that a replay makes has an id of its own. So the order
// of ids is the order in which events become visible, on every timeline.

// FeedQuery asks for a stretch of an endpoint's events.
type FeedQuery struct {
	Endpoint int64
	After    int64 // events with larger ids; [FeedFromOldest] or [FeedFromLast] otherwise
	Last     int   // with FeedFromLast: begin before so many events
	// FeedFrom is the least id that is the endpoint's, as [Endpoint.FeedFrom] has it.
	FeedFrom int64
	Limit    int // events
	MaxBytes int // of bodies, but for the first event
}

// Other values of [FeedQuery.After].
const (
	FeedFromOldest = -1 // whatever is kept
	FeedFromLast   = -2 // the last events
)

// FeedPage is a stretch of a feed.
type FeedPage struct {
	Events []Event
	// Upto is where the next page goes on: nothing of the endpoint up to here is missing.
	Upto int64
	More bool // there may be more without a wait
	// Cut says that events after the place that was asked for are not the endpoint's any
	// more: its URL was cleared since.
	Cut bool
	// Log is where the event log stands.
	Log FeedLog
}

// FeedLog is where the event log begins and ends.
type FeedLog struct {
	Timeline string // the mark of the timeline that it was read on
	Oldest   int64  // the place before the oldest event that is kept
	Newest   int64  // no event that is visible has a larger id, and each that comes has

	timelines []string // marks of the whole history, the newest first
	begins    []int64  // the first id of each
	noted     bool     // Timeline is the one that the server is on
}

// Holds says whether the log still has every event after a place that was read on the
// timeline of a mark: false with newer where it is an older copy of the outbox, or another
// continuation of one, which gives ids before the place again. It has not come that far, it
// does not know the timeline, or it left that one before the place.
func (l *FeedLog) Holds(place int64, mark string) (holds, newer bool) {
	if place < l.Oldest {
		return false, false
	}
	end := l.Newest
	i := slices.Index(l.timelines, mark)
	if i > 0 {
		end = l.begins[i-1] - 1 // where the timeline after it begins
	}
	if i < 0 || place > end {
		return false, true
	}
	return true, false
}

const (
	// What is committed before this, the statement after it sees. No id below the
	// timeline's first one is given any more, so a place below it is no place beyond the
	// end, although the server that was promoted may have less.
	feedNewestSQL = `
		SELECT greatest((` + currentEventIDSQL + `), (SELECT first_event FROM walhook.timeline ORDER BY id DESC LIMIT 1)) - 1,
			ARRAY(SELECT ` + timelineMarkSQL + ` FROM walhook.timeline ORDER BY id DESC),
			ARRAY(SELECT first_event FROM walhook.timeline ORDER BY id DESC),
			coalesce((SELECT walhook.on_timeline(token) FROM walhook.timeline ORDER BY id DESC LIMIT 1), false)`

	// The id before the first partition's. Asked after the events are read, it says
	// whether retention dropped something that was to be among them: a partition that is
	// being detached is not read any more.
	feedOldestSQL = `
		SELECT greatest(coalesce(min(substring(c.relname FROM '^event_([0-9]+)$')::bigint) * $1 - 1, 0), 0)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'walhook.event'::regclass AND NOT i.inhdetachpending`
)

var (
	feedSQL = readStartSQL + `true THEN ` + SizeSQL + ` END AS size FROM walhook.event e WHERE ` + laneRowsSQL

	// The place before the last events.
	feedLastSQL = `
		SELECT coalesce(min(id) - 1, 0) FROM (
			SELECT e.id FROM walhook.event e WHERE ` + OfEndpointSQL("(SELECT $1::bigint)", "(SELECT $2::bigint - 1)", LastEventID) + `
			ORDER BY e.endpoint DESC, e.id DESC LIMIT (SELECT $3::bigint)) last`

	feedCutSQL = `SELECT EXISTS (SELECT FROM walhook.event e WHERE ` + OfEndpointSQL("(SELECT $1::bigint)", "(SELECT $2::bigint)", "(SELECT $3::bigint - 1)") + `)`
)

// Feed reads a stretch of an endpoint's events, in order of id, in one round trip where
// bodies are short. The caller asks [FeedLog.Holds] whether the page is whole.
func (s *Store) Feed(ctx context.Context, q FeedQuery) (FeedPage, error) {
	page, err := s.feed(ctx, q)
	if err == nil && !page.Log.noted { // the outbox failed over, and nobody has met it since
		if _, err = s.noteTimeline(ctx); err == nil {
			page, err = s.feed(ctx, q)
		}
	}
	if err != nil {
		return FeedPage{}, fmt.Errorf("read the feed of endpoint %d: %w", q.Endpoint, err)
	}
	return page, nil
}

func (s *Store) feed(ctx context.Context, q FeedQuery) (page FeedPage, err error) {
	after := max(q.After, q.FeedFrom-1)
	switch {
	case q.After >= 0 && after > q.After:
		if err := s.pool.QueryRow(ctx, feedCutSQL, q.Endpoint, q.After, q.FeedFrom).Scan(&page.Cut); err != nil {
			return page, err
		}
	case q.After == FeedFromOldest:
		after = max(q.FeedFrom-1, 0)
	case q.After == FeedFromLast && q.Last > 0:
		if err := s.pool.QueryRow(ctx, feedLastSQL, q.Endpoint, q.FeedFrom, q.Last).Scan(&after); err != nil {
			return page, err
		}
	case q.After == FeedFromLast: // from here on
		page.Log, err = s.feedLog(ctx)
		page.Upto = page.Log.Newest
		return page, err
	}
	query := TailQuery{Endpoint: q.Endpoint, Limit: q.Limit, MaxBytes: q.MaxBytes}
	for whole := false; !whole; { // false: retention has dropped a partition meanwhile
		var stretch Stretch
		if whole, err = s.feedStretch(ctx, &query, after, &stretch, &page.Log); err != nil && isReadFault(err) {
			whole, err = s.feedEach(ctx, &query, after, &stretch, &page.Log)
		}
		if err != nil {
			return page, err
		}
		page.Events, page.More, page.Upto = stretch.Events, stretch.More, max(stretch.Upto, after)
	}
	if !page.More {
		page.Upto = max(page.Upto, page.Log.Newest)
	}
	if q.After < 0 { // it asked for what there is
		page.Upto = max(page.Upto, page.Log.Oldest)
	}
	return page, nil
}

// scanNewest reads the row of feedNewestSQL. A log whose timelines somebody has deleted is
// not noted.
func (l *FeedLog) scanNewest(row pgx.Row) error {
	err := row.Scan(&l.Newest, &l.timelines, &l.begins, &l.noted)
	if err == nil && len(l.timelines) > 0 {
		l.Timeline = l.timelines[0]
	}
	return err
}

// feedStretch reads what follows an id, and where the log stands: its end before, its
// beginning after the events.
func (s *Store) feedStretch(ctx context.Context, q *TailQuery, after int64, stretch *Stretch, log *FeedLog) (whole bool, err error) {
	b := &pgx.Batch{}
	b.Queue(feedNewestSQL).QueryRow(log.scanNewest)
	s.queueFeed(b, q, after, math.MaxInt64, stretch)
	b.Queue(feedOldestSQL, int64(eventPartitionSize)).QueryRow(func(row pgx.Row) error { return row.Scan(&log.Oldest) })
	*stretch = Stretch{Upto: after}
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return false, err
	}
	return s.readBodies(ctx, stretch.Events)
}

func (s *Store) queueFeed(b *pgx.Batch, q *TailQuery, after, upto int64, stretch *Stretch) {
	each := q.MaxBytes / max(q.Limit, 1)
	b.Queue(feedSQL, after, upto, q.Endpoint, q.Limit, each).Query(func(rows pgx.Rows) error {
		return stretch.read(rows, q, 0)
	})
}

// feedEach reads what follows an id where an event cannot be read: the others. That one is
// set aside, as in every list.
func (s *Store) feedEach(ctx context.Context, q *TailQuery, after int64, stretch *Stretch, log *FeedLog) (whole bool, err error) {
	if *log, err = s.feedLog(ctx); err != nil {
		return false, err
	}
	*stretch = Stretch{Upto: after}
	ids, err := collect[int64](s.pool.Query(ctx, laneIDsSQL, after, int64(math.MaxInt64), q.Limit, q.Endpoint))
	if err != nil {
		return false, err
	}
	whole = true
	err = isolate(ids, isReadFault, func(part []int64) error {
		if len(part) == 0 || !whole || stretch.More {
			return nil
		}
		b, one := &pgx.Batch{}, Stretch{Upto: part[0] - 1}
		s.queueFeed(b, q, part[0]-1, part[len(part)-1], &one)
		if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		all, err := s.readBodies(ctx, one.Events)
		if err != nil {
			return err
		}
		whole = all
		stretch.Events, stretch.Upto, stretch.More = append(stretch.Events, one.Events...), one.Upto, one.Upto < part[len(part)-1]
		return nil
	}, func(id int64, cause error) error {
		if !stretch.More {
			stretch.Upto = id
			s.setAside(ctx, loopLists, fmt.Sprintf("feed %d", id), q.Endpoint, asideUnreadable, cause)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	stretch.More = stretch.More || len(ids) >= q.Limit
	var oldest FeedLog
	if oldest, err = s.feedLog(ctx); err == nil {
		log.Oldest = oldest.Oldest
	}
	return whole, err
}

// feedLog is where the event log stands.
func (s *Store) feedLog(ctx context.Context) (log FeedLog, err error) {
	b := &pgx.Batch{}
	b.Queue(feedNewestSQL).QueryRow(log.scanNewest)
	b.Queue(feedOldestSQL, int64(eventPartitionSize)).QueryRow(func(row pgx.Row) error { return row.Scan(&log.Oldest) })
	return log, s.pool.SendBatch(ctx, b).Close()
}

const revisionsSQL = `SELECT id, revision FROM walhook.endpoint WHERE id = ANY ($1) AND deleted_at IS NULL`

// Revisions are those of the named endpoints that are not deleted.
func (s *Store) Revisions(ctx context.Context, endpoints []int64) (map[int64]int64, error) {
	revisions := make(map[int64]int64, len(endpoints))
	rows, err := s.pool.Query(ctx, revisionsSQL, endpoints)
	var id, revision int64
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&id, &revision}, func() error {
			revisions[id] = revision
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the revisions of endpoints: %w", err)
	}
	return revisions, nil
}
