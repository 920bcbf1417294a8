package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// After a gap it is asked which rows of the source changed in it. A row's xmin says which
// transaction wrote it, but not where in the WAL that committed, and a transaction may be
// committed in the WAL before any snapshot sees it. So the outbox remembers a snapshot
// that was taken before the stored position: all that it saw is stored.

// visibleMarks are the snapshots that were observed and whose end is not stored yet.
type visibleMarks struct {
	mu     sync.Mutex
	flush  schemas.LSN
	marks  []visibleMark // in order; the first may be stored, and then is the newest such
	before int64         // the id of the next event when the last one was observed; 0 for none
	nextID int64         // the present one
	bounds []eventBound  // in order
	kept   schemas.LSN   // the end of the one that the outbox has
}

type visibleMark struct {
	schemas.Visible
	event int64 // no event of Xmin or of a later transaction has a lower id; 0 where that is not known
}

// eventBound says that no event of a transaction from xid on has a lower id.
type eventBound struct {
	xid   uint64
	event int64
}

// maxBounds bounds how many earlier observations are remembered: a transaction that runs
// for longer than these leaves the bound unknown.
const maxBounds = 1000

// ObserveVisible notes what a snapshot of the source saw.
func (p *Publisher) ObserveVisible(v schemas.Visible) {
	m := &p.visible
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before > 0 { // the snapshot was taken after that id was the next
		if m.bounds = append(m.bounds, eventBound{v.Xmax, m.before}); len(m.bounds) > maxBounds {
			m.bounds = m.bounds[1:]
		}
	}
	m.before = m.nextID
	mark := visibleMark{Visible: v}
	for _, b := range m.bounds {
		if b.xid <= v.Xmin {
			mark.event = b.event
		}
	}
	if len(m.marks) < maxMarks {
		m.marks = append(m.marks, mark)
	}
	m.settle()
}

// stored notes how far the WAL is stored, and the id of the next event.
func (m *visibleMarks) stored(flush schemas.LSN, nextID int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flush, m.nextID = max(m.flush, flush), nextID
	m.settle()
}

// restart forgets what another session observed.
func (m *visibleMarks) restart(flush schemas.LSN, nextID int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flush, m.nextID, m.before, m.marks, m.bounds, m.kept = flush, nextID, 0, nil, nil, 0
}

// settle drops the marks before the newest one whose end is stored.
func (m *visibleMarks) settle() {
	for len(m.marks) > 1 && m.marks[1].End <= m.flush {
		m.marks = m.marks[1:]
	}
}

// due is the newest mark whose end is stored, if the outbox has not got it.
func (m *visibleMarks) due() (mark visibleMark, due bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.marks) == 0 || m.marks[0].End > m.flush || m.marks[0].End <= m.kept {
		return visibleMark{}, false
	}
	return m.marks[0], true
}

func (m *visibleMarks) keeps(end schemas.LSN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = end
}

// An event's id that is not known stays the one of an earlier transaction, which is lower.
const keepVisibleSQL = `
	UPDATE walhook.source SET visible_lsn = $1::text::pg_lsn, visible_xmin = $2, visible_event = coalesce(nullif($3::bigint, 0), visible_event),
		visible_published = nullif($4, '')
	WHERE state = 'ready'`

// keepVisible stores the newest snapshot of the source all of which is stored.
func (p *Publisher) keepVisible(ctx context.Context) error {
	mark, due := p.visible.due()
	if !due {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, inboxTimeout, errors.New("store what the source showed: timed out"))
	defer cancel()
	err := p.run(ctx, &transaction{fill: func(b *pgx.Batch) {
		b.Queue(keepVisibleSQL, mark.End.String(), int64(mark.Xmin), mark.event, mark.Published)
	}})
	switch {
	case err == nil:
		p.visible.keeps(mark.End)
		return nil
	case replaced(err):
		p.live = false
	}
	return fmt.Errorf("store what the source showed: %w", err)
}
