package schemas

import "time"

// Batch is what the store commits atomically: changes in stream order, and the
// position of the stream once they are stored.
type Batch struct {
	Changes []Change
	// Position is that of the last change message received. That change need not
	// be in Changes: the reader leaves out other programs' messages.
	Position Position
	// Xid is the transaction that contains Position; the reader checks it when it
	// resumes.
	Xid uint32
	// CommittedAt is when the source committed that transaction.
	CommittedAt time.Time
	// Flush is the highest LSN that the reader may report to the source as flushed
	// once the batch is stored: the end of the last complete transaction, or an
	// idle advance.
	Flush LSN
	// NoMessages says that the reader did not request logical messages, so
	// Position.Ordinal does not count them.
	NoMessages bool
}

// Checkpoint is a reader's stored progress.
type Checkpoint struct {
	Source   Source
	Position Position
	Xid      uint32
	// CommittedAt is that of the batch; zero where an older walhook stored it.
	CommittedAt time.Time
	Flush       LSN
	// NoMessages is the one of the batch that stored Position.
	NoMessages bool
	// OutboxMoved says that nothing was stored since the outbox failed over or was restored:
	// it may lack what was stored last before.
	OutboxMoved bool
	// Published is the last [Visible.Published] all of whose snapshot is stored.
	Published string
}

// Inside reports whether the position is inside a transaction whose rest is not
// stored yet. The end LSN of a transaction is higher than its commit LSN.
func (c Checkpoint) Inside() bool { return c.Position.Ordinal > 0 && c.Flush <= c.Position.Commit }

// Source is the identity of the WAL that positions refer to. Positions of another
// database system or of another slot are meaningless here.
type Source struct {
	SystemID    string // IDENTIFY_SYSTEM's systemid
	Timeline    int32
	Database    string
	Slot        string
	Publication string
	// PublicationOID distinguishes a publication from a later one of the same name.
	PublicationOID uint32
	Catalog        string // fingerprint of the catalog by which the owners were read
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
	SystemID string // with Database, the source's identity: teardown undoes no change of another source
	Database string
	// DatabaseOID stays the same when the database is renamed; 0 when it is not known.
	DatabaseOID uint32
	Kind        string
	Relation    uint32 // OID of the table whose identity it is
	Name        string // as SQL takes it, at the time
	// Before and After are replica identities, as the letter of
	// pg_class.relreplident; "i" is followed by a blank and the index. For a
	// publication they are "" where it did not exist.
	Before, After string
}
