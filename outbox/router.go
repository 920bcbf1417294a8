package outbox

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/schemas"
)

// router turns one batch of changes, in order, into what one transaction
// appends. It reads nothing while it routes: fetchOwners brings what it needs.
type router struct {
	p       *Publisher
	changes []schemas.Change
	part    span            // of changes, which is routed; what is beside it is known
	plans   []*schemas.Plan // of changes; nil where the catalog names no table

	events    []eventRow
	tooLarge  []eventRow // become dead letters without a body
	owners    ownerWrites
	endpoints []*endpointWrite
	writeOf   map[string]*endpointWrite // by account
	unrouted  []unroutedRow
	forgotten []recordKey // of whom it is not known any more whose they are
	truncated []string    // schemas whose owners are dropped
	parents   map[string]string
	ended     []string        // accounts that were deleted: their tokens end with them
	endedAll  bool            // the account table was truncated
	known     map[string]bool // accounts that began, and with false those that ended
	unsure    bool            // an account may have begun or ended whose id cannot be told
	treeGone  bool            // the account table was truncated: parents is all there is

	refused *schemas.Change // the last one whose account's id is too long

	// Of the change that is being routed: how many events are its record's own,
	// how many come after those, and which of them somebody is told.
	parts, afterwards int
	laters            []laterEvent

	columns     map[string][]string // of accounts, as Catalog.AccountColumns
	columnsGone map[string]bool     // accounts that were deleted

	sums    map[sumKey]*daySum
	dayEnds []dayEnd
	now     time.Time // by the outbox's clock; zero where the batch ends no day

	departed map[string]string // who is above the accounts that the last transaction of the batch deleted

	ahead   map[aheadKey]int // changes that insert or update a record, built when first needed
	heard   []*route         // the last audience
	path    []string         // the accounts that it was looked for at
	scratch []byte
	bodies  []byte // of events, one after the other
	tally   tally
}

// routed is memory that one batch after the other is routed into.
type routed struct {
	events          []eventRow
	bodies, scratch []byte
}

// mostRouted is as much of it as is kept, in bytes of bodies; a batch may need
// more.
const mostRouted = 4 << 20

// done gives back the memory of what was routed; nothing of it is used any more.
func (r *router) done() {
	clear(r.events)
	r.p.routed = routed{events: r.events[:0], bodies: r.bodies[:0], scratch: r.scratch[:0]}
	if cap(r.bodies)+cap(r.scratch) > mostRouted {
		r.p.routed = routed{}
	}
	r.events, r.bodies, r.scratch = nil, nil, nil
}

// eventRow is one event for one endpoint. Its revision is the route's when the
// transaction writes it.
type eventRow struct {
	id          int64
	route       *route
	record      string
	webhookID   string
	schema, typ string
	committedAt time.Time
	format      string // what the event's hook says; "" for the record feed
	body        []byte
	size        int
}

type unroutedRow struct {
	position         schemas.Position
	schema, typ, key string
	reason           string
}

func (u *unroutedRow) queue(b *pgx.Batch, enc *encoding) {
	b.Queue(unroutedSQL, u.position.Commit.String(), u.position.Ordinal, enc.text(u.schema), enc.text(u.typ), enc.text(u.key), u.reason)
}

func newRouter(p *Publisher, changes []schemas.Change) *router {
	r := &router{
		p:        p,
		changes:  changes,
		part:     span{end: len(changes)},
		plans:    make([]*schemas.Plan, len(changes)),
		owners:   ownerWrites{of: map[recordKey]ownerWrite{}},
		writeOf:  map[string]*endpointWrite{},
		parents:  map[string]string{},
		departed: map[string]string{},
		known:    map[string]bool{},
		columns:  map[string][]string{}, columnsGone: map[string]bool{},
		sums:  map[sumKey]*daySum{},
		tally: newTally(),

		events: p.routed.events, bodies: p.routed.bodies, scratch: p.routed.scratch,
	}
	p.routed = routed{}
	for i := range changes {
		if relation := changes[i].Relation; relation != nil {
			r.plans[i] = p.plan(relation)
		}
	}
	return r
}

