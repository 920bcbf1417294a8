package route

import (
	"errors"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// hookObject is the hook whose events are all changes of records.
const hookObject = "object"

// object appends the event of the hook "object" for a change of a record, after the
// record's own events.
func (r *router) object(c *schemas.Change, table *catalog.Plan, kind schemas.Kind, account, key string) {
	hook := r.view.Catalog.Hook(hookObject)
	if hook == nil || !r.view.wants(hookObject, hook.Groups...) {
		r.reserveSuffix()
		return
	}
	schema, action := table.Schema.Name, objectAction(kind)
	r.later(account, occurrence{
		hook: hookObject, groups: hook.Groups,
		schema: hookObject, typ: action,
		objectType: schema, action: action,
		record: "object/" + schema + ":" + key,
		format: hook.Format,
		body: render(func(bool) ([]byte, error) {
			event, err := r.view.Catalog.HookEvent(catalog.Emitted{Account: account, Hook: hookObject, Payload: []schemas.Member{
				schemas.StringMember("id", []byte(key)),
				schemas.StringMember("type", []byte(schema)),
				schemas.StringMember("action", []byte(action)),
			}})
			if err != nil {
				return nil, err
			}
			return event.Body(c.CommittedAt), nil
		}),
	})
}

// objectAction returns the action of a change in the vocabulary of the hook "object".
func objectAction(kind schemas.Kind) string {
	switch kind {
	case schemas.Insert:
		return "doc_created"
	case schemas.Delete:
		return "doc_deleted"
	}
	return "doc_edited"
}

// derived appends the derived events of a change of a record, after the record's own
// events. If no webhook subscribes to an event of the schema's rules, it evaluates no
// rule. Otherwise it evaluates all of them, so that an event's webhook-id does not
// depend on which of them have subscribers.
func (r *router) derived(c *schemas.Change, table *catalog.Plan, kind schemas.Kind, account, key string, row schemas.Tuple) {
	if !r.view.derives[table.Schema] {
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
			old = make(schemas.Tuple, len(new)) // the replica identity kept nothing
		}
	}
	about := account
	if table.Account != nil {
		about = rowAccount(table, row, account)
	}
	unknown := table.Derive(old, new, func(e catalog.DerivedEvent) {
		r.later(account, r.occurrenceOf(e, account, about, key))
	})
	if unknown > 0 {
		r.plan.Skipped[SkipOldRow] += unknown
		table := table.Relation.Table().String()
		r.noteOnce("skipped "+table, "rules cannot be evaluated on a table's changes: its replica identity is not FULL",
			field("table", table))
	}
}

// errCountless says that an event has no count.
var errCountless = errors.New("event has no count")

func (r *router) occurrenceOf(e catalog.DerivedEvent, account, about, key string) occurrence {
	columns := r.accountColumns(account)
	as := func(masked bool) catalog.DerivedEvent {
		if masked {
			return e.Masked()
		}
		return e
	}
	rendered := func(masked bool) (catalog.DerivedBody, error) { return as(masked).Render(account, columns) }
	o := occurrence{
		hook: e.Rule.Hook, groups: e.Rule.Groups,
		schema: e.Rule.Hook, typ: e.Case,
		objectType: e.Rule.Schema, action: e.Case,
		record: "derived/" + e.Rule.Schema + ":" + key,
		format: e.Rule.Format,
		about:  about,
		body: render(func(masked bool) ([]byte, error) {
			made, err := rendered(masked)
			return made.Body, err
		}),
	}
	if e.Rule.HasCount() {
		o.sum = func(masked bool) (sum, error) {
			made, err := rendered(masked)
			if err == nil && !made.Counts {
				err = errCountless // the column of the count is missing
			}
			if err != nil {
				return sum{}, err
			}
			group, err := as(masked).GroupKey(account)
			return sum{group: group, format: e.Rule.Format, head: made.Body[:made.From], tail: made.Body[made.To:], n: made.Count}, err
		}
	}
	return o
}
