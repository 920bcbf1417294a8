package route

import (
	"strconv"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Part is a part of a batch, and how much of it is routed.
type Part struct {
	First, End int
	Depth      Depth
	// Now is the outbox's clock; it counts where [View.NeedsClock] says so.
	Now time.Time
}

// Depth says how much of a change is stored.
type Depth byte

// The depths.
const (
	Whole    Depth = iota // everything
	Listed                // no event, but its accounts and owners: the change is listed as unrouted
	Unlisted              // only the unrouted row; the owner of its record becomes unknown
)

// Route returns the plan of a transaction that appends a part of a batch. It reads
// the view and the plan of the previous part of the same transaction (earlier; nil
// for the first part), and changes neither. done is a plan that the caller no longer
// needs, or nil; Route reuses its memory.
func Route(view *View, changes []schemas.Change, part Part, earlier, done *Plan) *Plan {
	r := newRouter(view, changes, earlier, done)
	r.part = part
	r.route()
	return r.finish()
}

// router makes one plan.
type router struct {
	view    *View
	plan    *Plan
	changes []schemas.Change
	part    Part
	tables  []*catalog.Plan // one per change; nil where the catalog does not name the table

	writeOf map[string]*EndpointWrite // by account
	copies  map[*Endpoint]*Endpoint   // the plan's own copies of the endpoints that it writes

	// These are about the present change: how many events are its record's own, how
	// many follow those, and which of the latter have recipients.
	parts, afterwards int
	laters            []laterEvent
	refused           *schemas.Change // the last change with an account id that is too long
	envelope          envelope
	noted             map[string]bool // keys of the notes that the plan makes once

	ahead      map[aheadKey]int // changes that insert or update a record, built when first needed
	recipients []*Endpoint      // of the last occurrence
	path       []string         // the accounts on the way up the tree, for the last occurrence
}

func newRouter(view *View, changes []schemas.Change, earlier, done *Plan) *router {
	p := NewPlan(view)
	p.reuse(done)
	if earlier != nil {
		p.state = earlier.state.after()
	}
	r := &router{view: view, plan: p, changes: changes, tables: make([]*catalog.Plan, len(changes))}
	r.envelope.scratch = p.scratch
	for i := range changes {
		if relation := changes[i].Relation; relation != nil {
			r.tables[i] = r.table(relation)
		}
	}
	return r
}

// route goes through the changes of the part in stream order.
func (r *router) route() {
	for i := r.part.First; i < r.part.End; i++ {
		c, table := &r.changes[i], r.tables[i]
		r.enter(c)
		r.endDays(i)
		switch r.part.Depth {
		case Whole:
			r.change(i, c, table)
		case Listed:
			r.change(i, c, table)
			r.dropEvents()
			r.refuseUnstorable(c, table)
		case Unlisted:
			if table != nil && table.Account != nil {
				r.plan.LosesAccounts = true
			}
			r.forgetRecord(c, table)
			r.holdUnstored(c, table)
			r.refuseUnstorable(c, table)
		}
	}
}

// enter begins a change. When another transaction begins, it forgets the accounts
// that the previous one deleted.
func (r *router) enter(c *schemas.Change) {
	if gone := &r.plan.state.deleted; gone.Commit != c.Position.Commit {
		gone.Commit = c.Position.Commit
		clear(gone.Parents)
		clear(r.plan.DeletedAccounts)
	}
	r.parts, r.afterwards = 0, 0
}

func (r *router) change(i int, c *schemas.Change, table *catalog.Plan) {
	switch {
	case c.Relation != nil && c.Relation.Former != (schemas.TableName{}):
		r.strayed(c, table)
	case c.Oversize > 0 && (table == nil && c.Kind == schemas.Message || table != nil && (table.Results != nil || table.Events != nil)):
		if table != nil {
			r.take(c, table)
		}
		r.oversized(c, table)
	case c.Kind == schemas.Message:
		r.message(c)
	case table == nil && c.Relation.Unknown != "" && c.Kind != schemas.Truncate:
		r.refuse(c, c.Relation.Name, c.Kind.String(), "", SkipTableUnknown)
	case table == nil:
		r.plan.Skipped[SkipNoTable]++
	case c.Kind == schemas.Truncate:
		r.truncate(table)
	case table.Results != nil:
		r.take(c, table)
		r.resultRow(c, table)
	case table.Events != nil:
		r.take(c, table)
		r.emittedRow(c, table)
	default:
		r.record(i, c, table)
		r.flushLater(c)
	}
}

// finish completes the plan.
func (r *router) finish() *Plan {
	p := r.plan
	p.Owners, p.DeletedIn, p.scratch = p.state.owners, p.state.deleted.Commit, r.envelope.scratch
	if len(r.copies) > 0 { // an event carries the id and revision that the transaction sets
		for _, events := range [][]Event{p.Events, p.TooLarge} {
			for i := range events {
				if own := r.copies[events[i].To]; own != nil {
					events[i].To = own
				}
			}
		}
	}
	return p
}

// table binds a relation once and notes once which columns it lacks.
func (r *router) table(relation *schemas.Relation) *catalog.Plan {
	table, known := r.plan.state.tables[relation]
	if !known {
		table, known = r.view.tables[relation]
	}
	if known {
		return table
	}
	table = r.view.bind(relation)
	put(&r.plan.state.tables, relation, table)
	name := relation.Table().String()
	if relation.Unknown != "" {
		r.noteOnce("unknown "+strconv.FormatUint(uint64(relation.OID), 10), "unknown table, its changes are unrouted",
			field("table", name), field("unknown", relation.Unknown))
	}
	if table == nil {
		r.noteOnce(name, "published table is not in the catalog, its changes reach nobody", field("table", name))
		return nil
	}
	if table.Schema != nil && !table.HasOwner() {
		r.noteOnce("owner "+name, "table lacks the owner column: nothing of it is sent, each change is unrouted",
			field("table", name), field("column", table.Schema.Owner.Column))
	}
	if table.Account != nil && table.Account.LacksURL {
		r.noteOnce("url "+name, "account table lacks the webhook URL column: accounts that change are held",
			field("table", name), field("column", r.view.Catalog.Account.URL))
	}
	for _, column := range table.Missing {
		r.noteOnce(name+"."+column, "catalog names a column that the table lacks",
			field("table", name), field("column", column))
	}
	for _, column := range relation.Columns {
		if !relation.Types.Known(column.Type) {
			r.noteOnce("type "+name+"."+column.Name, "unknown type, sending its text as a JSON string",
				field("table", name), field("column", column.Name), field("type", relation.Types.Name(column.Type)))
		}
	}
	return table
}

// bind binds a relation, under its former name if it was renamed.
func (v *View) bind(relation *schemas.Relation) *catalog.Plan {
	if relation.Former != (schemas.TableName{}) {
		former := *relation
		former.Namespace, former.Name = relation.Former.Namespace, relation.Former.Name
		relation = &former
	}
	return v.Catalog.Bind(relation)
}

func (r *router) note(level Level, text string, fields ...Field) {
	r.plan.Notes = append(r.plan.Notes, Note{Level: level, Text: text, Fields: fields})
}

func (r *router) noteOnce(key, text string, fields ...Field) {
	if !r.noted[key] {
		put(&r.noted, key, true)
		r.plan.Notes = append(r.plan.Notes, Note{Level: Warn, Text: text, Fields: fields, Once: key})
	}
}

// truncate makes no event. It drops the owners of the table's records. A TRUNCATE of
// the account table ends every account.
func (r *router) truncate(table *catalog.Plan) {
	r.plan.Skipped[SkipTruncate]++
	r.note(Warn, "TRUNCATE is not delivered", field("table", table.Relation.Table().String()),
		field("partition", table.Relation.Partition))
	if table.Relation.Partition {
		return // the other partitions' records are still there
	}
	if table.Schema != nil {
		r.forgetOwners(table.Schema.Name)
	}
	if of := table.RowTable(); of != "" {
		r.forgetRows(of)
	}
	if table.Account != nil {
		r.endAllAccounts()
	}
}

// dropEvents removes the plan's events and counters and keeps what it says about
// accounts and owners.
func (r *router) dropEvents() {
	p := r.plan
	p.Events, p.TooLarge, p.Unrouted = p.Events[:0], p.TooLarge[:0], p.Unrouted[:0]
	clear(p.Sums)
	clear(p.Changes)
	clear(p.Skipped)
}
