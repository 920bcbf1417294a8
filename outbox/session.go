package outbox

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Shards is the number of parts that endpoints are dealt into.
const Shards = 32

// ShardOf is the shard of an endpoint.
func ShardOf(endpoint int64) int { return int(endpoint % Shards) }

// Session is one sender's hold on its shards. Every write checks that the
// lease still holds, by the database's clock and under a lock, so that a
// sender whose lease was taken over can write nothing.
type Session struct {
	store *Store
	id    int64
	lease time.Duration
	// timeline is the token of the one that it joined on.
	timeline string

	lookedBack time.Time // by EndpointsChanged, as far as it goes

	disposed map[int64]bool // by Settle: events whose fate could not be stored, of the batch that it is at
	unsaved  map[int]bool   // by Save: shards with a lane that could not be stored

	gained      atomic.Bool // shards whose endpoints' hosts were not looked at yet
	lookedAgain time.Time   // by EndpointsChanged, at the endpoints that are held

	lastRead atomic.Int32 // events of the last stretch of the event log, as many as the next may have
}

const (
	joinSQL = `
		INSERT INTO walhook.sender (name, process, lease_until, timeline)
		VALUES ($1, $2, clock_timestamp() + $3::interval, $4)
		RETURNING id`

	otherProcessesSQL = `SELECT id, process FROM walhook.sender WHERE process <> '' AND process <> $1`
)

// Join registers a sender whose lease lasts for lease unless renewed. name is
// for people: host and process. Sessions of processes that are seen to be gone
// end at once: after a crash and a restart nobody waits for a dead lease.
func (s *Store) Join(ctx context.Context, name string, lease time.Duration) (*Session, error) {
	s = s.on(s.pools.sending)
	session := &Session{store: s, lease: lease}
	process := processIdentity()
	s.pool.Reset() // no connection to the server of an earlier timeline stays
	on, err := s.noteTimeline(ctx)
	if err != nil {
		return nil, fmt.Errorf("join as sender %s: %w", name, err)
	}
	session.timeline = on.token
	if err := s.pool.QueryRow(ctx, joinSQL, name, process, lease, on.token).Scan(&session.id); err != nil {
		return nil, fmt.Errorf("join as sender %s: %w", name, err)
	}
	if err := s.endDeadSessions(ctx, process); err != nil {
		return nil, fmt.Errorf("join as sender %s: %w", name, err)
	}
	s.fresh.want()
	return session, nil
}

func (s *Store) endDeadSessions(ctx context.Context, mine string) error {
	rows, err := s.pool.Query(ctx, otherProcessesSQL, mine)
	if err != nil {
		return err
	}
	var dead []int64
	var id int64
	var process string
	_, err = pgx.ForEachRow(rows, []any{&id, &process}, func() error {
		if isDead(process, mine) {
			dead = append(dead, id)
		}
		return nil
	})
	if err != nil || len(dead) == 0 {
		return err
	}
	_, err = s.pool.Exec(ctx, "DELETE FROM walhook.sender WHERE id = ANY ($1)", dead)
	return err
}

const renewSQL = `
	UPDATE walhook.sender SET lease_until = clock_timestamp() + $2::interval
	WHERE id = $1 AND timeline = $3 AND lease_until > clock_timestamp()
	RETURNING walhook.on_timeline($3)`

// Renew extends the lease and says until when it holds by this process's
// monotonic clock, reckoned from before the request so that it errs early.
// [ErrLeaseLost] when the lease had ended. [ErrMoved] when it holds, on another timeline:
// the sender may settle what it has delivered, and nothing else.
func (s *Session) Renew(ctx context.Context) (time.Time, error) {
	asked := time.Now()
	var same bool
	err := s.store.pool.QueryRow(ctx, renewSQL, s.id, s.lease, s.timeline).Scan(&same)
	switch {
	case isNoRows(err):
		err = ErrLeaseLost
	case err == nil && !same:
		err = ErrMoved
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("renew lease of sender %d: %w", s.id, err)
	}
	return asked.Add(s.lease), nil
}

// rebalanceLock lets one sender at a time deal out shards.
const rebalanceLock = 0x77_61_6c_01

