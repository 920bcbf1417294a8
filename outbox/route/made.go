package route

import (
	"slices"
	"time"

	"walhook/schemas"
)

// Made is an event of the record feed that no change of the stream made: of a resync, or
// of a gap. Whoever makes it says whose record it is and names the event.
type Made struct {
	WebhookID string
	Kind      schemas.Kind
	Account   string
	Key       string // of the record within its schema, as [catalog.Plan.Key] returns it
	Relation  *schemas.Relation
	Row       schemas.Tuple // of a delete the key alone
	Endpoint  int64         // the only endpoint that gets it; 0 for each recipient
	At        time.Time
}

// RouteMade returns the plan of a transaction that appends made events in their order. An
// event has the recipients, filters, body, order and bounds that a change of the record
// would have. It is not counted as a change: no event is derived from it, and a webhook with
// daily delivery, which counts changes, gets nothing. What cannot be sent is unrouted at
// the stored position. The plan changes no owner, no account and no position.
func RouteMade(view *View, made []Made) *Plan {
	r := newRouter(view, nil, nil, nil)
	for i := range made {
		r.made(&made[i])
	}
	return r.finish()
}

func (r *router) made(m *Made) {
	// What a refusal lists: the event comes from no position.
	c := schemas.Change{Kind: m.Kind, Relation: m.Relation, CommittedAt: m.At, New: m.Row}
	table := r.table(m.Relation)
	named := false
	if table != nil {
		_, named = table.Key(m.Row)
	}
	switch {
	case table == nil || table.Schema == nil:
		r.plan.Skipped[SkipNoTable]++
		return
	case table.Relation.Unknown != "":
		r.refuse(&c, table.Schema.Name, m.Kind.String(), m.Key, SkipTableUnknown)
		return
	case !named:
		r.refuse(&c, table.Schema.Name, m.Kind.String(), "", SkipNoKey)
		return
	case m.Account == "":
		r.plan.Skipped[SkipNoOwner]++
		return
	}
	o := occurrence{hook: HookRecords, schema: table.Schema.Name, typ: m.Kind.String(), key: m.Key, webhookID: m.WebhookID}
	to := slices.DeleteFunc(r.recipientsOf(m.Account, &o), func(one *Endpoint) bool {
		return one.Day != nil || m.Endpoint != 0 && one.ID != m.Endpoint
	})
	if len(to) > 0 {
		r.describe(&o, &c, table, m.Kind, m.Account, m.Row)
		r.deliver(&c, 0, m.Account, to, &o)
	}
}
