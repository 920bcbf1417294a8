package outbox

import (
	"strconv"

	"walhook/schemas"
)

// hookObject is the hook of which every change of a record is an event.
const hookObject = "object"

// gregorianOffset is the Unix epoch in seconds since the year 0.
const gregorianOffset = 62167219200

// object tells the hook "object" of a change of a record, after the record's
// own events.
func (r *router) object(c *schemas.Change, plan *schemas.Plan, kind schemas.Kind, account, key string) {
	if !r.p.wants(hookObject) {
		r.nobody()
		return
	}
	schema, action := plan.Schema.Name, objectAction(kind)
	r.later(account, occurrence{
		hook: hookObject, schema: hookObject, typ: action,
		objectType: schema, action: action,
		record: "object/" + schema + ":" + key,
		format: "json",
		render: func() ([]byte, error) {
			body := []byte(`{"hook_event":"object","timestamp":`)
			body = strconv.AppendInt(body, c.CommittedAt.Unix()+gregorianOffset, 10)
			for _, member := range [][2]string{{"account_id", account}, {"id", key}, {"type", schema}, {"action", action}} {
				body = append(body, `,"`+member[0]+`":`...)
				body = schemas.AppendString(body, []byte(member[1]))
			}
			return append(body, '}'), nil
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
