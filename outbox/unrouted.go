package outbox

import (
	"context"
	"fmt"
	"maps"
	"time"

	"walhook/outbox/route"
)

// What is listed as unrouted is bounded: anybody who may write into the source
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
	last    route.Unrouted // of those that are summed up
}

// bound says what of a plan is written, sums of a window that is over first, and
// what the listing is once that is committed.
func (l listing) bound(rows []route.Unrouted, now time.Time) (next listing, written []route.Unrouted) {
	next, written = l.sums(now)
	if len(rows) == 0 {
		return next, written
	}
	next = next.clone()
	if next.kinds == nil {
		next.kinds, next.began = map[listKind]*kindCount{}, now
	}
	for _, row := range rows {
		kind := listKind{row.Schema, row.Reason}
		k := next.kinds[kind]
		if k == nil && len(next.kinds) >= listedKinds {
			kind.schema = ""
			k = next.kinds[kind]
		}
		if k == nil {
			k = &kindCount{}
			next.kinds[kind] = k
		}
		if k.n++; k.n <= listedRows && kind.schema == row.Schema {
			written = append(written, row)
			continue
		}
		k.more++
		k.last = row
	}
	return next, written
}

func (l listing) clone() listing {
	kinds := maps.Clone(l.kinds)
	for kind, k := range kinds {
		kinds[kind] = new(*k)
	}
	return listing{l.began, kinds}
}

// sums ends a window that is over, and gives a row for each kind of which more
// happened than was listed.
func (l listing) sums(now time.Time) (next listing, rows []route.Unrouted) {
	if l.kinds == nil || now.Sub(l.began) < listWindow {
		return l, nil
	}
	for kind, k := range l.kinds {
		if k.more == 0 {
			continue
		}
		row := k.last
		row.Schema, row.Type = kind.schema, ""
		row.Key = fmt.Sprintf("and %d more of this schema and reason since %s", k.more, l.began.UTC().Format(time.RFC3339))
		rows = append(rows, row)
	}
	return listing{began: l.began}, rows
}

// sumUnrouted writes what a window that is over summed up, while no batch comes.
func (p *Publisher) sumUnrouted(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return nil
	}
	if _, rows := p.listing.sums(time.Now()); len(rows) == 0 {
		return nil
	}
	err := p.beside(ctx, func(ctx context.Context) error { return p.commit(ctx, route.NewPlan(p.view)) })
	if err != nil {
		return fmt.Errorf("record how many more were unrouted: %w", err)
	}
	return nil
}
