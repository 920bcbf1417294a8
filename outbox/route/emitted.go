package route

import (
	"errors"
	"strings"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// message routes a logical message. The reader passes on only messages of the prefixes
// that walhook takes. message refuses a malformed one, with a reason and without its
// content, and the feed continues.
func (r *router) message(c *schemas.Change) {
	if !c.Transactional {
		r.note(Warn, "logical message refused: it is not transactional and so has no position in commit order; "+
			"call pg_logical_emit_message with true", field("position", c.Position))
		r.refuse(c, "", c.Kind.String(), "", SkipOutsideTx)
		return
	}
	if schemas.CarriesEvents(c.Prefix) {
		r.eventMessage(c)
		return
	}
	result, err := catalog.ParseResultMessage(c.Content)
	if err == nil {
		result.Account, err = c.AccountIDs.NormalID(result.Account)
	}
	if err != nil {
		r.note(Warn, "logical message refused: malformed", field("position", c.Position), field("error", err))
		r.refuse(c, "", c.Kind.String(), "", SkipMessage)
		return
	}
	r.result(c, "", result)
}

// resultRow routes a row of the table of results; only inserts count.
func (r *router) resultRow(c *schemas.Change, table *catalog.Plan) {
	if c.Kind != schemas.Insert {
		return
	}
	result, err := table.ResultOf(c.New)
	if err != nil {
		r.note(Warn, "row of the results table refused",
			field("position", c.Position), field("table", table.Relation.Table()), field("error", err))
		r.refuse(c, table.Relation.Name, c.Kind.String(), "", SkipResult)
		return
	}
	r.result(c, table.Relation.Name, result)
}

// result publishes an async result. table is its table; "" for a message.
func (r *router) result(c *schemas.Change, table string, result catalog.Result) {
	o, reason, _ := r.resultOccurrence(result)
	if reason != "" {
		r.refuseReserved(c, table, result.Schema)
		return
	}
	r.publish(c, 0, result.Account, &o)
}

// resultOccurrence is what an async result is to its account, or why it is refused.
func (r *router) resultOccurrence(result catalog.Result) (occurrence, Reason, error) {
	if r.view.Catalog.ReservedSchema(result.Schema) {
		return occurrence{}, SkipReserved, nil
	}
	return occurrence{
		hook:   HookRecords,
		schema: result.Schema,
		typ:    result.Type,
		// Results of one schema stay in order. No record's name has this prefix.
		record: "result/" + result.Schema,
		body:   render(func(bool) ([]byte, error) { return result.AppendEnvelope(nil), nil }),
	}, "", nil
}

// eventMessage routes a logical message that carries an event. It refuses a malformed
// one, with a reason and without its content, and the feed continues.
func (r *router) eventMessage(c *schemas.Change) {
	emitted, err := catalog.ParseEventMessage(c.Content)
	if err == nil {
		emitted.Account, err = c.AccountIDs.NormalID(emitted.Account)
	}
	r.emitted(c, "", emitted, err)
}

// emittedRow routes a row of the table of events; only inserts count.
func (r *router) emittedRow(c *schemas.Change, table *catalog.Plan) {
	if c.Kind != schemas.Insert {
		return
	}
	emitted, err := table.EmittedOf(c.New)
	r.emitted(c, table.Relation.Name, emitted, err)
}

// emitted publishes an emitted event. table is its table; "" for a message.
func (r *router) emitted(c *schemas.Change, table string, emitted catalog.Emitted, err error) {
	if err != nil {
		r.refuseEvent(c, table, emitted.Hook, err)
		return
	}
	o, reason, err := r.emittedOccurrence(c, emitted, unnamedKey(c))
	switch {
	case reason == SkipReserved:
		r.refuseReserved(c, table, o.hook)
	case reason != "":
		r.refuseEvent(c, table, emitted.Hook, err)
	default:
		r.publish(c, 0, emitted.Account, &o)
	}
}

// emittedOccurrence is what an emitted event is to its account, or why it is refused.
// Without an order of its own no other event of its name waits for it.
func (r *router) emittedOccurrence(c *schemas.Change, emitted catalog.Emitted, name string) (occurrence, Reason, error) {
	if r.view.Catalog.Reserved(emitted.Hook) {
		return occurrence{hook: emitted.Hook}, SkipReserved, nil
	}
	event, err := r.view.Catalog.HookEvent(emitted)
	if err != nil {
		return occurrence{}, reasonOfEvent(err), err
	}
	if r.view.Catalog.Reserved(event.Hook.Name) { // for a group, the name is the event's type
		return occurrence{hook: event.Hook.Name}, SkipReserved, nil
	}
	record := event.Order
	if record == "" {
		record = name
	}
	o := occurrence{
		hook: event.Hook.Name, groups: event.Hook.Groups,
		schema: event.Hook.Name, typ: actionOf(event.Action),
		objectType: event.Type, action: event.Action,
		internal: emitted.Internal,
		record:   "event/" + schemas.KeyOf([][]byte{[]byte(storable(record))}),
		format:   event.Hook.Format,
		body:     render(func(bool) ([]byte, error) { return event.Body(c.CommittedAt), nil }),
	}
	for _, t := range event.Targets {
		o.targets = append(o.targets, Target{Kind: t[0], ID: t[1]})
	}
	return o, "", nil
}

// actionOf returns the type of an emitted event in the event log: its action, if it
// has one.
func actionOf(action string) string {
	if action == "" || len(action) > maxAction || action != storable(action) {
		return "event"
	}
	return action
}

// storable removes NUL, which JSON allows in a string and PostgreSQL does not.
func storable(text string) string { return strings.ReplaceAll(text, "\x00", "") }

// maxAction bounds the action of an event, in bytes.
const maxAction = 100

// refuseEvent lists an event that reaches nobody. It names the hook only if the
// catalog may have such a name.
func (r *router) refuseEvent(c *schemas.Change, table, hook string, err error) {
	reason := reasonOfEvent(err)
	if reason == SkipEvent && r.view.Catalog.Hook(hook) == nil {
		hook = "" // it may be any text
	}
	where := field("table", table)
	if c.Kind == schemas.Message {
		where = field("prefix", c.Prefix)
	}
	r.note(Warn, "emitted event refused, listed as unrouted",
		field("position", c.Position), where, field("hook", hook), field("error", err))
	r.refuse(c, table, c.Kind.String(), hook, reason)
}

// reasonOfEvent says why an event is refused.
func reasonOfEvent(err error) Reason {
	switch {
	case errors.Is(err, catalog.ErrUnknownHook):
		return SkipHook
	case errors.Is(err, catalog.ErrEventTooLarge):
		return SkipEventSize
	}
	return SkipEvent
}
