package outbox

import (
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// hookObject is the hook of which every change of a record is an event.
const hookObject = "object"

// object tells the hook "object" of a change of a record, after the record's
// own events.
func (r *router) object(c *schemas.Change, plan *catalog.Plan, kind schemas.Kind, account, key string) {
	hook := r.p.catalog.Hook(hookObject)
	if hook == nil || !r.p.wants(hookObject, hook.Groups...) {
		r.nobody()
		return
	}
	schema, action := plan.Schema.Name, objectAction(kind)
	r.later(account, occurrence{
		hook: hookObject, groups: hook.Groups,
		schema: hookObject, typ: action,
		objectType: schema, action: action,
		record: "object/" + schema + ":" + key,
		format: hook.Format,
		render: func(bool) ([]byte, error) {
			event, err := r.p.catalog.HookEvent(catalog.Emitted{Account: account, Hook: hookObject, Payload: []schemas.Member{
				schemas.StringMember("id", []byte(key)),
				schemas.StringMember("type", []byte(schema)),
				schemas.StringMember("action", []byte(action)),
			}})
			if err != nil {
				return nil, err
			}
			return event.Body(c.CommittedAt), nil
		},
	})
}

// objectAction is what happened to a record, in the words of the hook "object".
func objectAction(kind schemas.Kind) string {
	switch kind {
	case schemas.Insert:
		return "doc_created"
	case schemas.Delete:
		return "doc_deleted"
	}
	return "doc_edited"
}
