package outbox

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// batchesAtOnce bounds the batches of one read: each has at most [MaxBatch] events, and
// about a megabyte.
const batchesAtOnce = 4

// What waits for an event outside the batch is left out: it is due by itself, once that
// one has left.
const batchSQL = `
	SELECT e.id, e.endpoint, e.endpoint_revision, e.record, e.webhook_id, e.schema, e.type, e.committed_at, e.appended_at, e.format, ` + BodySQL + `, e.account, e.attempts, e.batch
	FROM (
		SELECT e.*, r.attempts, r.batch FROM walhook.retry r JOIN walhook.event e ON e.id = r.event_id
		WHERE r.endpoint = $1 AND r.batch = $2 AND r.event_id <> ALL ($3) AND NOT EXISTS (
			SELECT FROM walhook.retry o
			WHERE o.endpoint = r.endpoint AND o.record = r.record AND o.event_id < r.event_id AND o.batch IS DISTINCT FROM r.batch)) e
	ORDER BY id`

// readBatches completes the batches of which due has rows, and puts each in the place of
// its first. Those beyond batchesAtOnce are left for the next read. A batch with a row
// that cannot be read comes apart: its rows that are due are sent by themselves.
func (s *Session) readBatches(ctx context.Context, q *RetryQuery, due *Retries) error {
	rows := due.Events
	due.Events = make([]Event, 0, len(rows))
	var begun []int64
	for i := range rows {
		e := &rows[i]
		switch {
		case e.Batch == 0:
			due.Events = append(due.Events, *e)
			continue
		case slices.Contains(begun, e.Batch):
			continue
		case len(begun) == batchesAtOnce:
			due.More = true
			continue
		}
		begun = append(begun, e.Batch)
		whole, err := s.readBatch(ctx, q, e.Batch)
		if err != nil && !isReadFault(err) {
			return err
		}
		if err != nil {
			whole = nil
			for _, one := range rows[i:] {
				if one.Batch == e.Batch {
					one.Batch = 0
					whole = append(whole, one)
				}
			}
		}
		due.Events = append(due.Events, whole...)
	}
	return nil
}

func (s *Session) readBatch(ctx context.Context, q *RetryQuery, batch int64) ([]Event, error) {
	rows, err := s.store.pool.Query(ctx, batchSQL, q.Endpoint, batch, q.Exclude)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanDue)
}
