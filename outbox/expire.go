package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// errUndelivered says that senders hold events that are past retention, and
// have to make dead letters of them.
var errUndelivered = errors.New("some of its events are neither delivered nor dead letters")

const (
	expireBeforeSQL = `
		UPDATE walhook.endpoint SET expire_before = $2, revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 AND coalesce(expire_before, 0) < $2`

	// Nobody can take a shard whose row is locked, and who held it before has
	// no lease.
	lockFreeShardSQL = `SELECT FROM walhook.shard WHERE id = $1 AND sender IS NULL FOR UPDATE SKIP LOCKED`

	passLanesSQL = `UPDATE walhook.lane SET cursor = $2 WHERE behind AND cursor < $2 AND endpoint % $3 = $1`
	passShardSQL = `UPDATE walhook.shard SET tail = $2 WHERE id = $1 AND tail < $2`
)

// Who may have something undelivered before an event id, and after which
// cursor. Each endpoint is looked up by index; an EXISTS may be planned as a
// scan of the event log. A shard's tail does not move while nobody owns it.
var undeliveredSQL = `
		SELECT p.id, p.account, coalesce(p.feed_from, 0), coalesce(p.expire_before, 0), coalesce(l.cursor, s.tail)
		FROM walhook.endpoint p
		JOIN walhook.shard s ON s.id = p.id % $3
		LEFT JOIN walhook.lane l ON l.endpoint = p.id AND l.behind
		WHERE s.id = ANY ($2) AND p.delivery <> 'pull' AND (
			coalesce(l.cursor, $1) < $1::bigint - 1
			OR (SELECT 1 FROM walhook.event e WHERE ` + OfEndpointSQL("p.id", "coalesce(l.cursor, s.tail)", "$1::bigint - 1") + ` ORDER BY e.endpoint, e.id LIMIT 1) IS NOT NULL
			OR (SELECT 1 FROM walhook.retry r WHERE r.endpoint = p.id AND r.event_id < $1 LIMIT 1) IS NOT NULL)
		ORDER BY p.id`

// laneEnd is where a lane stands that has something undelivered.
type laneEnd struct {
	Endpoint
	cursor int64
}

// expireBefore has dead letters made of what is undelivered before an event:
// by the senders that own the lanes, which alone know what is in flight, or
// here where a shard is free. It is done when it returns nil, and under way when
// it returns errUndelivered.
func (s *Store) expireBefore(ctx context.Context, before int64) error {
	left, err := s.undelivered(ctx, before, allShards())
	if err != nil || len(left) == 0 {
		return err
	}
	// An update of its own for each: nobody waits for more than one.
	for _, lane := range left {
		_, err := s.pool.Exec(ctx, expireBeforeSQL, lane.ID, before)
		if isDataFault(err) {
			s.setAside(ctx, loopRetention, strconv.FormatInt(lane.ID, 10), lane.ID, asideUnstorable, err)
		} else if err != nil {
			return fmt.Errorf("expire events of endpoint %d: %w", lane.ID, err)
		}
	}
	if err := s.expireFreeShards(ctx, before); err != nil {
		return err
	}
	if left, err = s.undelivered(ctx, before, allShards()); err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: %d endpoints have events before %d", errUndelivered, len(left), before)
	}
	return err
}

func (s *Store) undelivered(ctx context.Context, before int64, shards []int) ([]laneEnd, error) {
	rows, err := s.pool.Query(ctx, undeliveredSQL, before, shards, Shards)
	if err != nil {
		return nil, fmt.Errorf("find undelivered events before %d: %w", before, err)
	}
	left, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l laneEnd, err error) {
		return l, row.Scan(&l.ID, &l.Account, &l.FeedFrom, &l.ExpireBefore, &l.cursor)
	})
	if err != nil {
		return nil, fmt.Errorf("find undelivered events before %d: %w", before, err)
	}
	return left, nil
}

