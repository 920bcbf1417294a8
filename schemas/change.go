package schemas

import "time"

// Kind is what a change message does.
type Kind byte

// The kinds of change.
const (
	Insert Kind = iota + 1
	Update
	Delete
	Truncate
	Message // a transactional pg_logical_emit_message
)

// String is the word of the envelope for Insert, Update and Delete.
func (k Kind) String() string {
	switch k {
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	case Truncate:
		return "truncate"
	case Message:
		return "message"
	}
	return "unknown"
}

// ValueState is one of the three states of a column of a tuple.
type ValueState byte

// The states of a value. The zero state is Absent.
const (
	Absent ValueState = iota // not sent: unchanged TOAST, or outside the key
	Null
	Text // Value.Text holds PostgreSQL's text form
)

// Value is one column of a tuple. The reader copies Text out of its receive
// buffer, so Text stays valid as long as the change is used.
type Value struct {
	State ValueState
	Text  []byte
}

// Tuple is a row, in the order of its relation's columns. A nil Tuple means
// that the source did not send the row.
type Tuple []Value

// Change is one change message of a committed transaction.
type Change struct {
	Kind        Kind
	Position    Position
	CommittedAt time.Time

	Relation *Relation // nil for a Message
	Old      Tuple     // what the replica identity keeps of the old row; nil when not sent
	OldIsKey bool      // Old holds the identity's key columns only
	New      Tuple     // nil for Delete and Truncate

	// Oversize is the size in bytes of a change that the reader did not keep
	// whole: its large values are Absent, and a message's content is missing. It
	// is 0 for every other change.
	Oversize int

	// The fields below are for a Message only. A message that is not transactional
	// carries the position that the stream had reached, not one of its own.
	Prefix        string
	Content       []byte
	Transactional bool
	AccountIDs    Equality // how the id of its account compares
}
