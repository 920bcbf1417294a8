package schemas

import "time"

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

// Gap is a stretch of the log whose changes may never be seen.
type Gap struct {
	From LSN
	To   LSN // 0 when not known
	// Accepted says that an operator has decided to go on without.
	Accepted bool
	Reason   string
}

// The kinds of [SourceChange].
const (
	PublicationChange = "publication"
	IdentityChange    = "identity"
)

// SourceChange is what walhook changed on the source, for teardown to undo.
type SourceChange struct {
	ID       int64
	At       time.Time
	SystemID string // the source's, with Database: a change of another source is not undone
	Database string
	// DatabaseOID outlives a renaming of the database; 0 where it was not noted.
	DatabaseOID uint32
	Kind        string
	Relation    uint32 // OID of the table whose identity it is
	Name        string // as SQL takes it, at the time
	// Before and After are replica identities by the letter of
	// pg_class.relreplident, "i" followed by a blank and the index; of a
	// publication, "" for none.
	Before, After string
}
