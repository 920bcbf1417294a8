package schemas

import "time"

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
