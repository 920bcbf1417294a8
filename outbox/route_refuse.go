package outbox

import (
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// refuse lists a change that reaches nobody although somebody may expect it.
func (r *router) refuse(c *schemas.Change, schema, typ, key, reason string) {
	if reason == skipNoKey && c.Relation != nil && c.Relation.Unknown != "" {
		reason = skipTableUnknown // which may have had one
	}
	r.tally.skipped[reason]++
	r.unrouted = append(r.unrouted, unroutedRow{c.Position, schema, typ, key, reason})
}

// refuseReserved lists what came from outside under a name that only walhook
// uses: whoever can write into the source would pass for the owner of a record,
// or for walhook itself.
func (r *router) refuseReserved(c *schemas.Change, table, name string) {
	where := zap.String("table", table)
	if c.Kind == schemas.Message {
		where = zap.String("prefix", c.Prefix)
	}
	r.p.log.Warn("result or event refused: its name is walhook's own, or a record's; it is listed as unrouted",
		zap.Stringer("position", c.Position), where, zap.String("name", name))
	r.refuse(c, table, c.Kind.String(), name, skipReserved)
}

// refuseAccount lists, once, a change whose account has an id that is too long.
func (r *router) refuseAccount(c *schemas.Change, plan *catalog.Plan) {
	if r.refused == c {
		return
	}
	r.refused = c
	schema, key := plan.Relation.Name, ""
	if plan.Schema != nil {
		schema = plan.Schema.Name
		row := c.New
		if row == nil {
			row = c.Old
		}
		key, _ = plan.Key(row)
	}
	r.p.log.Warn("change is listed as unrouted: the id of its account is too long",
		zap.Stringer("position", c.Position), zap.String("schema", schema), zap.Int("max_bytes", schemas.MaxAccountBytes))
	r.refuse(c, schema, c.Kind.String(), key, skipAccountID)
}

// oversized lists a message, or a row of the tables of results and events, that
// was too long to be kept.
func (r *router) oversized(c *schemas.Change, plan *catalog.Plan) {
	switch {
	case plan == nil && !c.Transactional:
		r.message(c) // refused for that
	case plan == nil:
		r.refuseOversize(c, "", c.Kind.String(), "")
	case c.Kind == schemas.Insert:
		r.refuseOversize(c, plan.Relation.Name, c.Kind.String(), "")
	}
}

// refuseOversize lists what cannot be sent of a change that was too long to be
// kept. Whose the record is by now is known all the same.
func (r *router) refuseOversize(c *schemas.Change, schema, typ, key string) {
	r.p.log.Error("change is listed as unrouted: it is too large to be kept in memory",
		zap.Stringer("position", c.Position), zap.String("schema", schema), zap.String("type", typ), zap.Int("bytes", c.Oversize))
	r.refuse(c, schema, typ, key, skipTooLarge)
}

// refuseAccountRow lists a change of the account table of which a column
// is missing that walhook follows.
func (r *router) refuseAccountRow(c *schemas.Change, plan *catalog.Plan) {
	if plan.Schema != nil && !plan.HasOwner() {
		return // as a record, with its reason
	}
	schema, key, row := plan.Relation.Name, "", c.New
	if row == nil {
		row = c.Old
	}
	if plan.Schema != nil {
		schema = plan.Schema.Name
		key, _ = plan.Key(row)
	}
	_, named := plan.AccountOf(row)
	reason := skipAccountRow
	if !plan.Account.LacksID && !named {
		reason = skipIncomparable
	}
	r.refuse(c, schema, c.Kind.String(), key, reason)
}

// dropEvents takes back what was routed to anybody, but not what was learned of
// accounts and owners.
func (r *router) dropEvents() {
	r.events, r.tooLarge, r.unrouted = r.events[:0], r.tooLarge[:0], r.unrouted[:0]
	clear(r.sums)
	r.tally = newTally()
}

// refuseUnstorable lists a change that the outbox's server refuses to store. Its
// key may be why.
func (r *router) refuseUnstorable(c *schemas.Change, plan *catalog.Plan) {
	schema, key := "", ""
	if plan != nil {
		schema, key = plan.Relation.Name, ""
		if plan.Schema != nil {
			schema = plan.Schema.Name
			if row := r.rowOf(c); row != nil {
				key, _ = plan.Key(row)
			}
		}
	}
	if r.part.depth == unlisted {
		schema, key = inASCII(schema), inASCII(key)
	}
	r.p.log.Error("change is listed as unrouted: the outbox's server refuses to store it",
		zap.Stringer("position", c.Position), zap.String("schema", schema))
	r.refuse(c, schema, c.Kind.String(), key, skipUnstorable)
}

func (r *router) rowOf(c *schemas.Change) schemas.Tuple {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// forgetRecord makes it unknown whose a record is that a change is about: what
// the change said of it is lost.
func (r *router) forgetRecord(c *schemas.Change, plan *catalog.Plan) {
	if plan == nil || plan.Schema == nil {
		return
	}
	for _, row := range []schemas.Tuple{c.Old, c.New} {
		if row == nil {
			continue
		}
		if key, ok := plan.Key(row); ok && r.p.catalog.Tracked(plan) {
			r.p.owners.drop(recordKey{plan.Schema.Name, key})
			r.forgotten = append(r.forgotten, recordKey{plan.Schema.Name, key})
		}
	}
}

// tally is what the batch adds to the counters once it is stored.
type tally struct {
	changes map[[2]string]int // schema, type
	skipped map[string]int    // reason
}

func newTally() tally {
	return tally{changes: map[[2]string]int{}, skipped: map[string]int{}}
}

func (r *router) count() {
	m := r.p.store.metrics
	for k, n := range r.tally.changes {
		m.changes.WithLabelValues(k[0], k[1]).Add(float64(n))
	}
	for reason, n := range r.tally.skipped {
		m.skipped.WithLabelValues(reason).Add(float64(n))
	}
	m.deadLetters.Add(float64(len(r.tooLarge)))
	m.appended.Add(float64(len(r.events)))
}