// bind binds a relation, be it under the name that it had.
func (p *Publisher) bind(relation *schemas.Relation) *schemas.Plan {
	if relation.Former != (schemas.TableName{}) {
		former := *relation
		former.Namespace, former.Name = relation.Former.Namespace, relation.Former.Name
		relation = &former
	}
	return p.catalog.Bind(relation)
}

// plan binds a relation once and names what it lacks once.
func (p *Publisher) plan(relation *schemas.Relation) *schemas.Plan {
	plan, known := p.plans[relation]
	if known {
		return plan
	}
	plan = p.bind(relation)
	p.plans[relation] = plan
	table := relation.Table().String()
	if relation.Unknown != "" {
		p.warnOnce(fmt.Sprint("unknown ", relation.OID), "it is not known what a table was, its changes are listed as unrouted",
			zap.String("table", table), zap.String("unknown", relation.Unknown))
	}
	if plan == nil {
		p.warnOnce(table, "published table is not in the catalog, nobody is told of its changes", zap.String("table", table))
		return nil
	}
	if plan.Schema != nil && !plan.HasOwner() {
		p.warnOnce("owner "+table, "table lacks the column that says whose its rows are: nothing of it is sent, each change is listed as unrouted",
			zap.String("table", table), zap.String("column", plan.Schema.Owner.Column))
	}
	if plan.Account != nil && plan.Account.LacksURL {
		p.warnOnce("url "+table, "account table lacks the column of the web hook URL: accounts that change are held",
			zap.String("table", table), zap.String("column", p.catalog.Account.URL))
	}
	for _, column := range plan.Missing {
		p.warnOnce(table+"."+column, "catalog names a column that the table lacks",
			zap.String("table", table), zap.String("column", column))
	}
	for _, column := range relation.Columns {
		if !relation.Types.Known(column.Type) {
			p.warnOnce("type "+table+"."+column.Name, "type is not known, its text is sent as a JSON string",
				zap.String("table", table), zap.String("column", column.Name), zap.String("type", relation.Types.Name(column.Type)))
		}
	}
	return plan
}

func (p *Publisher) warnOnce(key, message string, fields ...zap.Field) {
	if !p.warned[key] {
		p.warned[key] = true
		p.log.Warn(message, fields...)
	}
}

// taughtAccounts says whether routing changed what is known of accounts, or of
// days; owners are another thing.
func (r *router) taughtAccounts() bool {
	return len(r.endpoints)+len(r.parents)+len(r.columns)+len(r.columnsGone)+len(r.departed)+len(r.dayEnds)+len(r.truncated) > 0 || r.treeGone
}

// fetchOwners reads the owners that routing the part may ask for. Parents that
// come later may lie beside it; what cannot be read of those is theirs to say.
func (r *router) fetchOwners(ctx context.Context) error {
	r.p.owners.age()
	if err := r.p.owners.fetch(ctx, r.p.store, r.ownersWanted(r.part.first, r.part.end)); err != nil {
		return err
	}
	beside := r.ownersWanted(r.part.end, len(r.changes))
	return isolate(slices.Collect(maps.Keys(beside)), isReadFault, func(keys []recordKey) error {
		wanted := map[recordKey]struct{}{}
		for _, k := range keys {
			wanted[k] = struct{}{}
		}
		return r.p.owners.fetch(ctx, r.p.store, wanted)
	}, func(recordKey, error) error { return nil })
}

func (r *router) ownersWanted(first, end int) map[recordKey]struct{} {
	wanted := map[recordKey]struct{}{}
	want := func(k recordKey) {
		if _, known := r.p.owners.get(k); !known {
			wanted[k] = struct{}{}
		}
	}
	for i := first; i < end; i++ {
		plan := r.plans[i]
		if plan == nil || plan.Schema == nil {
			continue
		}
		for _, row := range [...]schemas.Tuple{r.changes[i].Old, r.changes[i].New} {
			if row == nil {
				continue
			}
			owner, told := plan.OwnerKey(row)
			if parent := plan.Schema.Owner.Schema; parent != "" && told && owner != "" {
				want(recordKey{parent, owner})
			}
			if told && r.changes[i].Kind == schemas.Insert || r.toldByOldRow(&r.changes[i], plan) {
				continue // whose a record was is not asked
			}
			if key, ok := plan.Key(row); ok && r.tracked(plan) {
				want(recordKey{plan.Schema.Name, key})
			}
		}
	}
	return wanted
}

