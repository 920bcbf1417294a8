package schemas

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
