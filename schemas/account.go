package schemas

// Account is what walhook keeps of a row of the account table.
type Account struct {
	ID     string
	URL    string // "" for none
	Parent string // id of the parent account; "" for none, or when the catalog names no such column
	Secret string // "" when the catalog names no secret column, or the column is null
	// Columns holds the JSON of the catalog's account columns, in that order; "" for
	// a column that the source did not send.
	Columns []string
}

// OwnerEdge says which account a record belonged to when it was last seen.
type OwnerEdge struct {
	Schema  string
	Key     string // Record.Key
	Account string // "" for no owner
}