// toldByOldRow says whether the old row of a record says whose it was, so that
// what is remembered of it need not be read.
func (r *router) toldByOldRow(c *schemas.Change, plan *schemas.Plan) bool {
	if plan.Schema.Owner.Schema != "" || plan.Relation.OwnerMoved || r.p.catalog.IsParent(plan.Schema) || r.p.unknown[plan.Schema.Name] || c.Old == nil {
		return false
	}
	if c.New != nil {
		if _, told := plan.OwnerKey(c.New); !told {
			return false
		}
	}
	_, told := plan.OwnerKey(c.Old)
	return told
}

// route goes through the changes of the part in stream order.
func (r *router) route() {
	for i := r.part.first; i < r.part.end; i++ {
		c, plan := &r.changes[i], r.plans[i]
		r.enter(c)
		r.endDays(i)
		switch r.part.depth {
		case whole:
			r.change(i, c, plan)
		case listed:
			r.change(i, c, plan)
			r.dropEvents()
			r.refuseUnstorable(c, plan)
		case unlisted:
			r.unsure = r.unsure || plan != nil && plan.Account != nil
			r.forgetRecord(c, plan)
			r.holdUnstored(c, plan)
			r.refuseUnstorable(c, plan)
		}
	}
}

func (r *router) change(i int, c *schemas.Change, plan *schemas.Plan) {
	switch {
	case c.Relation != nil && c.Relation.Former != (schemas.TableName{}):
		r.strayed(c, plan)
	case c.Oversize > 0 && (plan == nil && c.Kind == schemas.Message || plan != nil && (plan.Results != nil || plan.Events != nil)):
		r.oversized(c, plan)
	case c.Kind == schemas.Message:
		r.message(c)
	case plan == nil && c.Relation.Unknown != "" && c.Kind != schemas.Truncate:
		r.refuse(c, c.Relation.Name, c.Kind.String(), "", skipTableUnknown)
	case plan == nil:
		r.tally.skipped[skipNoTable]++
	case c.Kind == schemas.Truncate:
		r.truncate(plan)
	case plan.Results != nil:
		r.resultRow(c, plan)
	case plan.Events != nil:
		r.eventRow(c, plan)
	default:
		r.record(i, c, plan)
		r.flushLater(c)
	}
}

// emit appends one of a record's own events, for whoever listens to what
// happens to an account; part counts the events of a change.
func (r *router) emit(c *schemas.Change, plan *schemas.Plan, part int, kind schemas.Kind, account, key string, row schemas.Tuple) {
	if plan.Schema == nil {
		return
	}
	r.parts = max(r.parts, part+1)
	if plan.Relation.Unknown != "" {
		r.refuse(c, plan.Schema.Name, kind.String(), key, skipTableUnknown)
		return
	}
	if account == "" {
		if r.refused != c {
			r.tally.skipped[skipNoOwner]++
		}
		return
	}
	if c.Oversize > 0 {
		r.refuseOversize(c, plan.Schema.Name, kind.String(), key)
		return
	}
	r.object(c, plan, kind, account, key)
	r.derived(c, plan, kind, account, key, row)
	o := occurrence{hook: HookRecords, schema: plan.Schema.Name, typ: kind.String()}
	to := r.audience(account, &o)
	if len(to) == 0 {
		r.tally.skipped[skipNoEndpoint]++
		return
	}
	if to = r.countDaily(c, account, to, &o); len(to) == 0 {
		return
	}
	e := eventRow{
		record:    recordName(c, plan, key),
		webhookID: c.Position.WebhookID(part),
		schema:    plan.Schema.Name,
		typ:       kind.String(),
	}
	own, others := to, []*route(nil)
	if plan.Account != nil {
		own, others = apart(to, rowAccount(plan, row, account))
	}
	for _, share := range [...]struct {
		to     []*route
		masked bool
	}{{own, false}, {others, true}} {
		if len(share.to) == 0 {
			continue
		}
		from := len(r.bodies)
		bodies, scratch, err := plan.AppendEnvelope(r.bodies, r.scratch, kind, row, share.masked)
		r.bodies, r.scratch = bodies, scratch
		if err != nil {
			r.bodies = bodies[:from]
			r.p.log.Error("value cannot be rendered, its change is listed as unrouted",
				zap.Stringer("position", c.Position), zap.String("schema", plan.Schema.Name), zap.Error(err))
			r.refuse(c, plan.Schema.Name, kind.String(), key, skipMalformed)
			return
		}
		e.body = bodies[from:len(bodies):len(bodies)]
		r.addAll(c, share.to, e)
	}
}

