package route

// ResyncStep is how far a resync is once a plan is committed.
type ResyncStep struct {
	ID             int64
	From           int64 // Numbered, as it is stored: another value means that the step was made already
	Numbered, Sent int64
	Timeline       string
	Schema         string
	Key            [][]byte // of the last row that is passed; nil before the first of Schema
	Done           bool
}

// RouteTo returns the plan of a transaction that appends one event for an endpoint.
func RouteTo(v *View, to *Endpoint, e Event) *Plan {
	p := NewPlan(v)
	v.add(p, to, e)
	return p
}

// WantsRecords reports whether an endpoint gets record events of a schema and a type; "" is
// any schema.
func (e *Endpoint) WantsRecords(schema, typ string) bool {
	s := e.Subscription
	return s == nil || !s.Ended && !s.Daily && s.Hook == HookRecords && (schema == "" || passes(s.Schemas, schema)) && passes(s.Types, typ)
}
