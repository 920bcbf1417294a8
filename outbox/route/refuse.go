package route

import (
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// refuse lists a change that reaches nobody, although an account may expect it.
func (r *router) refuse(c *schemas.Change, schema, typ, key, reason string) {
	if reason == SkipNoKey && c.Relation != nil && c.Relation.Unknown != "" {
		reason = SkipTableUnknown // the table may have had a key
	}
	r.plan.Skipped[reason]++
	r.plan.Unrouted = append(r.plan.Unrouted, Unrouted{Position: c.Position, Schema: schema, Type: typ, Key: key, Reason: reason})
}

// refuseReserved lists a result or an event from outside under a name that only
// walhook uses. Otherwise anybody who can write into the source could forge an event
// of a record or of walhook itself.
func (r *router) refuseReserved(c *schemas.Change, table, name string) {
	where := field("table", table)
	if c.Kind == schemas.Message {
		where = field("prefix", c.Prefix)
	}
	r.note(Warn, "result or event refused: its name is reserved; listed as unrouted",
		field("position", c.Position), where, field("name", name))
	r.refuse(c, table, c.Kind.String(), name, SkipReserved)
}

// refuseAccount lists, once, a change whose account has an id that walhook cannot take:
// SkipAccountID or SkipAccountEmpty.
func (r *router) refuseAccount(c *schemas.Change, table *catalog.Plan, reason Reason) {
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
	what, more := "change unrouted: its account id is too long", []Field{field("max_bytes", schemas.MaxAccountBytes)}
	if reason == SkipAccountEmpty {
		what, more = "change unrouted: its account id is empty", nil
	}
	r.note(Warn, what, append([]Field{field("position", c.Position), field("schema", schema)}, more...)...)
	r.refuse(c, schema, c.Kind.String(), key, reason)
}

// oversized lists a message, or a row of the tables of results and events, that was
// too long for the reader to keep.
func (r *router) oversized(c *schemas.Change, table *catalog.Plan) {
	switch {
	case table == nil && !c.Transactional:
		r.message(c) // which refuses it because it is not transactional
	case table == nil:
		r.refuseOversize(c, "", c.Kind.String(), "")
	case c.Kind == schemas.Insert:
		r.refuseOversize(c, table.Relation.Name, c.Kind.String(), "")
	}
}

// refuseOversize lists an event of a change that was too long for the reader to keep.
// The owner of its record is known nevertheless.
func (r *router) refuseOversize(c *schemas.Change, schema, typ, key string) {
	r.note(Error, "change unrouted: it is too large to keep in memory",
		field("position", c.Position), field("schema", schema), field("type", typ), field("bytes", c.Oversize))
	r.refuse(c, schema, typ, key, SkipTooLarge)
}

// refuseAccountRow lists a change of the account table that lacks a column which
// walhook follows.
func (r *router) refuseAccountRow(c *schemas.Change, table *catalog.Plan) {
	if table.Schema != nil && !table.HasOwner() {
		return // record lists it, with its own reason
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

// refuseUnstorable lists a change that the outbox's server refuses to store. The
// cause may be its key.
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

// forgetRecord drops the owner of a change's record, since the change that may have
// set it is lost.
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