// rowAccount is whom a row of the account table is about, whoever it belongs
// to; account where the row does not say.
func rowAccount(plan *schemas.Plan, row schemas.Tuple, account string) string {
	if of, ok := plan.AccountOf(row); ok {
		return of.ID
	}
	return account
}

// apart splits an audience into the account's own endpoints and those of
// others. It may reorder to.
func apart(to []*route, account string) (own, others []*route) {
	n := 0
	for i, one := range to {
		if one.account == account {
			to[n], to[i] = to[i], to[n]
			n++
		}
	}
	return to[:n], to[n:]
}

// recordName is what keeps the events of one record in order. A record without
// a key cannot be told from others: each of its changes stands for itself.
func recordName(c *schemas.Change, plan *schemas.Plan, key string) string {
	if plan.Keyless() {
		return plan.Schema.Name + ":" + unnamedKey(c)
	}
	return plan.Schema.Name + ":" + key
}

func unnamedKey(c *schemas.Change) string {
	return c.Position.Commit.String() + "#" + strconv.FormatInt(c.Position.Ordinal, 10)
}

// add gives an event its id and its place: the log, or the dead letters when it
// is too large.
func (r *router) add(to *route, committedAt time.Time, e eventRow) {
	e.id, e.route, e.committedAt, e.size = r.p.nextID, to, committedAt, len(e.body)
	r.p.nextID++
	if e.size > r.p.store.cfg.MaxEventBytes {
		r.p.log.Error("event is too large, it is a dead letter",
			zap.String("event", e.webhookID), zap.Int64("endpoint", to.endpoint), zap.String("schema", e.schema),
			zap.Int("bytes", e.size), zap.Int("max_bytes", r.p.store.cfg.MaxEventBytes))
		r.tally.skipped[skipTooLarge]++
		e.body = nil
		r.tooLarge = append(r.tooLarge, e)
		return
	}
	r.events = append(r.events, e)
}

// truncate has no envelope: what is known of the table's records is dropped,
// and with the account table every feed ends.
func (r *router) truncate(plan *schemas.Plan) {
	r.tally.skipped[skipTruncate]++
	r.p.log.Warn("table was truncated, nobody is told", zap.String("table", plan.Relation.Table().String()),
		zap.Bool("partition", plan.Relation.Partition))
	if plan.Relation.Partition {
		return // the other partitions' records are still there
	}
	if plan.Schema != nil {
		r.forgetOwners(plan.Schema.Name)
	}
	if plan.Account != nil {
		for account := range r.p.routes {
			r.endAccount(account)
		}
		for account := range r.p.webhooks {
			r.endAccount(account)
		}
		for account, w := range r.writeOf {
			if !w.ended {
				r.endAccount(account)
			}
		}
		r.endedAll = true
		clear(r.known)
		clear(r.p.departed.above) // nobody is above anybody any more
		clear(r.departed)
		clear(r.p.parents)
		clear(r.parents)
		r.p.columns = newColumnCache()
		clear(r.columns)
		clear(r.columnsGone)
		r.treeGone = true
	}
}

func (r *router) forgetOwners(schema string) {
	r.p.owners.forgetSchema(schema)
	r.truncated = append(r.truncated, schema)
	r.owners.forgetSchema(schema)
}
