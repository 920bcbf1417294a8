package outbox

import (
	"errors"

	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// derived tells what the catalog's rules make of a change of a record, after
// the record's own events. Where nobody asks for any event of the schema's
// rules, none is evaluated; otherwise all are, so that an event is called the
// same whoever listens.
func (r *router) derived(c *schemas.Change, plan *catalog.Plan, kind schemas.Kind, account, key string, row schemas.Tuple) {
	if !r.p.derives[plan.Schema] {
		return
	}
	var old, new schemas.Tuple
	switch kind {
	case schemas.Insert:
		new = row
	case schemas.Delete:
		old = row
	case schemas.Update:
		if old, new = c.Old, row; old == nil {
			old = make(schemas.Tuple, len(new)) // not kept
		}
	}
	about := account
	if plan.Account != nil {
		about = rowAccount(plan, row, account)
	}
	untold := plan.Derive(old, new, func(e catalog.DerivedEvent) {
		r.later(account, r.occurrenceOf(e, account, about, key))
	})
	if untold > 0 {
		r.tally.skipped[skipUntold] += untold
		table := plan.Relation.Table().String()
		r.p.warnOnce("untold "+table, "rules cannot be told of a table's changes: its replica identity keeps too little of the old row",
			zap.String("table", table))
	}
}

// errCountless says that an event has nothing to add up.
var errCountless = errors.New("event has no count")

func (r *router) occurrenceOf(e catalog.DerivedEvent, account, about, key string) occurrence {
	columns := r.p.columns.get(account)
	as := func(masked bool) catalog.DerivedEvent {
		if masked {
			return e.Masked()
		}
		return e
	}
	render := func(masked bool) (catalog.DerivedBody, error) { return as(masked).Render(account, columns) }
	o := occurrence{
		hook: e.Rule.Hook, groups: e.Rule.Groups,
		schema: e.Rule.Hook, typ: e.Case,
		objectType: e.Rule.Schema, action: e.Case,
		record: "derived/" + e.Rule.Schema + ":" + key,
		format: e.Rule.Format,
		about:  about,
		render: func(masked bool) ([]byte, error) {
			body, err := render(masked)
			return body.Body, err
		},
	}
	if e.Rule.HasCount() {
		o.sum = func(masked bool) (sum, error) {
			body, err := render(masked)
			if err == nil && !body.Counts {
				err = errCountless // its column is not there
			}
			if err != nil {
				return sum{}, err
			}
			kin, err := as(masked).Kin(account)
			return sum{kin: kin, format: e.Rule.Format, head: body.Body[:body.From], tail: body.Body[body.To:], n: body.Count}, err
		}
	}
	return o
}
