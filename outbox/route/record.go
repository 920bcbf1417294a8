package route

import (
	"cmp"
	"maps"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// record routes one row change: it finds the old and the new owner and emits the
// events of each (docs/CONTRACT.md §1).
func (r *router) record(i int, c *schemas.Change, table *catalog.Plan) {
	if table.Schema != nil {
		r.plan.Changes[[2]string{table.Schema.Name, c.Kind.String()}]++
	}
	switch c.Kind {
	case schemas.Insert:
		r.applyAccount(c, table, c.New)
		r.inserted(i, c, table, 0)
	case schemas.Update:
		r.updated(i, c, table)
	case schemas.Delete:
		r.deleted(i, c, table)
		if table.Account == nil {
			return
		}
		if gone, ok := table.AccountOf(c.Old); ok {
			r.endAccount(gone.ID)
		} else {
			r.refuseAccountRow(c, table)
			r.plan.LosesAccounts = true
		}
	}
}

// inserted routes a new record; part is the number of its event within the change.
func (r *router) inserted(i int, c *schemas.Change, table *catalog.Plan, part int) {
	if table.Schema == nil {
		return
	}
	key, named := r.recordKey(table, c.New)
	if !named {
		r.refuse(c, table.Schema.Name, c.Kind.String(), "", SkipNoKey)
		return
	}
	owner, unknown := r.ownerNow(i, table, c.New)
	if unknown != "" {
		r.refuse(c, table.Schema.Name, c.Kind.String(), key, unknown)
		r.lose(table, key, false)
		return
	}
	r.remember(table, key, owner, false)
	r.emit(c, table, part, schemas.Insert, owner, key, c.New)
}

func (r *router) updated(i int, c *schemas.Change, table *catalog.Plan) {
	old := c.Old
	if old == nil {
		old = table.KeyOnly(c.New)
	}
	if table.Account != nil {
		before, ok := table.AccountOf(old)
		after, there := table.AccountOf(c.New)
		if ok && there && before.ID != after.ID {
			// An account under a new id is another account.
			r.deleted(i, c, table)
			r.endAccount(before.ID)
			r.applyAccount(c, table, c.New)
			r.inserted(i, c, table, max(r.parts, 1))
			return
		}
		r.applyAccount(c, table, c.New)
	}
	if table.Schema == nil {
		return
	}
	key, named := r.recordKey(table, c.New)
	oldKey, oldNamed := r.recordKey(table, old)
	if !named || !oldNamed {
		r.refuse(c, table.Schema.Name, c.Kind.String(), key, SkipNoKey)
		r.loseAll(table)
		return
	}
	newKey := key != oldKey
	owner, unknown := r.ownerNow(i, table, c.New)
	if unknown != "" {
		r.refuse(c, table.Schema.Name, c.Kind.String(), key, unknown)
		r.lose(table, oldKey, newKey)
		if newKey {
			r.lose(table, key, false)
		}
		return
	}
	was := r.ownerBefore(c, table, oldKey)
	if !was.known {
		was.account = owner // no other owner is known
	}
	former := r.formerOwner(table, oldKey, owner)
	if newKey {
		r.forget(table, oldKey, was.account)
	}
	if newKey || !was.byRow || former != "" || was.account != owner || r.view.Catalog.IsParent(table.Schema) {
		r.remember(table, key, owner, true)
	}
	if !was.known && owner == "" {
		// It has no owner now, and neither its old row nor the outbox has the old one.
		r.refuse(c, table.Schema.Name, c.Kind.String(), key, SkipOwnerUnknown)
		return
	}
	if was.stale && was.account != owner {
		old = table.KeyOnly(old) // the old owner never had the rest
	}
	part, kind := 0, schemas.Update
	if former != "" {
		r.emit(c, table, 0, schemas.Delete, former, oldKey, table.KeyOnly(old))
		part, kind = 1, schemas.Insert // owner has never got it
	}
	switch {
	case !newKey && was.account == owner:
		r.emit(c, table, part, kind, owner, key, c.New)
	case was.account == "":
		r.emit(c, table, part, schemas.Insert, owner, key, c.New)
	case owner == "":
		r.emit(c, table, part, schemas.Delete, was.account, oldKey, old)
	default:
		r.emit(c, table, part, schemas.Delete, was.account, oldKey, old)
		r.emit(c, table, part+1, schemas.Insert, owner, key, c.New)
	}
}

func (r *router) deleted(i int, c *schemas.Change, table *catalog.Plan) {
	if table.Schema == nil {
		return
	}
	key, named := r.recordKey(table, c.Old)
	if !named {
		r.refuse(c, table.Schema.Name, schemas.Delete.String(), "", SkipNoKey)
		r.loseAll(table)
		return
	}
	unknown := ""
	switch {
	case !table.HasOwner():
		unknown = SkipOwnerColumn
	case table.OwnerIncomparable(c.Old):
		unknown = SkipIncomparable
	case r.parentUnknown(table, c.Old):
		unknown = SkipOwnerUnknown
	}
	was := r.ownerBefore(c, table, key)
	if unknown == "" && !was.known {
		was.account, unknown = r.ownerNow(i, table, c.Old)
	}
	if unknown != "" {
		r.refuse(c, table.Schema.Name, schemas.Delete.String(), key, unknown)
		r.lose(table, key, true)
		return
	}
	former := r.formerOwner(table, key, was.account)
	r.forget(table, key, was.account)
	part := 0
	if former != "" {
		r.emit(c, table, 0, schemas.Delete, former, key, table.KeyOnly(c.Old))
		part = 1 // the new owner may have it from a resync
	}
	row := c.Old
	if now, unknown := r.ownerNow(i, table, c.Old); was.stale && (unknown != "" || now != was.account) {
		row = table.KeyOnly(row) // the account may never have had the rest
	}
	r.emit(c, table, part, schemas.Delete, was.account, key, row)
}

// formerOwner returns the account that has a record from before a changed catalog gave it
// to another one; "" where that is owner, or there is none.
func (r *router) formerOwner(table *catalog.Plan, key, owner string) string {
	if !r.someUnknown(table.Schema.Name) {
		return ""
	}
	o, _ := r.owner(RecordKey{table.Schema.Name, key})
	if o.Former == owner {
		return ""
	}
	return o.Former
}

// recordKey returns a record's key; "" and true when its table has no key at all. It
// returns false for a row that does not carry its whole key.
func (r *router) recordKey(table *catalog.Plan, row schemas.Tuple) (key string, named bool) {
	key, named = table.Key(row)
	return key, named || table.Keyless() && table.Relation.Unknown == ""
}

// ownerNow returns the account that a row belongs to by its owner column: that
// account, or the one of its parent record. unknown is the reason when the account
// is not known.
func (r *router) ownerNow(i int, table *catalog.Plan, row schemas.Tuple) (account, unknown string) {
	if !table.HasOwner() {
		return "", SkipOwnerColumn
	}
	if table.OwnerIncomparable(row) {
		return "", SkipIncomparable
	}
	key, ok := r.ownerKey(&r.changes[i], table, row)
	if !ok {
		// The source did not send it: unchanged TOAST, or outside the replica identity.
		own, hasKey := table.Key(row)
		o, known := r.owner(RecordKey{table.Schema.Name, own})
		if !hasKey || !known || o.Unknown {
			return "", SkipOwnerUnknown
		}
		return o.Account, ""
	}
	parent := table.Schema.Owner.Schema
	if parent == "" || table.OwnerNull(row) {
		return key, ""
	}
	o, known := r.owner(RecordKey{parent, key})
	if known && !o.Deleted && !o.Unknown {
		return o.Account, ""
	}
	// The key of a deleted parent may belong to another record by now.
	if account, found := r.ownerAhead(i, RecordKey{parent, key}); found {
		return account, ""
	}
	if !known || o.Unknown {
		return "", SkipOwnerUnknown
	}
	return o.Account, ""
}

// parentUnknown reports whether a row's parent record has an unknown owner.
func (r *router) parentUnknown(table *catalog.Plan, row schemas.Tuple) bool {
	parent := table.Schema.Owner.Schema
	key, ok := table.OwnerKey(row)
	if parent == "" || !ok || table.OwnerNull(row) {
		return false
	}
	o, known := r.owner(RecordKey{parent, key})
	return known && o.Unknown
}

// lastOwner is the account to which a record was last sent.
type lastOwner struct {
	account string
	known   bool
	byRow   bool // the old row itself names it
	// stale says that the record may have belonged to another account in between, so
	// the last owner gets only the key of the old row.
	stale bool
}

// ownerBefore returns the account to which a record was last sent. For a record that
// is owned directly, the old row decides. A record that is owned through another
// keeps the account that it was last sent to, even if its parent has moved.
func (r *router) ownerBefore(c *schemas.Change, table *catalog.Plan, key string) lastOwner {
	o, known := r.owner(RecordKey{table.Schema.Name, key})
	if known && o.Unknown && !table.Keyless() {
		return lastOwner{account: o.Account, known: o.Account != "", stale: true}
	}
	if table.Relation.OwnerMoved && table.Schema.Owner.Schema == "" && known && !table.Keyless() {
		// In the old row the owner column may hold the value of another column.
		account, carried := "", false
		if c.Old != nil {
			account, carried = r.ownerKey(c, table, c.Old)
		}
		same := carried && account == o.Account
		return lastOwner{account: o.Account, known: true, byRow: same, stale: carried && !same}
	}
	if table.Schema.Owner.Schema == "" && c.Old != nil {
		if account, carried := r.ownerKey(c, table, c.Old); carried {
			return lastOwner{account: account, known: true, byRow: true}
		}
	}
	return lastOwner{account: o.Account, known: known}
}

// ownerKey returns the value of the owner column. It treats an account id that is
// too long as no owner, and lists the change.
func (r *router) ownerKey(c *schemas.Change, table *catalog.Plan, row schemas.Tuple) (key string, ok bool) {
	key, ok = table.OwnerKey(row)
	if table.Schema.Owner.Schema == "" && len(key) > schemas.MaxAccountBytes {
		r.refuseAccount(c, table, SkipAccountID)
		return "", true
	}
	return key, ok
}

// aheadKey is a record within a transaction.
type aheadKey struct {
	commit schemas.LSN
	record RecordKey
}

// ownerAhead finds the owner of a parent that comes after its child in the
// same transaction, as far as the batch reaches.
func (r *router) ownerAhead(i int, parent RecordKey) (account string, known bool) {
	if r.ahead == nil {
		r.ahead = map[aheadKey]int{}
		for j := len(r.changes) - 1; j >= 0; j-- {
			table, c := r.tables[j], &r.changes[j]
			if table == nil || table.Schema == nil || c.New == nil || table.Relation.Former != (schemas.TableName{}) || !r.view.Catalog.IsParent(table.Schema) {
				continue
			}
			if key, ok := table.Key(c.New); ok {
				r.ahead[aheadKey{c.Position.Commit, RecordKey{table.Schema.Name, key}}] = j
			}
		}
	}
	j, found := r.ahead[aheadKey{r.changes[i].Position.Commit, parent}]
	if !found || j <= i {
		return "", false
	}
	account, unknown := r.ownerNow(j, r.tables[j], r.changes[j].New)
	return account, unknown == ""
}

// remember stores the owner of a record for later changes. seen says that the outbox
// may have a row of it, although the publisher has not looked.
func (r *router) remember(table *catalog.Plan, key, account string, seen bool) {
	r.setOwner(table, key, Ownership{Account: account}, seen)
}

// forget marks a record as deleted. Its owner stays stored until retention ends,
// because a cascade deletes parents before their children.
func (r *router) forget(table *catalog.Plan, key, account string) {
	r.setOwner(table, key, Ownership{Account: account, Deleted: true}, true)
}

func (r *router) setOwner(table *catalog.Plan, key string, o Ownership, seen bool) {
	if table.Keyless() || !r.tracked(table) {
		return
	}
	k := RecordKey{table.Schema.Name, key}
	stored, known := r.owner(k)
	if !known && !r.view.Catalog.Tracked(table) {
		return // not stored: the publisher looked only because others of its schema are unknown
	}
	if r.allUnknown(table.Schema.Name) {
		put(&r.plan.state.unknownAll, table.Schema.Name, false)
	}
	if !known || stored != o {
		r.writeOwner(k, o, known || seen)
	}
}

// owner returns the owner of a record, from the plan or else from the view.
func (r *router) owner(k RecordKey) (o Ownership, known bool) {
	s := &r.plan.state
	if w, written := s.owners[k]; written {
		return w.Ownership, !w.Dropped
	}
	if s.noOwners[k.Schema] {
		return Ownership{}, false
	}
	o, known, old := r.view.Owners.look(k)
	if old {
		s.recent = append(s.recent, k)
	}
	return o, known
}

// writeOwner writes the owner of a record; known says that there may be a row of it.
func (r *router) writeOwner(k RecordKey, o Ownership, known bool) {
	if earlier, written := r.plan.state.owners[k]; written && !earlier.Dropped {
		known = !earlier.IsNew
	}
	r.plan.state.owners[k] = OwnerWrite{Ownership: o, IsNew: !known}
}

// tracked reports whether routing looks up the owners of a table's records: the
// outbox stores them, or some of them are unknown.
func (r *router) tracked(table *catalog.Plan) bool {
	return r.view.Catalog.Tracked(table) || r.someUnknown(table.Schema.Name)
}

func (r *router) someUnknown(schema string) bool {
	return r.plan.state.unknown[schema] || r.view.Unknown[schema]
}

func (r *router) allUnknown(schema string) bool {
	if unknown, changed := r.plan.state.unknownAll[schema]; changed {
		return unknown
	}
	return r.view.unknownAll[schema]
}

// lose notes that a record changed and its owner cannot be known. The stored owner
// then no longer holds, for the record and for the records below it.
func (r *router) lose(table *catalog.Plan, key string, deleted bool) {
	k := RecordKey{table.Schema.Name, key}
	o, known := r.owner(k)
	if table.Keyless() || !known && !r.view.Catalog.IsParent(table.Schema) {
		return // the outbox stores no owner of it
	}
	if lost := (Ownership{Account: cmp.Or(o.Former, o.Account), Deleted: deleted, Unknown: true}); o != lost {
		put(&r.plan.state.unknown, k.Schema, true)
		r.writeOwner(k, lost, known) // the key of an inserted record may have been used before
	}
}

// loseAll notes that some record of a schema changed and it cannot be known which.
// The owner of each of its records is unknown until that record changes again.
func (r *router) loseAll(table *catalog.Plan) {
	schema := table.Schema.Name
	if r.allUnknown(schema) || !r.view.Catalog.Tracked(table) && !r.view.Catalog.IsParent(table.Schema) {
		return
	}
	put(&r.plan.state.unknownAll, schema, true)
	r.plan.IncompleteLedgers = append(r.plan.IncompleteLedgers, schema)
	r.forgetOwners(schema)
}

// forgetOwners drops the owners of a schema's records.
func (r *router) forgetOwners(schema string) {
	s := &r.plan.state
	put(&s.noOwners, schema, true)
	maps.DeleteFunc(s.owners, func(k RecordKey, _ OwnerWrite) bool { return k.Schema == schema })
	r.plan.ForgottenOwners = append(r.plan.ForgottenOwners, schema)
}

// strayed lists a change of a renamed table, which may still be the catalog's table.
// The owners of its records become unknown.
func (r *router) strayed(c *schemas.Change, table *catalog.Plan) {
	if c.Kind == schemas.Truncate {
		r.plan.Skipped[SkipNoTable]++
	} else {
		r.refuse(c, c.Relation.Name, c.Kind.String(), "", SkipTableUnknown)
	}
	if table == nil || table.Schema == nil {
		return
	}
	if c.Kind == schemas.Truncate {
		r.loseAll(table)
	}
	for _, row := range []schemas.Tuple{c.Old, c.New} {
		if row == nil {
			continue
		}
		if key, named := r.recordKey(table, row); named {
			r.lose(table, key, c.New == nil)
		} else {
			r.loseAll(table)
		}
	}
}
