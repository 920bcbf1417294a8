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

// ValueState tells the three things that a column of a tuple can be.
type ValueState byte

// The states of a value. The zero state is Absent.
const (
	Absent ValueState = iota // not sent: unchanged TOAST, or outside the key
	Null
	Text // Value.Text holds PostgreSQL's text form
)

// Value is one column of a tuple. Text is valid as long as the change is; the
// reader copies it out of its receive buffer.
type Value struct {
	State ValueState
	Text  []byte
}

// Tuple is a row, in the order of its relation's columns. A nil Tuple means
// that the row was not sent.
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

	// Oversize is the size in bytes of a change that was too long to be kept:
	// its large values are Absent, a message's content is missing. 0 for any
	// other.
	Oversize int

	// Message only. One that is not transactional carries the position that
	// the stream had reached, which is not its own.
	Prefix        string
	Content       []byte
	Transactional bool
	AccountIDs    Equality // how the id of its account compares
}

// Batch is what the reader hands over to be stored at one stroke: changes in
// stream order, and where the stream stands once they are stored.
type Batch struct {
	Changes []Change
	// Position is that of the last change message received, whether it is
	// in Changes or was none of ours.
	Position Position
	// Xid is the transaction that Position lies in; resuming checks it.
	Xid uint32
	// Flush is the most that the source may be told once the batch is
	// stored: the end of the last complete transaction, or an idle advance.
	Flush LSN
	// NoMessages says that the server was not asked for logical messages, so
	// that Position.Ordinal does not count them.
	NoMessages bool
}

// Checkpoint is what is stored of a reader's progress.
type Checkpoint struct {
	Source   Source
	Position Position
	Xid      uint32
	Flush    LSN
	// NoMessages is that of the batch which Position is of.
	NoMessages bool
}

// Inside says whether the position lies inside its transaction, of which more
// is to come: the end of a transaction comes after its commit.
func (c Checkpoint) Inside() bool { return c.Position.Ordinal > 0 && c.Flush <= c.Position.Commit }

// Source is the identity of the log that positions refer to. Positions of
// another system, or of a slot created anew, mean nothing here.
type Source struct {
	SystemID    string // IDENTIFY_SYSTEM's systemid
	Timeline    int32
	Database    string
	Slot        string
	Publication string
	// PublicationOID tells a publication from another made under its name.
	PublicationOID uint32
	Catalog        string // fingerprint of the catalog that the owners were learnt by
}

// Account is what walhook keeps of a row of the account table.
type Account struct {
	ID     string
	URL    string // "" for none
	Parent string // the account above; "" for none, or where the catalog names no such column
	Secret string // "" where the catalog names no secret column, or it is null
	// Columns holds the JSON of the catalog's account columns, in that order; "" for
	// what was not sent.
	Columns []string
}

// OwnerEdge says which account a record belonged to when it was last seen.
type OwnerEdge struct {
	Schema  string
	Key     string // Record.Key
	Account string // "" for no owner
}

// Gap is a stretch of the log whose changes may never be seen.
type Gap struct {
	From LSN
	To   LSN // 0 when not known
	// Accepted says that an operator has decided to go on without.
	Accepted bool
	Reason   string
}
