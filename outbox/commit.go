package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/outbox/route"
)

const (
	// A position follows the one before it, which its publisher stored or read ($1, $2;
	// none for the first). An outbox that lacks that one has lost what came with it: it was
	// restored, or its server failed over to a standby that had not received the newest. The
	// new position then violates a constraint, and nothing is stored.
	followsSQL = `CASE WHEN $1::bigint IS NULL OR EXISTS (SELECT FROM walhook.position WHERE id = $1 AND stored_at = $2) THEN $4::bigint END`

	writePositionSQL = `
		INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id, messages, committed_at)
		VALUES ($3, $5::text::pg_lsn, $6, $7, $8::text::pg_lsn, ` + followsSQL + `, $9, $10) RETURNING id, stored_at`

	// The place in the source's WAL is as it was.
	keepPositionSQL = `
		INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id, messages, committed_at)
		SELECT $3, commit_lsn, ordinal, xid, flush_lsn, ` + followsSQL + `, messages, committed_at FROM walhook.position ORDER BY id DESC LIMIT 1
		RETURNING id, stored_at`
)

// positionRow is a row of position; the zero one is none.
type positionRow struct {
	id int64
	at time.Time
}

// first are the first arguments of writePositionSQL and keepPositionSQL.
func (r positionRow) first(epoch, nextID int64) []any {
	if r == (positionRow{}) {
		return []any{nil, nil, epoch, nextID}
	}
	return []any{r.id, r.at, epoch, nextID}
}

// errOutboxRewound says that the outbox lacks a position that was stored in it.
var errOutboxRewound = errors.New("the outbox lacks what was stored in it last: it was restored, or failed over to a standby that had not received it")

// replaced says that a publisher has to take over again before it writes: it is not the
// one any more, or the outbox is not.
func replaced(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, ErrMoved) || errors.Is(err, errOutboxRewound)
}

// rewound turns the violation of followsSQL into the condition that it means.
func rewound(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if ok && pgErr.Code == codeNotNullViolation && pgErr.ColumnName == "next_event_id" {
		return errOutboxRewound
	}
	return err
}

// batchesOfReuse is for how many batches owners are upserted once the key of an
// inserted record was stored already: a carrier that uses keys again usually does so again.
const batchesOfReuse = 100

// commit stores a plan of any maker in one transaction that another epoch
// cannot interleave with, and then makes the view what the plan says. After an
// error nothing is changed here; it is [errUncertain] where it may be stored.
func (p *Publisher) commit(ctx context.Context, plan *route.Plan) error {
	return p.commitBehind(ctx, p.fence(), plan)
}

func (p *Publisher) commitBehind(ctx context.Context, f fence, plan *route.Plan) error {
	position := p.position
	for {
		w := p.newWrite(plan)
		tx := w.transaction()
		tx.fence = f
		fill := tx.fill
		tx.fill = func(b *pgx.Batch) {
			fill(b)
			p.queuePosition(b, plan, &position)
		}
		err := rewound(tx.outcome(p.run(ctx, tx)))
		switch {
		case err == nil:
			p.position = position
			p.keysReused = max(p.keysReused-1, 0)
			p.listing = w.listing
			p.apply(plan)
			return nil
		case w.upsert || !isKnownOwner(err):
			return err
		}
		p.keysReused = batchesOfReuse // once more, and then with upserts
	}
}

// isKnownOwner says that a record was taken for new that is stored already.
func isKnownOwner(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == codeUniqueViolation && pgErr.TableName == "owner"
}

// queuePosition queues the position of a plan, where it has one. stored becomes its row,
// which counts once the transaction is committed.
func (p *Publisher) queuePosition(b *pgx.Batch, plan *route.Plan, stored *positionRow) {
	args := p.position.first(p.epoch, plan.NextID())
	scan := func(row pgx.Row) error { return row.Scan(&stored.id, &stored.at) }
	switch at := plan.Reached; {
	case at != nil:
		b.Queue(writePositionSQL, append(args, at.Position.Commit.String(), at.Position.Ordinal, int64(at.Xid),
			at.Flush.String(), !at.NoMessages, knownTime(at.CommittedAt))...).QueryRow(scan)
	case plan.NextID() != p.view.NextID:
		b.Queue(keepPositionSQL, args...).QueryRow(scan)
	}
}

// apply makes the plans of a transaction that is committed known: to the view, the
// metrics, the logs and who waits for it. The last one says what the view is.
func (p *Publisher) apply(plans ...*route.Plan) {
	last, from := plans[len(plans)-1], p.view.NextID
	p.view.Apply(last)
	if at := last.Reached; at != nil {
		p.flush = at.Flush
		p.watermark.stored(at.Flush)
		p.stored.Store(uint64(at.Flush))
	}
	p.visible.stored(p.flush, p.view.NextID)
	p.trackers.note(plans)
	for _, plan := range plans {
		p.count(plan)
		if !p.store.encoding.narrow.Load() { // otherwise texts are not stored as they are
			p.store.fresh.add(from, plan)
		}
		from = plan.NextID()
		if n := len(plan.Events); n > 0 {
			p.store.signalAppended(plan.Events[n-1].ID)
		}
		if len(plan.Endpoints) > 0 || plan.AllEnded {
			p.store.signalEndpoints()
		}
		if len(plan.DayEnds) > 0 {
			p.store.signalInbox()
		}
	}
}

func (p *Publisher) count(plan *route.Plan) {
	m := p.store.metrics
	for k, n := range plan.Changes {
		m.changes.WithLabelValues(k[0], k[1]).Add(float64(n))
	}
	for reason, n := range plan.Skipped {
		m.skipped.WithLabelValues(reason).Add(float64(n))
	}
	m.deadLetters.Add(float64(len(plan.TooLarge)))
	m.appended.Add(float64(len(plan.Events)))
	for _, n := range plan.Notes {
		if n.Once != "" {
			if p.warned[n.Once] {
				continue
			}
			p.warned[n.Once] = true
		}
		level, fields := zap.WarnLevel, make([]zap.Field, len(n.Fields))
		if n.Level == route.Error {
			level = zap.ErrorLevel
		}
		for i, f := range n.Fields {
			fields[i] = zap.Any(f.Key, f.Value)
		}
		p.log.Log(level, n.Text, fields...)
	}
}
