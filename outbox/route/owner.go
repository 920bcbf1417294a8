package route

// RecordKey names a record of the source.
type RecordKey struct{ Schema, Key string }

// Ownership is whose a record was when it was last seen, and whether it is gone
// since. Whose a deleted record was stays known until retention ends.
type Ownership struct {
	Account string // "" for no owner
	Deleted bool
	// Unknown says that the record was changed while it could not be told whose
	// it is. Account is then the one that it was last sent to; nobody is.
	Unknown bool
}

// OwnerGeneration is how many records one generation of the owners' cache holds.
const OwnerGeneration = 50_000

// NewOwnerCache is a cache of whose records are.
func NewOwnerCache() *Cache[RecordKey, Ownership] {
	return newCache[RecordKey, Ownership](OwnerGeneration)
}

// NewColumnCache is a cache of the columns of accounts that rules ask for, each as
// JSON ([schemas.Account.Columns]); nil stands for an account of which nothing is
// known.
func NewColumnCache() *Cache[string, []string] { return newCache[string, []string](5_000) }
