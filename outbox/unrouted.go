package outbox

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
)

// What is listed as unrouted is bounded: whoever may write into the source
// could fill the outbox otherwise. The first rows of a kind are listed one by
// one; the rest of a window is one row that says how many. The counters count
// each.
const (
	listWindow  = 10 * time.Second
	listedRows  = 100   // of one schema and reason in a window
	listedKinds = 1_000 // kinds in a window; what is beyond is summed up by reason
)

// listing is what was listed in the present window. The publisher's lock guards
// it.
type listing struct {
	began time.Time
	kinds map[listKind]*kindCount
}

type listKind struct{ schema, reason string }

type kindCount struct {
	n, more int64
	last    unroutedRow // of those that are summed up
}

// clone is for a batch that may not be stored.
func (l *listing) clone() listing {
	kinds := maps.Clone(l.kinds)
	for kind, k := range kinds {
		kinds[kind] = new(*k)
	}
	return listing{l.began, kinds}
}

// bound says what of a batch is written, sums of a window that is over first.
func (l *listing) bound(rows []unroutedRow, now time.Time) []unroutedRow {
	over := l.sums(now)
	if len(rows) == 0 {
		return over
	}
	if l.kinds == nil {
		l.kinds, l.began = map[listKind]*kindCount{}, now
	}
	kept := rows[:0]
	for _, row := range rows {
		kind := listKind{row.schema, row.reason}
		k := l.kinds[kind]
		if k == nil && len(l.kinds) >= listedKinds {
			kind.schema = ""
			k = l.kinds[kind]
		}
		if k == nil {
			k = &kindCount{}
			l.kinds[kind] = k
		}
		if k.n++; k.n <= listedRows && (kind.schema == row.schema) {
			kept = append(kept, row)
			continue
		}
		k.more++
		k.last = row
	}
	return append(over, kept...)
}

// sums ends a window that is over, and gives a row for each kind of which more
// happened than was listed.
func (l *listing) sums(now time.Time) (rows []unroutedRow) {
	if l.kinds == nil || now.Sub(l.began) < listWindow {
		return nil
	}
	for kind, k := range l.kinds {
		if k.more == 0 {
			continue
		}
		row := k.last
		row.schema, row.typ = kind.schema, ""
		row.key = fmt.Sprintf("and %d more of this schema and reason since %s", k.more, l.began.UTC().Format(time.RFC3339))
		rows = append(rows, row)
	}
	l.kinds = nil
	return rows
}

// sumUnrouted writes what a window that is over summed up, while no batch comes.
func (p *Publisher) sumUnrouted(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return nil
	}
	rows := p.listing.sums(time.Now())
	if len(rows) == 0 {
		return nil
	}
	err := p.store.run(ctx, transaction{
		fence: func(b *pgx.Batch) { b.Queue(assertEpochSQL, p.epoch) },
		fill: func(b *pgx.Batch) {
			for _, u := range rows {
				u.queue(b, p.store.encoding)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("list how much more was unrouted: %w", err)
	}
	return nil
}
