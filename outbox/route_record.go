package outbox

import (
	"walhook/schemas"
)

// record routes one row change: whose it was, whose it is, and what each of
// them is told (docs/CONTRACT.md §1).
func (r *router) record(i int, c *schemas.Change, plan *schemas.Plan) {
	if plan.Schema != nil {
		r.tally.changes[[2]string{plan.Schema.Name, c.Kind.String()}]++
	}
	switch c.Kind {
	case schemas.Insert:
		r.applyAccount(c, plan, c.New)
		r.inserted(i, c, plan, 0)
	case schemas.Update:
		r.updated(i, c, plan)
	case schemas.Delete:
		r.deleted(i, c, plan)
		if plan.Account == nil {
			return
		}
		if gone, ok := plan.AccountOf(c.Old); ok {
			r.endAccount(gone.ID)
		} else {
			r.refuseAccountRow(c, plan)
			r.unsure = true
		}
	}
}

// inserted routes a new record; part counts the events of its change.
func (r *router) inserted(i int, c *schemas.Change, plan *schemas.Plan, part int) {
	if plan.Schema == nil {
		return
	}
	key, named := r.recordKey(plan, c.New)
	if !named {
		r.refuse(c, plan.Schema.Name, c.Kind.String(), "", skipNoKey)
		return
	}
	owner, unknown := r.ownerNow(i, plan, c.New)
	if unknown != "" {
		r.refuse(c, plan.Schema.Name, c.Kind.String(), key, unknown)
		r.lose(plan, key, false)
		return
	}
	r.remember(plan, key, owner, false)
	r.emit(c, plan, part, schemas.Insert, owner, key, c.New)
}

func (r *router) updated(i int, c *schemas.Change, plan *schemas.Plan) {
	old := c.Old
	if old == nil {
		old = plan.KeyOnly(c.New)
	}
	if plan.Account != nil {
		before, ok := plan.AccountOf(old)
		after, there := plan.AccountOf(c.New)
		if ok && there && before.ID != after.ID {
			// An account under a new id is another account.
			r.deleted(i, c, plan)
			r.endAccount(before.ID)
			r.applyAccount(c, plan, c.New)
			r.inserted(i, c, plan, 1)
			return
		}
		r.applyAccount(c, plan, c.New)
	}
	if plan.Schema == nil {
		return
	}
	key, named := r.recordKey(plan, c.New)
	oldKey, oldNamed := r.recordKey(plan, old)
	if !named || !oldNamed {
		r.refuse(c, plan.Schema.Name, c.Kind.String(), key, skipNoKey)
		r.loseAll(plan)
		return
	}
	newKey := key != oldKey
	owner, unknown := r.ownerNow(i, plan, c.New)
	if unknown != "" {
		r.refuse(c, plan.Schema.Name, c.Kind.String(), key, unknown)
		r.lose(plan, oldKey, newKey)
		if newKey {
			r.lose(plan, key, false)
		}
		return
	}
	was := r.ownerBefore(c, plan, oldKey)
	if !was.known {
		was.account = owner // never seen with another
	}
	if newKey {
		r.forget(plan, oldKey, was.account)
	}
	if newKey || !was.told || was.account != owner || r.p.catalog.IsParent(plan.Schema) {
		r.remember(plan, key, owner, true)
	}
	if !was.known && owner == "" {
		// Nobody's now; whose it was, neither its old row nor the outbox says.
		r.refuse(c, plan.Schema.Name, c.Kind.String(), key, skipOwnerUnknown)
		return
	}
	if was.stale && was.account != owner {
		old = plan.KeyOnly(old) // the rest was never theirs
	}
	switch {
	case !newKey && was.account == owner:
		r.emit(c, plan, 0, schemas.Update, owner, key, c.New)
	case was.account == "":
		r.emit(c, plan, 0, schemas.Insert, owner, key, c.New)
	case owner == "":
		r.emit(c, plan, 0, schemas.Delete, was.account, oldKey, old)
	default:
		r.emit(c, plan, 0, schemas.Delete, was.account, oldKey, old)
		r.emit(c, plan, 1, schemas.Insert, owner, key, c.New)
	}
}

