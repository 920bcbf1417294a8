package route

// RecordKey identifies a record of the source.
type RecordKey struct{ Schema, Key string }

// Ownership is the last known owner of a record. The owner of a deleted record stays
// stored until retention ends.
type Ownership struct {
	Account string // "" for no owner
	Deleted bool
	// Unknown says that the record changed while its owner could not be known. Account
	// is then the account to which it was last sent; it gets no events of the record.
	Unknown bool
	// Former is the account that was last sent the record, if a changed catalog gave the
	// record to Account and the record has not changed since; otherwise "".
	Former string
	// Hidden says that the publication's row filter hid the row, so nobody got the
	// record.
	Hidden bool
}

// OwnerGeneration is how many records one generation of the cache of owners holds.
const OwnerGeneration = 50_000

// NewOwnerCache returns a cache of the owners of records.
func NewOwnerCache() *Cache[RecordKey, Ownership] {
	return newCache[RecordKey, Ownership](OwnerGeneration)
}

// NewColumnCache returns a cache of the account columns that rules use, each as JSON
// ([schemas.Account.Columns]); nil stands for an account without any.
func NewColumnCache() *Cache[string, []string] { return newCache[string, []string](5_000) }