// expireFreeShards does for the shards that nobody holds what their senders
// would do.
func (s *Store) expireFreeShards(ctx context.Context, before int64) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return expireSendersTx(ctx, tx) })
	if err != nil {
		return fmt.Errorf("remove expired leases: %w", err)
	}
	for shard := range Shards {
		if err := s.expireFreeShard(ctx, shard, before); err != nil && !errors.Is(err, errShardHeld) {
			return err
		}
	}
	return nil
}

// errShardHeld says that a sender holds the shard, or is about to.
var errShardHeld = errors.New("the shard is leased")

func (s *Store) expireFreeShard(ctx context.Context, shard int, before int64) error {
	free := fence{sql: lockFreeShardSQL, args: []any{shard}, held: errShardHeld}
	var left []laneEnd
	err := s.transact(ctx, free, func(pgx.Tx) (err error) {
		left, err = s.undelivered(ctx, before, []int{shard})
		return err
	})
	if err != nil || len(left) == 0 {
		return err
	}
	s.log.Info("dead-lettering events past retention", zap.Int("shard", shard), zap.Int("endpoints", len(left)))
	for _, lane := range left {
		if err := s.expire(ctx, free, lane.Endpoint, lane.cursor); err != nil {
			return err
		}
	}
	return s.transact(ctx, free, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, passLanesSQL, shard, before-1, Shards)
		if err == nil {
			_, err = tx.Exec(ctx, passShardSQL, shard, before-1)
		}
		return err
	})
}

func allShards() []int {
	shards := make([]int, Shards)
	for i := range shards {
		shards[i] = i
	}
	return shards
}

// expireChunk bounds one transaction of Expire, so that none outlasts a lease.
const expireChunk = 2000

const (
	// Events go by in order of id, so the dead letters of an interrupted call say how
	// far it came.
	expiredUptoSQL = `
		SELECT coalesce(max(event_id), 0) FROM walhook.dead_letter
		WHERE endpoint = $1 AND event_id > $2 AND event_id < $3 AND reason IN ('expired', 'retention')`

	expireRetriesSQL = `
		DELETE FROM walhook.retry WHERE endpoint = $1 AND event_id > $2 AND event_id < $3 AND event_id <= coalesce((
			SELECT event_id FROM walhook.retry WHERE endpoint = $1 AND event_id > $2 AND event_id < $3
			ORDER BY event_id OFFSET $4::bigint - 1 LIMIT 1), $3)
		RETURNING event_id, attempts`

	expireRetryIDsSQL = `SELECT event_id FROM walhook.retry WHERE endpoint = $1 AND event_id > $2 AND event_id < $3 ORDER BY event_id LIMIT $4`
)

var (
	expirableSQL = `SELECT e.id, ` + unsettledSQL + expirableRowsSQL

	// By the index alone: what is on the rows' pages may be damaged.
	expirableIDsSQL = `SELECT e.id` + expirableRowsSQL

	expirableRowsSQL = ` FROM walhook.event e
		WHERE ` + OfEndpointSQL("(SELECT $1::bigint)", "(SELECT $2::bigint)", "(SELECT $3::bigint - 1)") + `
		ORDER BY e.endpoint, e.id LIMIT (SELECT $4::bigint)`
)

// Expire turns what is left undelivered of an endpoint's earlier feeds, or past
// retention (ids after cursor and below e.SendFrom, and its retry rows), into
// dead letters with the reason "expired" or "retention". What waited behind
// them is due. Whoever calls it has nothing of the endpoint in flight. It may be
// called again after a failure, and continues where it was.
func (s *Session) Expire(ctx context.Context, e Endpoint, cursor int64) error {
	return s.store.expire(ctx, s.fence(), e, cursor)
}

