package route

import (
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// OwnersNeeded are the records that routing the changes may ask for and that are
// not cached. Who routes reads them into [View.Owners] first; what is not stored
// stays unknown.
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
			if parent := table.Schema.Owner.Schema; parent != "" && carried && owner != "" {
				need(RecordKey{parent, owner})
			}
			if carried && changes[i].Kind == schemas.Insert || v.oldRowSaysOwner(&changes[i], table) {
				continue // whose a record was is not asked
			}
			if key, ok := table.Key(row); ok && (v.Catalog.Tracked(table) || v.Unknown[table.Schema.Name]) {
				need(RecordKey{table.Schema.Name, key})
			}
		}
	}
	return needed
}

// table is how a change's relation is read; nil where the catalog names no table.
func (v *View) table(c *schemas.Change) *catalog.Plan {
	if c.Relation == nil {
		return nil
	}
	if table, known := v.tables[c.Relation]; known {
		return table
	}
	return v.bind(c.Relation) // before the first plan that names it
}

// oldRowSaysOwner says whether the old row of a record says whose it was, so that
// what is remembered of it need not be read.
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

// ColumnsNeeded are the accounts whose columns routing the changes may ask for and
// that are not cached. It comes after the owners are read. Of those for which
// nothing is found, who reads them notes nil.
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

// accountsOf gives every account that a row may turn out to belong to.
func (v *View) accountsOf(table *catalog.Plan, row schemas.Tuple, need func(account string)) {
	if row == nil {
		return
	}
	if table.Account != nil {
		if account, ok := table.AccountOf(row); ok {
			need(account.ID)
		}
	}
	if table.Schema == nil || len(v.derives) == 0 {
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
	case !ok:
	case parent == "":
		need(key)
	default:
		owner(RecordKey{parent, key})
	}
}

// NeedsClock says whether routing the changes may end a day, which asks the
// outbox's clock.
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