func (r *router) deleted(i int, c *schemas.Change, plan *schemas.Plan) {
	if plan.Schema == nil {
		return
	}
	key, named := r.recordKey(plan, c.Old)
	if !named {
		r.refuse(c, plan.Schema.Name, schemas.Delete.String(), "", skipNoKey)
		r.loseAll(plan)
		return
	}
	unknown := ""
	switch {
	case !plan.HasOwner():
		unknown = skipOwnerColumn
	case plan.OwnerIncomparable(c.Old):
		unknown = skipIncomparable
	case r.parentUnknown(plan, c.Old):
		unknown = skipOwnerUnknown
	}
	was := r.ownerBefore(c, plan, key)
	if unknown == "" && !was.known {
		was.account, unknown = r.ownerNow(i, plan, c.Old)
	}
	if unknown != "" {
		r.refuse(c, plan.Schema.Name, schemas.Delete.String(), key, unknown)
		r.lose(plan, key, true)
		return
	}
	r.forget(plan, key, was.account)
	row := c.Old
	if now, unknown := r.ownerNow(i, plan, c.Old); was.stale && (unknown != "" || now != was.account) {
		row = plan.KeyOnly(row) // the rest may never have been theirs
	}
	r.emit(c, plan, 0, schemas.Delete, was.account, key, row)
}

// recordKey names a record; "" and true where its table has no key at all. It is
// false for a row that does not carry its whole key.
func (r *router) recordKey(plan *schemas.Plan, row schemas.Tuple) (key string, named bool) {
	key, named = plan.Key(row)
	return key, named || plan.Keyless() && plan.Relation.Unknown == ""
}

// ownerNow says whose a row is by what it says itself: the owner column, or
// the account that its parent belongs to. unknown is the reason why that cannot
// be told.
func (r *router) ownerNow(i int, plan *schemas.Plan, row schemas.Tuple) (account, unknown string) {
	if !plan.HasOwner() {
		return "", skipOwnerColumn
	}
	if plan.OwnerIncomparable(row) {
		return "", skipIncomparable
	}
	key, ok := r.ownerKey(&r.changes[i], plan, row)
	if !ok {
		// Not sent: unchanged TOAST, or outside the replica identity.
		own, hasKey := plan.Key(row)
		o, known := r.p.owners.get(recordKey{plan.Schema.Name, own})
		if !hasKey || !known || o.unknown {
			return "", skipOwnerUnknown
		}
		return o.account, ""
	}
	parent := plan.Schema.Owner.Schema
	if parent == "" || key == "" {
		return key, ""
	}
	o, known := r.p.owners.get(recordKey{parent, key})
	if known && !o.deleted && !o.unknown {
		return o.account, ""
	}
	// A deleted parent's key may serve another record by now.
	if account, found := r.ownerAhead(i, recordKey{parent, key}); found {
		return account, ""
	}
	if !known || o.unknown {
		return "", skipOwnerUnknown
	}
	return o.account, ""
}

// parentUnknown says whether a row belongs through a record of which it is not
// known whose it is.
func (r *router) parentUnknown(plan *schemas.Plan, row schemas.Tuple) bool {
	parent := plan.Schema.Owner.Schema
	key, ok := plan.OwnerKey(row)
	if parent == "" || !ok {
		return false
	}
	o, known := r.p.owners.get(recordKey{parent, key})
	return known && o.unknown
}

// lastOwner is whose a record was when it was last sent.
type lastOwner struct {
	account string
	known   bool
	told    bool // by the old row itself
	// stale says that the record was changed since by nobody knows whom: of the
	// old row the account may be told the key alone.
	stale bool
}

// ownerBefore says whose a record was when it was last sent. For a record
// owned directly its old row knows best; one owned through another keeps the
// account that it was last sent to, whoever its parent belongs to by now.
func (r *router) ownerBefore(c *schemas.Change, plan *schemas.Plan, key string) lastOwner {
	o, known := r.p.owners.get(recordKey{plan.Schema.Name, key})
	if known && o.unknown && key != "" {
		return lastOwner{account: o.account, known: o.account != "", stale: true}
	}
	if plan.Relation.OwnerMoved && plan.Schema.Owner.Schema == "" && known && key != "" {
		// The old row has under the owner's name what may be another column's value.
		account, told := "", false
		if c.Old != nil {
			account, told = r.ownerKey(c, plan, c.Old)
		}
		same := told && account == o.account
		return lastOwner{account: o.account, known: true, told: same, stale: told && !same}
	}
	if plan.Schema.Owner.Schema == "" && c.Old != nil {
		if account, told := r.ownerKey(c, plan, c.Old); told {
			return lastOwner{account: account, known: true, told: true}
		}
	}
	return lastOwner{account: o.account, known: known}
}

// ownerKey is what the owner column holds. An account whose id is too long is
// none, and its change is listed.
func (r *router) ownerKey(c *schemas.Change, plan *schemas.Plan, row schemas.Tuple) (key string, ok bool) {
	key, ok = plan.OwnerKey(row)
	if plan.Schema.Owner.Schema == "" && len(key) > schemas.MaxAccountBytes {
		r.refuseAccount(c, plan)
		return "", true
	}
	return key, ok
}