// expire is Session.Expire behind a fence: nobody else may send what it expires.
func (s *Store) expire(ctx context.Context, f fence, e Endpoint, cursor int64) error {
	var upto int64
	err := s.pool.QueryRow(ctx, expiredUptoSQL, e.ID, cursor, e.SendFrom()).Scan(&upto)
	if err == nil {
		err = s.expireChunks(ctx, f, e, max(cursor, upto), expirableIDsSQL, expireLogTx)
	}
	if err != nil {
		return fmt.Errorf("expire events of endpoint %d: %w", e.ID, err)
	}
	if err := s.expireChunks(ctx, f, e, 0, expireRetryIDsSQL, expireRetriesTx); err != nil {
		return fmt.Errorf("expire retries of endpoint %d: %w", e.ID, err)
	}
	return nil
}

// expireTx expires the first [expireChunk] rows between two ids. It says how many
// rows it looked at, which was the last, and how many are dead letters now.
type expireTx func(ctx context.Context, tx pgx.Tx, e *Endpoint, after, before int64) (looked int, last, dead int64, err error)

// expireChunks expires an endpoint's rows after an id, a chunk to a transaction. Of
// rows that cannot be read idsSQL names the ids, and each is a dead letter without a
// body.
func (s *Store) expireChunks(ctx context.Context, f fence, e Endpoint, after int64, idsSQL string, expire expireTx) error {
	for {
		var looked int
		var last int64
		between := func(after, before int64) error {
			var dead int64
			err := s.transact(ctx, f, func(tx pgx.Tx) (err error) {
				looked, last, dead, err = expire(ctx, tx, &e, after, before)
				return err
			})
			if err == nil {
				s.metrics.deadLetters.Add(float64(dead))
			}
			return err
		}
		err := between(after, e.SendFrom())
		if err != nil && isReadFault(err) {
			var ids []int64
			if ids, err = collect[int64](s.pool.Query(ctx, idsSQL, e.ID, after, e.SendFrom(), expireChunk)); err == nil && len(ids) > 0 {
				err = isolate(ids, isReadFault, func(part []int64) error { return between(part[0]-1, part[len(part)-1]+1) },
					func(id int64, cause error) error { return s.bury(ctx, f, loopRetention, id, e.ID, cause) })
				last = ids[len(ids)-1]
			}
			looked = len(ids)
		}
		if err != nil || looked < expireChunk {
			return err
		}
		after = last
	}
}

func expireLogTx(ctx context.Context, tx pgx.Tx, e *Endpoint, after, before int64) (looked int, last, dead int64, err error) {
	rows, err := tx.Query(ctx, expirableSQL, e.ID, after, before, expireChunk)
	if err != nil {
		return 0, 0, 0, err
	}
	var old deaths
	var unsettled bool
	_, err = pgx.ForEachRow(rows, []any{&last, &unsettled}, func() error {
		looked++
		if unsettled {
			old.add(last, 0, e.expiry(last))
		}
		return nil
	})
	if err == nil {
		dead, err = old.insertTx(ctx, tx)
	}
	return looked, last, dead, err
}

func expireRetriesTx(ctx context.Context, tx pgx.Tx, e *Endpoint, after, before int64) (looked int, last, dead int64, err error) {
	rows, err := tx.Query(ctx, expireRetriesSQL, e.ID, after, before, expireChunk)
	if err != nil {
		return 0, 0, 0, err
	}
	var old deaths
	var id int64
	var attempts int
	_, err = pgx.ForEachRow(rows, []any{&id, &attempts}, func() error {
		looked, last = looked+1, max(last, id)
		old.add(id, attempts, e.expiry(id))
		return nil
	})
	if err == nil {
		dead, err = old.insertTx(ctx, tx)
	}
	if err == nil && looked < expireChunk {
		_, err = tx.Exec(ctx, promoteEndpointSQL, e.ID)
	}
	return looked, last, dead, err
}

// expiry is the reason for which an event that is not sent any more is a dead letter.
func (e *Endpoint) expiry(event int64) string {
	if event < e.FeedFrom {
		return deadExpired
	}
	return deadRetention
}
