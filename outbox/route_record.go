package outbox

import (
	"walhook/schemas"
)

// record routes one row change: whose it was, whose it is, and what each of
// them is told (CONTRACT.md §1).
func (r *router) record(i int, c *schemas.Change, plan *schemas.Plan) {
	if plan.Schema != nil {
		r.tally.changes[[2]string{plan.Schema.Name, c.Kind.String()}]++
	}
	switch c.Kind {
	case schemas.Insert:
		r.applyAccount(c, plan, c.New)
		r.inserted(i, c, plan)
	case schemas.Update:
		r.updated(i, c, plan)
	case schemas.Delete:
		r.deleted(i, c, plan)
		if plan.Account != nil {
			if gone, ok := plan.AccountOf(c.Old); ok {
				r.endAccount(gone.ID)
			}
		}
	}
}

func (r *router) inserted(i int, c *schemas.Change, plan *schemas.Plan) {
	if plan.Schema == nil {
		return
	}
	key, _ := plan.Key(c.New)
	owner, known := r.ownerNow(i, plan, c.New)
	if !known {
		r.refuse(c, plan.Schema.Name, c.Kind.String(), key, skipOwnerUnknown)
		return
	}
	r.remember(plan, key, owner)
	r.emit(c, plan, 0, schemas.Insert, owner, key, c.New)
}

func (r *router) updated(i int, c *schemas.Change, plan *schemas.Plan) {
	old := c.Old
	if old == nil {
		old = plan.KeyOnly(c.New)
	}
	newKey := !plan.SameKey(old, c.New)
	if plan.Account != nil {
		before, ok := plan.AccountOf(old)
		after, _ := plan.AccountOf(c.New)
		if ok && before.ID != after.ID {
			// An account under a new id is another account.
			r.deleted(i, c, plan)
			r.endAccount(before.ID)
			r.applyAccount(c, plan, c.New)
			r.reinserted(i, c, plan)
			return
		}
		r.applyAccount(c, plan, c.New)
	}
	if plan.Schema == nil {
		return
	}
	key, _ := plan.Key(c.New)
	oldKey, _ := plan.Key(old)
	owner, known := r.ownerNow(i, plan, c.New)
	if !known {
		r.refuse(c, plan.Schema.Name, c.Kind.String(), key, skipOwnerUnknown)
		return
	}
	was, wasKnown := r.ownerBefore(c, plan, oldKey)
	if !wasKnown {
		was = owner // never seen with another
	}
	if newKey {
		r.forget(plan, oldKey, was)
	}
	r.remember(plan, key, owner)
	switch {
	case !newKey && was == owner:
		r.emit(c, plan, 0, schemas.Update, owner, key, c.New)
	case was == "":
		r.emit(c, plan, 0, schemas.Insert, owner, key, c.New)
	case owner == "":
		r.emit(c, plan, 0, schemas.Delete, was, oldKey, old)
	default:
		r.emit(c, plan, 0, schemas.Delete, was, oldKey, old)
		r.emit(c, plan, 1, schemas.Insert, owner, key, c.New)
	}
}

// reinserted is the second half of an account's change of id.
func (r *router) reinserted(i int, c *schemas.Change, plan *schemas.Plan) {
	if plan.Schema == nil {
		return
	}
	key, _ := plan.Key(c.New)
	if owner, known := r.ownerNow(i, plan, c.New); known {
		r.remember(plan, key, owner)
		r.emit(c, plan, 1, schemas.Insert, owner, key, c.New)
	}
}

func (r *router) deleted(i int, c *schemas.Change, plan *schemas.Plan) {
	if plan.Schema == nil {
		return
	}
	key, _ := plan.Key(c.Old)
	owner, known := r.ownerBefore(c, plan, key)
	if !known {
		owner, known = r.ownerNow(i, plan, c.Old)
	}
	if !known {
		r.refuse(c, plan.Schema.Name, schemas.Delete.String(), key, skipOwnerUnknown)
		return
	}
	r.forget(plan, key, owner)
	r.emit(c, plan, 0, schemas.Delete, owner, key, c.Old)
}

// ownerNow says whose a row is by what it says itself: the owner column, or
// the account that its parent belongs to.
func (r *router) ownerNow(i int, plan *schemas.Plan, row schemas.Tuple) (account string, known bool) {
	key, ok := r.ownerKey(&r.changes[i], plan, row)
	if !ok {
		// The column was not sent (unchanged TOAST, or outside the key).
		if own, hasKey := plan.Key(row); hasKey {
			o, known := r.p.owners.get(recordKey{plan.Schema.Name, own})
			return o.account, known
		}
		return "", false
	}
	parent := plan.Schema.Owner.Schema
	if parent == "" || key == "" {
		return key, true
	}
	o, known := r.p.owners.get(recordKey{parent, key})
	if known && !o.deleted {
		return o.account, true
	}
	// A deleted parent's key may serve another record by now.
	if account, found := r.ownerAhead(i, recordKey{parent, key}); found {
		return account, true
	}
	return o.account, known
}

// ownerBefore says whose a record was when it was last sent. For a record
// owned directly its old row knows best; one owned through another keeps the
// account that it was last sent to, whoever its parent belongs to by now.
func (r *router) ownerBefore(c *schemas.Change, plan *schemas.Plan, key string) (account string, known bool) {
	if plan.Schema.Owner.Schema == "" && c.Old != nil {
		if account, known = r.ownerKey(c, plan, c.Old); known {
			return account, true
		}
	}
	o, known := r.p.owners.get(recordKey{plan.Schema.Name, key})
	return o.account, known
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
			if plan == nil || plan.Schema == nil || c.New == nil || !r.p.catalog.IsParent(plan.Schema) {
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
	return r.ownerNow(j, r.plans[j], r.changes[j].New)
}

// remember keeps whose a record is, where later changes will ask.
func (r *router) remember(plan *schemas.Plan, key, account string) {
	r.setOwner(plan, key, ownership{account: account})
}

// forget marks a record as deleted. Whose it was stays known until retention
// ends: a cascade deletes parents before their children.
func (r *router) forget(plan *schemas.Plan, key, account string) {
	r.setOwner(plan, key, ownership{account: account, deleted: true})
}

func (r *router) setOwner(plan *schemas.Plan, key string, o ownership) {
	if key == "" || !r.p.catalog.Tracked(plan) {
		return
	}
	k := recordKey{plan.Schema.Name, key}
	if stored, known := r.p.owners.get(k); !known || stored != o {
		r.p.owners.set(k, o)
		r.owners.set(k, o, known)
	}
}