// aheadKey is a record within a transaction.
type aheadKey struct {
	commit schemas.LSN
	record recordKey
}

// ownerAhead finds the owner of a parent that comes after its child in the
// same transaction, as far as the batch reaches.
func (r *router) ownerAhead(i int, parent recordKey) (account string, known bool) {
	if r.ahead == nil {
		r.ahead = map[aheadKey]int{}
		for j := len(r.changes) - 1; j >= 0; j-- {
			plan, c := r.plans[j], &r.changes[j]
			if plan == nil || plan.Schema == nil || c.New == nil || plan.Relation.Former != (schemas.TableName{}) || !r.p.catalog.IsParent(plan.Schema) {
				continue
			}
			if key, ok := plan.Key(c.New); ok {
				r.ahead[aheadKey{c.Position.Commit, recordKey{plan.Schema.Name, key}}] = j
			}
		}
	}
	j, found := r.ahead[aheadKey{r.changes[i].Position.Commit, parent}]
	if !found || j <= i {
		return "", false
	}
	account, unknown := r.ownerNow(j, r.plans[j], r.changes[j].New)
	return account, unknown == ""
}

// remember keeps whose a record is, where later changes will ask. seen says that
// it may be remembered already, though nobody looked.
func (r *router) remember(plan *schemas.Plan, key, account string, seen bool) {
	r.setOwner(plan, key, ownership{account: account}, seen)
}

// forget marks a record as deleted. Whose it was stays known until retention
// ends: a cascade deletes parents before their children.
func (r *router) forget(plan *schemas.Plan, key, account string) {
	r.setOwner(plan, key, ownership{account: account, deleted: true}, true)
}

func (r *router) setOwner(plan *schemas.Plan, key string, o ownership, seen bool) {
	if key == "" || !r.tracked(plan) {
		return
	}
	k := recordKey{plan.Schema.Name, key}
	stored, known := r.p.owners.get(k)
	if !known && !r.p.catalog.Tracked(plan) {
		return // asked for alone because others of its schema are not known
	}
	delete(r.p.forgotten, plan.Schema.Name)
	if !known || stored != o {
		r.p.owners.set(k, o)
		r.owners.set(k, o, known || seen)
	}
}

// tracked says whether the owners of a plan's records are looked for: where
// they have to be remembered, and where some of them are not known.
func (r *router) tracked(plan *schemas.Plan) bool {
	return r.p.catalog.Tracked(plan) || r.p.unknown[plan.Schema.Name]
}

// lose notes that a record was changed and that nobody can tell whose it is:
// what was known no longer counts, for itself and for what belongs through it.
func (r *router) lose(plan *schemas.Plan, key string, deleted bool) {
	k := recordKey{plan.Schema.Name, key}
	o, known := r.p.owners.get(k)
	if key == "" || !known && !r.p.catalog.IsParent(plan.Schema) {
		return // not remembered, and so not trusted
	}
	if lost := (ownership{account: o.account, deleted: deleted, unknown: true}); o != lost {
		r.p.unknown[plan.Schema.Name] = true
		r.p.owners.set(k, lost)
		r.owners.set(k, lost, known) // an inserted record's key may have served another
	}
}

// loseAll notes that some record of a schema was changed and that nobody can
// tell which: whose its records are is not known until each is seen again.
func (r *router) loseAll(plan *schemas.Plan) {
	schema := plan.Schema.Name
	if r.p.forgotten[schema] || !r.p.catalog.Tracked(plan) && !r.p.catalog.IsParent(plan.Schema) {
		return
	}
	r.p.forgotten[schema] = true
	r.forgetOwners(schema)
}

// strayed lists a change of a table that has another name than the catalog's by
// now, and may be the catalog's still: whose its records are is not known.
func (r *router) strayed(c *schemas.Change, plan *schemas.Plan) {
	if c.Kind == schemas.Truncate {
		r.tally.skipped[skipNoTable]++
	} else {
		r.refuse(c, c.Relation.Name, c.Kind.String(), "", skipTableUnknown)
	}
	if plan == nil || plan.Schema == nil {
		return
	}
	if c.Kind == schemas.Truncate {
		r.loseAll(plan)
	}
	for _, row := range []schemas.Tuple{c.Old, c.New} {
		if row == nil {
			continue
		}
		if key, named := r.recordKey(plan, row); named {
			r.lose(plan, key, c.New == nil)
		} else {
			r.loseAll(plan)
		}
	}
}
