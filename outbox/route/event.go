package route

import (
	"slices"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// HookRecords and HookAll are the two hooks that are not the name of one event: the
// record feed, and every event except the record feed.
const (
	HookRecords = "records"
	HookAll     = "all"
)

// occurrence is something that happened to an account, before its recipients are
// known. All recipients get the same webhook-id and the same body. The sender adds
// an endpoint's own settings, such as its verb and its custom data.
type occurrence struct {
	// hook is what a webhook subscribes to: [HookRecords], or the name of an event.
	hook string
	// groups are hooks that include this one and others.
	groups []string
	// schema and typ are columns of the event log. The filters schemas and types of a
	// webhook for the record feed apply to them.
	schema, typ string
	// The filters type and action of a webhook apply to objectType and action; every
	// filter lets "" pass.
	objectType, action string
	// internal marks a call leg inside the phone system.
	internal bool
	targets  []Target
	// record orders events: those of one record are delivered in order.
	record string
	// key is the key of the record, for an event of the record feed.
	key string
	// partial is as in Event.
	partial bool
	// webhookID is the event's own; "" for that of the change.
	webhookID string
	// format is the body's form unless the endpoint sets one: envelope, json or form;
	// "" for the record feed.
	format string
	// about is the account whose endpoints get the body as it is; endpoints of other
	// accounts get it masked. "" if all get the same body.
	about string
	// body is appended once if an endpoint of about's account gets it, and once more,
	// masked, if others do. If it fails, the change is listed as unrouted.
	body body
	// sum is what the occurrence adds to the counts of a webhook with daily delivery;
	// nil counts 1 under its hook, object and action.
	sum func(masked bool) (sum, error)
}

// body appends the body of an occurrence's events.
type body interface {
	appendTo(dst []byte, masked bool) ([]byte, error)
}

// render is a body that a function makes.
type render func(masked bool) ([]byte, error)

func (f render) appendTo(dst []byte, masked bool) ([]byte, error) {
	made, err := f(masked)
	return append(dst, made...), err
}

// envelope is the body of a record's own event.
type envelope struct {
	table   *catalog.Plan
	kind    schemas.Kind
	row     schemas.Tuple
	scratch []byte
}

func (e *envelope) appendTo(dst []byte, masked bool) ([]byte, error) {
	dst, scratch, err := e.table.AppendEnvelope(dst, e.scratch, e.kind, e.row, masked)
	e.scratch = scratch
	return dst, err
}

// masksFor says whether an endpoint gets the body masked.
func (o *occurrence) masksFor(to *Endpoint) bool { return o.about != "" && to.Account != o.about }

// recipientsOf returns the recipients of an occurrence, each once: the account's own
// endpoint (record feed only), the account's webhooks, the webhooks of its parent
// accounts, at any height, that include sub-accounts, and the operator's feeds. The result
// is valid until the next call.
func (r *router) recipientsOf(account string, o *occurrence) []*Endpoint {
	to := r.recipients[:0]
	if o.hook == HookRecords {
		if own := r.endpoint(account); own != nil {
			to = append(to, own)
		}
	}
	if len(r.view.Webhooks) > 0 {
		to = r.subscribed(to, account, o)
		for _, feed := range r.view.Webhooks[NoAccount] {
			if account != NoAccount && feed.Subscription.wants(o) {
				to = append(to, feed)
			}
		}
	}
	r.recipients = to
	return to
}

// maxTreeHeight bounds the height of the tree of accounts.
const maxTreeHeight = 1000

// subscribed walks up the tree from an account. The account table may contain a
// cycle, so it stops at an account that it has visited.
func (r *router) subscribed(to []*Endpoint, account string, o *occurrence) []*Endpoint {
	r.path = r.path[:0]
	for at := account; at != "" && len(r.path) < maxTreeHeight && !slices.Contains(r.path, at); at = r.parentOrFormer(at) {
		if !r.plan.state.endedWebhooks[at] {
			for _, webhook := range r.view.Webhooks[at] {
				if (at == account || webhook.Subscription.Subaccounts) && webhook.Subscription.wants(o) {
					to = append(to, webhook)
				}
			}
		}
		r.path = append(r.path, at)
	}
	return to
}

// parentOrFormer returns the parent of an account; "" for none. The parents of a
// deleted account still get the events of the rest of the transaction that deleted
// it.
func (r *router) parentOrFormer(account string) string {
	if parent := r.parent(account); parent != "" {
		return parent
	}
	return r.plan.state.deleted.Parents[account]
}

// wants reports whether an occurrence passes a webhook's filters.
func (s *Subscription) wants(o *occurrence) bool {
	if s.Ended || o.internal && !s.InternalLegs {
		return false
	}
	if s.Target != (Target{}) && !slices.Contains(o.targets, s.Target) {
		return false
	}
	if o.hook == HookRecords {
		return (s.Hook == HookRecords || s.Feed && s.Hook == HookAll) && passes(s.Schemas, o.schema) && passes(s.Types, o.typ)
	}
	return (s.Hook == o.hook || s.Hook == HookAll || slices.Contains(o.groups, s.Hook)) &&
		agrees(s.ObjectType, o.objectType) && agrees(s.ObjectAction, o.action)
}

func passes(filter []string, value string) bool {
	return len(filter) == 0 || slices.Contains(filter, value)
}

// agrees reports whether a filter lets a value pass. "all" and no filter let every
// value pass.
func agrees(filter, value string) bool {
	return filter == "" || filter == HookAll || value == "" || filter == value
}

// emit appends one of a record's own events for the recipients in an account; part is
// the number of the event within the change.
func (r *router) emit(c *schemas.Change, table *catalog.Plan, part int, kind schemas.Kind, account, key string, row schemas.Tuple) {
	if table.Schema == nil {
		return
	}
	r.parts = max(r.parts, part+1)
	if table.Relation.Unknown != "" {
		r.refuse(c, table.Schema.Name, kind.String(), key, SkipTableUnknown)
		return
	}
	if account == "" {
		if r.refused != c {
			r.plan.Skipped[SkipNoOwner]++
		}
		return
	}
	if c.Oversize > 0 {
		r.refuseOversize(c, table.Schema.Name, kind.String(), key)
		return
	}
	r.object(c, table, kind, account, key)
	r.derived(c, table, kind, account, key, row)
	o := occurrence{hook: HookRecords, schema: table.Schema.Name, typ: kind.String(), key: key}
	to := r.recipientsOf(account, &o)
	if len(to) > 0 {
		r.describe(&o, c, table, kind, account, row)
	}
	r.deliver(c, part, account, to, &o)
}

// describe completes a record's own event for those who get it. The body is valid until
// the next call.
func (r *router) describe(o *occurrence, c *schemas.Change, table *catalog.Plan, kind schemas.Kind, account string, row schemas.Tuple) {
	o.record, o.body = recordName(c, table, o.key), &r.envelope
	o.partial = kind != schemas.Delete && !table.Whole(row)
	if table.Account != nil {
		o.about = rowAccount(table, row, account)
	}
	r.envelope.table, r.envelope.kind, r.envelope.row = table, kind, row
}

// rowAccount returns the account that a row of the account table describes, which
// need not be its owner. It returns account when the row has no id.
func rowAccount(table *catalog.Plan, row schemas.Tuple, account string) string {
	if of, ok := table.AccountOf(row); ok {
		return of.ID
	}
	return account
}

// recordName returns the name by which the sender keeps the events of one record in
// order. Records without a key cannot be distinguished, so each of their changes gets
// a name of its own.
func recordName(c *schemas.Change, table *catalog.Plan, key string) string {
	if table.Keyless() {
		return table.Schema.Name + ":" + unnamedKey(c)
	}
	return table.Schema.Name + ":" + key
}

// unnamedKey returns a unique name for a change.
func unnamedKey(c *schemas.Change) string { return c.Position.String() }

// publish appends an occurrence for its recipients. part is the number of the event
// within the change, from 0.
func (r *router) publish(c *schemas.Change, part int, account string, o *occurrence) {
	r.deliver(c, part, account, r.recipientsOf(account, o), o)
}

// deliver appends an occurrence for its recipients and may reorder to. For recipients
// with daily delivery it counts the occurrence instead.
func (r *router) deliver(c *schemas.Change, part int, account string, to []*Endpoint, o *occurrence) {
	if len(to) == 0 {
		r.plan.Skipped[SkipNoEndpoint]++
		return
	}
	if to = r.countDaily(c, account, to, o); len(to) == 0 {
		return
	}
	own, others := to, []*Endpoint(nil)
	if o.about != "" {
		own, others = apart(to, o.about)
	}
	e := Event{
		Record: o.record, WebhookID: o.webhookID, Schema: o.schema, Type: o.typ, Format: o.format,
		CommittedAt: c.CommittedAt, Partial: o.partial,
	}
	if e.WebhookID == "" {
		e.WebhookID = c.Position.WebhookID(part)
	}
	for _, share := range [...][]*Endpoint{own, others} {
		if len(share) == 0 {
			continue
		}
		from := len(r.plan.bodies)
		bodies, err := o.body.appendTo(r.plan.bodies, o.masksFor(share[0]))
		if err != nil {
			r.plan.bodies = bodies[:from]
			r.note(Error, "event cannot be rendered, its change is unrouted",
				field("position", c.Position), field("hook", o.hook), field("schema", o.schema), field("error", err))
			r.refuse(c, o.schema, o.typ, o.key, SkipMalformed)
			return
		}
		r.plan.bodies = bodies
		e.Body = bodies[from:len(bodies):len(bodies)]
		for _, one := range share {
			e.Account = ""
			if one.Account == NoAccount {
				e.Account = account
			}
			r.view.add(r.plan, one, e)
		}
	}
}

// apart splits recipients into the endpoints of an account and those of others. It
// may reorder to.
func apart(to []*Endpoint, account string) (own, others []*Endpoint) {
	n := 0
	for i, one := range to {
		if one.Account == account {
			to[n], to[i] = to[i], to[n]
			n++
		}
	}
	return to[:n], to[n:]
}

// add gives an event its id and puts it into the plan: into the event log, or into the
// dead letters when it is too large.
func (v *View) add(p *Plan, to *Endpoint, e Event) {
	e.ID, e.To, e.Size = p.state.nextID, to, len(e.Body)
	p.state.nextID++
	if e.Size > v.MaxEventBytes {
		p.Notes = append(p.Notes, Note{Level: Error, Text: "event is too large, dead-lettered", Fields: []Field{
			field("event", e.WebhookID), field("endpoint", to.ID), field("schema", e.Schema),
			field("bytes", e.Size), field("max_bytes", v.MaxEventBytes)}})
		p.Skipped[SkipTooLarge]++
		e.Body = nil
		p.TooLarge = append(p.TooLarge, e)
		return
	}
	p.Events = append(p.Events, e)
}

// laterEvent is an occurrence that follows the record's own events of the same
// change. later determines its recipients at once, because the same change may end
// an account afterwards.
type laterEvent struct {
	account    string
	occurrence occurrence
	to         []*Endpoint
	place      int // its index among the change's later events
}

// later appends an occurrence after the record's own events of the present change,
// under the next suffix of its webhook-id. Every call takes a suffix, with or without
// recipients, so an event's webhook-id does not depend on the subscriptions. Without
// recipients [router.reserveSuffix] does the same at less cost.
func (r *router) later(account string, o occurrence) {
	place := r.afterwards
	r.afterwards++
	if account == "" {
		return
	}
	if to := r.recipientsOf(account, &o); len(to) > 0 {
		r.laters = append(r.laters, laterEvent{account, o, slices.Clone(to), place})
	}
}

// reserveSuffix takes the suffix of an event without recipients.
func (r *router) reserveSuffix() { r.afterwards++ }

// flushLater appends the occurrences that later collected for the change.
func (r *router) flushLater(c *schemas.Change) {
	for i := range r.laters {
		e := &r.laters[i]
		r.deliver(c, r.parts+e.place, e.account, e.to, &e.occurrence)
	}
	clear(r.laters)
	r.laters = r.laters[:0]
}
