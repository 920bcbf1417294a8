package outbox

import (
	"slices"
	"strings"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// The catalog of a comparison is the one in force, apart from what the source has no more
// as that says: this is as a new file has it. The ledger says of each record its schema's
// name, its key's values and its account, and no table or column. So a schema whose table
// or columns were renamed is compared as any other.

// schemasOf tells apart the schemas whose records are compared with the ledger, those of
// which only what changed can be told, and those that cannot be compared at all.
func (r *reconciliation) schemasOf(source catalog.GapSource) (plain, alone, without []string) {
	for _, s := range r.catalog.Schemas {
		plan := source.Plan(s.Name)
		switch {
		case plan == nil:
			without = append(without, s.Name)
		case !r.follows(s, plan):
			// It begins with this snapshot.
		case slices.Contains(r.ledgers, s.Name) && (r.former == nil || r.former.InLedger(r.former.Schema(s.Name))):
			plain = append(plain, s.Name)
		default:
			alone = append(alone, s.Name)
		}
	}
	return plain, alone, without
}

// follows reports whether keys and accounts of a schema's records are what the outbox knows
// by its name.
func (r *reconciliation) follows(s *catalog.Schema, plan *catalog.Plan) bool {
	if r.former == nil || r.former.Continues(r.catalog, s) {
		return true
	}
	was := r.former.Schema(s.Name)
	if was == nil || !r.sameAccounts() {
		return false
	}
	older, newer := r.tables[schemas.Storable(was.Table.String())].description, r.described(s.Table)
	return sameColumns(older, newer, keyColumnsOf(was, older), plan.KeyColumns())
}

// sameAccounts reports whether account ids are what they were.
func (r *reconciliation) sameAccounts() bool {
	was, now := r.former.Account, r.catalog.Account
	if was.Table == now.Table && was.ID == now.ID {
		return true
	}
	return sameColumns(r.tables[schemas.Storable(was.Table.String())].description, r.described(now.Table), []string{was.ID}, []string{now.ID})
}

// described is how the snapshot shows a table; nil for none.
func (r *reconciliation) described(table schemas.TableName) *catalog.TableDescription {
	at := slices.IndexFunc(r.w.described, func(d *catalog.TableDescription) bool { return d.Table() == table })
	if at < 0 {
		return nil
	}
	return r.w.described[at]
}

// keyColumnsOf are the columns that a schema's keys were made of; none where that is not
// known.
func keyColumnsOf(s *catalog.Schema, d *catalog.TableDescription) (names []string) {
	if len(s.Key) > 0 || d == nil {
		return s.Key
	}
	for _, c := range d.Columns {
		if d.Identity == schemas.IdentityIndex && c.Identity != c.Primary {
			return nil // it may have been either
		}
		if c.Primary {
			names = append(names, c.Name)
		}
	}
	return names
}

// sameColumns reports whether columns of a table are those of an older one: they compare the
// same, and each has its name, or a new one in place of one that is gone.
func sameColumns(older, newer *catalog.TableDescription, were, are []string) bool {
	if older == nil || newer == nil || len(were) == 0 || len(were) != len(are) {
		return false
	}
	find := func(d *catalog.TableDescription, name string) *catalog.DescribedColumn {
		at := slices.IndexFunc(d.Columns, func(c catalog.DescribedColumn) bool { return c.Name == name })
		if at < 0 {
			return nil
		}
		return &d.Columns[at]
	}
	for i := range were {
		was, now := find(older, were[i]), find(newer, are[i])
		if was == nil || now == nil || was.Equality != now.Equality {
			return false
		}
		if was.Name != now.Name && (find(newer, was.Name) != nil || find(older, now.Name) != nil) {
			return false // another column
		}
	}
	return true
}

// byFile are the schemas that are compared as the new file has them.
func (r *reconciliation) byFile(compared []string) (names []string) {
	if r.former == nil {
		return nil
	}
	for _, name := range compared {
		if !r.former.Continues(r.catalog, r.catalog.Schema(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// dropped are the schemas and tables of the catalog in force before that nothing is
// compared of, apart from those without a table: the source has no more what it says of
// them, and the new file does not follow.
func (r *reconciliation) dropped(compared, without []string) (names []string) {
	if r.former == nil {
		return nil
	}
	for _, was := range r.former.Schemas {
		if !slices.Contains(compared, was.Name) && !slices.Contains(without, was.Name) {
			names = append(names, was.Name)
		}
	}
	for _, of := range catalog.RowTables() {
		if was := r.former.RowTable(of); was != (schemas.TableName{}) && was != r.catalog.RowTable(of) {
			names = append(names, was.String())
		}
	}
	return names
}

// note says in words what is missed for good.
func (r *reconciliation) note(plain, alone, without, several []string) string {
	compared := slices.Concat(plain, alone)
	note := "states in between, and logical messages, are missed for good"
	if len(alone) > 0 {
		note += "; the ledger lacks " + strings.Join(alone, ", ") + ": their deletes are missed, and a new record comes as an update"
	}
	if names := r.byFile(compared); len(names) > 0 {
		note += "; compared as the new catalog file has them, since the source has no more what the former one says: " + strings.Join(names, ", ")
	}
	if names := r.dropped(compared, without); len(names) > 0 {
		note += "; what changed in the gap is missed of " + strings.Join(names, ", ") +
			", since the source has no more what the former catalog says, and the new file has none of the same name and key"
	}
	if len(without) > 0 {
		note += "; not compared, since the table, its key or its owner cannot be read: " + strings.Join(without, ", ")
	}
	if len(several) > 0 {
		note += "; the catalog's key is not unique in " + strings.Join(several, ", ") + ": records whose key another one has are left out"
	}
	if r.lost {
		note += "; deletes of records that came and went after what the outbox has kept cannot be known"
	}
	if r.all {
		note += "; the rows did not show what changed, so every record came as an update"
	}
	return note
}
