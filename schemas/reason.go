package schemas

// Reason explains a name by which walhook says why something happened: a label of a
// metric, a word in a log line, a table or an answer of the API. docs/REASONS.md and
// `walhook reasons` list them all.
type Reason struct {
	Name string
	// Cause says what happened, and Fix what somebody does about it.
	Cause, Fix string
	// Account is what the user of an account reads; "" if accounts do not see the name.
	Account string
}
