package outbox

import (
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// message routes a logical message; the reader hands on those of the prefixes
// that are taken, and no other. What is malformed is refused with its
// reason and without its content, and the feed goes on.
func (r *router) message(c *schemas.Change) {
	if !c.Transactional {
		r.p.log.Warn("logical message refused: not transactional, so it has no place in the order of commits; "+
			"call pg_logical_emit_message with true", zap.Stringer("position", c.Position))
		r.refuse(c, "", c.Kind.String(), "", skipOutsideTx)
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
		r.p.log.Warn("logical message refused: malformed", zap.Stringer("position", c.Position), zap.Error(err))
		r.refuse(c, "", c.Kind.String(), "", skipMessage)
		return
	}
	r.result(c, "", result)
}

// resultRow routes a row of the table of results; only inserts count.
func (r *router) resultRow(c *schemas.Change, plan *catalog.Plan) {
	if c.Kind != schemas.Insert {
		return
	}
	result, err := plan.ResultOf(c.New)
	if err != nil {
		table := plan.Relation.Table().String()
		r.p.log.Warn("row of the table of results refused", zap.Stringer("position", c.Position), zap.String("table", table), zap.Error(err))
		r.refuse(c, plan.Relation.Name, c.Kind.String(), "", skipResult)
		return
	}
	r.result(c, plan.Relation.Name, result)
}

// result tells a result. table is where it was put; "" for a message.
func (r *router) result(c *schemas.Change, table string, result catalog.Result) {
	if r.p.catalog.ReservedSchema(result.Schema) {
		r.refuseReserved(c, table, result.Schema)
		return
	}
	r.publish(c, 0, result.Account, &occurrence{
		hook:   HookRecords,
		schema: result.Schema,
		typ:    result.Type,
		// Results of one schema keep their order; ":" never starts a key's place in a record's name.
		record: "result/" + result.Schema,
		render: func(bool) ([]byte, error) { return result.AppendEnvelope(nil), nil },
	})
}
