package outbox

import (
	"slices"

	"go.uber.org/zap"

	"walhook/schemas"
)

// occurrence is something that happened to an account, before anybody is asked
// who wants to be told. All endpoints that are told get the same webhook-id and
// the same body; what an endpoint has of its own, such as its verb and its
// custom data, is added when it is sent.
type occurrence struct {
	// hook is what an endpoint asks for: [HookRecords], or the name of an event.
	hook string
	// groups are hooks that cover this one and others.
	groups []string
	// schema and typ are the columns of the log; for the record feed also what
	// the filters schemas and types of an endpoint are about.
	schema, typ string
	// objectType and action are what the filters type and action of an endpoint
	// are about; "" where the event has none, which no filter leaves out.
	objectType, action string
	// internal says that it is about a leg inside the phone system.
	internal bool
	targets  []target
	// record names what the event is about: events of one record are delivered
	// in order.
	record string
	// format is how the body is sent where the endpoint does not say: envelope,
	// json or form; "" for the record feed.
	format string
	// about is the account whose endpoints get the body as it is; those of
	// others get it masked. "" where all get the same.
	about string
	// render makes the body, once, when at least one endpoint wants it, and
	// once more masked where others do. An error is one of the change, which is
	// listed as unrouted.
	render func(masked bool) ([]byte, error)
	// sum is what it adds to the counts of a webhook with daily delivery; nil for
	// one occurrence of its hook, object and action.
	sum func(masked bool) (sum, error)
}

// masksFor says whether an endpoint gets the body masked.
func (o *occurrence) masksFor(to *route) bool { return o.about != "" && to.account != o.about }

// target is the number, extension, ring group or queue that an event is about.
type target struct{ kind, id string }

// publish appends an occurrence to the log, once for each endpoint of its
// audience. part counts the events of a change, from 0.
func (r *router) publish(c *schemas.Change, part int, account string, o *occurrence) {
	r.deliver(c, part, account, r.audience(account, o), o)
}

func (r *router) deliver(c *schemas.Change, part int, account string, to []*route, o *occurrence) {
	if len(to) == 0 {
		r.tally.skipped[skipNoEndpoint]++
		return
	}
	if to = r.countDaily(c, account, to, o); len(to) == 0 {
		return
	}
	own, others := to, []*route(nil)
	if o.about != "" {
		own, others = apart(to, o.about)
	}
	e := eventRow{record: o.record, webhookID: c.Position.WebhookID(part), schema: o.schema, typ: o.typ, format: o.format}
	for _, share := range [...][]*route{own, others} {
		if len(share) == 0 {
			continue
		}
		var err error
		if e.body, err = o.render(o.masksFor(share[0])); err != nil {
			r.p.log.Error("event cannot be rendered, its change is listed as unrouted",
				zap.Stringer("position", c.Position), zap.String("hook", o.hook), zap.String("schema", o.schema), zap.Error(err))
			r.refuse(c, o.schema, o.typ, "", skipMalformed)
			return
		}
		r.addAll(c, share, e)
	}
}

// addAll appends one event for each of the endpoints that are told of it.
func (r *router) addAll(c *schemas.Change, to []*route, e eventRow) {
	for _, one := range to {
		r.add(one, c.CommittedAt, e)
	}
}

// laterEvent is an occurrence that follows the record's own events of the same
// change. Who is told is known when it happens: the change may be the last
// thing that an account hears.
type laterEvent struct {
	account    string
	occurrence occurrence
	to         []*route
	place      int // among the change's later events
}

// later appends an occurrence after the record's own events of the change that
// is being routed, under the next of its letters. Every call takes a letter,
// whoever is told: an event is called the same whoever listens. Where it is
// plain that nobody is told, [router.nobody] takes the letter for less.
func (r *router) later(account string, o occurrence) {
	place := r.afterwards
	r.afterwards++
	if account == "" {
		return
	}
	if to := r.audience(account, &o); len(to) > 0 {
		r.laters = append(r.laters, laterEvent{account, o, slices.Clone(to), place})
	}
}

// nobody stands for a call of later that reaches nobody.
func (r *router) nobody() { r.afterwards++ }

// flushLater appends what came by later while the change was routed.
func (r *router) flushLater(c *schemas.Change) {
	for i := range r.laters {
		e := &r.laters[i]
		r.deliver(c, r.parts+e.place, e.account, e.to, &e.occurrence)
	}
	clear(r.laters)
	r.laters = r.laters[:0]
}
