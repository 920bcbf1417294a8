package route

import (
	"slices"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// TakenRows are the rows of one table of rows that a plan notes as taken, by digest: how
// many more of them the source has. After a gap they are told from those that are not.
type TakenRows struct {
	// Forgotten says that all that was noted before the plan is forgotten.
	Forgotten bool
	More      map[[16]byte]int
}

// take notes that the source has a row, or has it no more. The same row is never sent
// again after a gap, whoever got it.
func (r *router) take(c *schemas.Change, table *catalog.Plan) {
	of := table.RowTable()
	if of == "" {
		return
	}
	var was, is [16]byte
	var had, has bool
	if c.Kind != schemas.Insert && c.Old != nil {
		was, had = table.RowDigest(c.Old)
	}
	if c.Kind != schemas.Delete && c.New != nil {
		is, has = table.RowDigest(c.New)
	}
	if c.Kind == schemas.Update && (!had || !has || was == is) {
		return // its key is the one that it had
	}
	if had {
		r.taken(of).add(was, -1)
	}
	if has {
		r.taken(of).add(is, 1)
	}
}

func (r *router) taken(of catalog.RowTable) *TakenRows {
	rows := r.plan.Taken[of]
	if rows == nil {
		rows = &TakenRows{}
		put(&r.plan.Taken, of, rows)
	}
	return rows
}

func (t *TakenRows) add(digest [16]byte, n int) {
	if t.More == nil {
		t.More = map[[16]byte]int{}
	}
	t.More[digest] += n
}

// forgetRows notes that a table of rows was truncated.
func (r *router) forgetRows(of catalog.RowTable) {
	put(&r.plan.Taken, of, &TakenRows{Forgotten: true})
}

// MissedRow is a row of a table of rows that was inserted in a gap: an async result, or an
// emitted event.
type MissedRow struct {
	Missed  // without its type, its bodies and its record
	Result  *catalog.Result
	Emitted *catalog.Emitted
}

// RouteMissedRows is [RouteMissed] for rows. What the catalog does not take is skipped as
// a change of the row is.
func RouteMissedRows(view *View, gap int64, missed []MissedRow) *Plan {
	r := newRouter(view, nil, nil, nil)
	r.plan.Gap, r.plan.Sent = gap, map[string]int64{}
	for i := range missed {
		if of := r.missedRow(&missed[i]); of != "" {
			r.plan.Sent[string(of)]++
		}
		r.plan.MissedRows = append(r.plan.MissedRows, missed[i].N)
	}
	return r.finish()
}

// missedRow returns of which table the row is, if somebody gets it; otherwise "".
func (r *router) missedRow(m *MissedRow) catalog.RowTable {
	c := schemas.Change{Kind: schemas.Insert, CommittedAt: m.At}
	var o occurrence
	var reason Reason
	var err error
	of, account := catalog.ResultRows, ""
	if m.Result != nil {
		account = m.Result.Account
		o, reason, err = r.resultOccurrence(*m.Result)
	} else {
		of, account = catalog.EventRows, m.Emitted.Account
		o, reason, err = r.emittedOccurrence(&c, *m.Emitted, m.WebhookID)
	}
	if reason != "" {
		r.plan.Skipped[reason]++
		r.note(Warn, "row of a gap refused", field("event", m.WebhookID), field("type", string(of)), field("reason", reason), field("error", err))
		return ""
	}
	o.webhookID = m.WebhookID
	to := r.recipientsOf(account, &o)
	if !m.Own {
		to = slices.DeleteFunc(to, func(one *Endpoint) bool { return one.Account == account && one.Subscription == nil })
	}
	if len(to) == 0 {
		r.plan.Skipped[SkipNoEndpoint]++
		return ""
	}
	r.deliver(&c, 0, account, to, &o)
	return of
}
