package outbox

import (
	"errors"
	"strings"

	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// eventMessage routes a logical message that carries an event. What is malformed
// is refused with its reason and without its content, and the feed goes on.
func (r *router) eventMessage(c *schemas.Change) {
	emitted, err := catalog.ParseEventMessage(c.Content)
	if err == nil {
		emitted.Account, err = c.AccountIDs.NormalID(emitted.Account)
	}
	r.emitted(c, "", emitted, err)
}

// eventRow routes a row of the table of events; only inserts count.
func (r *router) eventRow(c *schemas.Change, plan *catalog.Plan) {
	if c.Kind != schemas.Insert {
		return
	}
	emitted, err := plan.EmittedOf(c.New)
	r.emitted(c, plan.Relation.Name, emitted, err)
}

// emitted tells an event that the phone system emitted. table is where it was
// put; "" for a message.
func (r *router) emitted(c *schemas.Change, table string, emitted catalog.Emitted, err error) {
	if err == nil && r.p.catalog.Reserved(emitted.Hook) {
		r.refuseReserved(c, table, emitted.Hook)
		return
	}
	var event catalog.HookEvent
	if err == nil {
		event, err = r.p.catalog.HookEvent(emitted)
	}
	if err != nil {
		r.refuseEvent(c, table, emitted.Hook, err)
		return
	}
	if r.p.catalog.Reserved(event.Hook.Name) { // by its type, where the hook is a group
		r.refuseReserved(c, table, event.Hook.Name)
		return
	}
	record := event.Order
	if record == "" {
		record = unnamedKey(c) // nothing waits for it
	}
	o := occurrence{
		hook: event.Hook.Name, groups: event.Hook.Groups,
		schema: event.Hook.Name, typ: actionOf(event.Action),
		objectType: event.Type, action: event.Action,
		internal: emitted.Internal,
		record:   "event/" + schemas.KeyOf([][]byte{[]byte(storable(record))}),
		format:   event.Hook.Format,
		render:   func(bool) ([]byte, error) { return event.Body(c.CommittedAt), nil },
	}
	for _, t := range event.Targets {
		o.targets = append(o.targets, target{kind: t[0], id: t[1]})
	}
	r.publish(c, 0, emitted.Account, &o)
}

// actionOf is the log's type of an event: what was done, where it says so.
func actionOf(action string) string {
	if action == "" || len(action) > maxAction || action != storable(action) {
		return "event"
	}
	return action
}

// storable leaves out what a text of PostgreSQL cannot hold and JSON can.
func storable(text string) string { return strings.ReplaceAll(text, "\x00", "") }

// maxAction bounds what an event may say was done, in bytes.
const maxAction = 100

// refuseEvent lists an event that is told to nobody. Its hook is named only when
// it is a name.
func (r *router) refuseEvent(c *schemas.Change, table, hook string, err error) {
	reason := skipEvent
	switch {
	case errors.Is(err, catalog.ErrUnknownHook):
		reason = skipHook
	case errors.Is(err, catalog.ErrEventTooLarge):
		reason = skipEventSize
	}
	if reason == skipEvent && r.p.catalog.Hook(hook) == nil {
		hook = "" // may be anything
	}
	where := zap.String("table", table)
	if c.Kind == schemas.Message {
		where = zap.String("prefix", c.Prefix)
	}
	r.p.log.Warn("event refused, it is listed as unrouted",
		zap.Stringer("position", c.Position), where, zap.String("hook", hook), zap.Error(err))
	r.refuse(c, table, c.Kind.String(), hook, reason)
}