const (
	// The lock on a sender's own row, held while it commits, makes this wait
	// for a running write; a renewal that came first keeps the row. Nobody asks
	// for more than seconds: a lease far ahead is of before the clock was set back.
	expireSendersSQL = `
		DELETE FROM walhook.sender
		WHERE lease_until <= clock_timestamp() OR lease_until > clock_timestamp() + interval '10 minutes'`

	countSendersSQL = `SELECT count(*) FROM walhook.sender`

	heldShardsSQL = `SELECT id FROM walhook.shard WHERE sender = $1 ORDER BY id`

	takeShardsSQL = `
		UPDATE walhook.shard SET sender = $1
		WHERE id IN (SELECT id FROM walhook.shard WHERE sender IS NULL ORDER BY id LIMIT $2)
		RETURNING id, tail`
)

// Rebalance frees the shards of expired senders, takes free ones up to this
// sender's fair share, and names those that it holds too many of, to be given
// up when they are drained. After [ErrUncertain] it may hold shards that it was
// not informed of, which nobody would send.
func (s *Session) Rebalance(ctx context.Context) (gained Handover, surplus []int, err error) {
	taken := false
	err = pgx.BeginFunc(ctx, s.store.pool, func(tx pgx.Tx) error {
		if err := expireSendersTx(ctx, tx); err != nil {
			return err
		}
		// After those of others: nobody holds its own row's lock while it waits for theirs.
		if err := s.fence().assertTx(ctx, tx); err != nil {
			return err
		}
		var senders int
		if err := tx.QueryRow(ctx, countSendersSQL).Scan(&senders); err != nil {
			return err
		}
		held, err := collect[int](tx.Query(ctx, heldShardsSQL, s.id))
		if err != nil {
			return err
		}
		share := (Shards + senders - 1) / senders
		if len(held) > share {
			surplus = held[share:]
			return nil
		}
		rows, err := tx.Query(ctx, takeShardsSQL, s.id, share-len(held))
		if err != nil {
			return err
		}
		gained.Shards, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (shard Shard, err error) {
			return shard, row.Scan(&shard.ID, &shard.Tail)
		})
		if err != nil || len(gained.Shards) == 0 {
			return err
		}
		err = loadHandoverTx(ctx, tx, &gained)
		taken = err == nil // and to be committed
		return err
	})
	if err != nil && taken {
		err = fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	if err != nil {
		return Handover{}, nil, fmt.Errorf("rebalance shards: %w", fenceError(err))
	}
	if len(gained.Shards) > 0 {
		s.gained.Store(true)
	}
	for _, bad := range gained.bad {
		s.store.setAside(ctx, loopHandover, strconv.FormatInt(bad.endpoint, 10), bad.endpoint, asideUnreadable, bad.cause)
	}
	return gained, surplus, nil
}

// expireSendersTx ends the leases that are over. Until the transaction ends nobody
// else deals out shards.
func expireSendersTx(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", rebalanceLock)
	if err == nil {
		_, err = tx.Exec(ctx, expireSendersSQL)
	}
	return err
}

const giveUpSQL = `
	UPDATE walhook.shard s SET sender = NULL, tail = greatest(s.tail, g.tail)
	FROM unnest($2::int[], $3::bigint[]) AS g(id, tail)
	WHERE s.id = g.id AND s.sender = $1`

// Release stores the tails of drained shards and frees them.
func (s *Session) Release(ctx context.Context, shards []Shard) error {
	ids, tails := shardColumns(shards)
	for i, id := range ids {
		if s.unsaved[id] {
			tails[i] = 0 // as it is stored: beyond lies what the lane has not sent
		}
	}
	err := s.run(ctx, &transaction{fill: func(b *pgx.Batch) { b.Queue(giveUpSQL, s.id, ids, tails) }})
	if err != nil {
		return fmt.Errorf("release %d shards: %w", len(shards), err)
	}
	return nil
}

const leaveSQL = `DELETE FROM walhook.sender WHERE id = $1 AND timeline = $2`

// Leave ends the session and frees whatever it still holds.
func (s *Session) Leave(ctx context.Context) error {
	if _, err := s.store.pool.Exec(ctx, leaveSQL, s.id, s.timeline); err != nil {
		return fmt.Errorf("leave as sender %d: %w", s.id, err)
	}
	return nil
}

func shardColumns(shards []Shard) (ids []int, tails []int64) {
	for _, shard := range shards {
		ids = append(ids, shard.ID)
		tails = append(tails, shard.Tail)
	}
	return ids, tails
}
