package route

import (
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// refuse lists a change that reaches nobody although somebody may expect it.
func (r *router) refuse(c *schemas.Change, schema, typ, key, reason string) {
	if reason == SkipNoKey && c.Relation != nil && c.Relation.Unknown != "" {
		reason = SkipTableUnknown // which may have had one
	}
	r.plan.Skipped[reason]++
	r.plan.Unrouted = append(r.plan.Unrouted, Unrouted{Position: c.Position, Schema: schema, Type: typ, Key: key, Reason: reason})
}

// refuseReserved lists what came from outside under a name that only walhook
// uses: whoever can write into the source would pass for the owner of a record,
// or for walhook itself.
func (r *router) refuseReserved(c *schemas.Change, table, name string) {
	where := field("table", table)
	if c.Kind == schemas.Message {
		where = field("prefix", c.Prefix)
	}
	r.note(Warn, "result or event refused: its name is reserved; listed as unrouted",
		field("position", c.Position), where, field("name", name))
	r.refuse(c, table, c.Kind.String(), name, SkipReserved)
}

// refuseAccount lists, once, a change whose account has an id that is too long.
func (r *router) refuseAccount(c *schemas.Change, table *catalog.Plan) {
	if r.refused == c {
		return
	}
	r.refused = c
	schema, key := table.Relation.Name, ""
	if table.Schema != nil {
		schema = table.Schema.Name
		row := c.New
		if row == nil {
			row = c.Old
		}
		key, _ = table.Key(row)
	}
	r.note(Warn, "change unrouted: its account id is too long",
		field("position", c.Position), field("schema", schema), field("max_bytes", schemas.MaxAccountBytes))
	r.refuse(c, schema, c.Kind.String(), key, SkipAccountID)
}

// oversized lists a message, or a row of the tables of results and events, that
// was too long to be kept.
func (r *router) oversized(c *schemas.Change, table *catalog.Plan) {
	switch {
	case table == nil && !c.Transactional:
		r.message(c) // refused for that
	case table == nil:
		r.refuseOversize(c, "", c.Kind.String(), "")
	case c.Kind == schemas.Insert:
		r.refuseOversize(c, table.Relation.Name, c.Kind.String(), "")
	}
}

// refuseOversize lists what cannot be sent of a change that was too long to be
// kept. Whose the record is by now is known all the same.
func (r *router) refuseOversize(c *schemas.Change, schema, typ, key string) {
	r.note(Error, "change unrouted: it is too large to keep in memory",
		field("position", c.Position), field("schema", schema), field("type", typ), field("bytes", c.Oversize))
	r.refuse(c, schema, typ, key, SkipTooLarge)
}

// refuseAccountRow lists a change of the account table of which a column
// is missing that walhook follows.
func (r *router) refuseAccountRow(c *schemas.Change, table *catalog.Plan) {
	if table.Schema != nil && !table.HasOwner() {
		return // as a record, with its reason
	}
	schema, key, row := table.Relation.Name, "", c.New
	if row == nil {
		row = c.Old
	}
	if table.Schema != nil {
		schema = table.Schema.Name
		key, _ = table.Key(row)
	}
	_, named := table.AccountOf(row)
	reason := SkipAccountRow
	if !table.Account.LacksID && !named {
		reason = SkipIncomparable
	}
	r.refuse(c, schema, c.Kind.String(), key, reason)
}

// refuseUnstorable lists a change that the outbox's server refuses to store. Its
// key may be why.
func (r *router) refuseUnstorable(c *schemas.Change, table *catalog.Plan) {
	schema, key := "", ""
	if table != nil {
		schema, key = table.Relation.Name, ""
		if table.Schema != nil {
			schema = table.Schema.Name
			if row := r.rowOf(c); row != nil {
				key, _ = table.Key(row)
			}
		}
	}
	r.note(Error, "change unrouted: the outbox server refuses to store it",
		field("position", c.Position), field("schema", schema))
	r.refuse(c, schema, c.Kind.String(), key, SkipUnstorable)
	last := &r.plan.Unrouted[len(r.plan.Unrouted)-1]
	last.Unstorable = r.part.Depth == Unlisted
}

func (r *router) rowOf(c *schemas.Change) schemas.Tuple {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// forgetRecord makes it unknown whose a record is that a change is about: what
// the change said of it is lost.
func (r *router) forgetRecord(c *schemas.Change, table *catalog.Plan) {
	if table == nil || table.Schema == nil {
		return
	}
	for _, row := range []schemas.Tuple{c.Old, c.New} {
		if row == nil {
			continue
		}
		if key, ok := table.Key(row); ok && r.view.Catalog.Tracked(table) {
			r.plan.state.owners[RecordKey{table.Schema.Name, key}] = OwnerWrite{Dropped: true}
		}
	}
}
