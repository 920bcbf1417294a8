package route

import (
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// OwnersNeeded returns the records whose owners routing may need and the cache lacks.
// The caller reads them into [View.Owners] before it routes; a record that is not
// stored has no known owner.
func (v *View) OwnersNeeded(changes []schemas.Change) map[RecordKey]struct{} {
	needed := map[RecordKey]struct{}{}
	need := func(k RecordKey) {
		if !v.Owners.keep(k) {
			needed[k] = struct{}{}
		}
	}
	for i := range changes {
		table := v.table(&changes[i])
		if table == nil || table.Schema == nil {
			continue
		}
		for _, row := range [...]schemas.Tuple{changes[i].Old, changes[i].New} {
			if row == nil {
				continue
			}
			owner, carried := table.OwnerKey(row)
			if parent := table.Schema.Owner.Schema; parent != "" && carried && !table.OwnerNull(row) {
				need(RecordKey{parent, owner})
			}
			if carried && changes[i].Kind == schemas.Insert || v.oldRowSaysOwner(&changes[i], table) {
				continue // routing does not need the former owner
			}
			if key, ok := table.Key(row); ok && (v.Catalog.Tracked(table) || v.Unknown[table.Schema.Name]) {
				need(RecordKey{table.Schema.Name, key})
			}
		}
	}
	return needed
}

// table returns a change's relation bound to the catalog; nil when the catalog does
// not name the table.
func (v *View) table(c *schemas.Change) *catalog.Plan {
	if c.Relation == nil {
		return nil
	}
	if table, known := v.tables[c.Relation]; known {
		return table
	}
	return v.bind(c.Relation) // before the first plan that names it
}

// oldRowSaysOwner reports whether the old row of a record holds its former owner, so
// that the stored owner need not be read.
func (v *View) oldRowSaysOwner(c *schemas.Change, table *catalog.Plan) bool {
	if table.Schema.Owner.Schema != "" || table.Relation.OwnerMoved || v.Catalog.IsParent(table.Schema) || v.Unknown[table.Schema.Name] || c.Old == nil {
		return false
	}
	if c.New != nil {
		if _, carried := table.OwnerKey(c.New); !carried {
			return false
		}
	}
	_, carried := table.OwnerKey(c.Old)
	return carried
}

// ColumnsNeeded returns the accounts whose columns routing may need and the cache
// lacks. The caller calls it after it has read the owners, reads the columns into
// [View.Columns], and sets nil for an account without any.
func (v *View) ColumnsNeeded(changes []schemas.Change) map[string]struct{} {
	needed := map[string]struct{}{}
	if len(v.Catalog.AccountColumns()) == 0 {
		return needed
	}
	need := func(account string) {
		if account != "" && !v.Columns.keep(account) {
			needed[account] = struct{}{}
		}
	}
	for i := range changes {
		if table := v.table(&changes[i]); table != nil {
			v.accountsOf(table, changes[i].Old, need)
			v.accountsOf(table, changes[i].New, need)
		}
	}
	return needed
}

// accountsOf calls need with every account that may own a row.
func (v *View) accountsOf(table *catalog.Plan, row schemas.Tuple, need func(account string)) {
	if row == nil {
		return
	}
	if table.Account != nil {
		if account, ok := table.AccountOf(row); ok {
			need(account.ID)
		}
	}
	if table.Schema == nil || len(v.derives) == 0 || !v.Catalog.RulesNeedAccounts() {
		return
	}
	owner := func(k RecordKey) {
		o, _, _ := v.Owners.look(k)
		need(o.Account)
	}
	if key, ok := table.Key(row); ok {
		owner(RecordKey{table.Schema.Name, key})
	}
	key, ok := table.OwnerKey(row)
	switch parent := table.Schema.Owner.Schema; {
	case !ok, parent != "" && table.OwnerNull(row):
	case parent == "":
		need(key)
	default:
		owner(RecordKey{parent, key})
	}
}

// NeedsClock reports whether routing the changes may end a day, for which it needs the
// time of the outbox's clock.
func (v *View) NeedsClock(changes []schemas.Change) bool {
	if v.nextEnd.IsZero() {
		return false
	}
	for i := range changes {
		if !changes[i].CommittedAt.Before(v.nextEnd) {
			return true
		}
	}
	return false
}
